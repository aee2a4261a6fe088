"""Sessions read back: newest first, by id, by words. No list sorts; every order is an index's own."""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from subcortex.errors import InvalidRequest
from subcortex.journal import search as words_to
from subcortex.journal.diary import session_rows as rows
from subcortex.journal.diary.access import Diary
from subcortex.journal.diary.session_records import (
    Kind,
    SessionDrive,
    SessionHit,
    SessionRecord,
    SessionSummary,
)
from subcortex.journal.rows import storable
from subcortex.types import Depth

#: Words shown around a match.
_SNIPPET_TOKENS = 24
#: Sessions held in memory at once while all are read.
_PAGE = 100


def session(diary: Diary, session_id: str) -> SessionRecord | None:
    """Return the session of this id, or of an id that begins so; None if there is none.

    Raises:
        InvalidRequest: Several ids begin so.
        JournalError: The database cannot be read.
    """
    with diary.reading() as conn:
        found = _seq(conn, session_id)
        return whole(conn, found["id"]) if found is not None else None


def sessions(
    diary: Diary,
    *,
    drive: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    depth: Depth | None = None,
    kind: Kind | None = None,
    before: str | None = None,
    limit: int = 20,
) -> list[SessionSummary]:
    """Return sessions, newest first; one without a time stands where it came in.

    Args:
        drive: Behind the session, alone or with others; any case.
        since, until: Held from then on, or before then; naive times are this machine's.
        depth: Rated so by its writer, or by a person after.
        before: Only those that come after this one in the list (an id, or a unique beginning of one): the
            last of one page gives the next.
        limit: How many at most.

    Raises:
        InvalidRequest: ``before`` names no session, or several.
        JournalError: The database cannot be read.
    """
    with diary.reading() as conn:
        sql, values = _list_sql(conn, drive, since, until, depth, kind, before)
        found = conn.execute(sql, {**values, "limit": max(limit, 0)}).fetchall()
        return [SessionSummary(**values) for values in _with_drives(conn, found)]


def search(
    diary: Diary,
    words: str,
    *,
    drive: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    depth: Depth | None = None,
    kind: Kind | None = None,
    before: str | None = None,
    limit: int = 20,
) -> list[SessionHit]:
    """Return the sessions whose text has all ``words``, newest first, each with a place where they stand.

    Args:
        words: As in ``journal/search.py``: ``"a phrase"``, ``begin*``. Nothing in it is an error.
        drive, since, until, depth, kind, before, limit: As in ``sessions``.

    Raises:
        InvalidRequest: ``before`` names no session, or several.
        JournalError: The database cannot be read.
    """
    expression = words_to.expression(words)
    if expression is None:
        return []
    with diary.reading() as conn:
        wheres, values = _wheres(conn, "f.rowid", since, until, depth, kind, before)
        if drive is not None:
            wheres.append(
                "EXISTS (SELECT 1 FROM session_drives d WHERE d.drive = :drive AND d.session_seq = f.rowid)"
            )
            values["drive"] = storable(drive.upper())
        # Nobody can know the marks beforehand, so no text brings its own.
        opening, closing = f"\x02{secrets.token_hex(8)}", f"\x03{secrets.token_hex(8)}"
        values |= {"words": expression, "opening": opening, "closing": closing, "limit": max(limit, 0)}
        # Newest first is the order that the index has; the best first would read every match.
        sql = (
            f"SELECT {rows.SUMMARY},"  # noqa: S608
            f" snippet(sessions_fts, 0, :opening, :closing, '…', {_SNIPPET_TOKENS}) AS marked"
            " FROM sessions_fts f CROSS JOIN sessions s ON s.seq = f.rowid"
            f" WHERE f.sessions_fts MATCH :words{''.join(f' AND {where}' for where in wheres)}"
            " ORDER BY f.rowid DESC LIMIT :limit"
        )
        found = conn.execute(sql, values).fetchall()
        hits = []
        for row, of_row in zip(found, _with_drives(conn, found), strict=True):
            snippet, matches = _unmarked(row["marked"] or "", opening, closing)
            hits.append(SessionHit(**of_row, snippet=snippet, matches=matches))
        return hits


def records(diary: Diary, ids: Iterable[str] | None) -> Iterator[SessionRecord]:
    """Yield sessions whole, oldest first, or those of ``ids`` in their order; a row at a time, none held.

    Raises:
        InvalidRequest: An id is no session's.
        JournalError: The database cannot be read.
    """
    if ids is not None:
        for session_id in ids:
            found = session(diary, session_id)
            if found is None:
                raise unknown(session_id)
            yield found
        return
    last = -(2**63)
    while True:
        with diary.reading() as conn:
            rows_after = conn.execute(
                "SELECT seq, id FROM sessions WHERE seq > ? ORDER BY seq LIMIT ?", (last, _PAGE)
            ).fetchall()
            page = [whole(conn, row["id"]) for row in rows_after]
        if not page:
            return
        yield from page
        last = rows_after[-1]["seq"]


def whole(conn: sqlite3.Connection, session_id: str) -> SessionRecord:
    """Return the session of exactly this id, within a transaction.

    Raises:
        InvalidRequest: There is none.
    """
    row = conn.execute(
        f"SELECT {rows.SUMMARY}, s.text, s.encoding FROM sessions s WHERE s.id = ?",  # noqa: S608
        (session_id,),
    ).fetchone()
    if row is None:
        raise unknown(session_id)
    told = conn.execute(
        "SELECT at, kind, section, text FROM session_entries WHERE session_id = ? ORDER BY seq", (session_id,)
    )
    return SessionRecord(
        **next(iter(_with_drives(conn, [row]))),
        text=row["text"],
        encoding=row["encoding"],
        entries=[rows.entry_of(entry) for entry in told],
    )


def unknown(session_id: str) -> InvalidRequest:
    """Return the error for an id that no session has."""
    return InvalidRequest(
        f"there is no session {session_id!r}", hint="`subcortex sessions` lists them.", param="id"
    )


def _list_sql(
    conn: sqlite3.Connection,
    drive: str | None,
    since: datetime | None,
    until: datetime | None,
    depth: Depth | None,
    kind: Kind | None,
    before: str | None,
) -> tuple[str, dict[str, Any]]:
    order = "d.session_seq" if drive is not None else "s.seq"
    wheres, values = _wheres(conn, order, since, until, depth, kind, before)
    tables = "sessions s"
    if drive is not None:
        # CROSS JOIN keeps the order: the drive's index first, whose order is the list's.
        tables = "session_drives d CROSS JOIN sessions s ON s.seq = d.session_seq"
        wheres.append("d.drive = :drive")
        values["drive"] = storable(drive.upper())
    where = " AND ".join(wheres) or "1"
    return f"SELECT {rows.SUMMARY} FROM {tables} WHERE {where} ORDER BY {order} DESC LIMIT :limit", values  # noqa: S608


def _wheres(
    conn: sqlite3.Connection,
    order: str,
    since: datetime | None,
    until: datetime | None,
    depth: Depth | None,
    kind: Kind | None,
    before: str | None,
) -> tuple[list[str], dict[str, Any]]:
    """Return terms and values of the filters; ``order`` is the column that holds the session's number."""
    wheres: list[str] = []
    values: dict[str, Any] = {}
    for name, at, sign in (("since", since, ">="), ("until", until, "<")):
        moved = rows.utc(at) if at is not None else None
        if moved is not None:
            wheres += [f"{order} {sign} :{name}", "s.at IS NOT NULL"]
            values[name] = rows.microseconds(moved)
    if depth is not None:
        wheres.append("s.depth = :depth")
        values["depth"] = Depth(depth).value
    if kind is not None:
        wheres.append("s.kind = :kind")
        values["kind"] = kind
    if before is not None:
        found = _seq(conn, before)
        if found is None:
            raise unknown(before)
        wheres.append(f"{order} < :before")
        values["before"] = found["seq"]
    return wheres, values


def _seq(conn: sqlite3.Connection, session_id: str) -> sqlite3.Row | None:
    if not session_id:
        return None
    # "\x7f" sorts behind every character of an id, so this is the range of all that begin so.
    found = conn.execute(
        "SELECT id, seq FROM sessions WHERE id >= :first AND id < :last ORDER BY id LIMIT 2",
        {"first": storable(session_id), "last": storable(session_id) + "\x7f"},
    ).fetchall()
    if len(found) > 1 and found[0]["id"] != session_id:
        raise InvalidRequest(
            f"several sessions begin with {session_id!r}", hint="Give more of the id.", param="id"
        )
    return found[0] if found else None


def _with_drives(conn: sqlite3.Connection, found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the fields of a ``SessionSummary`` for each row."""
    ids = [row["id"] for row in found]
    drives: dict[str, list[SessionDrive]] = defaultdict(list)
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        sql = (
            "SELECT session_id, drive, level_percent FROM session_drives"  # noqa: S608
            f" WHERE session_id IN ({', '.join('?' * len(some))}) ORDER BY session_id, place"
        )
        for session_id, drive, level_percent in conn.execute(sql, some):
            drives[session_id].append(SessionDrive(name=drive, level_percent=level_percent))
    return [rows.values_of(row, drives[row["id"]]) for row in found]


def _unmarked(marked: str, opening: str, closing: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a snippet without its marks, and where they stood."""
    text, begun, matches = "", 0, []
    for piece in re.split(f"({opening}|{closing})", marked):
        if piece == opening:
            begun = len(text)
        elif piece == closing:
            matches.append((begun, len(text)))
        else:
            text += piece
    return text, matches
