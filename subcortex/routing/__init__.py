"""Which tier a thought deserves: pure functions from a prompt and a snapshot to a decision."""

from subcortex.routing.complexity import Complexity, Scorer, complexity
from subcortex.routing.costs import CostBook
from subcortex.routing.features import Features, features
from subcortex.routing.ladder import Ask, Cost, Decision, TierView
from subcortex.routing.policy import decide

__all__ = [
    "Ask",
    "Complexity",
    "Cost",
    "CostBook",
    "Decision",
    "Features",
    "Scorer",
    "TierView",
    "complexity",
    "decide",
    "features",
]
