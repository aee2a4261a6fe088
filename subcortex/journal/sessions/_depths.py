"""How deep its writer says a session went: the surest statement, wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from subcortex.journal.sessions import _depth_prose, _depth_words, _front_matter, _lines, _satisfied
from subcortex.journal.sessions._depth_words import DepthFound
from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.journal.sessions._keys import matching, plain_key, words
from subcortex.journal.sessions._outline import Outline, Section
from subcortex.journal.sessions._titles import TitleSays

_SATISFACTION_KEYS = (
    "satisfaction depth",
    "depth of satisfaction",
    "drive satisfaction depth",
    "satisfaction level",
    "satisfaction rating",
)
_DEPTH_KEYS = (
    "depth",
    "session depth",
    "depth assessment",
    "depth rating",
    "self rated depth",
    "depth level",
    "depth achieved",
    "depth reached",
    "actual depth",
    "tiefe",
    "profundidad",
    "profondeur",
    "profundidade",
    "profondità",
)
#: What may stand beside "depth" in a key or heading that is still about the session: "my honest depth".
_DEPTH_NAMES = words("depth tiefe profundidad profondeur profundidade profondità")
_BESIDE_DEPTH = words(
    "a an the my our own self overall final honest actual real true session satisfaction drive reached"
    " achieved attained estimated rated rating rate assessment assessed check level score verdict evaluation"
    " reflection summary note notes of for on and this today engagement general total by me how did it go"
    " deep was is i went get got"
)
#: Keys inside a statement on depth that say what was meant or was before, and not what came of it.
_AIMS = words(
    "target targeted aim aimed goal planned plan intended wanted hoped hope expected predicted initial"
    " previous last before prior next scale options threshold"
)
LOOSER_KEYS = (
    "satisfaction",
    "drive satisfaction",
    "satisfied",
    "drive effect",
    "drive impact",
    "outcome",
    "result",
)
#: How a line on the other rating begins, which is not the writer's.
EVIDENCE_SAYS = "The evidence supports"
KEYS = (*_SATISFACTION_KEYS, *_DEPTH_KEYS, *LOOSER_KEYS[:2])
_HEADING_CHARS = 120
#: A depth stands near the end; only a hostile text has more sections than this.
_LAST_SECTIONS = 300
_HEADINGS = frozenset(
    (
        *_SATISFACTION_KEYS,
        *_DEPTH_KEYS,
        "depth self assessment",
        "satisfaction assessment",
        "depth and satisfaction",
        "depth & satisfaction",
        "satisfaction & depth",
        "satisfaction and depth",
        "depth check",
    )
)
_BODY_CHARS = 20_000
_WORD = re.compile(r"\w+")
_LINE_DRESS = " \t\r\n>*_-+•·|`"
_LOOSER_HEADINGS = frozenset(
    (
        "satisfaction",
        "drive satisfaction",
        "drive status",
        "drive update",
        "drive impact",
        "drives",
        "outcome",
        "satisfaction status",
    )
)


def depth(
    places: Outline, titles: tuple[TitleSays, ...], drives: tuple[DriveLevel, ...]
) -> tuple[DepthFound | None, tuple[str, ...]]:
    """Return the writer's depth, and sentences on what could not be read or took a rule."""
    doubts: list[str] = []
    for source, text in _sources(places):
        boxes, found = _depth_words.ticked(text)
        if not boxes:
            found = _depth_words.leading(text) or _depth_words.letter(text) or _of_text(text, drives)
        if found is not None:
            return _told(found)
        if text.strip():
            doubts.append(f"the {source} {text.strip()[:60]!r} is no depth that is known here")
    for text in _named(places):
        boxes, found = _depth_words.ticked(text)
        if not boxes:
            found = _depth_words.leading_alone(text)
        if found is not None:
            return _told(found)
    for found in _looser(places, titles, drives):
        return _told(found)
    return None, tuple(doubts)


def _told(found: DepthFound) -> tuple[DepthFound, tuple[str, ...]]:
    return found, ((f"depth {found.depth}: {found.rule}",) if found.rule else ())


def _sources(places: Outline) -> Iterator[tuple[str, str]]:
    """Yield (what it is, text) of statements that are about depth and nothing else, the surest first."""
    fields = (*places.front, *places.head)
    yield from matching(fields, (*_SATISFACTION_KEYS, *_DEPTH_KEYS))
    sections = places.sections[-_LAST_SECTIONS:]
    for place in range(len(sections) - 1, -1, -1):
        section = sections[place]
        if _heading(section) in _HEADINGS:
            below = sections[place + 1 : place + 2]
            if not section.body and below and below[0].level > section.level:
                section = below[0]
            yield "section " + section.heading, _first_paragraph(section)
    # The last one: what comes earlier in the sections may be about what was read.
    yield from reversed(
        matching((*places.loose, *places.body), (*_DEPTH_KEYS, *reversed(_SATISFACTION_KEYS)))
    )


def _named(places: Outline) -> Iterator[str]:
    """Yield texts under keys and headings that are about depth by all their words: ``My honest depth``."""
    for section in reversed(places.sections[-_LAST_SECTIONS:]):
        if section.level and (heading := _heading(section)) not in _HEADINGS and is_depth_name(heading):
            yield _first_paragraph(section)
    fields = (*places.front, *places.head, *reversed((*places.loose, *places.body)))
    yield from (value for key, value in fields if is_depth_name(plain_key(key)))


@lru_cache(maxsize=2048)
def is_depth_name(plain: str) -> bool:
    """Whether a key or heading, as ``plain_key`` gives it, is about how deep the session was."""
    said = [word for word in _WORD.findall(plain[:_HEADING_CHARS]) if not word.isdigit()]
    if _DEPTH_NAMES.isdisjoint(said) and said[:2] != ["how", "deep"]:
        return False
    return all(word in _BESIDE_DEPTH or word in _DEPTH_NAMES for word in said)


def _looser(
    places: Outline, titles: tuple[TitleSays, ...], drives: tuple[DriveLevel, ...]
) -> Iterator[DepthFound]:
    """Yield depths from statements that may be about more than depth."""
    for _, value in matching((*places.front, *places.head, *places.body, *places.loose), LOOSER_KEYS):
        if found := _depth_words.leading(value) or _of_events(value, drives) or _beside(value, drives):
            yield found
    for key, value in (*places.front, *places.head, *places.body, *places.loose):
        if "satisf" in key.lower() and (found := _beside(value, drives)):
            yield found
    yield from (DepthFound(title.depth) for title in titles if title.depth is not None)
    for section in reversed(places.sections[-_LAST_SECTIONS:]):
        heading = _heading(section)
        if section.level and heading.startswith(("depth", "satisfaction")) and len(section.heading) < 80:
            # "## Depth: Moderate" says it in the heading itself.
            _, _, behind = section.heading.partition(":")
            if not behind:
                _, _, behind = section.heading.replace("–", "—").replace("(", "—").partition("—")
            if found := _depth_words.leading(behind) or _beside(behind, drives):
                yield found
        elif section.level and "satisf" in heading and (found := _beside(section.heading, drives)):
            yield found
        if heading in _LOOSER_HEADINGS:
            text = _first_paragraph(section)
            if (
                found := _of_events(text, drives)
                or _depth_words.leading(text)
                or _beside(text, drives)
                or _depth_words.mentioned(text)
            ):
                yield found
    if found := _of_depths(list(_satisfied.events(places)), drives):
        yield found
    if titles and titles[0].satisfaction:
        for section in places.sections[:_LAST_SECTIONS]:
            if found := _beside(section.body[:_BODY_CHARS], drives):
                yield found
    if places.last_alone and (found := _depth_words.on_its_own(places.last_alone)):
        yield found
    if any(key.lower() == "type" and "satisf" in value.lower() for key, value in places.front):
        yield from (found for section in places.sections[:2] if (found := _depth_prose.opening(section.body)))
    for section in reversed(places.sections[-_LAST_SECTIONS:]):
        if found := _depth_prose.stated(section.body[:_BODY_CHARS]):
            yield found


def _of_text(text: str, drives: tuple[DriveLevel, ...]) -> DepthFound | None:
    return _of_events(text, drives) or _beside(text, drives) or _of_lines(text)


def _of_lines(text: str) -> DepthFound | None:
    """Return the depth that lines name, but for those on what was meant: ``Target: deep``."""
    lines = []
    told = []
    for line in _lines.split(text[: _lines.SEEN_CHARS]):
        pair = _front_matter.pair(line.strip(_LINE_DRESS))
        if pair is not None and _AIMS.intersection(plain_key(pair[0].strip("*_")).split()):
            continue
        lines.append(line)
        if pair is not None and (found := _depth_words.leading_alone(pair[1])):
            told.append(found)
    if len({found.depth for found in told}) == 1:
        return told[0]
    return _depth_words.mentioned("".join(lines))


def _beside(text: str, drives: tuple[DriveLevel, ...]) -> DepthFound | None:
    """Return the depth written beside a drive's name, or in parentheses: ``CARE: deep``, ``Yes (deep)``."""
    return _of_depths(list(_satisfied.beside(text)), drives) or _depth_words.enclosed(text)


def _of_events(text: str, drives: tuple[DriveLevel, ...]) -> DepthFound | None:
    return _of_depths(list(_satisfied.events_in(text)), drives)


def _of_depths(events: list[_satisfied.Event], drives: tuple[DriveLevel, ...]) -> DepthFound | None:
    """Return the last depth told of the main drive, else the last of any."""
    told = [event for event in events if event.depth is not None]
    main = [event for event in told if drives and event.drive == drives[0].name]
    last = (main or told)[-1:]
    return DepthFound(last[0].depth) if last and last[0].depth is not None else None


def _heading(section: Section) -> str:
    text = section.heading[:_HEADING_CHARS].strip(" *_:#`")
    start = next((at for at, char in enumerate(text) if char.isalpha()), 0)
    return plain_key(text[start:]).strip(" :.*")


def _first_paragraph(section: Section) -> str:
    text = section.body[:_BODY_CHARS].lstrip().replace("\r\n", "\n").split("\n\n", 1)[0]
    return "" if text.startswith(EVIDENCE_SAYS) else text
