"""Where things stand in a document: fields by place, the title, sections; not what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from subcortex.journal.sessions import _front_matter, _lines
from subcortex.journal.sessions._keys import plain_key, words
from subcortex.journal.sessions.document import (
    Blank,
    Block,
    Document,
    Fields,
    FrontMatter,
    Heading,
    Paragraph,
    Wrapping,
)

Pair = tuple[str, str]

_DRESS = "\ufeff \t>*_-+•·|`"
_SHORT_CHARS = 200
_HEAD_LINES = 20
#: No text has more unmarked fields that mean something; a hostile one may have millions.
_LOOSE = 5000
_BOLD_DASHED = re.compile(r"[-*•]?[ ]{0,3}\*\*([^*:]{2,60})\*\*[ ]{0,3}[—–-][ ]{0,3}")
#: ``**Depth** moderate``: a key in bold and a few words, without a colon.
_BOLD_BARE = re.compile(
    r"[-*•]?[ ]{0,3}\*\*((?:\w{1,20} ){0,2}depth|drives?|date|time)\*\*[ ]{1,3}(\S[^\r\n]{0,60})",
    re.IGNORECASE,
)
_DASHED_DEPTH = re.compile(r"((?:\w{1,20}[ ]){0,2}depth)[*_]{0,3}[ ]{1,3}[—–-][ ]{1,3}(\S.*)", re.IGNORECASE)
#: Front matter whose value may hold further entries that speak of the session.
_HOLDERS = words(
    "session meta metadata info header emergence rating satisfaction satisfied result outcome assessment"
    " drive drives"
)
_BOLD_LINE = re.compile(r"\s{0,3}(?:\*\*|__)([^*_]{2,60})(?:\*\*|__)\s{0,8}")
#: What a heading below level 1 has to say to be the title of a text without one.
_TITLE = re.compile(r"\bsession|\bdrive\b|satisfaction|deferral|\d{4}-\d\d-\d\d|\d{1,3}\s?%", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it, up to the next heading of any level.

    Args:
        level: 1 to 6; 0 for text before any heading.
        heading: Its text, empty at level 0.
        body: The lines below as they are, without blank lines around them.
        first_line: Number of the heading's line (of the body's at level 0), from 1.
        above: Headings that it stands under, outermost first.
    """

    level: int
    heading: str
    body: str
    first_line: int
    above: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """A document by place.

    Args:
        front: Entries of the front matter.
        head: Bold fields before the first section.
        body: Bold fields inside sections.
        loose: ``key: value`` lines that are marked by nothing, list items and table rows among them; also
            what is nested in the front matter.
        head_lines: Short lines of prose before the first section.
        last_lines: The last three of prose.
        last_alone: The last paragraph if it is one short line, with its marks.
        has_front_matter: Also if it is empty.
        titles: Headings of level 1; the first heading of all where there is none.
    """

    front: tuple[Pair, ...]
    head: tuple[Pair, ...]
    body: tuple[Pair, ...]
    loose: tuple[Pair, ...]
    head_lines: tuple[str, ...]
    last_lines: tuple[str, ...]
    last_alone: str
    has_front_matter: bool
    unclosed: bool
    titles: tuple[str, ...]
    sections: tuple[Section, ...]


def outline(document: Document) -> Outline:
    """Return where things stand in ``document``."""
    blocks = document.blocks
    front: list[Pair] = []
    head: list[Pair] = []
    body: list[Pair] = []
    loose: list[Pair] = []
    head_lines: list[str] = []
    has_front_matter, unclosed = False, False
    ones = [block.text for block in blocks if isinstance(block, Heading) and block.level == 1]
    first = next((place for place, block in enumerate(blocks) if isinstance(block, Heading)), None)
    title_at = None
    if ones:
        title_at = next(p for p, b in enumerate(blocks) if isinstance(b, Heading) and b.level == 1)
    elif (
        first is not None
        and not any(isinstance(b, Paragraph | Fields) for b in blocks[:first])
        and _TITLE.search(_heading_text(blocks[first])[:400])
    ):
        title_at = first
    titles = tuple(ones) or ((_heading_text(blocks[title_at]),) if title_at is not None else ())
    in_head = True
    for place, block in enumerate(blocks):
        if isinstance(block, FrontMatter):
            has_front_matter, unclosed = True, not block.closed
            front.extend((entry.key, entry.value) for entry in block.entries)
            for entry in block.entries:
                if plain_key(entry.key) in _HOLDERS:
                    loose.extend(islice(_nested(entry.value), max(_LOOSE - len(loose), 0)))
        elif isinstance(block, Heading):
            in_head = in_head and place == title_at
        elif isinstance(block, Fields):
            pairs = list(block.pairs)
            if not pairs[-1][1]:
                pairs[-1] = (pairs[-1][0], _below(blocks, place))
            if in_head:
                head.extend(pairs)
            elif not block.lines[0].lstrip().startswith(">"):
                # What is quoted in a section is somebody else's.
                body.extend(pairs)
        elif isinstance(block, Paragraph):
            loose.extend(islice(_loose(block), max(_LOOSE - len(loose), 0)))
            if len(block.lines) == 1 and (bold := _BOLD_LINE.fullmatch(_lines.bare(block.lines[0]))):
                # A heading in all but the marks.
                loose.append((bold[1], _below(blocks, place)))
            if in_head and len(head_lines) < _HEAD_LINES:
                head_lines.extend(_short(block.lines[:_HEAD_LINES]))
    last = next((block for block in reversed(blocks) if isinstance(block, Paragraph)), None)
    return Outline(
        tuple(front),
        tuple(head),
        tuple(body),
        tuple(loose),
        tuple(head_lines),
        tuple(_short(last.lines[-3:])) if last is not None else (),
        last.lines[0].strip()
        if last is not None and len(last.lines) == 1 and len(last.lines[0]) < 80
        else "",
        has_front_matter,
        unclosed,
        titles,
        tuple(_sections(document)),
    )


def _nested(value: str) -> Iterator[Pair]:
    """Yield the entries inside a value of the front matter; of a list, those of its first item."""
    value = value[: _lines.SEEN_CHARS].strip()
    lines = value.strip("{}").split(",") if value.startswith("{") else value.split("\n")
    seen: set[str] = set()
    for line in lines:
        found = _front_matter.pair(line.strip().removeprefix("- "))
        if found is not None and found[1] and found[0] not in seen:
            seen.add(found[0])
            yield found[0], found[1].strip("\"'")


def _heading_text(block: Block) -> str:
    assert isinstance(block, Heading)
    return block.text


def _below(blocks: tuple[Block, ...], place: int) -> str:
    """Return the text under a field that has none on its line."""
    for block in blocks[place + 1 : place + 3]:
        if isinstance(block, Paragraph):
            return "".join(block.lines).strip().replace("\r\n", "\n")
        if not isinstance(block, Blank):
            break
    return ""


def _short(lines: tuple[str, ...]) -> Iterator[str]:
    for line in lines:
        if len(line) <= _SHORT_CHARS and (bare := _lines.bare(line).strip(_DRESS)):
            yield bare


def _loose(block: Paragraph) -> Iterator[Pair]:
    """Yield unmarked fields: ``Date: …``, ``- Depth: deep``, ``*Pressure: 9*``, ``| Drive | REST |``."""
    if block.lines[0].lstrip(" ").startswith("|"):
        yield from _table([_lines.bare(line) for line in block.lines])
        return
    for line in block.lines:
        if line.lstrip().startswith(">"):
            continue
        if (dashed := _BOLD_DASHED.match(line)) is not None:
            yield dashed[1], line[dashed.end() : _lines.SEEN_CHARS].strip()
            continue
        if (bold := _BOLD_BARE.fullmatch(_lines.bare(line))) is not None:
            yield bold[1], bold[2].strip()
            continue
        if ":" not in line:
            if len(line) < _SHORT_CHARS and (said := _DASHED_DEPTH.match(line.strip(_DRESS + "\r\n"))):
                yield said[1], said[2].strip("*_ ")
            continue
        bare = _lines.bare(line)[: _lines.SEEN_CHARS].strip(_DRESS)
        # Several on a line, as in a footer: *Drive: CARE | Depth: deep*
        for part in re.split(r" [|·•] ", bare) if len(bare) < _SHORT_CHARS else (bare,):
            found = _front_matter.pair(part.strip(_DRESS))
            if found is not None and len(found[0].split()) <= 4:
                yield (found[0].strip("*_ "), found[1].strip("*_ "))


def _table(lines: list[str]) -> Iterator[Pair]:
    rows = [
        [cell.strip(" \t*_`") for cell in line[: _lines.SEEN_CHARS].strip().strip("|").split("|")]
        for line in lines
    ]
    rows = [row for row in rows if not all(set(cell) <= {"-", ":", " "} for cell in row)]
    if not rows:
        return
    if all(len(row) == 2 for row in rows):
        yield from ((row[0].rstrip(":"), row[1]) for row in rows)
    if len(rows) > 1:
        yield from zip((cell.rstrip(":") for cell in rows[0]), rows[1], strict=False)
    if len(rows) > 2 and plain_key(rows[0][0].rstrip(":")) in ("drive", "drives"):
        # A row for each drive; of the other columns the first row's speak for the whole.
        yield from (("drive", row[0]) for row in rows[2:])


def _sections(document: Document) -> Iterator[Section]:
    level, heading, first_line = 0, "", 1
    above: list[tuple[int, str]] = []
    lines: list[str] = []
    for number, block in document.numbered():
        if isinstance(block, Heading):
            yield from _section(level, heading, first_line, above, lines)
            while above and above[-1][0] >= block.level:
                above.pop()
            if heading and level < block.level:
                above.append((level, heading))
            level, heading, first_line, lines = block.level, block.text, number, []
        elif isinstance(block, FrontMatter):
            first_line = number + len(block.lines)
        elif isinstance(block, Wrapping):
            first_line = number + 1 if not (level or lines) else first_line
        else:
            lines.extend(block.lines)
    yield from _section(level, heading, first_line, above, lines)


def _section(
    level: int, heading: str, first_line: int, above: list[tuple[int, str]], lines: list[str]
) -> Iterator[Section]:
    body = "".join(lines)
    start = 0
    # Only whole blank lines go: what a first line is indented by may mean something.
    while start < len(lines) and _lines.is_blank(lines[start]):
        start += 1
    end = len(lines)
    while end > start and _lines.is_blank(lines[end - 1]):
        end -= 1
    body = "".join(lines[start:end]).rstrip("\r\n")
    if level or body:
        yield Section(
            level, heading, body, first_line if level else first_line + start, tuple(t for _, t in above)
        )
