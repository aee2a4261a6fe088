"""Worked examples of collective operations: what each GPU has, and what is said to come out. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from subcortex.journal.board.lines import Line, Place

Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast"]
#: GPUs and elements that an example may have.
MOST_VECTORS, MOST_ELEMENTS = 64, 256

_VECTOR = re.compile(r"\[([-+0-9., \t]{1,2000})\]")
_RANK = re.compile(r"(?:GPU|rank|device|worker)[ ]?([0-9]{1,3})(?![0-9])", re.IGNORECASE)
_AFTER = re.compile(
    r"\bafter\b.{0,20}?\b(all|reduce|broad)[ _-]?(reduce|gather|scatter|cast)\b", re.IGNORECASE
)
_EVERY = re.compile(r"\b(?:all|both|every|each)\b", re.IGNORECASE)
_ROOT = re.compile(r"\(root\)|\(source\)|\(src\)", re.IGNORECASE)
_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("all", "reduce"): "all_reduce",
    ("all", "gather"): "all_gather",
    ("reduce", "scatter"): "reduce_scatter",
    ("broad", "cast"): "broadcast",
}


@dataclass(frozen=True, slots=True)
class Collected:
    """One line of a result.

    Args:
        operation: What was done.
        given: Rank → its vector before; ranks whose values the text leaves out are not there.
        rank: Whose result it is; None: every rank's.
        said: What is said to come out.
        root: The rank that a broadcast comes from.
        maximum: The reduction is of the largest, not the sum.
    """

    operation: Operation
    given: tuple[tuple[int, tuple[float, ...]], ...]
    rank: int | None
    said: tuple[float, ...]
    root: int = 0
    reduction: str = "sum"


def collected(lines: Sequence[Line]) -> dict[int, Collected]:
    """Return the results in a text by the number of their line."""
    found: dict[int, Collected] = {}
    given: dict[int, tuple[float, ...]] = {}
    root, operation, reduction = 0, None, "sum"
    for line in lines:
        if line.place in (Place.HEADING, Place.COMMENT) or (line.place is Place.CODE and line.fenced):
            if line.place is Place.HEADING or not line.words:
                given, operation = {}, None
            continue
        words = line.words[:2400]
        if after := _AFTER.search(words[:200]):
            operation = _OPERATIONS.get((after[1].lower(), after[2].lower()))
            inside = re.search(
                r"\((sum|max|min|prod|avg|mean)", words[after.end() : after.end() + 20], re.IGNORECASE
            )
            reduction = inside[1].lower() if inside else "sum"
            words = words[after.end() :]
        vector = _vector(words)
        if vector is None:
            if words and operation and not after:
                operation, given = None, {}
            continue
        rank = _RANK.search(words[:80])
        if operation is None:
            if rank and len(given) < MOST_VECTORS:
                given[int(rank[1])] = vector
                root = int(rank[1]) if _ROOT.search(words[:120]) else root
        elif given and (rank or _EVERY.search(words[:80])):
            whose = int(rank[1]) if rank else None
            found[line.number] = Collected(
                operation, tuple(sorted(given.items())), whose, vector, root, reduction
            )
    return found


def _vector(words: str) -> tuple[float, ...] | None:
    match = _VECTOR.search(words)
    if match is None:
        return None
    try:
        values = tuple(float(part) for part in match[1].split(",")[:MOST_ELEMENTS])
    except ValueError:
        return None
    return values if values and all(abs(value) < 1e15 for value in values) else None
