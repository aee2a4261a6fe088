"""Whose session it was: drives from every place that names them, the surest first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from subcortex.journal.sessions import _drive_names, _satisfied, _titles
from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.journal.sessions._keys import Pair, first_value, matching, plain_key, words
from subcortex.journal.sessions._outline import Outline
from subcortex.journal.sessions._titles import FileSays, TitleSays

#: Keys whose value is the drive, the surest first.
MAIN_KEYS = (
    "drive",
    "drives",
    "primary drive",
    "main drive",
    "drive name",
    "active drive",
    "triggering drive",
    "trigger drive",
    "drive state",
    "driven by",
    "drive satisfied",
    "drive addressed",
    "drives satisfied",
    "drives addressed",
    "drives engaged",
    "satisfied drive",
    "satisfied drives",
    "drive triggered",
    "drives triggered",
    "triggered drive",
    "triggered drives",
    "drive deferred",
    "drives deferred",
    "deferred drive",
    "deferred drives",
    "deferred",
    "deferring",
    "secondary drive",
    "secondary drives",
    "other drive",
    "trieb",
    "impulso",
)
#: Keys that name a drive at times: there a name must be known, or in capitals.
SIDE_KEYS = (
    "triggered",
    "triggered by",
    "trigger",
    "session",
    "session type",
    "satisfied",
    "type",
    "mode",
    "tags",
)
_LEVEL_KEYS = (
    "level",
    "drive level",
    "pressure",
    "pressure level",
    "drive pressure",
    "pressure before",
    "trigger level",
)
#: ``triggered by CURIOSITY``, ``my CARE drive``, in the words before the first section.
_IN_PROSE = re.compile(
    r"\b(?:(?:triggered|driven) by|drive was|for) (?:the |my )?(?P<name>[^\W\d_][\w-]{2,40})\b"
)


#: Drives that are no motives.
_HARDWARE = words("hard disk flash usb thumb google test external tape ssd nvme")


def explicit_names(places: Outline) -> frozenset[str]:
    """Return the names in fields that hold drives."""
    return frozenset(drive.name for drive in _explicit(places))


def drives(
    places: Outline, titles: tuple[TitleSays, ...], by_file: FileSays
) -> tuple[tuple[DriveLevel, ...], tuple[str, ...]]:
    """Return the drives, first the main one, and sentences on what is doubtful."""
    explicit = _drive_names.merged(_explicit(places))
    stated = matching((*places.front, *places.head), MAIN_KEYS[:2])
    if not explicit and stated and all(_drive_names.says_none(value) for _, value in stated) and stated[0][1]:
        return (), ()
    titled = [drive for title in titles for drive in title.drives]
    found: tuple[DriveLevel, ...]
    if explicit:
        # Beside a named drive, a title or file adds only what is certainly one.
        sure = [
            drive
            for drive in (*titled, *(by_file.drives if by_file.only_drives else ()))
            if _drive_names.is_known(drive.name) or drive.name in {known.name for known in explicit}
        ]
        found = _drive_names.merged((*explicit, *sure))
    else:
        found = _drive_names.merged((*titled, *by_file.drives))
    side = tuple(_certain(matching((*places.front, *places.head), SIDE_KEYS)))
    if not found:
        logs = by_file.satisfaction or any(title.satisfaction for title in titles)
        found = _drive_names.merged(side) or _last_resorts(places, logs=logs)
    elif side:
        levels = {drive.name: drive for drive in side}
        found = _drive_names.merged(
            (*found, *(levels[drive.name] for drive in found if drive.name in levels))
        )
    told = {drive.name: drive for drive in _certain(matching((*places.loose, *places.body), MAIN_KEYS))}
    found = _drive_names.merged((*found, *(told[drive.name] for drive in found if drive.name in told)))
    doubts = tuple(
        f"the {key} {value[:60]!r} names no drive that can be read"
        for key, value in matching((*places.front, *places.head), MAIN_KEYS[:2])
        if value and not _drive_names.says_none(value) and not _drive_names.levels(value)
    )
    return _with_level(found, places), doubts


def _explicit(places: Outline) -> Iterator[DriveLevel]:
    for _, value in matching((*places.front, *places.head), MAIN_KEYS):
        yield from _drive_names.levels(value)


def _certain(pairs: Iterable[Pair]) -> Iterator[DriveLevel]:
    for _, value in pairs:
        for drive in _drive_names.levels(value):
            if _drive_names.is_known(drive.name) or (
                drive.name in value and _drive_names.looks_like_drive(drive.name)
            ):
                yield drive


def _last_resorts(places: Outline, *, logs: bool) -> tuple[DriveLevel, ...]:
    """Return drives from where they may be about something else: list items, sections, commands."""
    loose = tuple(_certain(matching((*places.loose, *places.body), MAIN_KEYS)))
    if loose:
        return _drive_names.merged(loose)
    asked = [
        pair
        for pair in (*places.head, *places.loose, *places.body)
        if "drive" in (said := plain_key(pair[0]).split()) and not _HARDWARE.intersection(said)
    ]
    if asked and (loose := tuple(_certain(asked))):
        return _drive_names.merged(loose)
    prose = [
        DriveLevel(_drive_names.canonical(match["name"]), _drive_names.level_in(line[match.start() :]))
        for line in places.head_lines[:10]
        for match in _IN_PROSE.finditer(line)
        if match["name"].isupper() and _drive_names.looks_like_drive(match["name"])
    ]
    if prose:
        return _drive_names.merged(prose)
    headed = [
        drive
        for section in places.sections[:50]
        if section.level <= 3
        and re.search(r"session|drive|satisf|defer", section.heading[:400], re.IGNORECASE)
        for drive in _titles.title_says(section.heading).drives
    ]
    if headed:
        return _drive_names.merged(headed)
    if told := [DriveLevel(event.drive) for event in _satisfied.events(places) if event.drive]:
        return _drive_names.merged(told)
    if not logs:
        return ()
    # What is headed as satisfaction lists drives with their depths.
    listed = (event.drive for section in places.sections[:50] for event in _satisfied.beside(section.body))
    return _drive_names.merged(DriveLevel(name) for name in listed if name)


def _with_level(found: tuple[DriveLevel, ...], places: Outline) -> tuple[DriveLevel, ...]:
    if not found or found[0].level_percent is not None:
        return found
    pairs = (*places.front, *places.head, *places.loose)
    for key, value in matching(pairs, _LEVEL_KEYS):
        if (
            value
            and (level := _drive_names.level_in(value)) is not None
            and (len(found) == 1 or key != "pressure")
        ):
            return (replace(found[0], level_percent=level), *found[1:])
    threshold, pressure = (
        first_value(pairs, ("threshold",)),
        first_value(pairs, ("pressure", "pressure before")),
    )
    try:
        if threshold and pressure and float(threshold) > 0:
            return (
                replace(found[0], level_percent=round(100 * float(pressure) / float(threshold), 2)),
                *found[1:],
            )
    except ValueError:
        pass
    return found
