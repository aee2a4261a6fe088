"""When a session was: the best of what fields, title, file name and text say, put together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from subcortex.journal.sessions import _dates
from subcortex.journal.sessions._dates import When
from subcortex.journal.sessions._keys import matching
from subcortex.journal.sessions._outline import Outline
from subcortex.journal.sessions._titles import FileSays, TitleSays

KEYS = (
    "timestamp",
    "datetime",
    "date time",
    "date/time",
    "date & time",
    "date and time",
    "date",
    "when",
    "session date",
    "session time",
    "started",
    "started at",
    "start",
    "start time",
    "began",
    "created",
    "created at",
    "at",
    "time",
    "logged",
    "logged at",
    "written",
    "recorded",
    "completed",
    "completed at",
    "ended",
    "end time",
    "fecha",
    "datum",
    "日付",
    "日時",
)
#: Of these, what can hold nothing but a date.
DATE_KEYS = KEYS[:8]
#: Keys that may hold the time of day beside a date somewhere else.
CLOCK_KEYS = (
    "time",
    "start time",
    "started",
    "started at",
    "when",
    "start",
    "session time",
    "uhrzeit",
    "hora",
    "zeit",
)
_FOOTER = re.compile(
    r"(?:session|completed|written|logged|ended|recorded|closed|finished|date|\d)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Moment:
    """The time found, its characters, and what was doubtful."""

    at: datetime | None
    written: str | None
    doubts: tuple[str, ...]


def moment(places: Outline, titles: tuple[TitleSays, ...], by_file: FileSays) -> Moment:
    """Return when the session was."""
    doubts: list[str] = []
    found: list[When] = []
    unread: str | None = None
    for key, value, sure in _sources(places):
        when = _dates.find(value)
        if when is None or (when.day is None and when.clock is None):
            if sure and value.strip():
                unread = unread or value.strip()[:200]
                doubts.append(
                    (when.doubt if when else None)
                    or f"the {key} {value.strip()[:60]!r} is no date that is known here"
                )
            continue
        found.append(when)
    found.extend(title.when for title in titles[:1] if title.when is not None)
    found.extend(when for line in places.head_lines[:5] if (when := _first_in(line)) is not None)
    if by_file.when is not None:
        found.append(by_file.when)
    if not any(when.day for when in found):
        found.extend(_elsewhere(places, titles))
    best = next((when for when in found if when.day is not None), None)
    if best is None:
        if unread is None and (alone := next(iter(found), None)) is not None:
            doubts.append(f"{alone.written!r} is a time of day without a date")
            unread = alone.written
        return Moment(None, unread, tuple(doubts))
    doubts = [*doubts, *(when.doubt for when in (best,) if when.doubt)]
    if best.clock is None:
        clock = _clock(best, found, places)
        if clock is not None:
            written = best.written if clock.written in best.written else f"{best.written} {clock.written}"
            if clock.day is not None:
                written = clock.written
            whole = When(best.day, clock.clock, clock.zone, written)
            return Moment(whole.at, written, tuple(doubts + ([clock.doubt] if clock.doubt else [])))
    return Moment(best.at, best.written, tuple(doubts))


def _sources(places: Outline) -> Iterator[tuple[str, str, bool]]:
    """Yield (key, value, whether the value must be a date) of fields, best first."""
    for pairs in (places.front, places.head):
        for key, value in matching(pairs, KEYS):
            yield key, value, key in DATE_KEYS
    for key, value in matching(places.loose, KEYS[:12]):
        # An unmarked line in a section may be about anything.
        if _first_in(value) is not None:
            yield key, value, False


def _first_in(value: str) -> When | None:
    """Return the date that ``value`` begins with, but for a word before it."""
    when = _dates.find(value)
    begins = when is not None and when.day is not None and value.find(when.written) in range(12)
    return when if begins else None


def _elsewhere(places: Outline, titles: tuple[TitleSays, ...]) -> Iterator[When]:
    """Yield dates from where nothing says that they are the session's, best first."""
    yield from (title.when for title in titles[1:] if title.when is not None)
    for line in places.head_lines[:5]:
        if (when := _dates.find(line)) is not None and when.day is not None:
            yield when
    for _, value in matching(places.body, KEYS):
        if (when := _dates.find(value)) is not None and when.day is not None:
            yield when
    for place, section in enumerate(places.sections[:50]):
        if (
            (section.level <= 2 or place == 0)
            and (when := _dates.find(section.heading)) is not None
            and when.day is not None
        ):
            yield when
    for line in places.last_lines:
        if _FOOTER.match(line) and (when := _dates.find(line)) is not None and when.day is not None:
            yield when


def _clock(best: When, found: list[When], places: Outline) -> When | None:
    """Return who knows the time of ``best``'s day: a time beside it, or a source with the same day."""
    for when in found:
        if when.clock is not None and when.day is None:
            return when
    for _, value in matching((*places.front, *places.head, *places.loose), CLOCK_KEYS):
        beside = _dates.find(value)
        if beside is None or (beside.day is None and beside.clock is None):
            beside = _dates.clock_in(value)
        if beside is not None and beside.clock is not None and beside.day in (None, best.day):
            return When(None, beside.clock, beside.zone, beside.written, beside.doubt)
    return next((when for when in found if when.clock is not None and when.day == best.day), None)
