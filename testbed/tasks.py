"""Graded tasks with checkable answers, difficulty 1 to 6, written as a person would ask them.

Standard library only and pure: the same level and random state give the same item everywhere.

Items fall into two disjoint sets by a hash. Ordinarily the hash is of the *problem* (kind and
operands, order of terms aside), so a held-out item asks for something training never contained.
The kinds in `TABLES` have so few problems at levels 1 and 2 (a times table, powers of two) that
they must be known by heart; there the hash is of the whole *prompt*, and unseen means unseen wording.
"""

import hashlib
import json
import random
import re
from decimal import Decimal
from typing import Literal

from testbed.makers import MAKERS
from testbed.problems import Item, solve

__all__ = [
    "HELD_OUT_PERCENT",
    "KINDS",
    "LEVELS",
    "TABLES",
    "Item",
    "Split",
    "check",
    "final_answer",
    "item",
    "solve",
    "split_of",
]

LEVELS = (1, 2, 3, 4, 5, 6)
KINDS = tuple(MAKERS)
TABLES = frozenset((kind, level) for kind in ("product", "units", "weights") for level in (1, 2))
HELD_OUT_PERCENT = 5

Split = Literal["train", "heldout"]


def split_of(item: Item) -> Split:
    """The set that an item belongs to, whatever random state made it."""
    if (item.kind, item.level) in TABLES:
        key = item.prompt
    elif item.kind in ("sum", "product", "range"):
        key = "|".join((item.kind, *sorted(item.operands)))
    elif item.kind in ("compare", "sort"):
        key = "|".join((item.kind, *sorted(item.operands[1:])))
    else:
        key = "|".join((item.kind, *item.operands))
    return "heldout" if hashlib.blake2b(key.encode()).digest()[0] * 100 < HELD_OUT_PERCENT * 256 else "train"


def item(level: int, rng: random.Random, kind: str | None = None, split: Split = "heldout") -> Item:
    """An item of `level` (1 to 6), of one of `KINDS` or any, from the held-out set unless told otherwise.

    Raises:
        ValueError: if there is no such level or kind.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level} is not one of {LEVELS}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {KINDS}")
    kind = kind or rng.choice(KINDS)
    while True:
        made = MAKERS[kind](level, rng)
        if split_of(made) == split:
            return made


def final_answer(text: str) -> str:
    """The reply without its thinking: what follows `</think>`; empty if the thinking never ended."""
    if "</think>" in text:
        return text.rsplit("</think>", 1)[1].strip()
    return "" if "<think>" in text else text.strip()


def _numbers(text: str) -> list[Decimal]:
    grouped = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return [Decimal(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", grouped)]


def check(item: Item, text: str) -> bool:
    """Whether a reply's final answer is right.

    The reply may think aloud first, be a sentence, a bare value, or a JSON object with one key.
    Numbers may carry thousands separators; rounded conversions may be off by 0.1.
    """
    said = final_answer(text)
    if said.startswith("{"):
        try:
            values = list(json.loads(said).values())
        except (ValueError, AttributeError):
            return False
        if len(values) != 1:
            return False
        said = ", ".join(map(str, values[0])) if isinstance(values[0], list) else str(values[0])
    if item.kind == "fit":
        found = re.search(r"\b(yes|no|true|false)\b", said.lower())
        return found is not None and (found[1] in ("yes", "true")) == (item.answer == "yes")
    if item.kind == "sort":
        return re.findall(r"\d+", said) == item.answer.split(", ")
    numbers = _numbers(said)
    if not numbers:
        return False
    rounded = item.kind == "units" and set(item.operands[1:]) == {"GB", "GiB"}
    near = Decimal("0.1") if rounded else Decimal(0)
    return abs(numbers[-1] - Decimal(item.answer)) <= near
