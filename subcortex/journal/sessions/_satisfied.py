"""Satisfactions that a text tells of: ``Satisfied LEARNING (deep)``, ``drives satisfy CARE full``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from subcortex.journal.sessions import _depth_words, _drive_names, _lines
from subcortex.journal.sessions._outline import Outline
from subcortex.types import Depth

_NAME = r"[`*_\"']{0,3}(?P<drive>[^\W\d_][\w-]{1,63})[`*_\"']{0,3}"
_DEPTH = r"[`*_\"']{0,3}(?P<depth>shallow|moderate|deep|full|none|[smdf])\b"
_COMMAND = re.compile(
    rf"drives\s{{1,3}}satisfy\s{{1,3}}{_NAME}(?:\s{{1,3}}(?:--depth[ =])?{_DEPTH})?", re.IGNORECASE
)
_REPORT = re.compile(
    rf"\bsatisfied\s{{1,3}}(?:the\s|my\s)?{_NAME}(?:\s{{1,3}}drive)?\s{{0,3}}(?:\(|:|,|at|—|–|-|→|to|with)\s{{0,3}}(?:a\s)?{_DEPTH}",
    re.IGNORECASE,
)
_PASSIVE = re.compile(
    rf"{_NAME}(?:\s{{1,3}}drive)?\s{{1,3}}(?:is\s|was\s)?satisfied\b(?:[^.\n]|\.\d){{0,60}}?(?:\(|\[|:|—|–|-|,|at\s|→|as\s)\s{{0,3}}{_DEPTH}",
    re.IGNORECASE,
)
_CALL = re.compile(
    r"satisfy_drive\([^)\n]{0,40}?[\"'](?P<drive>[^\W\d_]\w{1,63})[\"'],\s{0,3}"
    r"(?:depth=)?[\"'](?P<depth>\w{1,12})[\"']"
)
_COMPLETE = re.compile(rf"drives\s{{1,3}}complete\s{{1,3}}{_NAME}(?P<depth>)", re.IGNORECASE)
_BESIDE = re.compile(
    rf"{_NAME}(?:\s{{1,3}}(?:drive|satisfaction|satisfied|depth|at|to))?[\s:—–→>=(\[*_`|-]{{1,8}}(?:\d{{1,3}}%\)?\W{{1,4}})?{_DEPTH}",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"(?:\buse|\bexample|e\.g\.|\busage|\brun|\btry|\bfor more|\bcould|\bwould|\bor)\b[^.]{0,40}$",
    re.IGNORECASE,
)


def _tells(text: str) -> bool:
    """Whether ``text`` may tell of a satisfaction; quick, since most text does not."""
    lower = text.lower()
    return "satisf" in lower or "complete" in lower


@dataclass(frozen=True, slots=True)
class Event:
    """A satisfaction that a text tells of."""

    drive: str | None
    depth: Depth | None


def events(places: Outline) -> Iterator[Event]:
    """Yield satisfactions told of anywhere, code included, in order."""
    for section in places.sections:
        yield from events_in(section.body)


def events_in(text: str) -> Iterator[Event]:
    """Yield the satisfactions that ``text`` tells of. Advice on how one would be had is none."""
    if not _tells(text):
        return
    for line in _lines.split(text):
        if not _tells(line):
            continue
        seen = line[: _lines.SEEN_CHARS]
        for pattern in (_COMMAND, _REPORT, _PASSIVE, _CALL, _COMPLETE):
            for match in pattern.finditer(seen):
                name, depth = match["drive"], match["depth"]
                if not (_drive_names.is_known(name) or _drive_names.looks_like_drive(name)):
                    continue
                if pattern in (_COMMAND, _COMPLETE) and _ADVICE.search(
                    seen[max(match.start() - 60, 0) : match.start()]
                ):
                    continue
                yield Event(_drive_names.canonical(name), _depth(depth))


def beside(text: str) -> Iterator[Event]:
    """Yield drives with a depth written beside them, where ``text`` is about satisfaction: ``CARE: deep``."""
    for match in _BESIDE.finditer(text[: _lines.SEEN_CHARS]):
        name = match["drive"]
        if len(match["depth"]) > 1 and (_drive_names.is_known(name) or _drive_names.looks_like_drive(name)):
            yield Event(_drive_names.canonical(name), _depth(match["depth"]))


def _depth(word: str | None) -> Depth | None:
    if not word:
        return None
    found = _depth_words.letter(word) if len(word) == 1 else _depth_words.leading(word)
    return found.depth if found else None
