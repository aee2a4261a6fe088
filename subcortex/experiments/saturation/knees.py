"""What a knee is, and the family of curves that throughput is taken to follow. Pure.

The knee is the smallest concurrency from which on allowing twice as many raises the best throughput by under
5 %. "Best" is the most that any concurrency up to the limit reaches, so what declines past its peak has
gained nothing more; and the steps of an engine that pads its batches to sizes are joined at their corners, on
logarithmic axes, so that a staircase has one knee and not one a step. A dense sweep gives the knee by reading
it off (``knee_of_sweep``); the ladder, which has noise and no time, gives that of the curves that its samples
allow.

Log throughput is taken to rise with a slope r, to bend at a concurrency K and to bend down again at B:
f(c) = top · (1 + (K/c)^p)^(−r/p) · (1 + (c/B)^q)^(−δ/q). With p = r = 1 and no second bend that is the
hyperbola of a batch that shares a fixed cost (Michaelis and Menten's), with a large p a roofline; the second
bend is a batch limit or preemption, sharp with a large q. However it bends, on logarithmic axes it never
bends upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

#: What doubling must gain to be worth it.
GAIN = 0.05
_DOUBLED = log(2)


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve of the family.

    Args:
        top: log of tok/s that the rise tends to.
        half: log of K, where it bends.
        sharpness: p.
        rise: r, the slope before the bend; 1 is twice the tokens for twice the requests.
        limit: log of B, where it bends down.
        abruptness: q.
        decline: δ, what the second bend takes off the slope, from 0.
    """

    top: float
    half: float
    sharpness: float
    rise: float
    limit: float
    abruptness: float
    decline: float

    def shape(self, log_concurrency: float) -> float:
        """Return log tok/s over the top at a concurrency, given as its log."""
        below = _soft(self.sharpness * (self.half - log_concurrency)) * self.rise / self.sharpness
        beyond = _soft(self.abruptness * (log_concurrency - self.limit)) * self.decline / self.abruptness
        return -below - beyond

    def _slope(self, at: float) -> float:
        below = self.rise / (1 + exp(min(self.sharpness * (at - self.half), 700.0)))
        return below - self.decline / (1 + exp(min(self.abruptness * (self.limit - at), 700.0)))

    def peak(self) -> float:
        """Return the log of the concurrency past which it falls; far beyond every limit where it does not."""
        low, high = -1.0, max(self.half, self.limit) + 5.0
        if self._slope(high) >= 0:
            return high
        for _ in range(18):
            middle = (low + high) / 2
            low, high = (middle, high) if self._slope(middle) > 0 else (low, middle)
        return (low + high) / 2

    def knee(self) -> float:
        """Return the log of the knee."""
        high = peak = self.peak()
        low, gain = -1.0, log(1 + GAIN)
        for _ in range(18):
            middle = (low + high) / 2
            gained = self.shape(min(middle + _DOUBLED, peak)) - self.shape(middle)
            low, high = (middle, high) if gained > gain else (low, middle)
        return (low + high) / 2


def _soft(x: float) -> float:
    return log(1 + exp(x)) if x < 30 else x


def knee_of_sweep(sweep: Sequence[tuple[float, float]]) -> float | None:
    """Return the knee of a dense sweep, interpolated between its points; None where it is not in it.

    Args:
        sweep: (concurrency, tok/s), rising in concurrency, all above zero.
    """
    best: list[tuple[float, float]] = []
    for concurrency, speed in sweep:
        here = log(speed)
        best.append((log(concurrency), max(here, best[-1][1]) if best else here))
    hull = _envelope(best)
    # The envelope's gain falls all the way, so there is one crossing.
    low, high, gain = hull[0][0], hull[-1][0] - _DOUBLED, log(1 + GAIN)

    def gained(at: float) -> float:
        return _between(hull, at + _DOUBLED) - _between(hull, at)

    if high <= low or gained(high) >= gain or gained(low) < gain:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if gained(middle) >= gain else (low, middle)
    return exp(high)


def _envelope(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the lowest line over all points that never bends upwards."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return hull


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    low, high = 0, len(points) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if points[middle][0] <= at else (low, middle)
    (x, y), (right, up) = points[low], points[high]
    return y if right == x else y + (up - y) * (at - x) / (right - x)
