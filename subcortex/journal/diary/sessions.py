"""Sessions written down: opened, told notes, ended, rated; or handed in whole, as an import does.

Each function is one transaction on a ``Diary``, durable once it returns. Reading them back is next door
(``session_queries``).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from subcortex.errors import InvalidRequest
from subcortex.journal import processes
from subcortex.journal.diary import session_places as places
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary import session_rows as rows
from subcortex.journal.diary.access import Diary
from subcortex.journal.diary.session_records import Added, EntryKind, Origin, SessionRecord
from subcortex.journal.rows import storable, timestamp
from subcortex.types import Depth, new_thought_id

if TYPE_CHECKING:
    from subcortex.journal.sessions import DriveLevel, Reading


@dataclass(frozen=True, slots=True)
class Given:
    """A session handed in whole.

    Args:
        text: The markdown.
        reading: What was read in it.
        file: The name it wants under the folder of sessions, relative; another is found if it is taken.
        origin: Who made it.
        source: Absolute path that it was imported from.
        encoding: What the file's bytes were decoded by.
        at_home: ``source`` lies in the folder of sessions, so ``file`` says whose face it is.
    """

    text: str
    reading: Reading
    file: str | None
    origin: Origin
    source: str | None = None
    encoding: str = "utf-8"
    at_home: bool = False


def add(diary: Diary, text: str, reading: Reading, *, file: str | None, origin: Origin) -> Added:
    """Add a session that is over; the same text under the same name is not added twice.

    Raises:
        InvalidRequest: ``file`` is no relative name.
        JournalError: The database takes no writes now.
    """
    return add_all(diary, [Given(text, reading, file, origin)])[0]


def add_all(diary: Diary, given: Iterable[Given]) -> list[Added]:
    """Add sessions in one transaction: all of them, or none.

    A row with the same bytes under the same name (the last part of it) is ``known`` and left as it is. The
    row that came from the very same source, and changed there, is ``updated``; a rating that a person gave
    it and the evidence's stay. Everything else is a row of its own, for two agents may well have written
    files of one name in the same minute.

    Raises:
        InvalidRequest: A ``file`` is no relative name.
        JournalError: The database takes no writes now.
    """
    checked = [(item, rows.checked_file(storable(item.file)) if item.file else None) for item in given]
    with diary.transaction() as conn:
        return [_add(conn, item, file, diary.clock.now()) for item, file in checked]


def open_session(
    diary: Diary,
    drives: Sequence[DriveLevel],
    *,
    origin: Literal["agent", "tick"] = "agent",
    topic: str | None = None,
    pressure_before: float | None = None,
) -> SessionRecord:
    """Begin a session that this process holds; it has entries and no text until it ends.

    Args:
        drives: Behind it, the first of them first.
        pressure_before: Of the first drive, as it begins.

    Raises:
        JournalError: The database takes no writes now.
    """
    session_id, now, pid = new_thought_id(), diary.clock.now(), os.getpid()
    with diary.transaction() as conn:
        seq = places.free_seq(conn, now)
        columns = {
            "seq": seq,
            "id": session_id,
            "at": timestamp(now),
            "recorded_at": timestamp(now),
            "kind": "session",
            "shape": "fields",
            "origin": origin,
            "state": "open",
            "owner_pid": pid,
            "owner_started_s": processes.started_s(pid),
            "drive": storable(drives[0].name.upper()) if drives else None,
            "topic": storable(topic) if topic is not None else None,
            "pressure_before": pressure_before,
            "digest": rows.digest_of(b""),
            "text": "",
        }
        places.insert(conn, columns)
        places.write_drives(conn, drives, session_id, seq)
        return queries.whole(conn, session_id)


def note(
    diary: Diary, session_id: str, text: str, *, kind: EntryKind = "note", section: str | None = None
) -> None:
    """Write down something that belongs to an open session; it is kept even if this process is killed next.

    Args:
        kind: What ``text`` is: words, or the id of a thought or an experiment, or the value of a field.
        section: Heading it goes under; of a field, its name.

    Raises:
        InvalidRequest: There is no such session, or it is over.
        JournalError: The database takes no writes now.
    """
    note_all(diary, session_id, [(kind, section, text)])


def note_all(diary: Diary, session_id: str, told: Iterable[tuple[EntryKind, str | None, str]]) -> None:
    """Write down several things at once, all of them or none; each is (kind, section, text) as in ``note``.

    Raises:
        InvalidRequest: There is no such session, or it is over.
        JournalError: The database takes no writes now.
    """
    with diary.transaction() as conn:
        _require_open(conn, session_id)
        at = timestamp(diary.clock.now())
        conn.executemany(
            "INSERT INTO session_entries (session_id, at, kind, section, text) VALUES (?, ?, ?, ?, ?)",
            [
                (session_id, at, kind, storable(section) if section is not None else None, storable(text))
                for kind, section, text in told
            ],
        )


def take_over(diary: Diary, session_id: str) -> SessionRecord:
    """Make an open session this process's own, to go on with what a dead one began.

    Raises:
        InvalidRequest: There is no such session, it is over, or its process still runs.
        JournalError: The database takes no writes now.
    """
    pid = os.getpid()
    with diary.transaction() as conn:
        row = _require_open(conn, session_id)
        if row["owner_pid"] not in (None, pid) and processes.alive(row["owner_pid"], row["owner_started_s"]):
            raise InvalidRequest(
                f"session {session_id} is held by process {row['owner_pid']}, which runs",
                hint="Let it end the session.",
                param="id",
            )
        conn.execute(
            "UPDATE sessions SET owner_pid = ?, owner_started_s = ? WHERE id = ?",
            (pid, processes.started_s(pid), session_id),
        )
        return queries.whole(conn, session_id)


def end(
    diary: Diary,
    session_id: str,
    text: str,
    reading: Reading,
    *,
    file: str,
    state: Literal["ended", "interrupted"] = "ended",
) -> SessionRecord:
    """End an open session with its whole text; its time and its drives stay as it was opened with them.

    Text spells a drive in letters that make a file's name; the row keeps the drive's own.

    Args:
        reading: Of ``text``.
        file: The name it wants under the folder of sessions; the record says which one it got.
        state: ``interrupted``: its process ended first, and this is what it left.

    Raises:
        InvalidRequest: There is no such session, it is over, or ``file`` is no relative name.
        JournalError: The database takes no writes now.
    """
    text, name = storable(text), rows.checked_file(storable(file))
    digest = rows.digest_of(text.encode())
    with diary.transaction() as conn:
        row = _require_open(conn, session_id)
        read = rows.read_columns(reading)
        for column in ("topic", "pressure_before"):
            read[column] = row[column] if read[column] is None else read[column]
        read["drive"] = row["drive"] or read["drive"]
        columns = {
            **read,
            "state": state,
            "owner_pid": None,
            "owner_started_s": None,
            "ended_at": timestamp(diary.clock.now()),
            "file": places.free_file(conn, name, digest, session_id),
            "digest": digest,
            "text": text,
        }
        places.update(conn, columns, session_id)
        opened_with = "SELECT 1 FROM session_drives WHERE session_id = ?"
        if reading.drives and conn.execute(opened_with, (session_id,)).fetchone() is None:
            places.write_drives(conn, reading.drives, session_id, row["seq"])
        return queries.whole(conn, session_id)


def open_sessions(
    diary: Diary, *, origin: Origin | None = None, dead: bool | None = None, mine: bool = False
) -> list[str]:
    """Return the ids of open sessions, oldest first.

    Args:
        origin: Only of these.
        dead: Only those whose process is gone (True), or still runs (False).
        mine: With ``dead``, also those of this very process.

    Raises:
        JournalError: The database cannot be read.
    """
    # The index holds what is not ended, so the first of both conditions is the index's own.
    with diary.reading() as conn:
        found = conn.execute(
            "SELECT id, origin, owner_pid, owner_started_s FROM sessions"
            " WHERE state <> 'ended' AND state = 'open' ORDER BY seq"
        ).fetchall()
    return [
        row["id"]
        for row in found
        if origin in (None, row["origin"])
        and (
            dead is None
            or dead != processes.alive(row["owner_pid"] or 0, row["owner_started_s"])
            or (mine and row["owner_pid"] == os.getpid())
        )
    ]


def rate(
    diary: Diary,
    session_id: str,
    depth: Depth,
    reason: str | None,
    *,
    by: Literal["writer", "person"] = "person",
) -> SessionRecord:
    """Say how deep a session went; the evidence's rating stays beside it, and the text as it is.

    Raises:
        InvalidRequest: There is no such session.
        JournalError: The database takes no writes now.
    """
    said = {"depth": Depth(depth).value, "depth_reason": storable(reason) if reason else None, "depth_by": by}
    return _changed(diary, session_id, said)


def rate_by_evidence(diary: Diary, session_id: str, depth: Depth, reasons: Sequence[str]) -> SessionRecord:
    """Say how deep a session went by what it left behind.

    Raises:
        InvalidRequest: There is no such session.
        JournalError: The database takes no writes now.
    """
    said = {"evidence_depth": Depth(depth).value, "evidence_reasons": rows.json_list(reasons)}
    return _changed(diary, session_id, said)


def _changed(diary: Diary, session_id: str, columns: dict[str, Any]) -> SessionRecord:
    with diary.transaction() as conn:
        found = _row(conn, session_id)
        places.update(conn, columns, found["id"])
        return queries.whole(conn, found["id"])


def _add(conn: sqlite3.Connection, item: Given, file: str | None, now: datetime) -> Added:
    text = storable(item.text)
    source = storable(item.source) if item.source is not None else None
    digest = rows.digest_of(text.encode(item.encoding))
    known = _known(conn, digest, file, source)
    if known is not None:
        return Added(known["id"], "known", known["file"])
    at = rows.utc(item.reading.at) if item.reading.at is not None else None
    columns = {
        **rows.read_columns(item.reading),
        "at": rows.at_text(at),
        "source": source,
        "encoding": item.encoding,
        "digest": digest,
        "text": text,
    }
    changed = _changed_import(conn, item, file, source)
    if changed is not None:
        if at is not None and rows.at_text(at) != changed["at"]:
            columns["seq"] = places.free_seq(conn, at)
        if changed["depth_by"] == "person":
            for name in ("depth", "depth_reason", "depth_by"):
                del columns[name]
        places.update(conn, columns, changed["id"])
        places.write_drives(conn, item.reading.drives, changed["id"], columns.get("seq", changed["seq"]))
        return Added(changed["id"], "updated", changed["file"])
    session_id, seq = new_thought_id(), places.free_seq(conn, at or now)
    placed = places.free_file(conn, file, digest, session_id) if file is not None else None
    columns |= {
        "seq": seq,
        "id": session_id,
        "recorded_at": timestamp(now),
        "origin": item.origin,
        "state": "ended",
        "ended_at": None if item.origin == "import" else timestamp(now),
        "file": placed,
    }
    places.insert(conn, columns)
    places.write_drives(conn, item.reading.drives, session_id, seq)
    return Added(session_id, "new", placed)


def _known(conn: sqlite3.Connection, digest: str, file: str | None, source: str | None) -> sqlite3.Row | None:
    found = conn.execute("SELECT id, file, source FROM sessions WHERE digest = ?", (digest,)).fetchall()
    if not found:
        return None
    names = {_last_part(name) for name in (file, source) if name is not None}
    if file is not None and source is None:
        # Its own name may have been taken when it came first.
        names |= {_last_part(rows.numbered(file, suffix)) for suffix in places.suffixes(digest)}
    for row in found:
        theirs = {_last_part(name) for name in (row["file"], row["source"]) if name is not None}
        if names & theirs:
            return row  # type: ignore[no-any-return]
    return None


def _changed_import(
    conn: sqlite3.Connection, item: Given, file: str | None, source: str | None
) -> sqlite3.Row | None:
    """Return the row whose file has changed since it was imported."""
    if item.origin != "import" or source is None:
        return None
    imported = "SELECT id, seq, at, file, depth_by FROM sessions WHERE origin = 'import' AND "
    found: sqlite3.Row | None = conn.execute(f"{imported} source = ?", (source,)).fetchone()
    if found is None and item.at_home:
        found = conn.execute(f"{imported} file = ?", (file,)).fetchone()
    return found


def _last_part(name: str) -> str:
    return PurePosixPath(name).name


def _require_open(conn: sqlite3.Connection, session_id: str) -> sqlite3.Row:
    row = _row(conn, session_id)
    if row["state"] != "open":
        raise InvalidRequest(
            f"session {session_id} is over ({row['state']})", hint="Open a new one.", param="id"
        )
    return row


def _row(conn: sqlite3.Connection, session_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = conn.execute(
        "SELECT seq, id, state, drive, topic, pressure_before, owner_pid, owner_started_s FROM sessions"
        " WHERE id = ?",
        (storable(session_id),),
    ).fetchone()
    if row is None:
        raise queries.unknown(session_id)
    return row
