"""Sessions between records and rows; pure translation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from subcortex.errors import InvalidRequest
from subcortex.journal.diary.session_records import SessionDrive, SessionEntry, SessionSummary
from subcortex.journal.rows import storable, timestamp

if TYPE_CHECKING:
    from subcortex.journal.sessions import Reading

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: What file systems take of one name, bytes.
_NAME_BYTES = 255
_PATH_BYTES = 1024

#: Every column of a ``SessionSummary`` but its drives.
COLUMNS = (
    "id, at, at_written, recorded_at, kind, shape, origin, state, ended_at, title, topic, depth,"
    " depth_reason, depth_by, evidence_depth, evidence_reasons, pressure_before, pressure_after, file,"
    " source, digest, not_understood"
)
SUMMARY = ", ".join(f"s.{name.strip()}" for name in COLUMNS.split(","))


def utc(at: datetime) -> datetime | None:
    """Return ``at`` in UTC, a naive one taken for this machine's local time; None where no clock goes."""
    try:
        return at.astimezone(UTC)
    except (OverflowError, ValueError, OSError):
        return None


def microseconds(at: datetime) -> int:
    """Return ``at`` (aware) in microseconds since 1970."""
    return (at - _EPOCH) // _MICROSECOND


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file's bytes, hex."""
    return hashlib.sha256(content).hexdigest()


def checked_file(file: str) -> str:
    """Return ``file`` if it is a name that stays under whatever folder it is put in.

    Raises:
        InvalidRequest: It is absolute, leads upwards, or no file system takes it.
    """
    parts = file.split("/")
    wrong = (
        "\0" in file
        or any(part in ("", ".", "..") for part in parts)
        or any(len(part.encode("utf-8", "replace")) > _NAME_BYTES for part in parts)
        or len(file.encode("utf-8", "replace")) > _PATH_BYTES
    )
    if wrong:
        raise InvalidRequest(
            f"{file[:200]!r} cannot be the name of a session's file",
            hint="Give a relative name without `..`, 255 bytes a part at most.",
            param="file",
        )
    return file


def numbered(file: str, suffix: str) -> str:
    """Return ``file`` with ``-suffix`` before its extension, short enough still to be a name."""
    path = PurePosixPath(file)
    room = _NAME_BYTES - len(f"-{suffix}{path.suffix}".encode())
    stem = path.stem.encode()[:room].decode("utf-8", "ignore")
    return str(path.with_name(f"{stem}-{suffix}{path.suffix}"))


def read_columns(reading: Reading) -> dict[str, Any]:
    """Return the columns that a reading of the text gives, ``at`` apart."""
    depth = reading.depth.value if reading.depth is not None else None
    return {
        "at_written": _text(reading.at_written),
        "kind": reading.kind,
        "shape": reading.shape,
        "drive": _text(reading.drives[0].name.upper()) if reading.drives else None,
        "title": _text(reading.title),
        "topic": _text(reading.topic),
        "depth": depth,
        "depth_reason": _text(reading.depth_reason),
        "depth_by": "writer" if depth is not None else None,
        "pressure_before": reading.pressure_before,
        "pressure_after": reading.pressure_after,
        "not_understood": json_list(reading.not_understood),
    }


def drive_rows(drives: Iterable[Any], session_id: str, seq: int) -> list[tuple[Any, ...]]:
    """Return the rows of ``session_drives``, each name once, in upper case."""
    levels: dict[str, float | None] = {}
    for drive in drives:
        levels.setdefault(storable(drive.name.upper()), drive.level_percent)
    return [(session_id, place, name, level, seq) for place, (name, level) in enumerate(levels.items())]


def json_list(values: Sequence[str]) -> str | None:
    """Return strings as the database holds a list of them; None for none."""
    return storable(json.dumps([str(value) for value in values], ensure_ascii=False)) if values else None


def values_of(row: Mapping[str, Any], drives: Sequence[SessionDrive]) -> dict[str, Any]:
    """Return the fields of a ``SessionSummary`` from a row of ``SUMMARY``."""
    values = {name: row[name] for name in SessionSummary.model_fields if name != "drives"}
    for name in ("evidence_reasons", "not_understood"):
        values[name] = json.loads(row[name] or "[]")
    return {**values, "drives": list(drives)}


def entry_of(row: Mapping[str, Any]) -> SessionEntry:
    """Return the record of a row of ``session_entries``."""
    return SessionEntry(at=row["at"], kind=row["kind"], section=row["section"], text=row["text"])


def at_text(at: datetime | None) -> str | None:
    """Return a time as the journal writes it."""
    return timestamp(at) if at is not None else None


def _text(value: str | None) -> str | None:
    return storable(value) if value is not None else None
