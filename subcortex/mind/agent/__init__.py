"""The agent's own time: a drive that is triggered, a session held for it, its depth, what that leaves."""

from subcortex.mind.agent.decision import Defer, Hold, Moment, Resume, Wait, choose
from subcortex.mind.agent.idleness import why_busy
from subcortex.mind.agent.notebook import Notebook
from subcortex.mind.agent.quiet import QuietHours
from subcortex.mind.agent.tick import Agent, Outcome

__all__ = [
    "Agent",
    "Defer",
    "Hold",
    "Moment",
    "Notebook",
    "Outcome",
    "QuietHours",
    "Resume",
    "Wait",
    "choose",
    "why_busy",
]
