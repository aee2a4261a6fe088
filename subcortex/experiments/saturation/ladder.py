"""A closed-loop ladder of concurrencies that says what to measure next, or that it knows the knee. Pure.

Up in doublings first, until two of them together bring less than one must; then over all sizes about the
knee, down and up again, since a machine's speed drifts meanwhile (``_noise.py``); then wherever one more
measurement tells most about the knee; until the interval of the knee is narrow. A knee's upper end is the
smallest concurrency from which on the upper bound of the gain by doubling is under 5 % (``knees.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import exp, hypot, isfinite, log
from statistics import fmean, median

from subcortex.errors import InvalidRequest
from subcortex.experiments.saturation._posterior import Posterior, posterior
from subcortex.experiments.saturation.knees import GAIN, knee_of_sweep
from subcortex.experiments.statistics import LEVEL, Interval

_A_RUNG, _FEWEST_RUNGS = 2, 4
#: Windows at each size about the knee, on the way down and with those of the way up; how far about it.
_REFINED_DOWN, _REFINED, _BELOW, _ABOVE = 4, 7, 1.7, 2.6
_THINNED = 7
#: The family is not exact and sizes are a fifth apart: no knee is known to better than this share.
_FLOOR = 0.08


@dataclass(frozen=True, slots=True)
class Measured:
    """One window: so many requests at once, kept up for so many seconds, gave so many tokens a second.

    Those that follow each other at one concurrency count as one (``_noise.py``).
    """

    concurrency: int
    seconds: float
    tok_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What the ladder may do.

    Args:
        max_concurrency: The most requests at once that the engine or the client takes.
        window_s: How long one window is, after what settles is over.
        most_s: Seconds of measuring after which it gives up.
        ratio: How many times its lower end an interval's upper end may be: 1.5 is ±22 %.
    """

    max_concurrency: int = 256
    window_s: float = 10.0
    most_s: float = 1500.0
    ratio: float = 1.5


@dataclass(frozen=True, slots=True)
class Measure:
    """Keep so many requests going for so many seconds, and come back with the windows."""

    concurrency: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """Where throughput stops growing; ``tok_s`` and its interval are of the curve at the knee."""

    knee: float
    interval: Interval
    tok_s: float
    tok_s_interval: Interval


@dataclass(frozen=True, slots=True)
class Inconclusive:
    """Why the knee is not known, and what is known of it."""

    reason: str
    knee: float
    interval: Interval


def next_step(
    measured: Sequence[Measured], limits: Limits | None = None, *, seed: int = 0
) -> Measure | Done | Inconclusive:
    """Return what to measure next, or the knee, or why there is none.

    Args:
        measured: Every window so far, in the order that they were measured in: those near in time err alike.
        limits: What the ladder may do.
        seed: Of the draws; the same windows and seed give the same step.

    Raises:
        InvalidRequest: Where a window has no concurrency, time or throughput.
    """
    limits = limits or Limits()
    for one in measured:
        if one.concurrency < 1 or not 0 < one.seconds < 1e9 or not (one.tok_s > 0 and isfinite(one.tok_s)):
            raise InvalidRequest(
                f"A window of {one.seconds} s at {one.concurrency} at once gave {one.tok_s} tok/s.",
                hint="A concurrency at which nothing was generated is a failure of its own; leave it out.",
            )
    up = _rung(measured, limits)
    if up is not None:
        return up
    reach = max(one.concurrency for one in measured)
    near = _crude(measured)
    left_s = limits.most_s - sum(one.seconds for one in measured)
    refined = _refinement(measured, near, limits, left_s) if left_s >= limits.window_s else None
    if refined is not None:
        return refined
    found = posterior([(one.concurrency, one.seconds, one.tok_s) for one in measured], near, seed)
    knees = sorted(curve.knee() for curve in found.curves)
    centre = _at(knees, 0.5)
    below, above = (hypot(_at(knees, (1 + side * LEVEL) / 2) - centre, _FLOOR) for side in (-1, 1))
    low, middle, high = exp(centre - below), exp(centre), exp(centre + above)
    interval = Interval(low, high)
    if 2 * middle > reach and reach < limits.max_concurrency:
        return Measure(min(2 * reach, limits.max_concurrency), _A_RUNG * limits.window_s)
    if 2 * low > reach:
        return Inconclusive(f"throughput still grows at {reach} at once, the most allowed", middle, interval)
    if high <= limits.ratio * low and 2 * middle <= reach:
        # Fewer than one request were never measured.
        at = log(max(1.0, middle))
        speeds = sorted(curve.top + curve.shape(at) for curve in found.curves)
        ends = (exp(_at(speeds, (1 - LEVEL) / 2)), exp(_at(speeds, (1 + LEVEL) / 2)))
        return Done(middle, interval, exp(median(speeds)), Interval(*ends))
    spent = limits.most_s - left_s
    if left_s < limits.window_s:
        words = f"after {spent:.0f} s of measuring the knee may lie anywhere from {low:.1f} to {high:.1f}"
        return Inconclusive(words, middle, interval)
    # Longer the more there is already: a fraction that is always worth telling apart from before.
    seconds = limits.window_s * max(_A_RUNG, round(spent / limits.window_s / 5))
    seconds = min(seconds, left_s)
    return Measure(_most_telling(found, measured, seconds), seconds)


def _rung(measured: Sequence[Measured], limits: Limits) -> Measure | None:
    """Return the next rung of the doublings; None where they have gone far enough."""
    rungs: list[float] = []
    concurrency = 1
    while concurrency <= limits.max_concurrency:
        windows = [one for one in measured if one.concurrency == concurrency]
        wanted = _A_RUNG * limits.window_s - sum(one.seconds for one in windows)
        if wanted > 0.01 * limits.window_s:
            return Measure(concurrency, wanted)
        rungs.append(_speed(windows))
        if len(rungs) >= _FEWEST_RUNGS and max(rungs) < (1 + GAIN) * max(rungs[:-2]):
            return None
        concurrency *= 2
    return None


def _crude(measured: Sequence[Measured]) -> float:
    """Return the knee read off the means so far as off a sweep; half of the highest without one."""
    by: dict[int, list[Measured]] = {}
    for one in measured:
        by.setdefault(one.concurrency, []).append(one)
    found = knee_of_sweep([(float(c), _speed(windows)) for c, windows in sorted(by.items())])
    return max(by) / 2 if found is None else found


def _speed(windows: Sequence[Measured]) -> float:
    """Return the tok/s of windows together; those that lasted longer have brought more."""
    return fmean([one.tok_s for one in windows], weights=[one.seconds for one in windows])


def _refinement(measured: Sequence[Measured], near: float, limits: Limits, left_s: float) -> Measure | None:
    """Return the next size about the knee, and up to twice it, to measure; None without one.

    Down from where the rungs ended with half of the windows, and up again with the rest, so that a machine
    whose speed drifts meanwhile raises neither end over the other.
    """
    spent = _spent(measured)
    sizes = [one for one in _grid(max(spent)) if near / _BELOW <= one <= near * _ABOVE]
    for windows, way in ((_REFINED_DOWN, reversed(sizes)), (_REFINED, iter(sizes))):
        for concurrency in way:
            wanted = windows * limits.window_s - spent.get(concurrency, 0.0)
            if wanted > 0.01 * limits.window_s:
                return Measure(concurrency, min(wanted, left_s))
    return None


def _spent(measured: Sequence[Measured]) -> dict[int, float]:
    spent: dict[int, float] = {}
    for one in measured:
        spent[one.concurrency] = spent.get(one.concurrency, 0.0) + one.seconds
    return spent


def _most_telling(found: Posterior, measured: Sequence[Measured], seconds: float) -> int:
    """Return the concurrency whose throughput, measured for so long, leaves the knee's variance smallest."""
    curves = found.curves[::_THINNED]
    knees = [curve.knee() for curve in curves]
    centre = fmean(knees)
    last = measured[-1].concurrency
    running_s = sum(one.seconds for one in takewhile(lambda one: one.concurrency == last, reversed(measured)))
    best, most = 1, -1.0
    for concurrency in _grid(max(one.concurrency for one in measured)):
        speeds = [curve.top + curve.shape(log(concurrency)) for curve in curves]
        mean = fmean(speeds)
        shared = fmean((a - centre) * (b - mean) for a, b in zip(knees, speeds, strict=True))
        noise = found.variance(concurrency, seconds, running_s if concurrency == last else 0.0)
        told = shared * shared / (fmean((b - mean) ** 2 for b in speeds) + noise)
        if told > most:
            best, most = concurrency, told
    return best


def _grid(reach: int) -> list[int]:
    """Return the sizes up to the highest that engines pad no batch of, four to a doubling."""
    found, value = [1, 2, 4], 8.0
    while round(value) <= reach:
        size = 8 * round(value / 8)
        if size != found[-1]:
            found.append(size)
        value *= 2**0.25
    return [size for size in found if size <= reach]


def _at(ranked: Sequence[float], share: float) -> float:
    return ranked[round(share * (len(ranked) - 1))]
