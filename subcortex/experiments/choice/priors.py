"""What is believed of an answer before it is measured, and how far a measurement moved it. Pure.

A prior is the planner's own interval, or where nobody has one a wide guess by the kind of quantity. A
quantity that is a size, a time or a rate is believed in factors (log-normal), a difference or a share as it
stands (normal).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import exp, isfinite, log
from statistics import NormalDist
from typing import Literal

from subcortex.errors import InvalidRequest
from subcortex.experiments.statistics import Interval

Scale = Literal["normal", "log-normal"]

_LN2 = log(2)
#: Where no interval is known: the factor either way in which nine answers of ten lie, by kind of quantity.
WIDE_FACTORS: dict[str, float] = {
    "bandwidth": 4.0,
    "compute": 4.0,
    "throughput": 5.0,
    "latency": 5.0,
    "time": 5.0,
    "memory": 2.0,
    "concurrency": 8.0,
}
#: And of what is a share or a difference: half the width, in the quantity's own unit.
WIDE_SHARES: dict[str, float] = {"share": 0.5, "divergence": 0.5}
_WIDE_FACTOR = 10.0


@dataclass(frozen=True)
class Belief:
    """A normal belief about a quantity, or about its logarithm.

    Args:
        mean: Of the quantity, or of its natural logarithm.
        sigma: Standard deviation on the same scale; above zero.
        scale: Which of the two.
    """

    mean: float
    sigma: float
    scale: Scale

    @cached_property
    def middle(self) -> float:
        """The median, in the quantity's unit."""
        return exp(self.mean) if self.scale == "log-normal" else self.mean

    def interval(self, level: float = 0.9) -> Interval:
        """Return the interval that holds so much of the belief, in the quantity's unit."""
        reach = NormalDist().inv_cdf((1 + level) / 2) * self.sigma
        ends = (self.mean - reach, self.mean + reach)
        if self.scale == "log-normal":
            ends = (exp(ends[0]), exp(ends[1]))
        return Interval(*ends, level)


def believed(interval: Interval, scale: Scale = "log-normal") -> Belief:
    """Return the belief that an interval states.

    Raises:
        InvalidRequest: Where it has no width, is unbounded, or reaches below zero on a scale of factors.
    """
    low, high = interval.low, interval.high
    if not (isfinite(low) and isfinite(high) and low < high) or (scale == "log-normal" and low <= 0):
        raise InvalidRequest(
            f"An interval from {low} to {high} is no {scale} prior.",
            hint="Give both ends, the lower first; above zero if it is a matter of factors.",
        )
    if scale == "log-normal":
        low, high = log(low), log(high)
    return Belief((low + high) / 2, (high - low) / 2 / _quantile(interval.level), scale)


def guessed(kind: str, around: float | None = None) -> Belief:
    """Return the wide belief about a kind of quantity that nobody has an interval for.

    Args:
        kind: ``bandwidth``, ``latency``, …; an unknown one is believed to a factor of ten.
        around: A nominal value, if there is one.
    """
    if kind in WIDE_SHARES:
        return Belief(around or 0.0, WIDE_SHARES[kind] / _quantile(0.9), "normal")
    factor = WIDE_FACTORS.get(kind, _WIDE_FACTOR)
    return Belief(log(around) if around else 0.0, log(factor) / _quantile(0.9), "log-normal")


def bits_expected(prior: Belief, noise: float) -> float:
    """Return by how many bits the entropy of an answer is expected to drop.

    Args:
        prior: What is believed before.
        noise: Standard deviation of the experiment's result, on the prior's scale (0.02 is 2 % of a quantity
            that is believed in factors).
    """
    return 0.5 * log(1 + (prior.sigma / noise) ** 2) / _LN2


def learned(prior: Belief, value: float, noise: float) -> Belief:
    """Return the belief after a measurement of ``value`` (in the quantity's unit) with so much noise."""
    seen = log(value) if prior.scale == "log-normal" else value
    weight = prior.sigma**2 / (prior.sigma**2 + noise**2)
    sigma = prior.sigma * noise / (prior.sigma**2 + noise**2) ** 0.5
    return Belief(prior.mean + weight * (seen - prior.mean), sigma, prior.scale)


@dataclass(frozen=True, slots=True)
class Surprise:
    """How far an answer lay from what was believed.

    Args:
        bits: What was learned, Kullback and Leibler's divergence of the belief after from the one before. A
            narrow answer in the very middle has some too: it was not known so well.
        sigmas: How many of the prior's standard deviations the answer lies off; the sign says where.
    """

    bits: float
    sigmas: float


def surprise(prior: Belief, posterior: Belief) -> Surprise:
    """Return the surprise in a measured answer, given what was believed before and after.

    Raises:
        InvalidRequest: Where the two are not on one scale.
    """
    if prior.scale != posterior.scale:
        raise InvalidRequest(f"A {posterior.scale} belief is not to be held against a {prior.scale} one.")
    off = (posterior.mean - prior.mean) / prior.sigma
    ratio = (posterior.sigma / prior.sigma) ** 2
    return Surprise(0.5 * (ratio + off * off - 1 - log(ratio)) / _LN2, off)


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
