"""Samples as an answer's figures, and as a learner's notebook writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite

from subcortex.experiments.statistics import Estimate, Interval, median_of


@dataclass(frozen=True, slots=True)
class Median:
    """A median of samples that cannot be below zero; without an interval where one sample bounds none."""

    value: float
    low: float | None
    high: float | None
    n: int

    def said(self, unit: str) -> str:
        """Return it in words: the median, its interval if it has one, and how many samples."""
        figure = f"{written(self.value)} {unit}"
        if self.low is None or self.high is None:
            return f"{figure} (n = {self.n})"
        return f"{figure} ({written(self.low)} to {written(self.high)} {unit}, n = {self.n})"


def median(values: Sequence[float]) -> Median | None:
    """Return the median of samples, None without any."""
    return of_estimate(median_of(values)) if values else None


def of_estimate(found: Estimate) -> Median:
    """Return an estimate of what cannot be below zero."""
    low, high = ends(found.interval)
    return Median(found.median, None if low is None else max(0.0, low), high, found.n)


def ends(interval: Interval, *, over: float = -inf) -> tuple[float, float] | tuple[None, None]:
    """Return an interval's ends; neither where samples bound nothing.

    Args:
        interval: Of a median or a verdict.
        over: Both have to lie above it: those of ratios above 0.
    """
    low, high = interval.low, interval.high
    return (low, high) if isfinite(low) and isfinite(high) and low > over else (None, None)


def from_to(low: float | None, high: float | None) -> str:
    """Return an interval behind its figure, in words: `` (1.2 to 1.4)``; nothing where there is none."""
    return "" if low is None or high is None else f" ({written(low)} to {written(high)})"


def written(value: float) -> str:
    """Return a figure with three digits that count, or all before the point."""
    if value == 0 or not isfinite(value):
        return f"{value:g}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def counted(number: int, one: str, several: str | None = None) -> str:
    """Return how many of something there are, in words: ``1 boot``, ``2 boots``, ``1 pass``."""
    return f"{number} {one if number == 1 else several or one + 's'}"
