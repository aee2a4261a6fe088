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
from operator import mul

from subcortex.experiments.saturation._noise import Matrix, Yields, inverted, yields_of
from subcortex.experiments.saturation.knees import Curve

#: No curve of the family is exact: this much, as a share, is left to that near the knee, and so much more
#: with each doubling further off, so that what happens at a concurrency of 1 does not place a knee at 60.
_MISFIT, _MISFIT_A_DOUBLING = 0.006, 0.02
_CHAINS, _FIRST, _MOVES, _LAST_MOVES = 200, 800, 4, 20
_SOFT = 0.4
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
class Data:
    """Logs of concurrencies and of tok/s there; the inverse of how those err, by row, in sums and in all."""

    xs: Sequence[float]
    ys: Sequence[float]
    weights: Matrix
    sums: Sequence[float]
    total: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """Curves, equally probable, and what the windows came to."""

    curves: tuple[Curve, ...]
    yields: Yields

    def variance(self, concurrency: int, seconds: float, running_s: float) -> float:
        """Return the variance of what so many more seconds at a concurrency say, beyond what has been said.

        However long one concurrency is measured, the family's misfit there stays; that sends the ladder on.

        Args:
            concurrency: Where.
            seconds: To come.
            running_s: Of the visit that they go on with; 0 where they begin one.
        """
        told = 1 / self.yields.variance(running_s + seconds)
        if running_s:
            told -= 1 / self.yields.variance(running_s)
        if concurrency not in self.yields.concurrencies:
            return 1 / told + _MISFIT**2
        place = self.yields.concurrencies.index(concurrency)
        known = self.yields.covariance[place][place]
        before = 1 / (known + _MISFIT**2)
        return 1 / (1 / (1 / (1 / known + told) + _MISFIT**2) - before)


def _misfit(concurrency: int, near: float) -> float:
    off = max(near / 2 / concurrency, concurrency / (4 * near), 1.0)
    return _MISFIT + _MISFIT_A_DOUBLING * log2(off)


def posterior(windows: Sequence[tuple[int, float, float]], near: float, seed: int) -> Posterior:
    """Return the curves that windows allow about a concurrency.

    Args:
        windows: (concurrency, seconds, tok/s), in their order in time.
        near: Where about the knee is; the family is taken to be more exact there.
        seed: Of the draws.
    """
    yields = yields_of(windows)
    xs = [log(one) for one in yields.concurrencies]
    errors = [list(row) for row in yields.covariance]
    for i, concurrency in enumerate(yields.concurrencies):
        errors[i][i] += _misfit(concurrency, near) ** 2
    inverse, _ = inverted(errors)
    sums = [sum(row) for row in inverse]
    data = Data(xs, yields.log_speeds, inverse, sums, sum(sums))
    top = xs[-1]
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
    return Posterior(tuple(curves), yields)


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


def _log_likelihood(data: Data, place: _Place) -> float:
    """Return the log-likelihood with the top where it fits best."""
    half, sharp, rise, limit, abrupt, decline = place
    p, q = exp(sharp), exp(abrupt)
    below, beyond = rise / p, decline / q
    left = []
    for x, y in zip(data.xs, data.ys, strict=True):
        up, down = p * (half - x), q * (x - limit)
        left.append(
            y
            + below * (log(1 + exp(up)) if up < 30 else up)
            + beyond * (log(1 + exp(down)) if down < 30 else down)
        )
    shared: float = sum(map(mul, data.sums, left))
    squares: float = sum(
        [one * sum(map(mul, row, left)) for one, row in zip(left, data.weights, strict=True)]
    )
    return -0.5 * (squares - shared * shared / data.total)


def _curve(data: Data, place: _Place, rng: random.Random) -> Curve:
    half, sharp, rise, limit, abrupt, decline = place
    bare = Curve(0.0, half, exp(sharp), rise, limit, exp(abrupt), decline)
    left = [y - bare.shape(x) for x, y in zip(data.xs, data.ys, strict=True)]
    mean = sum(map(mul, data.sums, left)) / data.total
    return replace(bare, top=rng.gauss(mean, 1 / sqrt(data.total)))
