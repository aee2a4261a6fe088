"""Samples as they come from a machine: some too early, some while it held itself back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

#: A sample this near to the settled median is never warm-up, however little the settled ones spread.
_FLOOR = 0.01
_FEWEST_SETTLED = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Args:
        value: In the experiment's unit.
        arm: Which of the things compared it is of.
        block: Which round of the order; samples of a block are near in time.
        throttled: Whether the machine lowered its clocks meanwhile, for heat or power.
        why: What throttled it, in words.
    """

    value: float
    arm: str = ""
    block: int = 0
    throttled: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left to reckon with, and how many samples were left out for what."""

    samples: tuple[Sample, ...]
    throttled: int
    warm_up: int

    @property
    def values(self) -> tuple[float, ...]:
        """The samples' values in the order they were measured."""
        return tuple(sample.value for sample in self.samples)


def kept(samples: Sequence[Sample]) -> Kept:
    """Return one arm's samples without warm-up and throttled ones; all of them stay in the raw data."""
    steady = [sample for sample in samples if not sample.throttled]
    early = warm_up([sample.value for sample in steady])
    return Kept(tuple(steady[early:]), len(samples) - len(steady), early)


def warm_up(values: Sequence[float]) -> int:
    """Return how many samples at the beginning are warm-up; at most half of them.

    The later half counts as settled. A sample at the beginning is warm-up as long as it lies further outside
    the settled ones than they spread. Fewer than eight samples cannot tell: none is.
    """
    settled = values[len(values) // 2 :]
    if len(values) < 2 * _FEWEST_SETTLED:
        return 0
    spread = max(max(settled) - min(settled), _FLOOR * abs(median(settled)))
    low, high = min(settled) - spread, max(settled) + spread
    early = 0
    while early < len(values) // 2 and not low <= values[early] <= high:
        early += 1
    return early
