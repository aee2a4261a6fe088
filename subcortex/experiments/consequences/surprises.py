"""How far an answer lay from what was believed before it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from statistics import NormalDist

from subcortex.experiments.choice import Belief, Surprise, learned, surprise
from subcortex.experiments.experiment import Answer, Inquiry
from subcortex.journal.board import comparable, in_base

#: No answer is taken for more exact than this, on the prior's scale.
_LEAST_NOISE = 1e-4


@dataclass(frozen=True, slots=True)
class Moved:
    """What an answer did to what was believed.

    Args:
        answer: The one that the question asked for.
        before, after: The beliefs, in the inquiry's unit.
        surprise: Of the one after against the one before.
    """

    answer: Answer
    before: Belief
    after: Belief
    surprise: Surprise


def moved_by(inquiry: Inquiry, answers: tuple[Answer, ...]) -> Moved | None:
    """Return what the answer to an inquiry did to its prior.

    None where no answer is a number of the asked quantity in a unit that compares, where it is inconclusive,
    or where it lies where the prior says nothing can (zero, on a scale of factors).
    """
    asked = [one for one in answers if one.quantity == inquiry.quantity]
    for answer in [one for one in asked if one.about == inquiry.about] or asked:
        # What is inconclusive leaves belief where it was, whatever its middle is.
        if answer.value is None or answer.outcome == "inconclusive":
            continue
        if answer.unit != inquiry.unit and not comparable(answer.unit, inquiry.unit):
            continue
        factor = (
            in_base(1.0, answer.unit) / in_base(1.0, inquiry.unit) if answer.unit != inquiry.unit else 1.0
        )
        value = answer.value * factor
        if inquiry.prior.scale == "log-normal" and value <= 0:
            continue
        after = learned(inquiry.prior, value, _noise(inquiry, answer, factor))
        return Moved(answer, inquiry.prior, after, surprise(inquiry.prior, after))
    return None


def _noise(inquiry: Inquiry, answer: Answer, factor: float) -> float:
    """Return the standard deviation that an answer's interval states, on the prior's scale."""
    if answer.low is None or answer.high is None:
        return inquiry.noise
    low, high = answer.low * factor, answer.high * factor
    if inquiry.prior.scale == "log-normal":
        if low <= 0:
            return inquiry.noise
        low, high = log(low), log(high)
    half = NormalDist().inv_cdf((1 + answer.level) / 2)
    return max((high - low) / 2 / half, _LEAST_NOISE)
