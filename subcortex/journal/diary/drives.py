"""What drives have built up, in rows: each change one transaction that reads, decides, writes and records.

What a change does to a drive is decided by whoever asks for it: a function from the row as it is to the row
as it shall be, called while the write lock is held, so that no two changes start from the same state.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from subcortex.drives import State
from subcortex.errors import InvalidRequest
from subcortex.journal.diary.access import Diary
from subcortex.journal.rows import storable, timestamp

EventKind = Literal["triggered", "satisfied", "bumped", "thwarted", "deferred"]


@dataclass(frozen=True, slots=True)
class DriveEvent:
    """What raised or lowered a drive, and when.

    Args:
        seq: Rises with each event.
        depth: Of the session that satisfied it.
        session_id: The session it came from.
    """

    seq: int
    at: datetime
    drive: str
    kind: EventKind
    pressure_before: float | None
    pressure_after: float | None
    depth: str | None
    session_id: str | None
    reason: str | None


#: From a drive's row as it was kept, None where it has none yet, to the row as it is now.
Grow = Callable[[State | None], State]
#: From the row as it is now to the row as it shall be.
Decide = Callable[[State], State]


def levels(diary: Diary) -> dict[str, State]:
    """Return every drive that has a row, by name."""
    with diary.reading() as conn:
        return {row["drive"]: _row(row) for row in conn.execute("SELECT * FROM drive_states ORDER BY drive")}


def grow_all(
    diary: Diary,
    grow: Mapping[str, Grow],
    *,
    triggers: Callable[[State | None, State], bool] | None = None,
) -> dict[str, State]:
    """Grow the drives named, all in one transaction; drives that are not named stay as they are.

    Args:
        grow: What becomes of each.
        triggers: Whether this growth is what triggered a drive; recorded as an event then.
    """
    grown = {}
    with diary.transaction() as conn:
        for name, decide in grow.items():
            before = _kept(conn, name)
            after = grown[name] = decide(before)
            _keep(conn, after)
            if triggers and triggers(before, after):
                began = before.pressure if before else None
                _insert(conn, "triggered", diary.clock.now(), name, began, after.pressure, None, None, None)
    return grown


def satisfy(
    diary: Diary,
    drive: str,
    grow: Grow,
    decide: Decide,
    *,
    depth: str,
    session_id: str | None = None,
    reason: str | None = None,
) -> tuple[State, State]:
    """Lower a drive as ``decide`` says; returns its row before and after.

    Raises:
        InvalidRequest: There is no session with that id.
    """
    return change(diary, drive, "satisfied", grow, decide, depth=depth, session_id=session_id, reason=reason)


def bump(
    diary: Diary,
    drive: str,
    grow: Grow,
    decide: Decide,
    *,
    session_id: str | None = None,
    reason: str | None = None,
) -> tuple[State, State]:
    """Raise a drive as ``decide`` says; returns its row before and after."""
    return change(diary, drive, "bumped", grow, decide, session_id=session_id, reason=reason)


def change(
    diary: Diary,
    drive: str,
    kind: EventKind,
    grow: Grow,
    decide: Decide,
    *,
    depth: str | None = None,
    session_id: str | None = None,
    reason: str | None = None,
) -> tuple[State, State]:
    """Bring a drive up to now, change it as ``decide`` says, record why; returns its rows before and after.

    Args:
        session_id: The session it came from; the beginning of its id is enough.

    Raises:
        InvalidRequest: There is no session with that id, or more than one begins so.
    """
    with diary.transaction() as conn:
        before = grow(_kept(conn, drive))
        after = decide(before)
        _keep(conn, after)
        values = (before.pressure, after.pressure, depth, _session(conn, session_id), reason)
        _insert(conn, kind, diary.clock.now(), drive, *values)
    return before, after


def record(
    diary: Diary,
    drive: str,
    kind: EventKind,
    *,
    pressure_before: float | None = None,
    pressure_after: float | None = None,
    depth: str | None = None,
    session_id: str | None = None,
    reason: str | None = None,
) -> None:
    """Record what happened to a drive whose state is kept elsewhere.

    Raises:
        InvalidRequest: There is no session with that id.
    """
    with diary.transaction() as conn:
        values = (pressure_before, pressure_after, depth, _session(conn, session_id), reason)
        _insert(conn, kind, diary.clock.now(), drive, *values)


def history(
    diary: Diary, drive: str | None = None, *, limit: int = 20, before: int | None = None
) -> list[DriveEvent]:
    """Return what happened to one drive, or to all, newest first.

    Args:
        limit: How many at most.
        before: Only events older than the one with this ``seq``.
    """
    wheres, values = (
        ["seq < :before"],
        {"before": before if before is not None else 2**63 - 1, "limit": limit},
    )
    if drive is not None:
        wheres.append("drive = :drive")
    query = f"SELECT * FROM drive_events WHERE {' AND '.join(wheres)} ORDER BY seq DESC LIMIT :limit"  # noqa: S608
    with diary.reading() as conn:
        found = conn.execute(query, {**values, "drive": storable(drive or "")}).fetchall()
    return [_event(row) for row in found]


def last(diary: Diary, drive: str, kind: EventKind) -> DriveEvent | None:
    """Return the newest event of that kind of a drive."""
    query = "SELECT * FROM drive_events WHERE drive = ? AND kind = ? ORDER BY seq DESC LIMIT 1"
    with diary.reading() as conn:
        row = conn.execute(query, (storable(drive), kind)).fetchone()
    return _event(row) if row else None


def was_told(diary: Diary, session_id: str) -> bool:
    """Return whether a drive was satisfied by a session, or asked in vain."""
    sql = (
        "SELECT EXISTS (SELECT 1 FROM drive_events"
        " WHERE session_id = ? AND kind IN ('satisfied', 'thwarted'))"
    )
    with diary.reading() as conn:
        return bool(conn.execute(sql, (session_id,)).fetchone()[0])


def _kept(conn: sqlite3.Connection, drive: str) -> State | None:
    row = conn.execute("SELECT * FROM drive_states WHERE drive = ?", (storable(drive),)).fetchone()
    return _row(row) if row else None


def _keep(conn: sqlite3.Connection, row: State) -> None:
    satisfied_at = timestamp(row.satisfied_at) if row.satisfied_at else None
    conn.execute(
        "INSERT INTO drive_states (drive, pressure, grown_at, satisfied_at, thwarted) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (drive) DO UPDATE SET pressure = excluded.pressure, grown_at = excluded.grown_at,"
        " satisfied_at = excluded.satisfied_at, thwarted = excluded.thwarted",
        (storable(row.drive), row.pressure, timestamp(row.grown_at), satisfied_at, row.thwarted),
    )


def _insert(conn: sqlite3.Connection, kind: EventKind, at: datetime, drive: str, *values: object) -> None:
    *facts, reason = values
    told = storable(reason) if isinstance(reason, str) else None
    conn.execute(
        "INSERT INTO drive_events"
        " (kind, at, drive, pressure_before, pressure_after, depth, session_id, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (kind, timestamp(at), storable(drive), *facts, told),
    )


def _session(conn: sqlite3.Connection, beginning: str | None) -> str | None:
    """Return the one session whose id begins so; None if none is asked for."""
    if beginning is None:
        return None
    sought = storable(beginning)
    found = conn.execute(
        "SELECT id FROM sessions WHERE id BETWEEN ? AND ? || char(1114111)"
        " AND substr(id, 1, length(?)) = ? LIMIT 2",
        (sought,) * 4,
    ).fetchall()
    if not sought or len(found) != 1:
        raise InvalidRequest(
            f"no session, or more than one, has an id that begins with {beginning!r}",
            hint="`subcortex sessions list` has them.",
            param="session",
        )
    return str(found[0]["id"])


def _row(row: sqlite3.Row) -> State:
    satisfied_at = row["satisfied_at"]
    return State(
        drive=row["drive"],
        pressure=row["pressure"],
        grown_at=datetime.fromisoformat(row["grown_at"]),
        satisfied_at=datetime.fromisoformat(satisfied_at) if satisfied_at else None,
        thwarted=row["thwarted"],
    )


def _event(row: sqlite3.Row) -> DriveEvent:
    return DriveEvent(
        seq=row["seq"],
        at=datetime.fromisoformat(row["at"]),
        drive=row["drive"],
        kind=row["kind"],
        pressure_before=row["pressure_before"],
        pressure_after=row["pressure_after"],
        depth=row["depth"],
        session_id=row["session_id"],
        reason=row["reason"],
    )


def session_named(diary: Diary, beginning: str) -> str:
    """Return the whole id of the session whose id begins so.

    Raises:
        InvalidRequest: There is none, or more than one.
    """
    with diary.reading() as conn:
        found = _session(conn, beginning)
    assert found is not None
    return found
