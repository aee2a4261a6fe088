"""Whether the process that holds a row still runs: its id and its start, since ids are used again."""

from __future__ import annotations

#: How far two readings of a process's start may differ (the kernel counts in ticks from boot).
_SAME_START_S = 5.0


def alive(pid: int, begun_s: float | None) -> bool:
    """Return whether the process that had this id, and started then (Unix seconds), still runs."""
    found_s = started_s(pid)
    return found_s is not None and (begun_s is None or abs(found_s - begun_s) < _SAME_START_S)


def started_s(pid: int) -> float | None:
    """Return when process ``pid`` started, Unix seconds; None if there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
