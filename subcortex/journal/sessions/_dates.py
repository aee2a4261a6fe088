"""Dates and times as people and programs write them. What is ambiguous is not guessed at, but said."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo

#: A date that says anything stands in the first of a value.
_SEEN_CHARS = 400

_MONTHS = {
    name: month
    for month, names in enumerate(
        (
            "jan january januar enero janvier gennaio janeiro",
            "feb february februar febrero février fevrier febbraio fevereiro",
            "mar march märz maerz marzo mars março",
            "apr april abril avril aprile",
            "may mai mayo maggio maio",
            "jun june juni junio juin giugno junho",
            "jul july juli julio juillet luglio julho",
            "aug august agosto août aout",
            "sep sept september septiembre septembre settembre setembro",
            "oct october oktober octubre octobre ottobre outubro okt",
            "nov november noviembre novembre novembro",
            "dec december dezember diciembre décembre decembre dicembre dezembro dez",
        ),
        1,
    )
    for name in names.split()
}
#: Hours from UTC of abbreviations that mean one thing wherever an agent is likely to run.
_ZONES = {
    "UTC": 0,
    "GMT": 0,
    "UT": 0,
    "Z": 0,
    "WET": 0,
    "EST": -5,
    "EDT": -4,
    "CDT": -5,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
    "CET": 1,
    "CEST": 2,
    "EET": 2,
    "EEST": 3,
    "JST": 9,
    "AEST": 10,
    "AEDT": 11,
    "NZST": 12,
    "NZDT": 13,
}
#: Abbreviations that are zones, but of several places: the time stays the writer's own.
_UNCLEAR_ZONES = {
    "CST",
    "IST",
    "BST",
    "MST",
    "AST",
    "SST",
    "ET",
    "PT",
    "CT",
    "MT",
    "MSK",
    "KST",
    "HST",
    "AKST",
}

_NAME = "|".join(sorted(_MONTHS, key=len, reverse=True))
_YMD = r"(?<![\d.])(?P<y>(?:19|20)\d\d)(?P<s>[-/.])(?P<m>\d{1,2})(?P=s)(?P<d>\d{1,2})(?!\d)"
_COMPACT = r"(?<!\d)(?P<y>20\d\d)(?P<m>[01]\d)(?P<d>[0-3]\d)(?!\d)"
_MONTH_FIRST = (
    rf"\b(?P<mon>{_NAME})\b\.?,?[ ]{{1,3}}(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\b,?"
    r"[ ]{1,3}(?P<y>(?:19|20)\d\d)\b"
)
_DAY_FIRST = (
    rf"(?<![\d.])(?P<d>\d{{1,2}})(?:st|nd|rd|th|\.)?[ -]{{1,3}}(?:of |de )?(?P<mon>{_NAME})\b\.?,?"
    r"[ -]{1,3}(?:de )?(?P<y>(?:19|20)\d\d)\b"
)
_DOTTED = r"(?<![\d.])(?P<d>\d{1,2})\.[ ]?(?P<m>\d{1,2})\.[ ]?(?P<y>(?:19|20)\d\d)\b"
_SLASHED = r"(?<![\d/])(?P<a>\d{1,2})(?P<s>[/-])(?P<b>\d{1,2})(?P=s)(?P<y>(?:19|20)\d\d)(?!\d)"
_CJK = r"(?P<y>(?:19|20)\d\d)年(?P<m>\d{1,2})月(?P<d>\d{1,2})日"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (_YMD, _CJK, _MONTH_FIRST, _DAY_FIRST, _DOTTED, _SLASHED, _COMPACT)
)
_CLOCK = (
    r"(?P<h>[0-2]?\d)(?:[:h時](?P<min>[0-5]\d)(?:分|:(?P<sec>[0-5]\d)(?:[.,](?P<frac>\d{1,9}))?)?(?!\d)"
    r"[ ]?(?P<half>[ap]\.?m\b\.?)?|[ ]?(?P<half_alone>[ap]\.?m\b\.?))"
)
_COMPACT_CLOCK = r"(?P<h>[0-2]\d)-?(?P<min>[0-5]\d)(?:(?P<sec>[0-5]\d))?(?!\d)"
#: What may stand between a day and its time.
_BETWEEN = (
    r"[ \t]{0,3}(?:\(?(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\)?)?[ \t]{0,3}"
    r"(?:T|,|@|at|um|à|·|\||[-–—]|\(|_)?[ \t]{0,3}(?:~|≈|around |about |ca\.? )?"
)
_TIME_AFTER = re.compile(_BETWEEN + _CLOCK, re.IGNORECASE)
_TIME_COMPACT = re.compile(rf"(?:T|_|-|[ ]){_COMPACT_CLOCK}")
_TIME_ALONE = re.compile(rf"(?<![\d:.]){_CLOCK}", re.IGNORECASE)
_OFFSET = r"[+-]\d{1,2}(?::?\d\d)?(?![\d:-])"
_ZONE_NAME = "|".join(sorted((*_ZONES, *_UNCLEAR_ZONES), key=len, reverse=True))
_ZONE = re.compile(rf"[ ]{{0,2}}\(?((?:UTC|GMT)?{_OFFSET}|(?:{_ZONE_NAME})\b)")
_UNTIL = re.compile(
    r"[ ]{0,2}(?:[-–—]|to|bis|→)[ ]{0,2}(?P<h>\d{1,2}):(?P<min>\d\d)(?::\d\d)?(?:[ ]?(?P<half>[AaPp])[Mm]\b)?"
)
_EPOCH = re.compile(r"(1\d{9})(\d{3})?(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class When:
    """A moment as it was found.

    Args:
        day: None where only a time of day stands there.
        clock: None where only a day stands there.
        zone: As the text says; None where it says none, or one that means several.
        written: The very characters.
        doubt: What could not be understood, in a sentence.
    """

    day: date | None
    clock: time | None
    zone: tzinfo | None
    written: str
    doubt: str | None = None

    @property
    def at(self) -> datetime | None:
        """The moment, midnight where no time is known; aware if the text says a zone."""
        if self.day is None:
            return None
        return datetime.combine(self.day, self.clock or time(), tzinfo=self.zone)


def find(text: str) -> When | None:
    """Return the first date in ``text``, with the time beside it; a time alone if there is no date."""
    seen = text[:_SEEN_CHARS]
    epoch = _EPOCH.fullmatch(seen.strip().strip("\"'"))
    if epoch is not None:
        moment = datetime.fromtimestamp(int(epoch[1]), UTC) + timedelta(milliseconds=int(epoch[2] or 0))
        return When(moment.date(), moment.time(), UTC, epoch[0])
    matches = [match for pattern in _DATES if (match := pattern.search(seen))]
    doubt = None
    for match in sorted(matches, key=lambda found: found.start()):
        day, doubt_here = _day(match)
        if day is None:
            doubt = doubt or doubt_here
            continue
        return _with_time(seen, match, day)
    alone = _clock_alone(seen)
    if alone is not None:
        return alone if doubt is None else When(None, alone.clock, alone.zone, alone.written, doubt)
    return None if doubt is None else When(None, None, None, "", doubt)


def clock_in(text: str) -> When | None:
    """Return the first time of day in ``text``, which holds one: ``15:08 EST``, ``3pm``, ``1508``."""
    seen = text[:_SEEN_CHARS].strip()
    alone = _clock_alone(seen)
    if alone is None and (match := re.match(_COMPACT_CLOCK, seen)) is not None:
        return _time(match, seen)
    return alone


def _day(match: re.Match[str]) -> tuple[date | None, str | None]:
    parts = match.groupdict()
    try:
        if "a" in parts:
            first, second = int(parts["a"]), int(parts["b"])
            if first <= 12 and second <= 12 and first != second:
                return None, f"the date {match[0]!r} may begin with the day or with the month"
            month, day = (second, first) if first > 12 else (first, second)
        else:
            month = _MONTHS[parts["mon"].lower()] if parts.get("mon") else int(parts["m"])
            day = int(parts["d"])
        return date(int(parts["y"]), month, day), None
    except ValueError:
        return None, f"{match[0]!r} is no day of any calendar"


def _with_time(seen: str, match: re.Match[str], day: date) -> When:
    after = _TIME_AFTER.match(seen, match.end()) or _TIME_COMPACT.match(seen, match.end())
    found = _time(after, seen) if after is not None else None
    if found is not None and after is not None:
        end = seen.find(found.written, match.end()) + len(found.written)
        return When(day, found.clock, found.zone, seen[match.start() : end], found.doubt)
    before = _clock_alone(seen[: match.start()])
    if before is not None and before.clock is not None and match.start() < 40:
        start = seen.find(before.written)
        return When(day, before.clock, before.zone, seen[start : match.end()], before.doubt)
    return When(day, None, None, match[0])


def _clock_alone(seen: str) -> When | None:
    match = _TIME_ALONE.search(seen)
    return _time(match, seen) if match is not None else None


def _time(match: re.Match[str], seen: str) -> When | None:
    parts = match.groupdict()
    hour, minute = int(parts["h"]), int(parts.get("min") or 0)
    half = (parts.get("half") or parts.get("half_alone") or "").lower()[:1]
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    if hour > 23:
        return None
    microsecond = int((parts.get("frac") or "0").ljust(6, "0")[:6])
    clock = time(hour, minute, int(parts.get("sec") or 0), microsecond)
    zone, end = _zone_behind(seen, match.end(), clock, exact=bool(parts.get("sec")) or "T" in match[0])
    found, doubt = _zone(zone)
    return When(None, clock, found, seen[match.start("h") : end], doubt)


def _zone_behind(seen: str, at: int, clock: time, *, exact: bool) -> tuple[str, int]:
    """Return the zone written behind a time, and where it ends.

    Behind a time of program's making (``exact``) ``-05:00`` is an offset; behind a person's, the end of a
    span if it is later.
    """
    until = None if exact else _UNTIL.match(seen, at)
    if until is not None:
        hour = int(until["h"]) % 12 + 12 if (until["half"] or "").lower() == "p" else int(until["h"])
        if (hour, int(until["min"])) > (clock.hour, clock.minute):
            at = until.end()
    match = _ZONE.match(seen, at)
    return (match[1], match.end()) if match is not None else ("", at)


def _zone(written: str) -> tuple[tzinfo | None, str | None]:
    if not written:
        return None, None
    if written in _ZONES:
        hours = _ZONES[written]
        return (timezone(timedelta(hours=hours)) if hours else UTC), None
    if written in _UNCLEAR_ZONES:
        return None, f"the time zone {written} means several; the time is taken as the writer's own"
    match = re.fullmatch(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d\d)?", written)
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0)) if match else timedelta(days=1)
    if match is None or offset >= timedelta(hours=24):
        return None, f"{written} is no offset from UTC"
    return (timezone(-offset if match[1] == "-" else offset) if offset else UTC), None
