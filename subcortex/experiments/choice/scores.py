"""What answering a question is worth for a GPU-minute. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite

from subcortex.errors import InvalidRequest
from subcortex.experiments.choice.priors import Belief, bits_expected

#: Result noise of an experiment's class, as a share, where it has no record of its own here.
NOISES: dict[str, float] = {"exact": 0.001, "steady": 0.01, "timed": 0.03, "served": 0.05, "loaded": 0.10}
#: Nothing is free: starting a process and writing the fact down takes this long.
_LEAST_MINUTES = 0.05
_LOOKS = 9


@dataclass(frozen=True, slots=True)
class Question:
    """One open gap, as an experiment would answer it.

    Args:
        id: The gap's.
        experiment: Which experiment answers it; one run answers all questions that name it.
        quantity: What is asked, of what; two questions of one quantity share its answer.
        prior: What is believed now.
        noise: Standard deviation of the result on the prior's scale (``NOISES`` by class).
        worth: How far plans or routes would move across the prior's interval (``worth_across``).
        gpu_minutes: What the experiment is expected to cost here, once for all its questions.
        pressure: Of the drive that raised the gap, as a share of its threshold; 0 without one.
        needs: Experiments that must have run before.
        provenance: Digest of what the answer would depend on; empty where it is not remembered.
    """

    id: str
    experiment: str
    quantity: str
    prior: Belief
    noise: float
    worth: float
    gpu_minutes: float
    pressure: float = 0.0
    needs: frozenset[str] = field(default_factory=frozenset)
    provenance: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """What a question's answer brings.

    Args:
        bits: The drop expected in the entropy of its answer.
        worth: What a bit of it is worth, the drive's pressure included.
        gpu_minutes: What it is expected to cost.
        value: bits × worth.
        a_minute: The value for a GPU-minute, by which the next is chosen.
    """

    bits: float
    worth: float
    gpu_minutes: float
    value: float
    a_minute: float


def score(question: Question) -> Score:
    """Return what a question's answer brings, asked by itself.

    Raises:
        InvalidRequest: Where its noise is not above zero, or another figure is negative or not finite.
    """
    _check(question)
    bits = bits_expected(question.prior, question.noise)
    worth = question.worth * (1 + question.pressure)
    minutes = max(question.gpu_minutes, _LEAST_MINUTES)
    return Score(bits, worth, minutes, bits * worth, bits * worth / minutes)


def score_together(questions: Sequence[Question]) -> Score:
    """Return what one run of an experiment brings, that answers several questions.

    A quantity's bits count once, for however many questions ask it: the largest drop among them. Its worth is
    the sum, since each question has a plan of its own that would move. The run is paid for once.
    """
    if not questions:
        raise InvalidRequest("An experiment that answers no question has no score.")
    by: dict[str, list[tuple[Question, Score]]] = {}
    for one in questions:
        by.setdefault(one.quantity, []).append((one, score(one)))
    bits = value = worth = 0.0
    for found in by.values():
        shared = max(one.bits for _, one in found)
        bits += shared
        worth += sum(one.worth for _, one in found)
        value += shared * sum(one.worth for _, one in found)
    minutes = max(max(one.gpu_minutes for one in questions), _LEAST_MINUTES)
    return Score(bits, worth, minutes, value, value / minutes)


def worth_across(prior: Belief, outcome: Callable[[float], float]) -> float:
    """Return how far a plan or route moves across a prior's interval.

    Args:
        prior: What is believed now.
        outcome: What the plan or route would come to if the answer were this: tok/s, seconds or GiB, of the
            same sign throughout.

    Returns:
        The largest outcome's distance from the smallest, over nine answers from the interval's lower end to
        its upper, as a share of the middle one's; 0 where the answer would change nothing.
    """
    ends = prior.interval()
    steps = [step / (_LOOKS - 1) for step in range(_LOOKS)]
    if prior.scale == "log-normal":
        answers = [ends.low * (ends.high / ends.low) ** step for step in steps]
    else:
        answers = [ends.low + (ends.high - ends.low) * step for step in steps]
    outcomes = [outcome(answer) for answer in answers]
    if not all(isfinite(one) for one in outcomes):
        raise InvalidRequest("A plan came to no finite figure for an answer within its prior.")
    width = max(outcomes) - min(outcomes)
    return width / max(abs(outcomes[_LOOKS // 2]), width / _LOOKS) if width else 0.0


def _check(question: Question) -> None:
    figures = (question.worth, question.gpu_minutes, question.pressure)
    if not all(isfinite(one) and one >= 0 for one in figures):
        raise InvalidRequest(
            f"Question {question.id}: worth {question.worth}, {question.gpu_minutes} GPU-minutes and "
            f"pressure {question.pressure} must be finite and not negative."
        )
    if not question.noise > 0 or not question.prior.sigma > 0:
        raise InvalidRequest(
            f"Question {question.id}: noise {question.noise} and the prior's width "
            f"{question.prior.sigma} must be above zero.",
            hint="A result that is exact still has its rounding.",
        )
