"""Sums and products that a line works out itself: ``8GB + 3GB = 11GB``, ``70B × 2 bytes = 140 GB``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subcortex.experiments.arithmetic.settlement import Settlement, number, verdict_of
from subcortex.journal.board.claims import Claim
from subcortex.journal.board.figures import Figure, figures_in
from subcortex.journal.board.subjects import names_in
from subcortex.journal.board.units import UNITS, Unit, in_base, unit_at

_NUMBER = re.compile(r"(?<![\w.])[0-9]{1,15}(?:,[0-9]{3})*(?:\.[0-9]{1,9})?")
_OPERATOR = re.compile(
    r"[ )a-zA-Z]{0,40}?(?:([×*/+])|[ ](-|x)[ ]|(?<=[ 0-9])(x)(?=[ 0-9]))[ (a-zA-Z~]{0,40}?"
)
_SIZE_BEHIND = re.compile(r"[0-9]{1,3}[ ]?Gi?B$", re.IGNORECASE)
_BREAK = re.compile(r"[:;→]|->|=|\bso\b|\bhave\b")
_MOST_TERMS = 16


@dataclass(frozen=True, slots=True)
class _Term:
    value: float
    unit: Unit | None
    shown: str


def settle_equation(claim: Claim) -> Settlement | None:
    """Return whether what stands after an equals sign is what stands before it; None without a sum."""
    text = _without_names(claim.statement)
    for at, sign in enumerate(text):
        if sign != "=" or text[at - 1 : at] in ("<", ">", "!", "=", ":") or text[at + 1 : at + 2] == "=":
            continue
        said = next((figure for figure in figures_in(text[at + 1 :]) if figure.at <= 3), None)
        terms = _terms(text[:at])
        if said is None or terms is None:
            continue
        if settled := _compared(claim, terms, said):
            return settled
    return None


def _without_names(text: str) -> str:
    """Return a line with models, cards and links blanked out, but for the memory in a card's name."""
    blanked = text
    for name in names_in(text):
        if name.kind in ("program", "size"):
            continue
        sized = _SIZE_BEHIND.search(name.text)
        kept = sized[0] if name.kind == "card" and sized else ""
        blanked = blanked[: name.at] + kept.rjust(name.end - name.at) + blanked[name.end :]
    return blanked


def _terms(text: str) -> list[_Term | str] | None:
    """Return the calculation that a text ends with: terms and operators in turn; None without one."""
    start = max((match.end() for match in _BREAK.finditer(text)), default=0)
    found: list[_Term | str] = []
    end = 0
    for match in _NUMBER.finditer(text, start):
        unit = unit_at(text, match.end())
        after = unit[1] if unit else match.end()
        # Right behind a number an x is a sign between factors, not a unit.
        if unit and unit[0].name == "x":
            unit, after = None, match.end()
        if found:
            operator = _OPERATOR.fullmatch(text, end, match.start())
            if operator is None:
                found = []
            else:
                found.append(operator[1] or operator[2] or operator[3])
        shown = text[match.start() : after].strip()
        found.append(_Term(float(match[0].replace(",", "")), unit[0] if unit else None, shown))
        end = after
        if len(found) > 2 * _MOST_TERMS:
            return None
    rest = text[end:].strip(" )~≈")
    return (
        found
        if len(found) >= 3 and not any(sign.isdigit() or sign in "+*/×" for sign in rest) and len(rest) < 40
        else None
    )


def _compared(claim: Claim, terms: list[_Term | str], said: Figure) -> Settlement | None:
    signs = {one for one in terms if isinstance(one, str)}
    numbers = [one for one in terms if isinstance(one, _Term)]
    unit = UNITS.get(said.unit or "")
    if signs <= {"+", "-"}:
        if not all(_same(one.unit, unit) for one in numbers):
            return None
    elif not (signs <= {"×", "*", "x", "/"} and _product_is(numbers, unit)):
        return None
    value = _reckoned(terms)
    if value is None:
        return None
    shown_value = value / (unit.factor if unit else 1)
    held = said.meets(shown_value, said.unit)
    words = " ".join(one if isinstance(one, str) else one.shown for one in terms)
    words = words.replace("*", "×").replace(" x ", " × ")
    result = f"{number(shown_value)}{f' {said.unit}' if said.unit else ''}"
    last = next((figure for figure in claim.figures if figure.written == said.written), None)
    return Settlement(
        verdict_of(held),
        "equation",
        (last.quantity if last else None) or "result",
        (last.subject if last else None) or claim.model or "the line itself",
        f"{words} = {result}",
        f"{words} = {result}; written: {said.written}",
        shown_value,
        said.unit,
    )


def _same(unit: Unit | None, other: Unit | None) -> bool:
    if unit is None or other is None:
        return unit is other
    return (unit.dimension, unit.of) == (other.dimension, other.of)


def _product_is(terms: list[_Term], unit: Unit | None) -> bool:
    """Tell whether factors can give what is written: memory comes of parameters and bytes, or of memory."""
    kinds = [one.unit.dimension if one.unit else None for one in terms]
    if unit is None:
        return all(kind in (None, "count", "tokens", "ratio") for kind in kinds)
    if unit.dimension == "memory":
        return kinds.count("memory") + kinds.count("parameters") + kinds.count("density") > 0 and all(
            kind in (None, "count", "tokens", "ratio", "memory", "parameters", "density") for kind in kinds
        )
    return unit.dimension in kinds and all(kind in (None, "count", unit.dimension) for kind in kinds)


def _reckoned(terms: list[_Term | str]) -> float | None:
    """Return the value in base units: what is multiplied first, then what is added."""
    first = terms[0]
    assert isinstance(first, _Term)
    total, current = 0.0, _base(first)
    for sign, term in zip(terms[1::2], terms[2::2], strict=True):
        assert isinstance(sign, str)
        assert isinstance(term, _Term)
        value = _base(term)
        if sign in ("×", "*", "x"):
            current *= value
        elif sign == "/":
            if value == 0:
                return None
            current /= value
        else:
            total, current = total + current, value if sign == "+" else -value
    return total + current


def _base(term: _Term) -> float:
    return in_base(term.value, term.unit.name if term.unit else None)
