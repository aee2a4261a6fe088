"""Which tier a thought deserves: pure functions from a prompt and a snapshot to a decision."""

from subcortex.routing.costs import CostBook
from subcortex.routing.ladder import Ask, Cost, Decision, TierView
from subcortex.routing.policy import decide
from subcortex.routing.prompt import Features, features
from subcortex.routing.scoring import Complexity, Scorer, complexity

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
