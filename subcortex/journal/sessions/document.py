"""A session's text as blocks of lines, and back: nothing is lost on the way, whatever the text.

Every block keeps the very lines it was made from, endings included, so that ``render`` is joining. Beside
them it holds what the lines say. What nobody understands is a paragraph and goes along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from subcortex.journal.sessions import _front_matter, _lines
from subcortex.journal.sessions._front_matter import Entry

#: What is said of a fence that is put around a whole text.
_WRAPS = ("", "md", "markdown", "yaml", "yml")


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive lines, each with its ending."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Blank(Block):
    """Empty lines between others."""


@dataclass(frozen=True, slots=True)
class Rule(Block):
    """A line across the page (``---``)."""


@dataclass(frozen=True, slots=True)
class Paragraph(Block):
    """Lines of prose, lists, tables: whatever is nothing else."""


@dataclass(frozen=True, slots=True)
class Opaque(Block):
    """Fenced code or an HTML comment; nothing inside is structure. ``info`` is what follows the fence."""

    info: str


@dataclass(frozen=True, slots=True)
class Heading(Block):
    """A heading; level 1 is a title."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Fields(Block):
    """A line of bold fields: (key, value) each; the value may stand in the paragraph below instead."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class FrontMatter(Block):
    """``key: value`` lines between ``---``, at the beginning; ``closed`` says whether the second is there."""

    entries: tuple[Entry, ...]
    closed: bool


@dataclass(frozen=True, slots=True)
class Wrapping(Block):
    """A line of the fence that a writer put around the whole text; no part of what the text says."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text as its blocks, in order."""

    blocks: tuple[Block, ...]

    def numbered(self) -> Iterator[tuple[int, Block]]:
        """Yield each block with the number of its first line, counted from 1."""
        at = 1
        for block in self.blocks:
            yield at, block
            at += len(block.lines)


def parse(text: str) -> Document:
    """Return ``text`` as a document; never fails, and ``render`` gives ``text`` back."""
    lines = _lines.split(text)
    wrapping = _wrapping(lines)
    if wrapping is None:
        return Document(tuple(_blocks(lines)))
    opens, closes = wrapping
    before, inside, behind = lines[:opens], lines[opens + 1 : closes], lines[closes + 1 :]
    return Document(
        (
            *((Blank(tuple(before)),) if before else ()),
            Wrapping((lines[opens],)),
            *_blocks(inside),
            Wrapping((lines[closes],)),
            *_Body(behind, 0, whole=False).blocks(),
        )
    )


def parse_body(text: str) -> tuple[Block, ...]:
    """Return ``text`` as blocks of a document's inside, where nothing is front matter."""
    return tuple(_Body(_lines.split(text), 0, whole=False).blocks())


def render(document: Document) -> str:
    """Return the text of ``document``: its lines, joined."""
    return "".join(line for block in document.blocks for line in block.lines)


def _blocks(lines: list[str]) -> list[Block]:
    """Return a whole text's blocks, front matter first."""
    blocks: list[Block] = []
    at = _first_said(lines)
    found = _front_matter.find(lines, at)
    if found is not None:
        if at:
            blocks.append(Blank(tuple(lines[:at])))
        blocks.append(FrontMatter(tuple(lines[at : found.end]), found.entries, found.closed))
        at = found.end
    else:
        at = 0
    blocks.extend(_Body(lines, at, whole=True).blocks())
    return blocks


def _first_said(lines: list[str]) -> int:
    at = 0
    while at < len(lines) and _lines.is_blank(_lines.bare(lines[at]).removeprefix(_lines.BOM)):
        at += 1
    return at


def _wrapping(lines: list[str]) -> tuple[int, int] | None:
    """Return where the fence around a whole text opens and closes, if there is one.

    Some programs fence what they write. It is no quotation if it begins like a session and nothing but
    prose is behind it.
    """
    opens = _first_said(lines)
    if opens == len(lines):
        return None
    fence = _lines.fence(_lines.bare(lines[opens]).removeprefix(_lines.BOM))
    if fence is None or fence[1].lower() not in _WRAPS:
        return None
    closes, within = None, 0
    for at in range(opens + 1, len(lines)):
        found = _lines.fence(_lines.bare(lines[at]))
        if found is None or found[0][0] != fence[0][0]:
            continue
        if found[1]:
            within += 1
        elif within:
            within -= 1
        elif len(found[0]) >= len(fence[0]):
            closes = at
            break
    if closes is None:
        return None
    inside = lines[opens + 1 : closes]
    start = _first_said(inside)
    first = _lines.bare(inside[start]) if start < len(inside) else ""
    begins = _front_matter.find(inside, start) is not None or (
        fence[1] != "" and ((found_at := _lines.heading(first)) is not None and found_at[0] == 1)
    )
    if not begins and not any(_lines.bold_fields(_lines.bare(line)) for line in inside[start : start + 4]):
        return None
    behind = _Body(lines[closes + 1 :], 0, whole=False).blocks()
    plain = all(isinstance(block, Blank | Rule | Paragraph) for block in behind)
    return (opens, closes) if plain else None


class _Body:
    """One pass over the lines behind the front matter."""

    def __init__(self, lines: list[str], at: int, *, whole: bool) -> None:
        self._lines = lines
        self._bare = [_lines.bare(line) for line in lines]
        self._at = at
        if lines and at == 0 and whole:
            self._bare[0] = self._bare[0].removeprefix(_lines.BOM)
        # Where fences of a kind were looked for in vain; from there on it need not be tried again.
        self._unclosed: set[tuple[str, int]] = set()
        self._last_comment_end = next(
            (number for number in range(len(lines) - 1, -1, -1) if "-->" in lines[number]), -1
        )

    def blocks(self) -> Iterator[Block]:
        prose: list[str] = []
        while self._at < len(self._lines):
            if len(prose) == 1 and _lines.is_dashed_heading(self._bare[self._at], _lines.bare(prose[0])):
                yield Heading(
                    (*prose, self._lines[self._at]), 2, _lines.bare(prose[0]).strip().removeprefix(_lines.BOM)
                )
                prose = []
                self._at += 1
                continue
            block = self._structure()
            if block is None:
                if prose and _lines.is_underline(self._bare[self._at]) and len(prose) == 1:
                    yield Heading(
                        (*prose, self._lines[self._at]),
                        1,
                        _lines.bare(prose[0]).strip().removeprefix(_lines.BOM),
                    )
                    prose = []
                else:
                    prose.append(self._lines[self._at])
                self._at += 1
                continue
            if prose:
                yield Paragraph(tuple(prose))
                prose = []
            self._at += len(block.lines)
            yield block
        if prose:
            yield Paragraph(tuple(prose))

    def _structure(self) -> Block | None:
        """Return the block that begins here; None where the line is prose."""
        line, bare = self._lines[self._at], self._bare[self._at]
        if _lines.is_blank(bare):
            end = self._at + 1
            while end < len(self._lines) and _lines.is_blank(self._bare[end]):
                end += 1
            return Blank(tuple(self._lines[self._at : end]))
        start = bare.lstrip(" ")[:1] if bare[:1] == " " else bare[:1]
        if start == "#" and (found := _lines.heading(bare)) is not None:
            return Heading((line,), *found)
        if start in ("`", "~", "<") and (opaque := self._opaque(bare)) is not None:
            return opaque
        if start in ("-", "*", "_") and len(bare) > 2 and _lines.is_rule(bare):
            return Rule((line,))
        # Most lines have no colon, and without one there is no field.
        if ":" in bare and (pairs := _lines.bold_fields(bare)):
            return Fields((line,), pairs)
        return None

    def _opaque(self, bare: str) -> Opaque | None:
        """Return the fenced block or comment that begins here, if it ends anywhere."""
        if (found := _lines.fence(bare)) is not None:
            marks, info = found
            if any(kind == marks[0] and length <= len(marks) for kind, length in self._unclosed):
                return None
            for end in range(self._at + 1, len(self._lines)):
                if _lines.closes(self._bare[end], marks):
                    return Opaque(tuple(self._lines[self._at : end + 1]), info)
            self._unclosed.add((marks[0], len(marks)))
            return None
        if bare.lstrip(" ").startswith("<!--") and self._at <= self._last_comment_end:
            end = self._at
            while "-->" not in self._bare[end]:
                end += 1
            return Opaque(tuple(self._lines[self._at : end + 1]), "")
        return None
