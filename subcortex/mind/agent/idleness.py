"""Whether the machine has nothing better to do; pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from subcortex.types import Status


def why_busy(
    status: Status | None,
    last_thought_at: datetime | None,
    now: datetime,
    idle_s: float,
    *,
    may_start: bool = True,
) -> str | None:
    """Return why no session should begin, in words that stay the same while the cause does; None: idle.

    Args:
        status: The daemon's; None where none is up, and so nothing is at work.
        last_thought_at: When somebody's last thought came or ended.
        now: Of the same clock.
        idle_s: How long the machine must have been left alone, seconds.
        may_start: Whether a thought starts a daemon where none is up.
    """
    if status is None and not may_start:
        return "no daemon is up, and daemon.autostart is off"
    if status is not None:
        if any(tier.in_flight or tier.queued for tier in status.tiers):
            return "thoughts are at work"
        if status.daemon.yielded:
            return "its GPUs are left to other programs"
    if last_thought_at is not None and timedelta(0) <= now - last_thought_at < timedelta(seconds=idle_s):
        return f"a thought came in the last {idle_s:g} s"
    return None
