"""An amount of memory that is not known exactly: a mean and a standard deviation, in MiB. Pure.

Amounts are taken as normal and, where added, as independent; what is shared between two of them belongs
into one. ``at(0.95)`` is the value that the truth stays below with that probability.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist

from subcortex.errors import InvalidRequest

_STANDARD = NormalDist()


@dataclass(frozen=True, slots=True)
class Amount:
    """``mean_mib`` ± ``sigma_mib``.

    Args:
        mean_mib: Expected MiB.
        sigma_mib: Standard deviation, MiB; 0 for what is exact.
    """

    mean_mib: float = 0.0
    sigma_mib: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.mean_mib + other.mean_mib, sqrt(self.sigma_mib * self.sigma_mib + other.sigma_mib**2)
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.mean_mib - other.mean_mib, sqrt(self.sigma_mib**2 + other.sigma_mib**2))

    def times(self, factor: float) -> Amount:
        """Return the amount scaled: mean and deviation alike."""
        return Amount(self.mean_mib * factor, self.sigma_mib * abs(factor))

    def at(self, probability: float) -> float:
        """Return the MiB that the truth stays below with ``probability`` (0 < p < 1)."""
        return self.mean_mib + z_score(probability) * self.sigma_mib

    def interval(self, probability: float = 0.9) -> tuple[float, float]:
        """Return the central interval that holds the truth with ``probability``, MiB."""
        half = z_score((1 + probability) / 2) * self.sigma_mib
        return self.mean_mib - half, self.mean_mib + half

    def probability_below(self, limit_mib: float) -> float:
        """Return the probability that the truth is at most ``limit_mib``."""
        if self.sigma_mib <= 0:
            return 1.0 if self.mean_mib <= limit_mib else 0.0
        return _STANDARD.cdf((limit_mib - self.mean_mib) / self.sigma_mib)


def total(amounts: Iterable[Amount]) -> Amount:
    """Return the sum of independent amounts."""
    mean = variance = 0.0
    for amount in amounts:
        mean += amount.mean_mib
        variance += amount.sigma_mib**2
    return Amount(mean, sqrt(variance))


def z_score(probability: float) -> float:
    """Return the standard normal quantile.

    Raises:
        InvalidRequest: The probability is not strictly between 0 and 1.
    """
    if not 0 < probability < 1:
        raise InvalidRequest(
            f"no probability: {probability:g}",
            hint="Give one above 0 and below 1, e.g. 0.95.",
            param="probability",
        )
    value = _STANDARD.inv_cdf(probability)
    return value if abs(value) < inf else 0.0
