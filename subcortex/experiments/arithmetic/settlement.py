"""What arithmetic says to a claim. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["confirmed", "refuted"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """A claim that arithmetic decides, and how.

    Args:
        verdict: What became of it.
        rule: Which rule of this package decided: ``weights``, ``kv``, ``equation``, …
        quantity, subject: Of the fact that was reckoned.
        value: That fact; None where it is no single number (whether something fits, a vector).
        unit: Of the value.
        low, high: Where several values answer to what is written (``Q4``), the least and the most.
        statement: The fact in words.
        working: How it comes about, with all figures and units; one or two lines.
    """

    verdict: Verdict
    rule: str
    quantity: str
    subject: str
    statement: str
    working: str
    value: float | None = None
    unit: str | None = None
    low: float | None = None
    high: float | None = None


def verdict_of(held: bool) -> Verdict:
    """Return ``confirmed`` for what holds, ``refuted`` for what does not."""
    return "confirmed" if held else "refuted"


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits and commas between thousands."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, digits - whole)}f}" if abs(value) >= 1 else f"{value:.{digits}g}"
