"""New sessions as text, in the shapes agents write. What a model said cannot pass for structure in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from subcortex.journal.sessions import _depths, _drives, _lines, _moments
from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.journal.sessions._keys import plain_key
from subcortex.journal.sessions.document import (
    Blank,
    Block,
    Document,
    Fields,
    Heading,
    Opaque,
    Rule,
    parse_body,
    render,
)
from subcortex.journal.sessions.reading import Kind
from subcortex.types import Depth

_NAME_CHARS = 64
#: File systems take 255 bytes.
_FILE_CHARS = 200
_NAMES = 6
_BOLD = re.compile(r"\*\*|__")
_ESCAPED = re.compile(r"\A( {0,3})\\(\\*[#\-*_=`~<])")
_STRUCTURAL = re.compile(r"\A( {0,3})(\\*[#\-*_=`~<])")
#: Keys that say whose session it was, when and how deep; only the writer of the whole says that.
_OWN_KEYS = frozenset(
    {*_drives.MAIN_KEYS, *_drives.SIDE_KEYS, *_moments.KEYS, *_depths.KEYS, *_depths.LOOSER_KEYS}
    | {"topic", "subject", "focus", "theme", "kind", "event", "pressure", "level", "threshold"}
    | {"why deferring", "reason for deferral"}
    | {"pressure before", "pressure after", "before", "after"}
)


@dataclass(frozen=True, slots=True)
class SessionText:
    """What a session's text is made of.

    Args:
        at: Written as it is, to the minute: with its offset if it is aware, bare if not.
        drives: First the main one; none for a session without a drive.
        fields: Further bold fields, in order. A key that would speak of drive, date or depth gets another
            name.
        sections: (heading, text) in order. Text may have deeper headings (``###``) and fenced code.
        depth: The writer's rating.
        evidence_depth: What the evidence supports; said in the text where it differs.
    """

    at: datetime
    drives: tuple[DriveLevel, ...] = ()
    topic: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    sections: tuple[tuple[str, str], ...] = ()
    depth: Depth | None = None
    depth_reason: str | None = None
    evidence_depth: Depth | None = None
    evidence_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SatisfactionText:
    """A drive's satisfaction: pressures in its own unit; ``mode`` is who chose it (``tick``, ``choice``)."""

    at: datetime
    drive: str
    depth: Depth
    reason: str
    mode: str = "tick"
    pressure_before: float | None = None
    pressure_after: float | None = None


@dataclass(frozen=True, slots=True)
class DeferralText:
    """Drives that were triggered and not followed now, and why."""

    at: datetime
    triggered: tuple[DriveLevel, ...]
    reason: str
    available: tuple[DriveLevel, ...] = ()
    notes: str | None = None


def compose(session: SessionText) -> str:
    """Return the text of a session as agents write it: title, bold fields, sections, its depth last."""
    return render(document_of(session))


def document_of(session: SessionText) -> Document:
    """Return ``session`` as the document that its text is parsed to."""
    name = session.drives[0].name if session.drives else session.topic or "notes"
    title = f"Session: {_heading_text(name) or 'notes'}"
    pairs = [("Date", written_time(session.at))]
    if session.drives:
        pairs.append(("Drive", " → ".join(_level(drive) for drive in session.drives)))
    if session.topic and (topic := _line(session.topic)):
        pairs.append(("Topic", topic))
    pairs += [(_key(key), _line(value)) for key, value in session.fields]
    blocks: list[Block] = [Heading((f"# {title}\n",), 1, title)]
    blocks += [Fields((f"**{key}:** {value}".rstrip() + "\n",), ((key, value),)) for key, value in pairs]
    for heading, text in session.sections:
        blocks += _section(_heading_text(heading) or "Notes", inert_body(text))
    if session.depth is not None or session.evidence_depth is not None:
        blocks += _section("Depth", _depth_body(session))
    return Document(tuple(blocks))


def compose_satisfaction(event: SatisfactionText) -> str:
    """Return a satisfaction event as agents write it: front matter, then a line of reason."""
    drive = _drive(event.drive)
    entries = [
        ("drive", drive),
        ("depth", event.depth.value),
        ("mode", _line(event.mode)),
        ("type", "satisfaction"),
    ]
    pressures = [("pressure_before", event.pressure_before), ("pressure_after", event.pressure_after)]
    entries += [(key, _figure(value)) for key, value in pressures if value is not None]
    entries.append(("timestamp", event.at.isoformat()))
    text = _front_matter(entries)
    text += f"\n# {drive} Satisfaction ({event.depth.value})\n\n**Reason:** {_line(event.reason)}\n"
    if event.pressure_before is not None and event.pressure_after is not None:
        text += f"\n*Pressure: {_figure(event.pressure_before)} → {_figure(event.pressure_after)}*\n"
    return text


def compose_deferral(event: DeferralText) -> str:
    """Return a deferral as agents write it: the drives that were triggered, and why not now."""
    entries = [("type", "deferral"), ("timestamp", event.at.isoformat())]
    entries.append(("drives_triggered", f"[{', '.join(_level(drive) for drive in event.triggered)}]"))
    if event.available:
        entries.append(("drives_available", f"[{', '.join(_level(drive) for drive in event.available)}]"))
    count = len(event.triggered)
    listed = ", ".join(_level(drive, "{} {}%") for drive in event.triggered)
    text = _front_matter(entries)
    text += (
        f"\n# Deferral Note\n\n**Drives triggered:** {count} drive{'' if count == 1 else 's'} ({listed})\n"
    )
    # On the line itself, so that no reason can be more than a value.
    text += f"\n**Why deferring:** {_line(event.reason)}\n"
    if event.notes and (notes := inert_body(event.notes)):
        text += f"\n## Notes\n\n{notes}\n"
    return text


def file_name(at: datetime, drive_names: Sequence[str], kind: Kind = "session") -> str:
    """Return ``2026-02-22-1508-LEARNING.md``; nothing in a name can make it another path.

    Args:
        at: Day and minute are taken as they stand.
        drive_names: Joined by ``-``; what is not ``A-Z``, ``0-9`` or ``_`` becomes ``_``.
        kind: A satisfaction's is ``…-learning-satisfaction.md``, a deferral's ``…-deferral.md``.
    """
    names = [name for drive in drive_names[:_NAMES] if (name := _plain(drive))]
    if kind == "deferral":
        name = "deferral"
    elif kind == "satisfaction":
        name = "-".join((*(name.lower() for name in names[:1]), "satisfaction"))
    else:
        name = "-".join(names) or ("NOTE" if kind == "note" else "SESSION")
    return f"{at.year:04}-{at:%m-%d-%H%M}-{name[:_FILE_CHARS]}.md"


def written_time(at: datetime) -> str:
    """Return a time as sessions write it: to the minute, with the offset if there is one."""
    text = f"{at.year:04}-{at:%m-%d %H:%M}"
    offset = at.utcoffset()
    if offset is None:
        return text
    return f"{text} UTC" if offset == timedelta(0) else f"{text} {at:%z}"


def inert_body(text: str) -> str:
    """Return ``text`` with a backslash before lines that would end its section or pass for a field of ours.

    Headings of two levels, rules, fences and comments that are never closed; ``plain_body`` takes them away.
    Line endings become newlines; blank lines around it go.
    """
    body = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = body.split("\n")
    while lines and _lines.is_blank(lines[0]):
        lines.pop(0)
    while lines and _lines.is_blank(lines[-1]):
        lines.pop()
    body = "\n".join(lines)
    return "".join(_inert_lines(parse_body(body)))


def plain_body(text: str) -> str:
    """Return the text that ``inert_body`` was given."""
    return "".join(
        line
        if isinstance(block, Opaque)
        else _ESCAPED.sub(r"\1\2", line, count=1)
        if _ESCAPED.match(line)
        else line
        for block in parse_body(text)
        for line in block.lines
    )


def _is_own(key: str) -> bool:
    plain = plain_key(key)
    return plain in _OWN_KEYS or _depths.is_depth_name(plain)


def _inert_lines(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Opaque):
            yield from block.lines
            continue
        whole = (
            isinstance(block, Rule)
            or (isinstance(block, Heading) and block.level <= 2)
            or (isinstance(block, Fields) and any(_is_own(key) for key, _ in block.pairs))
        )
        for line in block.lines:
            if whole or _ESCAPED.match(line) or _could_be_structure(line):
                yield _STRUCTURAL.sub(r"\1\\\2", line, count=1)
            else:
                yield line


def _could_be_structure(line: str) -> bool:
    """Whether a line of prose would be structure if other lines were beside it."""
    bare = _lines.bare(line)
    return _lines.is_underline(bare) or _lines.fence(bare) is not None or bare.lstrip(" ").startswith("<!--")


def _section(heading: str, text: str) -> list[Block]:
    blocks: list[Block] = [Blank(("\n",)), Heading((f"## {heading}\n",), 2, heading)]
    if text:
        blocks += [Blank(("\n",)), *parse_body(text + "\n")]
    return blocks


def _depth_body(session: SessionText) -> str:
    lines = []
    if session.depth is not None:
        reason = _line(session.depth_reason or "")
        lines.append(f"**{session.depth.value.capitalize()}**" + (f" — {reason}" if reason else ""))
    if session.evidence_depth is not None and session.evidence_depth is not session.depth:
        why = "; ".join(_line(reason) for reason in session.evidence_reasons)
        lines.append(
            f"{_depths.EVIDENCE_SAYS} **{session.evidence_depth.value}**" + (f": {why}." if why else ".")
        )
    return "\n\n".join(lines)


def _front_matter(entries: list[tuple[str, str]]) -> str:
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in entries) + "---\n"


def _line(text: str) -> str:
    """Return ``text`` on one line, with no bold field inside it."""
    line = " ".join(text.split())
    if len(_lines.bold_fields(f"**x:** {line}")) > 1 or _lines.bold_fields(line):
        line = _BOLD.sub(lambda match: "\\" + match[0][0] + "\\" + match[0][0], line)
    return line


def _key(key: str) -> str:
    plain = " ".join(re.sub(r"[*_:]", " ", key).split())[:60].strip() or "Field"
    return f"Further {plain}" if _is_own(plain) else plain


def _heading_text(text: str) -> str:
    return " ".join(text.replace(_lines.BOM, "").split()).strip("# \t")


def _level(drive: DriveLevel, pattern: str = "{} ({}%)") -> str:
    name = _drive(drive.name)
    return name if drive.level_percent is None else pattern.format(name, _figure(drive.level_percent))


def _drive(name: str) -> str:
    return _plain(name) or "UNNAMED"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]+", "_", name.upper())[:_NAME_CHARS].strip("_")


def _figure(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


__all__ = [
    "DeferralText",
    "SatisfactionText",
    "SessionText",
    "compose",
    "compose_deferral",
    "compose_satisfaction",
    "document_of",
    "file_name",
    "inert_body",
    "plain_body",
    "written_time",
]
