"""Words for where things are: a tier's engine, a thought, a session; and how sure a write is."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class TierState(StrEnum):
    """Where a tier's engine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    FAILED = "failed"


class Rest(StrEnum):
    """How an engine leaves its GPU: its process ends, its weights go to host memory, or they are dropped."""

    STOP = "stop"
    SLEEP_1 = "sleep_1"
    SLEEP_2 = "sleep_2"


class ThoughtStatus(StrEnum):
    """How far a recorded thought came."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Depth(StrEnum):
    """How deep a session went, by its writer's word or by its evidence; from least to most."""

    NONE = "none"
    SHALLOW = "shallow"
    MODERATE = "moderate"
    DEEP = "deep"
    FULL = "full"


Durability = Literal["process", "power"]
