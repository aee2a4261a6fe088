"""Whose turn it is: the order of runs, what is done together, and who has to wait for what. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from subcortex.config import Config
from subcortex.experiments.needs import Needs
from subcortex.fleet.scene import Room
from subcortex.fleet.yielding import Lending
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.room import gpus_of

#: Runs that one worker is given at most; between two of them its engines stay warm.
_MOST_TOGETHER = 8
#: A run that gave way this often waits no longer after a thought than it does then.
_MOST_QUIET = 15
#: The schedule's run may begin so long after it was asked for: others first make room for it.
_STILL_ITS_TURN = timedelta(minutes=5)


def in_turn(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs that wait, next first: a person's before others, then as they were asked for."""
    waiting = [run for run in runs if run.state in ("queued", "yielded")]
    return sorted(waiting, key=lambda run: (run.asked_by != "person", run.seq))


def next_of(runs: Sequence[RunRecord]) -> RunRecord:
    """Return the run that should have begun; where none is left, one that is over."""
    return next((run for run in runs if run.state in ("queued", "yielded")), runs[-1])


def batch_of(first: RunRecord, waiting: Sequence[RunRecord], config: Config) -> list[RunRecord]:
    """Return what one worker does: a person's runs that take the same GPUs, else the one alone."""
    if first.asked_by != "person":
        return [first]
    gpus = gpus_of(needs_of(first), first.subject, config)
    found = [first]
    for run in waiting[waiting.index(first) + 1 :]:
        same = run.asked_by == "person" and gpus_of(needs_of(run), run.subject, config) == gpus
        if not same or len(found) == _MOST_TOGETHER:
            break
        found.append(run)
    return found


def may_begin(run: RunRecord, idle_s: float, quiet_s: float, idle_after_s: float) -> str | None:
    """Return why a run has to wait after the last thought, None if it has not.

    Args:
        run: A person's begins at once and goes on after a short while, a longer one each time that it gave
            way; any other waits for an idle machine.
        idle_s: No thought has come for so long, seconds.
        quiet_s: The short while, seconds.
        idle_after_s: The machine is idle after so long, seconds.
    """
    soon_s = quiet_s * min(run.lives, _MOST_QUIET) if run.state == "yielded" else 0.0
    needed_s = soon_s if run.asked_by == "person" else idle_after_s
    return None if idle_s >= needed_s else f"it waits until no thought has come for {needed_s:g} s"


def out_of_window(run: RunRecord, now: datetime, is_open: Callable[[datetime], bool]) -> str | None:
    """Return why a run has to wait for the schedule's next minute, None if it has not.

    Args:
        run: Only the schedule's own waits: to go on once it gave way, and to begin where it could not soon.
        now: An aware time.
        is_open: Whether a time lies in a minute that the schedule names.
    """
    if run.asked_by != "schedule" or is_open(now):
        return None
    if run.state == "queued" and now - run.at <= _STILL_ITS_TURN:
        return None
    return "it waits for its window (experiments.windows)"


def is_lost(run: RunRecord, alive: Callable[[int, float | None], bool]) -> bool:
    """Return whether a run is said to be running and its process is gone."""
    return run.owner_pid is None or not alive(run.owner_pid, run.owner_started_s)


def needs_of(run: RunRecord) -> Needs:
    """Return what a run needs, as its inquiry says."""
    found = run.inquiry.get("needs") or {}
    return Needs(
        gpus=int(found.get("gpus") or 0),
        gpu_mib=found.get("gpu_mib"),
        host_mib=float(found.get("host_mib") or 0.0),
        alone=bool(found.get("alone", True)),
    )


@dataclass(slots=True)
class Turn:
    """What is remembered from one look to the next.

    Args:
        lending: GPUs that other programs have taken while an experiment ran.
    """

    #: A run whose process has died so often is given up.
    most_losses: ClassVar[int] = 3

    lending: Lending = field(default_factory=Lending)
    _unfit: dict[str, float] = field(default_factory=dict)
    _now_s: float = 0.0

    def no_room(self, run_id: str, until_s: float) -> None:
        """Let a run be until then."""
        self._unfit[run_id] = until_s

    def unfit(self, now_s: float) -> frozenset[str]:
        """Return the runs that are to be let be."""
        self._unfit = {run_id: until_s for run_id, until_s in self._unfit.items() if until_s > now_s}
        return frozenset(self._unfit)

    def forget(self) -> None:
        """Take what other programs hold now for what they may, unless they have taken something."""
        if not self.lending.taken:
            self.lending = Lending()

    def look(self, now_s: float, foreign_mib: Room, over_mib: float, back_s: float) -> None:
        """Take a look at what other programs hold; see ``Lending.look``."""
        self._now_s = now_s
        self.lending = self.lending.look(now_s, foreign_mib, over_mib, back_s)

    def taken(self, gpus: frozenset[int]) -> str | None:
        """Return why these GPUs are another program's, None if they are not."""
        return self.lending.why(gpus, self._now_s)
