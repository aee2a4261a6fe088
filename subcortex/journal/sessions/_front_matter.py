"""Front matter, read line by line. It looks like YAML and often is none, so its values are free text here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subcortex.journal.sessions import _lines

_KEY = re.compile(r"[\"']?([^\W\d_][\w .()/-]*)[\"']?")
_KEY_CHARS = 72
_FOLDED = re.compile(r"[|>][+-]?\d?")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value, quotes taken off; further lines of it are stripped and joined by newlines."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Found:
    """Front matter up to line ``end``."""

    end: int
    entries: tuple[Entry, ...]
    closed: bool


def find(lines: list[str], start: int) -> Found | None:
    """Return the front matter that begins at line ``start``; None if there is none.

    Left open, it reaches as far as lines look like its own: a blank line, a heading or prose ends it.
    """
    mark = _lines.bare(lines[start]).removeprefix(_lines.BOM).rstrip() if start < len(lines) else ""
    if mark == "+++":
        return _toml(lines, start)
    if mark != "---":
        return None
    end = start + 1
    blank = False
    first: bool | None = None
    while end < len(lines):
        line = _lines.bare(lines[end])
        if line.rstrip() in ("---", "..."):
            # Rules with nothing said between them are decoration.
            return Found(end + 1, _entries(lines[start + 1 : end]), True) if first else None
        if _lines.is_blank(line):
            blank = True
        else:
            found = _lines.heading(line)
            # One "#" begins a comment here, more are a heading, and so is one behind a blank line.
            if (found is not None and (found[0] > 1 or blank)) or _lines.fence(line) is not None:
                break
            if first is None and not line.startswith("#"):
                first = pair(line) is not None
                if not first:
                    return None
            blank = False
        end += 1
    if not first:
        return None
    end = start + 1
    while end < len(lines) and _belongs(_lines.bare(lines[end])):
        end += 1
    return Found(end, _entries(lines[start + 1 : end]), False)


def _toml(lines: list[str], start: int) -> Found | None:
    """Return front matter between ``+++``: ``key = value`` lines."""
    entries: list[Entry] = []
    for at in range(start + 1, len(lines)):
        line = _lines.bare(lines[at]).rstrip()
        if line == "+++":
            return Found(at + 1, tuple(entries), True) if entries else None
        key, equals, value = line.partition("=")
        if equals and (found := _KEY.fullmatch(key[:_KEY_CHARS].strip())) is not None:
            entries.append(Entry(found[1].strip(), _value([value.strip()])))
        elif not entries and line and line[0] not in "#[":
            return None
    return None


def pair(line: str) -> tuple[str, str] | None:
    """Return key and value of a line ``key: value``; None where it is none."""
    colon = line.find(":", 0, _KEY_CHARS)
    if colon < 1 or line.startswith("//", colon + 1):
        return None
    key = _KEY.fullmatch(line[:colon].strip())
    return (key[1].strip(), line[colon + 1 :].strip()) if key else None


def _belongs(line: str) -> bool:
    if _lines.is_blank(line) or line.startswith("#"):
        return False
    return line[0] in " \t-" or pair(line) is not None


def _entries(lines: list[str]) -> tuple[Entry, ...]:
    entries: list[tuple[str, list[str]]] = []
    for raw in lines:
        line = _lines.bare(raw)
        if _lines.is_blank(line) or line.startswith("#"):
            continue
        found = None if line[0] in " \t" and entries else pair(line)
        if found is not None:
            entries.append((found[0], [found[1]]))
        elif entries:
            entries[-1][1].append(line.strip())
    return tuple(Entry(key, _value(parts)) for key, parts in entries)


def _value(parts: list[str]) -> str:
    first, *more = parts
    if more and (not first or _FOLDED.fullmatch(first)):
        return "\n".join(more)
    value = "\n".join(parts)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" and value[0] not in value[1:-1]:
        return value[1:-1]
    return value
