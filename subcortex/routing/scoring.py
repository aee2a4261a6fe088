"""How much thought a prompt needs: a weighted sum of its features, pressed into 0 to 1.

The weights stand in one table and are explained in ``docs/routing.md``. They are a first guess by
hand; a learned scorer takes this one's place by being a ``Scorer``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from subcortex.routing.prompt import Features


@dataclass(frozen=True, slots=True)
class Complexity:
    """A score from 0 (a greeting) to 1, and what made it, heaviest first, in plain words."""

    score: float
    reasons: tuple[str, ...] = ()


class Scorer(Protocol):
    """Anything that turns features into a complexity, without side effects and in microseconds."""

    def __call__(self, features: Features, /) -> Complexity:
        """Return the complexity of a prompt with these features."""
        ...


class Weight(NamedTuple):
    """One line of the sum: ``most × min(1, value / full)``.

    Args:
        label: What the value counts, for the reasons.
        value: Reads it off the features.
        full: Value from which it weighs no more.
        most: What it then adds to the sum.
    """

    label: str
    value: Callable[[Features], float]
    full: float
    most: float


WEIGHTS: tuple[Weight, ...] = (
    Weight("single-digit steps of arithmetic", lambda f: f.digit_steps, 16, 1.10),
    Weight("words of long reasoning", lambda f: f.deep_words, 2, 1.45),
    Weight("words of reasoning", lambda f: f.reasoning_words, 3, 1.05),
    Weight("letters to count through", lambda f: f.spelled_letters, 80, 1.00),
    Weight("words", lambda f: f.words, 200, 0.60),
    Weight("numbers", lambda f: f.numbers, 8, 0.35),
    Weight("words relating quantities", lambda f: f.quantity_words, 4, 0.35),
    Weight("units and model terms", lambda f: f.unit_words, 6, 0.60),
    Weight("words that bind the answer", lambda f: f.constraint_words, 4, 0.25),
    Weight("words of sorting, comparing or spelling", lambda f: f.symbolic_words, 3, 0.30),
    Weight("arithmetic or logic signs", lambda f: f.operators, 4, 0.25),
    Weight("steps in sequence", lambda f: f.steps, 4, 0.25),
    Weight("sentences after the first", lambda f: max(f.sentences - 1, 0), 6, 0.25),
    Weight("signs of code", lambda f: f.code_signs, 10, 0.45),
    Weight("questions after the first", lambda f: max(f.questions - 1, 0), 3, 0.20),
    Weight("images", lambda f: f.images, 1, 0.30),
    Weight("tools offered", lambda f: float(f.tools), 1, 0.15),
    Weight("a schema to obey", lambda f: float(f.schema), 1, 0.05),
    Weight("characters of conversation before", lambda f: f.context_chars, 20_000, 0.15),
    Weight("log lines", lambda f: f.log_lines, 20, 0.15),
)

#: Reasons given, at most; and the least part of the sum worth naming.
_REASONS_NAMED = 4
_WORTH_NAMING = 0.03


def complexity(features: Features) -> Complexity:
    """Score a prompt: ``1 − exp(−sum)`` of ``WEIGHTS``; small talk alone is 0.

    A sum of 0.69 is a score of one half. More of anything never lowers the score.
    """
    if features.small_talk:
        return Complexity(0.0, ("nothing but small talk",))
    parts: list[tuple[float, str]] = []
    total = 0.0
    for label, value, full, most in WEIGHTS:
        amount = value(features)
        if amount > 0:
            part = most * min(1.0, amount / full)
            total += part
            if part >= _WORTH_NAMING:
                parts.append((part, f"{label}: {amount:g} (+{part:.2f})"))
    parts.sort(key=lambda part: -part[0])
    reasons = tuple(text for _, text in parts[:_REASONS_NAMED])
    return Complexity(1.0 - math.exp(-total), reasons or ("nothing in it asks for much",))
