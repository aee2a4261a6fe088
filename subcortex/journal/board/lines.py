"""A text as lines that know where they stand: under which headings, below which line, in which table. Pure.

Made for the board alone: it reads any text, with or without a session's shape, and gives nothing back to be
written. What a session is, and its fields, is ``journal/sessions``'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

#: Longer texts are read this far: no session is longer, and a claim on line 100,000 is none.
MOST_LINES = 100_000
#: Siblings, and items that it is indented under, that a line remembers.
MOST_BEFORE, MOST_ABOVE = 8, 8

_FENCE = re.compile(r"[ \t]{0,8}(`{3,}|~{3,})[ \t]*([A-Za-z0-9_+-]{0,20})")
_HEADING = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(\S.*)$")
_ITEM = re.compile(r"[ \t>]*(?:[-*+•][ \t]+|[0-9]{1,4}[.)][ \t]+)")
_NUMBERED = re.compile(r"[ \t>]*[0-9]{1,4}[.)][ \t]+")
_TICK = re.compile(r"\[[ xX]\][ \t]*")
_ASSIGNED = re.compile(
    r"[ \t]*([A-Za-z_][A-Za-z0-9_]{0,60})[ \t]=[ \t]([0-9][0-9.,_]{0,20})[ \t]*(?:#|//)[ \t]*(\S.*)$"
)
_MARKS = re.compile(r"\*\*|\\(?=[_*`+-])|(?<![\w\\*])\*(?=[^\s*])|(?<=[^\s\\*])\*(?![\w*])")
#: Languages of a fence that are words, not code.
_WORDS = ("", "text", "txt", "md", "markdown", "plain", "plaintext", "console", "output", "log")


class Place(StrEnum):
    """What kind of line it is."""

    PROSE = "prose"
    ITEM = "item"
    NUMBERED = "numbered"
    TASK = "task"
    HEADING = "heading"
    CELLS = "cells"
    COMMENT = "comment"
    CODE = "code"
    FRONT = "front matter"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Args:
        number: From 1, in the whole text.
        text: As written, without its ending.
        words: Without the marks of lists, quotes and emphasis; of code, its comment.
        place: What kind of line it is.
        headings: Above it, the outermost first.
        above: Lines that it belongs to, the outermost first: list items that it is indented under, and the
            line with a colon that its block begins with.
        before: Lines of its block and its depth that come before it, the nearest last.
        indent: Columns before its first word.
        table: Its table's header cells, and its own, where it is a row.
        fenced: It stands in a fenced block.
    """

    number: int
    text: str
    words: str
    place: Place
    headings: tuple[str, ...] = ()
    above: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    indent: int = 0
    table: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    fenced: bool = False

    @property
    def section(self) -> str:
        """The heading nearest above; empty before the first."""
        return self.headings[-1] if self.headings else ""


@dataclass(slots=True)
class _State:
    headings: list[tuple[int, str]] = field(default_factory=list)
    open_items: list[tuple[int, str]] = field(default_factory=list)
    lead: str = ""
    before: list[str] = field(default_factory=list)
    fence: str = ""
    language: str = ""
    header: tuple[str, ...] | None = None


def without_marks(text: str) -> str:
    """Return a line without emphasis and the backslashes that keep marks from being any."""
    return _MARKS.sub("", text).strip() if "*" in text or "_" in text or "\\" in text else text.strip()


def lines_of(text: str) -> list[Line]:
    """Return the lines of a text; what is beyond ``MOST_LINES`` is not looked at."""
    rows = text.split("\n", MOST_LINES)[:MOST_LINES]
    rows = [row.removesuffix("\r") for row in rows]
    return list(_read(rows))


def _read(rows: list[str]) -> Iterator[Line]:
    state, start = _State(), _front_matter(rows)
    for number, text in enumerate(rows[:start], 1):
        yield Line(number, text, text.strip(), Place.FRONT)
    for index in range(start, len(rows)):
        following = rows[index + 1] if index + 1 < len(rows) else ""
        yield _line(index + 1, rows[index], following, state)


def _front_matter(rows: list[str]) -> int:
    """Return how many lines of front matter a text begins with."""
    if not rows or rows[0].rstrip() != "---":
        return 0
    return next((n + 1 for n, row in enumerate(rows[1:200], 1) if row.rstrip() in ("---", "...")), 0)


def _line(number: int, text: str, following: str, state: _State) -> Line:
    headings = tuple(title for _, title in state.headings)
    if not text.strip():
        state.header, state.before = None, []
        if not state.fence:
            state.open_items = []
        # A lead holds over one blank line, as a list often stands apart from it.
        return Line(number, text, "", Place.BLANK, headings, fenced=bool(state.fence))
    if fence := _FENCE.match(text):
        return _fenced(number, text, fence, headings, state)
    if state.fence and state.language not in _WORDS:
        return _code(number, text, headings, state)
    if not state.fence and (title := _HEADING.match(text)):
        level, words = len(title[1]), without_marks(title[2].rstrip("# \t") or title[2])
        while state.headings and state.headings[-1][0] >= level:
            state.headings.pop()
        above = tuple(one for _, one in state.headings)
        state.headings.append((level, words))
        state.open_items, state.before, state.lead, state.header = [], [], "", None
        return Line(number, text, words, Place.HEADING, above)
    if "|" in text and (cells := _cells(text, following, state)) is not None:
        return cells if isinstance(cells, Line) else _row(number, text, cells, headings, state)
    state.header = None
    return _words(number, text, headings, state)


def _fenced(number: int, text: str, fence: re.Match[str], headings: tuple[str, ...], state: _State) -> Line:
    if not state.fence:
        state.fence, state.language = fence[1], fence[2].lower()
        state.open_items, state.before = [], []
    elif fence[1].startswith(state.fence[0]) and len(fence[1]) >= len(state.fence):
        state.fence = state.language = ""
        state.open_items, state.before = [], []
    return Line(number, text, "", Place.CODE, headings, fenced=True)


def _code(number: int, text: str, headings: tuple[str, ...], state: _State) -> Line:
    """Return a line of code: what it says is its comment, and a number it names with one."""
    if assigned := _ASSIGNED.match(text):
        name, value, comment = assigned[1], assigned[2], assigned[3]
        return Line(number, text, f"{name} = {value} {comment}", Place.COMMENT, headings, fenced=True)
    bare = text.lstrip()
    if bare.startswith(("#", "//")):
        words = without_marks(bare.lstrip("#/ \t"))
        line = Line(
            number, text, words, Place.COMMENT, headings, _leads(state), tuple(state.before), fenced=True
        )
        _remember(state, words)
        return line
    return Line(number, text, "", Place.CODE, headings, fenced=True)


def _cells(text: str, following: str, state: _State) -> tuple[str, ...] | Line | None:
    """Return a row's cells; None where the line is no part of a table."""
    if state.fence or (state.header is None and not _is_rule(following)):
        return None
    # Only so far: a row of a million bars is no table.
    return tuple(without_marks(cell) for cell in text[:4000].strip().strip("|").split("|"))


def _is_rule(text: str) -> bool:
    """Tell whether a line parts a table's header from its rows."""
    return "-" in text and "|" in text and not text.strip().strip("|-: \t")


def _row(number: int, text: str, cells: tuple[str, ...], headings: tuple[str, ...], state: _State) -> Line:
    if state.header is None:
        state.header = cells
        return Line(number, text, "", Place.CELLS, headings, _leads(state))
    if _is_rule(text):
        return Line(number, text, "", Place.CELLS, headings, _leads(state))
    return Line(
        number, text, " | ".join(cells), Place.CELLS, headings, _leads(state), table=(state.header, cells)
    )


def _words(number: int, text: str, headings: tuple[str, ...], state: _State) -> Line:
    item = _ITEM.match(text)
    rest = text[item.end() :] if item else text.lstrip(" \t>")
    indent = len(text) - len(text.lstrip(" \t>"))
    place = Place.PROSE
    if item:
        place = Place.NUMBERED if _NUMBERED.match(text) else Place.ITEM
        if tick := _TICK.match(rest):
            rest, place = rest[tick.end() :], Place.TASK
    words = without_marks(rest)
    while state.open_items and state.open_items[-1][0] >= indent:
        state.open_items.pop()
    above = (*_leads(state), *(one for _, one in state.open_items)) if item or indent else _leads(state)
    is_lead = not indent and not item and words.endswith(":")
    if is_lead:
        above = ()
    line = Line(
        number, text, words, place, headings, above, tuple(state.before), indent, fenced=bool(state.fence)
    )
    if is_lead:
        state.lead, state.before, state.open_items = words, [], []
    elif item or indent or state.fence:
        state.open_items = [*state.open_items[: MOST_ABOVE - 1], (indent, words)]
        if not item and not indent and not words.endswith(":"):
            _first_of_block(state, words)
        _remember(state, words)
    else:
        state.lead = words if _labels(words) else state.lead
        _remember(state, words)
    return line


def _first_of_block(state: _State, words: str) -> None:
    # ``Example: Llama-2 70B`` above a list in a fenced block leads it as a line with a colon would.
    if not state.before:
        state.lead = words


def _labels(words: str) -> bool:
    """Tell whether a line in bold, or a short one, names what the next lines are about."""
    return len(words) <= 120 and words.count(". ") == 0


def _leads(state: _State) -> tuple[str, ...]:
    return (state.lead,) if state.lead else ()


def _remember(state: _State, words: str) -> None:
    state.before = [*state.before[-MOST_BEFORE + 1 :], words]
