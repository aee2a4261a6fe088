"""A session's row and its places: its number among times, its name among files. Within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from subcortex.errors import InvalidRequest
from subcortex.journal.diary import session_rows as rows

#: A file name that is taken is tried with these after it, then with the digest, which nobody else has.
_NUMBERS = range(2, 10)
#: Where the next free microsecond is looked for, when many sessions say the same time.
_SPANS_US = (1_000, 1_000_000, 3_600_000_000)


def suffixes(digest: str) -> list[str]:
    """Return what a taken name is tried with, in order; the last is nobody else's."""
    return [*map(str, _NUMBERS), digest[:16]]


def free_file(conn: sqlite3.Connection, file: str, digest: str, session_id: str) -> str:
    """Return the name, or one like it that no session has."""
    for suffix in (None, *suffixes(digest), session_id):
        name = rows.numbered(file, suffix) if suffix is not None else file
        if conn.execute("SELECT 1 FROM sessions WHERE file = ?", (name,)).fetchone() is None:
            return name
    raise InvalidRequest(f"every name like {file!r} is taken", hint="Give another.", param="file")


def free_seq(conn: sqlite3.Connection, at: datetime) -> int:
    """Return the number of a session of that time: its microsecond, or the next that is free."""
    wanted = rows.microseconds(at)
    for span in _SPANS_US:
        last = conn.execute(
            "SELECT max(seq) FROM sessions WHERE seq >= ? AND seq < ?", (wanted, wanted + span)
        ).fetchone()[0]
        if last is None:
            return wanted
        if last + 1 < wanted + span:
            return int(last) + 1
    return int(conn.execute("SELECT max(seq) FROM sessions").fetchone()[0]) + 1


def insert(conn: sqlite3.Connection, columns: dict[str, Any]) -> None:
    """Write a new row."""
    names = ", ".join(columns)
    conn.execute(
        f"INSERT INTO sessions ({names}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
        tuple(columns.values()),
    )


def update(conn: sqlite3.Connection, columns: dict[str, Any], session_id: str) -> None:
    """Change columns of a row."""
    settings = ", ".join(f"{name} = ?" for name in columns)
    conn.execute(f"UPDATE sessions SET {settings} WHERE id = ?", (*columns.values(), session_id))  # noqa: S608


def write_drives(conn: sqlite3.Connection, drives: Iterable[Any], session_id: str, seq: int) -> None:
    """Write the drives behind a session in place of those it had."""
    conn.execute("DELETE FROM session_drives WHERE session_id = ?", (session_id,))
    conn.executemany(
        "INSERT INTO session_drives (session_id, place, drive, level_percent, session_seq)"
        " VALUES (?, ?, ?, ?, ?)",
        rows.drive_rows(drives, session_id, seq),
    )
