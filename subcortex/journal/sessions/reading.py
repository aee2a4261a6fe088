"""What a careful reader finds in a session: drives, date, depth, topic; and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from subcortex.journal.sessions import _depths, _drives, _moments, _titles
from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.journal.sessions._keys import first_value, matching, plain_key
from subcortex.journal.sessions._outline import Outline, Section, outline
from subcortex.journal.sessions._pressure import pressures
from subcortex.journal.sessions.document import Document
from subcortex.types import Depth

Kind = Literal["session", "satisfaction", "deferral", "note"]
Shape = Literal["fields", "front_matter", "satisfaction", "deferral", "plain"]

_TOPIC_KEYS = ("topic", "subject", "focus", "theme")
_REASON_KEYS = ("reason", "depth reason", "why")
#: Fields that tell of drives put off, and those beside which that is only a part of a session.
_DEFERRAL_KEYS = (
    "deferred",
    "deferring",
    "drives deferred",
    "deferred drives",
    "why deferring",
    "reason for deferral",
)
_HELD_KEYS = ("drive", "drives", "duration", *_depths.KEYS)
#: Fields that make a text the first shape; any bold line may be called a field.
_SHAPE_KEYS = (*_drives.MAIN_KEYS, *_moments.DATE_KEYS, *_depths.KEYS, *_TOPIC_KEYS)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says of itself.

    Args:
        at: Aware if the text says a zone that means one thing, else the writer's own time. Midnight where
            only a day is known.
        at_written: The characters that ``at`` was read from, or that could not be read.
        drives: First the main one.
        depth: The writer's own rating.
        fields: Front matter and bold fields before the first section, in order.
        not_understood: Sentences on what was there and could not be read, or took a rule to read.
    """

    kind: Kind
    shape: Shape
    at: datetime | None
    at_written: str | None
    drives: tuple[DriveLevel, ...]
    title: str | None
    topic: str | None
    depth: Depth | None
    depth_reason: str | None
    pressure_before: float | None
    pressure_after: float | None
    fields: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    not_understood: tuple[str, ...]


def read(document: Document, file_name: str | None = None) -> Reading:
    """Return what ``document`` says of itself; where it says no date or drive, its file's name may.

    Args:
        document: As ``parse`` gives it.
        file_name: ``2026-02-22-1508-LEARNING.md``; folders before it are ignored, and nothing is opened.
    """
    places = outline(document)
    by_file = _titles.file_says(file_name)
    agreed = by_file.doubtful | _drives.explicit_names(places)
    titles = tuple(_titles.title_says(title, agreed) for title in places.titles[:50])
    moment = _moments.moment(places, titles, by_file)
    drives, drive_doubts = _drives.drives(places, titles, by_file)
    kind = _kind(places, titles, by_file, drives)
    depth, depth_doubts = _depths.depth(places, titles, drives)
    before, after = pressures(places)
    title = places.titles[0] if places.titles else None
    reason = depth.reason if depth is not None else None
    if reason is None and kind == "satisfaction":
        reason = first_value((*places.front, *places.head), _REASON_KEYS)
    doubts = [*moment.doubts, *drive_doubts, *depth_doubts]
    if places.unclosed:
        doubts.insert(0, "the front matter is never closed; it was read as far as its lines reach")
    topic = first_value((*places.front, *places.head, *places.loose), _TOPIC_KEYS)
    return Reading(
        kind=kind,
        shape=_shape(kind, places),
        at=moment.at,
        at_written=moment.written,
        drives=drives,
        title=title,
        topic=topic or (titles[0].topic if titles else None),
        depth=depth.depth if depth is not None else None,
        depth_reason=reason,
        pressure_before=before,
        pressure_after=after,
        fields=(*places.front, *places.head),
        sections=places.sections,
        not_understood=tuple(dict.fromkeys(doubts)),
    )


def _kind(
    places: Outline,
    titles: tuple[_titles.TitleSays, ...],
    by_file: _titles.FileSays,
    drives: tuple[DriveLevel, ...],
) -> Kind:
    said = (first_value((*places.front, *places.head), ("type", "kind", "event")) or "").lower()
    if "deferr" in said or said.strip() == "defer":
        return "deferral"
    if "satisf" in said:
        return "satisfaction"
    explicit = "session" in said
    if not explicit and (by_file.deferral or (titles and titles[0].deferral and not by_file.satisfaction)):
        return "deferral"
    sections = [section for section in places.sections if section.level > 1 and section.heading != ""]
    if not explicit and (by_file.satisfaction or (titles and titles[0].satisfaction and len(sections) < 2)):
        return "satisfaction"
    keys = {plain_key(key) for key, _ in (*places.front, *places.head)}
    if not explicit and keys.intersection(_DEFERRAL_KEYS) and not keys.intersection(_HELD_KEYS):
        return "deferral"
    if explicit or drives or "drive" in keys or (titles and "session" in places.titles[0][:400].lower()):
        return "session"
    return "note"


def _shape(kind: Kind, places: Outline) -> Shape:
    if places.has_front_matter:
        if kind == "satisfaction":
            return "satisfaction"
        return "deferral" if kind == "deferral" else "front_matter"
    return "fields" if matching(places.head, _SHAPE_KEYS) else "plain"
