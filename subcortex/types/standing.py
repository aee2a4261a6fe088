"""How the daemon and its tiers stand, and what becomes of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from subcortex.types._model import Model
from subcortex.types.memory import Ledger
from subcortex.types.states import Rest, TierState


class TierStatus(Model):
    """One row of ``subcortex ps``.

    Args:
        load_s: Expected or measured seconds from stopped to ready.
        memory_mib: Resident host memory of the engine's process tree, MiB.
        rest: How it went to sleep, while it sleeps.
        waits_for: Why it is not up although thoughts wait for it, or why it must rest.
        error: Why the tier is backing off or failed; ``error_code`` is the error's stable code.
    """

    name: str
    rank: int
    engine: str
    model: str
    state: TierState
    pid: int | None = None
    in_flight: int = 0
    queued: int = 0
    served: int = 0
    restarts: int = 0
    uptime_s: float | None = None
    load_s: float | None = None
    progress: str | None = None
    memory_mib: float | None = None
    rest: Rest | None = None
    waits_for: str | None = None
    engine_version: str | None = None
    error: str | None = None
    error_code: str | None = None


class TierEvent(Model):
    """What became of a tier: one line of ``subcortex ps --watch``.

    Args:
        state: The state that it is in now.
        was: The one before; None where this only says how things stand.
        why: What brought it about, where that is known.
        facts: What else is known of it, anything JSON can hold (``load_s``, ``version``, …).
    """

    at: datetime
    tier: str
    state: TierState
    was: TierState | None = None
    why: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class YieldRequest(Model):
    """What ``subcortex yield`` asks: GPUs for other programs.

    Args:
        for_s: Seconds, a year at most; None: until somebody says so.
        gpus: By NVML's index; None: all that tiers have, and tiers without a GPU rest too.
    """

    for_s: float | None = Field(default=None, gt=0.0, le=366 * 86400.0, strict=True)
    gpus: list[Annotated[int, Field(ge=0, strict=True)]] | None = Field(default=None, min_length=1)


class Yielded(Model):
    """GPUs left to other programs.

    Args:
        gpus: By NVML's index; None: all that tiers have.
        until: None: until somebody says so.
    """

    gpus: list[int] | None = None
    until: datetime | None = None


class DaemonInfo(Model):
    """The daemon itself, as ``subcortex ps`` shows it.

    Args:
        journal: ``ok``, or ``degraded: `` with why and how many rows wait in memory.
        yielded: What ``subcortex yield`` asked for and has not ended yet.
    """

    pid: int
    version: str
    started_at: datetime
    uptime_s: float
    socket: str
    tcp: str | None = None
    config: str | None = None
    database: str
    journal: str = "ok"
    idle_stop_s: float = 0.0
    yielded: list[Yielded] = Field(default_factory=list)


class Status(Model):
    """The daemon, its tiers and who holds the memory, at one moment."""

    daemon: DaemonInfo
    tiers: list[TierStatus]
    ledger: Ledger = Field(default_factory=Ledger)
