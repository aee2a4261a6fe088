"""Student's t for whole degrees of freedom, which the standard library lacks. Pure."""

from __future__ import annotations

from functools import cache
from math import atan, cos, inf, pi, sin, sqrt


def _within(t: float, degrees: int) -> float:
    """Return the probability of lying within ±t: the sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = atan(t / sqrt(degrees))
    if degrees == 1:
        return 2 * angle / pi
    square = cos(angle) ** 2
    odd = degrees % 2
    term = cos(angle) if odd else 1.0
    total = term
    for step in range(1, (degrees - 1) // 2 if odd else degrees // 2):
        term *= square * (2 * step) / (2 * step + 1) if odd else square * (2 * step - 1) / (2 * step)
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


@cache
def student(level: float, degrees: int) -> float:
    """Return t such that a share ``level`` lies within ±t; infinite without a degree of freedom."""
    if degrees < 1:
        return inf
    low, high = 0.0, 1.0
    while _within(high, degrees) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return (low + high) / 2
