"""The curves that noisy samples allow: draws from the family, each as probable as the samples make it. Pure.

Chains begin anywhere and are let down to the posterior in stages, each as far as leaves half of them in the
running (a sequential Monte Carlo sampler). Between stages they take steps along each other's differences (ter
Braak 2006), so that no step size has to be tuned to a curve.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log, log2, sqrt

from subcortex.experiments.saturation.knees import Curve

#: No curve of the family is exact: this much, as a share, is left to that near the knee, and so much more
#: with each doubling further off, so that what happens at a concurrency of 1 does not place a knee at 60.
_MISFIT, _MISFIT_A_DOUBLING = 0.006, 0.02
#: What a window of ten seconds is taken to vary by until repeats say otherwise, and their weight against it.
_USUAL_SHARE, _USUAL_S, _USUAL_WEIGHT = 0.03, 10.0, 2.0
_CHAINS, _FIRST, _MOVES, _LAST_MOVES = 90, 500, 4, 10
_SOFT = 0.8
_REACH = 2.38 / sqrt(2 * 6)
#: Bounds of what is drawn: logs of p and q, and r; δ is exponential.
_SHARPNESS, _RISE, _ABRUPTNESS, _MEAN_DECLINE = (
    (log(0.9), log(20.0)),
    (0.75, 1.02),
    (log(1.5), log(30.0)),
    0.4,
)

_Place = list[float]


@dataclass(frozen=True, slots=True)
class Point:
    """All windows at one concurrency: the mean of log tok/s, seconds, and the share left to misfit."""

    log_concurrency: float
    log_speed: float
    seconds: float
    misfit: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """Curves, equally probable, and the variance of log tok/s of a window of one second."""

    curves: tuple[Curve, ...]
    variance_s: float

    def variance(self, seconds: float, already_s: float) -> float:
        """Return the variance of what so many more seconds say, beyond what so many have said.

        However long one concurrency is measured, the family's misfit there stays; that sends the ladder on.
        """
        before = 1 / (self.variance_s / already_s + _MISFIT**2) if already_s else 0.0
        return 1 / (1 / (self.variance_s / (already_s + seconds) + _MISFIT**2) - before)


def points_of(windows: Sequence[tuple[int, float, float]], near: float) -> tuple[list[Point], float]:
    """Return windows, as (concurrency, seconds, tok/s), brought together, and a second's variance."""
    by: dict[int, list[tuple[float, float]]] = {}
    for concurrency, seconds, speed in windows:
        by.setdefault(concurrency, []).append((seconds, log(speed)))
    points = []
    squares, degrees = _USUAL_WEIGHT * _USUAL_SHARE**2 * _USUAL_S, _USUAL_WEIGHT
    for concurrency, found in sorted(by.items()):
        total = sum(seconds for seconds, _ in found)
        mean = sum(seconds * value for seconds, value in found) / total
        squares += sum(seconds * (value - mean) ** 2 for seconds, value in found)
        degrees += len(found) - 1
        points.append(Point(log(concurrency), mean, total, _misfit(concurrency, near)))
    return points, squares / degrees


def _misfit(concurrency: int, near: float) -> float:
    off = max(near / 2 / concurrency, concurrency / (4 * near), 1.0)
    return _MISFIT + _MISFIT_A_DOUBLING * log2(off)


def posterior(windows: Sequence[tuple[int, float, float]], near: float, seed: int) -> Posterior:
    """Return the curves that windows, as (concurrency, seconds, tok/s), allow about a concurrency."""
    points, variance_s = points_of(windows, near)
    data = [
        (one.log_concurrency, one.log_speed, 1 / (variance_s / one.seconds + one.misfit**2)) for one in points
    ]
    top = max(one.log_concurrency for one in points)
    bounds = ((log(0.5), top + log(4)), _SHARPNESS, _RISE, (log(2), top + log(4)), _ABRUPTNESS)
    rng = random.Random(seed)  # noqa: S311 - a seeded draw, no secret

    def likely(place: _Place) -> float:
        decline = place[5]
        if decline < 0 or any(
            not low <= value <= high for value, (low, high) in zip(place, bounds, strict=False)
        ):
            return -inf
        # A soft bend is the usual case; a sharp one shows in the samples soon enough.
        return _log_likelihood(data, place) - decline / _MEAN_DECLINE - _SOFT * place[1]

    chains = [
        [rng.uniform(*one) for one in bounds] + [rng.expovariate(1 / _MEAN_DECLINE)] for _ in range(_FIRST)
    ]
    worth = [likely(place) for place in chains]
    heat = 0.0
    while heat < 1:
        cooler = _next_heat(worth, heat)
        best = max(worth)
        weights = [exp(max((cooler - heat) * (value - best), -700.0)) for value in worth]
        picked = rng.choices(range(len(chains)), weights, k=_CHAINS)
        chains, worth, heat = [chains[i] for i in picked], [worth[i] for i in picked], cooler
        for _ in range(_MOVES):
            _move(chains, worth, heat, likely, rng)
    curves: list[Curve] = []
    for turn in range(_LAST_MOVES):
        _move(chains, worth, 1.0, likely, rng)
        if turn % 2:
            curves += [_curve(data, place, rng) for place in chains]
    return Posterior(tuple(curves), variance_s)


def _next_heat(worth: Sequence[float], heat: float) -> float:
    """Return how far to go towards the posterior so that half of the chains would still count."""
    best = max(worth)

    def counting(to: float) -> float:
        weights = [exp(max((to - heat) * (value - best), -700.0)) for value in worth]
        return sum(weights) ** 2 / sum(weight * weight for weight in weights)

    wanted = 0.5 * _CHAINS
    if counting(1.0) >= wanted:
        return 1.0
    low, high = heat, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if counting(middle) >= wanted else (low, middle)
    return max(low, heat + 1e-4)


def _move(
    chains: list[_Place],
    worth: list[float],
    heat: float,
    likely: Callable[[_Place], float],
    rng: random.Random,
) -> None:
    """Let each chain try one step, along the difference of two others."""
    for i in range(len(chains)):
        a, b = chains[rng.randrange(len(chains))], chains[rng.randrange(len(chains))]
        scale = _REACH * rng.uniform(0.3, 1.3)
        tried = [x + scale * (y - z) + rng.gauss(0, 0.005) for x, y, z in zip(chains[i], a, b, strict=True)]
        value = likely(tried)
        if value >= worth[i] or rng.random() < exp(max(heat * (value - worth[i]), -700.0)):
            chains[i], worth[i] = tried, value


def _log_likelihood(data: Sequence[tuple[float, float, float]], place: _Place) -> float:
    """Return the log-likelihood with the top where it fits best."""
    half, sharp, rise, limit, abrupt, decline = place
    p, q = exp(sharp), exp(abrupt)
    below, beyond = rise / p, decline / q
    weights = total = squares = 0.0
    for x, y, weight in data:
        up, down = p * (half - x), q * (x - limit)
        left = (
            y
            + below * (log(1 + exp(up)) if up < 30 else up)
            + beyond * (log(1 + exp(down)) if down < 30 else down)
        )
        weights += weight
        total += weight * left
        squares += weight * left * left
    return -0.5 * (squares - total * total / weights)


def _curve(data: Sequence[tuple[float, float, float]], place: _Place, rng: random.Random) -> Curve:
    half, sharp, rise, limit, abrupt, decline = place
    bare = Curve(0.0, half, exp(sharp), rise, limit, exp(abrupt), decline)
    weights = sum(weight for _, _, weight in data)
    mean = sum(weight * (y - bare.shape(x)) for x, y, weight in data) / weights
    return replace(bare, top=rng.gauss(mean, 1 / sqrt(weights)))
