"""Whether two arms differ, whether that is known well enough, and what it would take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, log
from typing import Literal

from subcortex.experiments.statistics.arms import difference, ratio
from subcortex.experiments.statistics.intervals import (
    LEVEL,
    Estimate,
    Interval,
    median_of,
    relative_reach,
)

#: A verdict's interval is wider than the one reported with a median: at 90 % one pair of equal arms in ten
#: would be called different, and two in a hundred and a half is what can be afforded.
VERDICT_LEVEL = 0.975
#: More samples than this no experiment is told to take; it would rather be asked with another method.
MOST_NEEDED = 10_000
#: Below this many an interval's narrowness is too much a matter of luck to stop at.
FEWEST = 7


@dataclass(frozen=True, slots=True)
class Verdict:
    """What two arms' samples say.

    Args:
        kind: ``different``, ``alike`` (within ``within``) or ``inconclusive``.
        estimate: b − a, or b / a.
        interval: Of the estimate, at the verdict's level.
        n: Blocks that it rests on.
        within: What counts as alike, as asked; None where nothing was asked.
        n_needed: Blocks that would settle it if they spread as these do; None where it is settled, or where
            no number within reason would.
    """

    kind: Literal["different", "alike", "inconclusive"]
    estimate: float
    interval: Interval
    n: int
    within: float | None
    n_needed: int | None


def verdict(
    a: Sequence[float],
    b: Sequence[float],
    *,
    within: float | None = None,
    as_ratio: bool = False,
    level: float = VERDICT_LEVEL,
    seed: int = 0,
) -> Verdict:
    """Return whether two arms are different, alike within something, or cannot be told yet.

    Different is said only where the interval leaves no difference out. Where it lies wholly in what counts as
    alike, they are alike, also if a difference too small to matter is certain.

    Args:
        a: One arm's means by block (``paired``).
        b: The other's, of the same blocks.
        within: Differences up to this are alike: in the samples' unit, or a share (0.02) with ``as_ratio``.
        as_ratio: Compare b / a with 1 rather than b − a with 0.
        level: Of the interval.
        seed: Of the bootstrap.

    Raises:
        InvalidRequest: Where the arms have not as many blocks, or none; or a ratio of what is not above zero.
    """
    found = (ratio if as_ratio else difference)(a, b, level=level, seed=seed)
    bounds = found.interval
    none = 1.0 if as_ratio else 0.0
    ends = _alike(within, as_ratio)
    n = len(a)
    if ends is not None and ends[0] <= bounds.low and bounds.high <= ends[1]:
        return Verdict("alike", found.median, bounds, n, within, None)
    if not bounds.holds(none):
        return Verdict("different", found.median, bounds, n, within, None)
    return Verdict("inconclusive", found.median, bounds, n, within, _needed(found, ends, as_ratio))


def _alike(within: float | None, as_ratio: bool) -> tuple[float, float] | None:
    if within is None:
        return None
    return (1 / (1 + within), 1 + within) if as_ratio else (-within, within)


def _needed(found: Estimate, ends: tuple[float, float] | None, as_ratio: bool) -> int | None:
    """Return the fewest blocks whose interval would leave no difference out, or be alike throughout."""

    def scale(value: float) -> float:
        return (log(value) if value > 0 else -inf) if as_ratio else value

    middle, bounds = scale(found.median), found.interval
    reach = max(middle - scale(bounds.low), scale(bounds.high) - middle)
    # Either way settles it, so the nearer one counts.
    wanted = abs(middle)
    if ends is not None:
        wanted = max(wanted, min(middle - scale(ends[0]), scale(ends[1]) - middle))
    if not isfinite(reach) or wanted <= 0:
        return None
    return _fewest(found.n, reach, wanted, bounds.level)


def _fewest(n: int, reach: float, wanted: float, level: float) -> int | None:
    """Return the fewest samples of which an interval reaches less far than wanted, if n reach this far."""
    one = reach / relative_reach(n, level)
    low, high = n + 1, MOST_NEEDED
    if one * relative_reach(high, level) >= wanted:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if one * relative_reach(middle, level) < wanted else (middle + 1, high)
    return low


@dataclass(frozen=True, slots=True)
class Enough:
    """Whether to stop repeating, why, and how many more samples would make the interval narrow enough.

    ``more`` is None where the samples so far bound nothing, or no number within reason would do.
    """

    stop: bool
    reason: Literal["narrow", "time", "more"]
    more: int | None


def enough(
    samples: Sequence[float],
    target_width: float,
    time_left_s: float,
    *,
    sample_s: float = 0.0,
    level: float = LEVEL,
    seed: int = 0,
) -> Enough:
    """Return whether an arm has been measured often enough.

    Args:
        samples: So far, warm-up and throttled ones left out.
        target_width: Of the median's interval, as a share of the median (0.05).
        time_left_s: What is left of the experiment's time.
        sample_s: What one more sample takes.
        level: Of the interval.
        seed: Of the bootstrap.
    """
    n = len(samples)
    more: int | None = FEWEST - n if n < FEWEST else None
    if n >= 2:
        found = median_of(samples, level=level, seed=seed)
        wanted = target_width * abs(found.median)
        if n >= FEWEST and found.interval.width <= wanted:
            return Enough(True, "narrow", 0)
        if wanted > 0:
            needed = _fewest(n, found.interval.width / 2, wanted / 2, level)
            more = None if needed is None else max(needed - n, FEWEST - n)
    if time_left_s < sample_s or time_left_s <= 0:
        return Enough(True, "time", more)
    return Enough(False, "more", more)
