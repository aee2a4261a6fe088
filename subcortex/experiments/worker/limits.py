"""How long a run may take. Pure."""

from __future__ import annotations

from subcortex.journal.diary.experiment_records import RunRecord

#: A run that goes on has at least this long, since its engines start anew; seconds.
_LEAST_S = 60.0


def time_left_s(run: RunRecord) -> float:
    """Return what a run may still take, seconds: what it was given, less what earlier lives have had."""
    gpus = max(1, int((run.inquiry.get("needs") or {}).get("gpus") or 0))
    return max(run.seconds - run.gpu_minutes / gpus * 60.0, min(run.seconds, _LEAST_S))
