"""Hours in which no session is held of itself, as a person writes them: ``22:00-07:30``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, time
from typing import NamedTuple

from subcortex.errors import ConfigError

_SPAN = re.compile(r"(?a)\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*")


class QuietHours(NamedTuple):
    """Spans of a day, each from its first minute to the one before its last; local time.

    A span that ends before it begins goes over midnight; one that ends as it begins is the whole day.
    """

    spans: tuple[tuple[time, time], ...] = ()

    @classmethod
    def parse(cls, written: Sequence[str]) -> QuietHours:
        """Read spans such as ``22:00-07:30``.

        Raises:
            ConfigError: One is no span of a day.
        """
        return cls(tuple(_span(one) for one in written))

    def holding(self, now: datetime) -> str | None:
        """Return the span that ``now`` (local) lies in, as it is written; None outside of all."""
        at = now.time().replace(second=0, microsecond=0)
        for begins, ends in self.spans:
            inside = begins <= at < ends if begins < ends else at >= begins or at < ends
            if inside:
                return f"{begins:%H:%M}-{ends:%H:%M}"
        return None


def _span(written: str) -> tuple[time, time]:
    found = _SPAN.fullmatch(written)
    if found:
        begins_h, begins_min, ends_h, ends_min = map(int, found.groups())
        # A day ends at 24:00 as people write it.
        if (ends_h, ends_min) == (24, 0):
            ends_h = 0
        try:
            return time(begins_h, begins_min), time(ends_h, ends_min)
        except ValueError:
            pass
    raise ConfigError(
        f"agent.quiet_hours: {written!r} is no span of a day",
        hint='Write it as "22:00-07:30".',
        key="agent.quiet_hours",
    )
