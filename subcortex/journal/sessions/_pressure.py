"""Pressure before and after, as sessions and satisfaction events write it."""

from __future__ import annotations

import re

from subcortex.journal.sessions._keys import first_value
from subcortex.journal.sessions._outline import Outline

_SEEN_CHARS = 200
_NUMBER = r"(\d{1,6}(?:\.\d{1,12})?)(?![\d.]*\s?%)"
_FALL = re.compile(rf"(?<![\d.]){_NUMBER}(?:\s?/\s?\d[\d.]{{0,12}})?\s*(?:→|->|=>|⟶|to)\s*{_NUMBER}")
_ONE = re.compile(rf"(?<![\d.]){_NUMBER}")


def pressures(places: Outline) -> tuple[float | None, float | None]:
    """Return the pressure before and after; percent is a level and no pressure."""
    pairs = (*places.front, *places.head, *places.body, *places.loose)
    before = _one(first_value(pairs, ("pressure before", "before", "initial pressure", "old pressure")))
    after = _one(first_value(pairs, ("pressure after", "after", "final pressure", "new pressure")))
    both = first_value(pairs, ("pressure", "pressure change", "drive pressure"))
    if both is not None:
        fall = _FALL.search(both[:_SEEN_CHARS])
        if fall is not None:
            before = before if before is not None else float(fall[1])
            after = after if after is not None else float(fall[2])
        elif before is None:
            before = _one(both)
    return before, after


def _one(text: str | None) -> float | None:
    match = _ONE.match((text or "")[:_SEEN_CHARS].strip())
    return float(match[1]) if match else None
