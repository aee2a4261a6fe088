"""What a single line of markdown is. Each question costs at most one pass over the line.

A line is asked about without its ending. Nothing here knows of drives or dates.
"""

from __future__ import annotations

import re

#: No key, heading or date that means something begins later than this in a line.
SEEN_CHARS = 2000
#: A byte order mark is no part of a file's first line, and text like any other elsewhere.
BOM = "\ufeff"

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*)|([^#\s].*))", re.DOTALL)
_UNDERLINE = re.compile(r" {0,3}={3,}[ \t]*")
_DASHES = re.compile(r"(-{3,80})[ \t]*")
#: What may be underlined with dashes: words, and no sentence, field, list, quotation or table.
_UNDERLINED = re.compile(r"[^\W\d_][^:|.!?;,]{1,78}[^\W_]\)?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)", re.DOTALL)
_KEY = r"(?!\s)([^*_:\s][^*:]{0,79})"
#: ``**Key:** value``, ``**Key**: value``, and the same with ``__`` or a single ``*``.
_BOLD_KEY = re.compile(
    rf"\*\*{_KEY}:\*\*|\*\*{_KEY}\*\*[ \t]?:|__(?!\s)([^_:]{{1,80}}):__|__(?!\s)([^_:]{{1,80}})__:"
)
_LIGHT_KEY = re.compile(rf"\*{_KEY}:\*(?!\*)|\*{_KEY}\*:")
#: ``**Key: value**``, the line being nothing else.
_ALL_BOLD = re.compile(rf"(?:\*\*|__){_KEY}:[ \t]+([^*]{{1,400}}?)(?:\*\*|__)[ \t]*")
#: What may stand before a field: quote marks, bullets, check boxes, pictures; no letter, digit or mark-up.
_BEFORE_FIELD = re.compile(r"[^\w*\[\]`<#|]{0,12}(?:\*[ \t]+)?(?:\[[ xX]\] )?")
_BETWEEN_FIELDS = " \t|·•;,–—-"


def split(text: str) -> list[str]:
    r"""Return the lines of ``text`` with their endings (``\n``, ``\r\n``, ``\r``); joined they are ``text``.

    Unlike ``str.splitlines``, form feeds and Unicode's separators end nothing.
    """
    return _LINE.findall(text)


def bare(line: str) -> str:
    """Return ``line`` without its ending."""
    return line.rstrip("\r\n")


def is_blank(line: str) -> bool:
    """Whether nothing is on the line."""
    return not line or line.isspace()


def heading(line: str) -> tuple[int, str] | None:
    """Return level and text of a heading; ``##Depth`` is one, ``#tag`` and a bare ``##`` are not."""
    if "#" not in line[:4]:
        return None
    match = _HEADING.fullmatch(line)
    if match is None or (match[3] is not None and len(match[1]) == 1):
        return None
    text = (match[2] or match[3] or "").strip()
    closed = text.rstrip("#")
    if closed != text and closed[-1:] in ("", " ", "\t"):
        text = closed.rstrip()
    return (len(match[1]), text) if text else None


def is_rule(line: str) -> bool:
    """Whether the line is drawn across the page: ``---``, ``* * *``, ``___``."""
    marks = line.replace(" ", "").replace("\t", "")
    return (
        len(marks) >= 3
        and marks[0] in "-*_"
        and marks == marks[0] * len(marks)
        and line[:4].lstrip(" ")[:1] == marks[0]
    )


def is_underline(line: str) -> bool:
    """Whether the line makes a title of the text above it (``===``)."""
    return "=" in line[:4] and _UNDERLINE.fullmatch(line) is not None


def is_dashed_heading(line: str, above: str) -> bool:
    """Whether ``line`` makes a heading of ``above``; a rule right under a line of prose looks alike.

    It does if it was drawn as long as the words are.
    """
    if not line.startswith("---") or (dashes := _DASHES.fullmatch(line)) is None:
        return False
    words = above.strip()
    return len(dashes[1]) == len(words) and _UNDERLINED.fullmatch(words) is not None


def fence(line: str) -> tuple[str, str] | None:
    """Return marks and info string of a line that may open a fenced block."""
    if "```" not in line[:6] and "~~~" not in line[:6]:
        return None
    match = _FENCE.fullmatch(line)
    if match is None or (match[1][0] == "`" and "`" in match[2]):
        return None
    return match[1], match[2].strip()


def closes(line: str, marks: str) -> bool:
    """Whether the line ends the fenced block that ``marks`` opened."""
    found = fence(line)
    return found is not None and not found[1] and found[0][0] == marks[0] and len(found[0]) >= len(marks)


def bold_fields(line: str) -> tuple[tuple[str, str], ...]:
    """Return (key, value) of each field on a line that begins with one, else nothing.

    ``**Date:** 2026-02-22 | **Drive:** CARE`` holds two.
    """
    start = _BEFORE_FIELD.match(line)
    at = start.end() if start else 0
    if line[at : at + 1] not in ("*", "_"):
        return ()
    seen, rest = line[at:SEEN_CHARS], line[SEEN_CHARS:]
    first = _BOLD_KEY.match(seen)
    if first is None:
        if (whole := _ALL_BOLD.fullmatch(seen)) is not None and not rest:
            return ((whole[1].strip(), whole[2].strip()),)
        light = _LIGHT_KEY.match(seen)
        if light is None:
            return ()
        return ((_key(light), (seen[light.end() :] + rest).strip()),)
    keys = [first, *_BOLD_KEY.finditer(seen, first.end())]
    found = []
    for place, match in enumerate(keys):
        if place + 1 < len(keys):
            value = seen[match.end() : keys[place + 1].start()].strip().rstrip(_BETWEEN_FIELDS)
        else:
            value = (seen[match.end() :] + rest).strip()
        found.append((_key(match), value))
    return tuple(found)


def _key(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()
