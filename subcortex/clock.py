"""Time as a thing that can be handed in, so that tests own it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the package asks of time."""

    def monotonic_s(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean anything."""
        ...

    def now(self) -> datetime:
        """Return the wall-clock time, timezone-aware, in UTC."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def monotonic_s(self) -> float:
        """Return ``time.perf_counter()`` in seconds."""
        return time.perf_counter()

    def now(self) -> datetime:
        """Return the current UTC time."""
        return datetime.now(UTC)
