"""A server's own counters, as Prometheus text, and whether they have moved. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection

#: Share of one core that a process at work has at least, on a crowded machine too; idle it takes a hundredth.
_AT_WORK = 0.1
#: Time spent is counted in hundredths of a second, so a shorter while says nothing.
_SHORTEST_WHILE_S = 1.0


def figures(text: str, names: Collection[str]) -> dict[str, float]:
    """Return the named metrics, each summed over its labels; those that are not there are left out."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name not in names:
            continue
        # A label may hold spaces and brackets; a time may follow the value.
        words = line[len(name) :].rpartition("}")[2].split()
        try:
            value = float(words[0])
        except (IndexError, ValueError):
            continue
        if math.isfinite(value):
            found[name] = found.get(name, 0.0) + value
    return found


class Heart:
    """Counts the looks at which figures had moved since the look before."""

    def __init__(self) -> None:
        self._last: dict[str, float] | None = None
        self._beats = 0

    def beat(self, seen: dict[str, float] | None, *, busy: bool = False) -> int:
        """Return the count after this look.

        Args:
            seen: The figures; None if the engine was too busy to tell them.
            busy: It was seen at work in another way.
        """
        moved = seen is not None and self._last is not None and seen != self._last
        if seen is not None:
            self._last = seen
        self._beats += moved or busy
        return self._beats


class Effort:
    """Tells from the time that a process has spent on the CPU whether it was at work."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def at_work(self, now_s: float, spent_s: float) -> bool:
        """Return whether it was at work since the last look that was at least a second ago.

        Args:
            now_s: A clock that never goes back.
            spent_s: Time spent so far by this process, on all cores.
        """
        if self._last is None or spent_s < self._last[1]:
            self._last = now_s, spent_s
            return False
        while_s, effort_s = now_s - self._last[0], spent_s - self._last[1]
        if while_s < _SHORTEST_WHILE_S:
            return False
        self._last = now_s, spent_s
        return effort_s >= _AT_WORK * while_s
