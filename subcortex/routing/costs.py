"""What was learned of each tier's cost: running medians over the last thoughts, seeded by what is nominal."""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from subcortex.routing.ladder import Cost

#: Measurements remembered per tier and figure. A median over fewer follows a change sooner.
WINDOW = 32
#: From this many measurements on, the nominal figure no longer counts as one of them.
NOMINAL_UNTIL = 3
#: Measurements that a seed counts for, at most.
SEED_WEIGHT = 3


@dataclass(slots=True)
class _Running:
    """The median of the last ``WINDOW`` values."""

    nominal: float | None = None
    recent: deque[float] = field(default_factory=deque)
    ranked: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        if len(self.recent) == WINDOW:
            self.ranked.remove(self.recent.popleft())
        self.recent.append(value)
        insort(self.ranked, value)

    def value(self) -> float:
        if not self.ranked:
            return self.nominal or 0.0
        if self.nominal is not None and len(self.ranked) < NOMINAL_UNTIL:
            return median([self.nominal, *self.ranked])
        return median(self.ranked)


@dataclass(slots=True)
class _Tier:
    ttft_s: _Running = field(default_factory=_Running)
    tpot_s: _Running = field(default_factory=_Running)
    load_s: _Running = field(default_factory=_Running)
    n: int = 0

    def all(self) -> tuple[_Running, _Running, _Running]:
        return self.ttft_s, self.tpot_s, self.load_s


class CostBook:
    """Costs by tier. One owner, no lock: observe and read on the same task or thread.

    Observe warm figures only: ``ttft_s`` from the moment that the engine took the thought, without
    queue and load.
    """

    def __init__(self) -> None:
        self._tiers: dict[str, _Tier] = {}

    def nominal(
        self,
        tier: str,
        *,
        ttft_s: float | None = None,
        tpot_s: float | None = None,
        load_s: float | None = None,
    ) -> None:
        """Set what is expected before anything is measured; ``None`` leaves a figure as it is.

        Raises:
            ValueError: A figure is negative or not finite.
        """
        book = self._tiers.setdefault(tier, _Tier())
        for running, value in zip(book.all(), _checked(ttft_s, tpot_s, load_s), strict=True):
            if value is not None:
                running.nominal = value

    def seed(
        self,
        tier: str,
        *,
        ttft_s: float | None = None,
        tpot_s: float | None = None,
        load_s: float | None = None,
        n: int,
    ) -> None:
        """Take over medians of ``n`` thoughts measured in an earlier life; nothing if ``n`` is 0.

        They count as at most ``SEED_WEIGHT`` measurements, so that as many new ones outvote them.

        Raises:
            ValueError: A figure is negative or not finite.
        """
        book = self._tiers.setdefault(tier, _Tier())
        for running, value in zip(book.all(), _checked(ttft_s, tpot_s, load_s), strict=True):
            if value is not None:
                for _ in range(min(n, SEED_WEIGHT)):
                    running.add(value)
        book.n += max(n, 0)

    def observe(
        self,
        tier: str,
        *,
        ttft_s: float | None = None,
        tpot_s: float | None = None,
        load_s: float | None = None,
    ) -> None:
        """Learn from a thought (ttft, tpot) or a start (load); ``None`` is not measured.

        Raises:
            ValueError: A figure is negative or not finite; nothing is then learned from the call.
        """
        figures = _checked(ttft_s, tpot_s, load_s)
        book = self._tiers.setdefault(tier, _Tier())
        for running, value in zip(book.all(), figures, strict=True):
            if value is not None:
                running.add(value)
        if ttft_s is not None:
            book.n += 1

    def forget(self, tier: str) -> None:
        """Drop a tier's measurements and nominal figures: its model, engine or flags changed."""
        self._tiers.pop(tier, None)

    def cost(self, tier: str) -> Cost:
        """Return what is known now; figures are 0 where neither measured nor nominal.

        ``n`` counts the thoughts measured, seeded ones included.
        """
        book = self._tiers.get(tier)
        if book is None:
            return Cost()
        return Cost(book.ttft_s.value(), book.tpot_s.value(), book.load_s.value(), book.n)


def _checked(*figures: float | None) -> tuple[float | None, ...]:
    for seconds in figures:
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"{seconds} is not a duration in seconds")
    return figures
