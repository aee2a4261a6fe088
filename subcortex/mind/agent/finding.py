"""Questions of drives that an experiment answers: the daemon is asked, and nobody waits for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from subcortex.journal import processes
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import OPEN_STATES, RunRecord

#: A run that nobody has heard of for so long keeps its drive from nothing: it finds no room, or no time.
_FORGOTTEN = timedelta(hours=4)


class Finder(Protocol):
    """The daemon, as a tick asks it for experiments."""

    def up(self) -> bool:
        """Return whether it is there; none is started."""
        ...

    def ask(self, gap_id: str, drive: str) -> RunRecord | None:
        """Have the experiment run that may answer a question; None if there is none, or no daemon."""
        ...


def under_way(diary: Diary) -> frozenset[str]:
    """Return the drives that have an experiment waiting or at work; those long forgotten left out.

    Raises:
        JournalError: The database cannot be read.
    """
    since = diary.clock.now() - _FORGOTTEN
    found = experiments.runs(diary, states=OPEN_STATES)
    return frozenset(run.drive for run in found if run.drive and (run.heard_at or run.at) >= since)


def at_work(diary: Diary) -> bool:
    """Return whether an experiment measures now.

    Raises:
        JournalError: The database cannot be read.
    """
    return any(
        run.state == "running"
        and run.owner_pid is not None
        and processes.alive(run.owner_pid, run.owner_started_s)
        for run in experiments.runs(diary, states=OPEN_STATES)
    )
