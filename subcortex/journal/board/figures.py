"""Figures as notes write them: ``~9GB``, ``35-40GB``, ``2x 24GB``, ``>= 8 layers``; read, and written. Pure.

What a figure allows has its rounding in it. That is half a unit of the last digit written; for a whole
number of something that is measured (memory, rates, times, parameters) 2.5 %, if that is more; and 5 % where
``~`` or "about" says that it is rough. So ``~9GB`` is met by 8.5 to 9.5 GB, and ``32 GB/s`` by the 31.5 of
PCIe 4.0 x16.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite

from subcortex.journal.board.units import UNITS, Unit, in_base, unit_at

#: Shares by which a whole number of something measured, and a rough one, may be off.
WHOLE_SHARE, ROUGH_SHARE = 0.025, 0.05
#: Digits of the longest number that is taken for one.
MOST_DIGITS = 18
#: No line is read any further: figures stand early, and hostile lines are long.
MOST_CHARACTERS, MOST_FIGURES = 4000, 64

# Possessive in effect: each part is followed by what it cannot itself take, so no text is tried twice.
_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?")
_BETWEEN = re.compile(r"[ \t]{0,2}(?:-|–|—|to)[ \t]{0,2}~?")
_THOUSAND = re.compile(r"[kK](?=[ \t]?(?:tok|ctx|context|\b))")
_TIMES = re.compile(r"[ \t]?[x×][ \t]{0,2}(?=[A-Z0-9(])")
_PLUS = re.compile(r"\+(?![ \t]*[0-9])")
_ROUGH = frozenset(
    ("~", "≈", "about", "around", "roughly", "approx.", "approximately", "ca.", "circa", "some")
)
_LEAST = frozenset((">=", "≥", ">", "at least", "over", "more than", "min.", "minimum"))
_MOST = frozenset(("<=", "≤", "<", "at most", "under", "up to", "less than", "below", "max.", "maximum"))
_BEFORE = re.compile(r"[\w.$#@\\/]$|[\w)]-$|[0-9]:$")
_AFTER_NUMBER = re.compile(r":[0-9]|/[0-9]{1,4}(?![0-9.])|-[A-Za-z]{3}-|-[0-9]{1,2}-[0-9]")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its unit, and what it is of.

    Args:
        written: As the text has it.
        value: The number; the middle of a range.
        low, high: Ends of what the writing allows, rounding included; infinite where it bounds one side only.
        unit: By its name in ``units.UNITS``; None for a bare number.
        quantity: What is measured, e.g. ``weights_size``; None if the text does not say.
        subject: Of what: a model, a card, a link, a program; None if the text does not say.
        at: Where in the line it begins.
        end: Where it ends.
        times: So many of it: the 2 of ``2x 24GB``.
    """

    written: str
    value: float
    low: float
    high: float
    unit: str | None
    quantity: str | None = None
    subject: str | None = None
    at: int = 0
    end: int = 0
    times: int = 1

    def meets(self, value: float, unit: str | None) -> bool:
        """Tell whether a value lies within what is written, in any unit that compares."""
        return self.overlaps(value, value, unit)

    def overlaps(self, low: float, high: float, unit: str | None) -> bool:
        """Tell whether an interval, in any unit that compares, has a value in common with what is written."""
        mine = in_base(self.low, self.unit), in_base(self.high, self.unit)
        slack = 1e-9 * max(abs(in_base(self.value, self.unit)), 1e-12)
        return in_base(low, unit) <= mine[1] + slack and in_base(high, unit) >= mine[0] - slack


def allowed(low: str, high: str, unit: Unit | None, *, rough: bool = False) -> tuple[float, float]:
    """Return the ends of what a number, or a range, allows; see the module.

    Args:
        low, high: The digits as written, the same for a single number.
        unit: Its unit, None for a bare number.
        rough: Something says that it is not exact.
    """
    return _number(low) - _rounding(low, unit, rough), _number(high) + _rounding(high, unit, rough)


def written(low: float, high: float | None, unit: str, *, rough: bool = False) -> str:
    """Return a figure as a note would have it; ``figures_in`` reads it again.

    Args:
        low: The number, or the lower end.
        high: The upper end, None for a single number.
        unit: A name of ``units.UNITS``.
        rough: Mark it with ``~``.
    """
    close = unit in ("%", "x", "B")
    ends = _digits(low) if high is None else f"{_digits(low)}-{_digits(high)}"
    space = " " if unit == "B" or not close else ""
    return f"{'~' if rough else ''}{ends}{space}{unit}"


def figures_in(line: str) -> tuple[Figure, ...]:
    """Return the figures of one line, in order; linear in its length.

    Numbers inside names (``Q4``, ``Llama-3.1``), dates, times of day, paths and versions are none. A number
    without a unit is kept: what surrounds it may say what it is.
    """
    return _figures_in(line[:MOST_CHARACTERS])


# A line is read for itself, and again for those below that it leads.
@lru_cache(maxsize=2048)
def _figures_in(line: str) -> tuple[Figure, ...]:
    found: list[Figure] = []
    at = 0
    while len(found) < MOST_FIGURES and (match := _NUMBER.search(line, at)):
        figure = _figure(line, match)
        if figure is None:
            at = match.end()
            continue
        if figure.unit is not None or not _in_a_name(line, figure.end):
            found.append(figure)
        at = max(figure.end, match.end())
    return tuple(found)


def _figure(line: str, match: re.Match[str]) -> Figure | None:
    start, end = match.span()
    if end - start > MOST_DIGITS or _BEFORE.search(line[max(0, start - 2) : start]):
        return None
    if _AFTER_NUMBER.match(line, end):
        return None
    first, times, begin = match[0], 1, start
    if (many := _TIMES.match(line, end)) and "." not in first and 0 < _number(first) <= 4096:
        sized = _NUMBER.match(line, many.end())
        if sized and sized.end() - sized.start() <= MOST_DIGITS and unit_at(line, sized.end()):
            times, first = int(_number(first)), sized[0]
            end = sized.end()
        elif not sized:
            # Four of something that is no number: a count, which says nothing by itself.
            return None
    second, unit, end = _ranged(line, first, end)
    rough, least, most = _marks(line, begin)
    if plus := _PLUS.match(line, end):
        least, end = True, plus.end()
    ends = allowed(first, second, unit, rough=rough)
    low, high = _number(first), _number(second)
    scale = 1000.0 if unit is _KILO else 1.0
    value = (low + high) / 2 * scale
    if not isfinite(value) or low > high:
        return None
    return Figure(
        written=line[begin:end].strip(),
        value=value,
        low=-inf if most else ends[0] * scale,
        high=inf if least else ends[1] * scale,
        unit=None if unit is None else unit.name,
        at=begin,
        end=end,
        times=times,
    )


#: Thousands of tokens: the ``k`` of ``4k tokens``.
_KILO = Unit("tokens", "tokens")


def _ranged(line: str, first: str, end: int) -> tuple[str, Unit | None, int]:
    """Return the upper end of what begins with a number, its unit, and where it ends."""
    unit, after = _unit(line, end)
    if joint := _BETWEEN.match(line, after):
        second = _NUMBER.match(line, joint.end())
        if second and second.end() - second.start() <= MOST_DIGITS:
            other, behind = _unit(line, second.end())
            same = other is not None and (unit is None or unit.name == other.name)
            bare = other is None and unit is None and line[joint.start() : joint.end()].strip() != "to"
            if (same or bare) and _number(first) <= _number(second[0]):
                return second[0], other, behind
    return first, unit, after


def _unit(line: str, end: int) -> tuple[Unit | None, int]:
    if thousand := _THOUSAND.match(line, end):
        word = unit_at(line, thousand.end())
        return _KILO, word[1] if word and word[0].name == "tokens" else thousand.end()
    found = unit_at(line, end)
    if found is None or (found[0].name == "x" and found[1] - end > 1):
        return None, end
    if found[0].name == "s" and found[1] - end == 1 and line[max(0, end - 4) : end].isdecimal():
        # ``3090s`` and ``1990s`` are no seconds.
        return None, end
    return found


def _marks(line: str, start: int) -> tuple[bool, bool, bool]:
    """Return what stands before a number: that it is rough, the least, the most."""
    before = line[max(0, start - 16) : start].rstrip(" \t(*`")
    if not before:
        return False, False, False
    if not before[-1].isalpha() and before[-1] != ".":
        sign = before[-2:] if before[-2:] in (">=", "<=") else before[-1]
        return sign in _ROUGH, sign in _LEAST, sign in _MOST
    words = before.lower().split()[-2:]
    said = {words[-1], " ".join(words)}
    return not said.isdisjoint(_ROUGH), not said.isdisjoint(_LEAST), not said.isdisjoint(_MOST)


def _in_a_name(line: str, end: int) -> bool:
    """Tell whether a bare number goes on as a word: ``4bit``, ``2nd``, ``8.x``."""
    return bool(re.match(r"\w|\.\w|-[A-Za-z]", line[end : end + 2]))


def _rounding(digits: str, unit: Unit | None, rough: bool) -> float:
    _, point, decimals = digits.partition(".")
    half = 0.5 * 10.0 ** -len(decimals)
    share = ROUGH_SHARE if rough else WHOLE_SHARE if unit and unit.measured and not point else 0.0
    return max(half, share * _number(digits)) if unit or rough else 0.0


def _number(digits: str) -> float:
    return float(digits.replace(",", ""))


def _digits(value: float) -> str:
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return text or "0"


__all__ = ["MOST_DIGITS", "UNITS", "Figure", "allowed", "figures_in", "written"]
