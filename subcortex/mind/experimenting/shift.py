"""One worker's time, and how often it is looked at. Effects: it kills its worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from subcortex.experiments.worker.limits import time_left_s
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.worker import Worker


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are looked at, and how long they may take; seconds.

    Args:
        look_s: Between looks while runs wait or are under way.
        poll_s: Between looks for runs that another process asked for.
        quiet_s: After a thought, before a person's run goes on.
        rest_s: For tiers to make room.
        over_s: That a run may go on after its time before its worker is killed.
        between_s: That a worker may take to begin its first run, to go from one to the next, and to end.
        sour_s: After something went wrong, before it is tried again.
        machine_s: Between looks at what other programs hold of the GPUs.
        close_s: For what is being done when the daemon stops.
    """

    look_s: float = 0.25
    poll_s: float = 5.0
    quiet_s: float = 2.0
    rest_s: float = 180.0
    over_s: float = 30.0
    between_s: float = 300.0
    sour_s: float = 5.0
    machine_s: float = 1.0
    close_s: float = 60.0


@dataclass(slots=True)
class Shift:
    """One worker's time: the runs it was given, and why it is to end before they are done."""

    runs: tuple[RunRecord, ...]
    gpus: frozenset[int]
    told: asyncio.Event = field(default_factory=asyncio.Event)
    why: str | None = None
    worker: Worker | None = None
    killing: asyncio.Task[None] | None = None
    _ends_s: dict[str, float] = field(default_factory=dict)
    _between_s: float | None = None

    @property
    def ids(self) -> frozenset[str]:
        """Of its runs."""
        return frozenset(run.id for run in self.runs)

    def end(self, why: str) -> None:
        """Have it end, its processes first; returns at once."""
        if self.why is None:
            self.why = why
            self.told.set()
            self.kill()

    def kill(self) -> None:
        """Begin to kill its worker, if that has not begun."""
        if self.worker is not None and self.killing is None:
            self.killing = asyncio.create_task(self.worker.kill(), name="experiment gives way")

    def begun(self, run: RunRecord) -> bool:
        """Return whether a run of it, as it is now, was begun in this shift."""
        return any(run.id == before.id and run.lives > before.lives for before in self.runs)

    def is_overdue(self, run: RunRecord, now_s: float, over_s: float) -> bool:
        """Return whether a run that is at work has had its time, and ``over_s`` more to end by itself."""
        return now_s > self._ends_s.setdefault(run.id, now_s + time_left_s(run) + over_s)

    def stands_still(self, runs: Sequence[RunRecord], now_s: float, between_s: float) -> bool:
        """Return whether none of its runs, as they are now, has been at work for so long."""
        if any(run.state == "running" for run in runs):
            self._between_s = None
            return False
        if self._between_s is None:
            self._between_s = now_s
        return now_s - self._between_s > between_s
