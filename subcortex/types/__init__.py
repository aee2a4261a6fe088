"""What travels between the rooms, and over the socket: requests, thoughts and their parts.

Durations are seconds, sizes are tokens unless a name says otherwise.
"""

from __future__ import annotations

from subcortex.types.memory import BootFigures, DeviceFigures, DeviceLedger, ForeignProcess, Ledger, TierShare
from subcortex.types.standing import DaemonInfo, Status, TierEvent, TierStatus, Yielded, YieldRequest
from subcortex.types.states import Depth, Durability, Rest, ThoughtStatus, TierState
from subcortex.types.thoughts import (
    Chunk,
    Message,
    Notice,
    Route,
    ThinkRequest,
    Thought,
    TierCost,
    Timing,
    ToolCall,
    Usage,
    new_thought_id,
)

__all__ = [
    "BootFigures",
    "Chunk",
    "DaemonInfo",
    "Depth",
    "DeviceFigures",
    "DeviceLedger",
    "Durability",
    "ForeignProcess",
    "Ledger",
    "Message",
    "Notice",
    "Rest",
    "Route",
    "Status",
    "ThinkRequest",
    "Thought",
    "ThoughtStatus",
    "TierCost",
    "TierEvent",
    "TierShare",
    "TierState",
    "TierStatus",
    "Timing",
    "ToolCall",
    "Usage",
    "YieldRequest",
    "Yielded",
    "new_thought_id",
]
