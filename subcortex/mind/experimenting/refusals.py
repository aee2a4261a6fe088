"""What a run is told whose worker was no use. Pure."""

from __future__ import annotations

from subcortex.errors import DeadlineExceeded, EngineFailed
from subcortex.journal.diary.experiment_records import RunRecord


def overdue(run: RunRecord) -> DeadlineExceeded:
    """It had its time and more, and went on."""
    return DeadlineExceeded(
        f"{run.experiment} of {run.subject} was not done within {run.seconds:.0f} s, nor did it stop",
        hint="Its samples are kept; give it more minutes.",
    )


def stood_still(after_s: float, log_tail: str) -> DeadlineExceeded:
    """Its worker was up for so long and had no run at work."""
    return DeadlineExceeded(
        f"the worker of experiments did nothing for {after_s:g} s",
        hint="The end of its log may say what it waits for.",
        log_tail=log_tail,
    )


def never_began(log_tail: str) -> EngineFailed:
    """Its worker did not come so far as to begin it."""
    return EngineFailed(
        "the worker of experiments ended before it began",
        hint="The end of its log says why.",
        log_tail=log_tail,
    )
