"""Statistics that one wild value cannot move far. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: Makes the median absolute deviation of normal values their standard deviation.
_MAD_TO_SIGMA = 1.4826
#: Values that differ by more than this share of their median are not consistent.
_CONSISTENT_SHARE = 0.5


def clipped(value: float, centre: float, bound: float) -> float:
    """Return ``value``, moved to ``bound`` from ``centre`` if it is further away."""
    return min(max(value, centre - bound), centre + bound)


def spread(values: Sequence[float]) -> float:
    """Return the values' σ by their median absolute deviation; 0 below two values."""
    if len(values) < 2:
        return 0.0
    centre = median(values)
    return _MAD_TO_SIGMA * median(abs(value - centre) for value in values)


def weighted_median(values: Sequence[tuple[float, float]]) -> float:
    """Return the value that half of the weight lies on either side of; between two, their middle.

    Args:
        values: Each with its weight above 0; at least one.
    """
    ordered = sorted(values)
    half, passed = sum(weight for _, weight in ordered) / 2, 0.0
    for place, (value, weight) in enumerate(ordered):
        passed += weight
        if passed == half and place + 1 < len(ordered):
            return (value + ordered[place + 1][0]) / 2
        if passed >= half:
            return value
    return ordered[-1][0]


def consistent(values: Sequence[float], *, least: int, floor: float) -> bool:
    """Return whether at least ``least`` values have one sign, about one size, and all exceed ``floor``."""
    if len(values) < least or min(abs(value) for value in values) <= floor:
        return False
    if min(values) < 0 < max(values):
        return False
    return max(values) - min(values) <= _CONSISTENT_SHARE * abs(median(values))
