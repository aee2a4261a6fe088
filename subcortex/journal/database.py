"""Connections to the journal's file, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from subcortex.errors import JournalError
from subcortex.types import Durability

_T = TypeVar("_T")

#: "SCTX" in ASCII, written into the file's header: this database is ours.
APPLICATION_ID = 0x53435458

#: The database cannot take this write now, but may later: nothing is wrong with the row.
_STORAGE: dict[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "another program holds the database locked",
    sqlite3.SQLITE_LOCKED: "another program holds the database locked",
    sqlite3.SQLITE_READONLY: "the database cannot be written to",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CANTOPEN: "the database cannot be opened",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not a database",
    sqlite3.SQLITE_PERM: "the database may not be accessed",
    sqlite3.SQLITE_PROTOCOL: "the database's lock does not answer",
    sqlite3.SQLITE_NOMEM: "SQLite got no memory",
}
_HINTS: dict[int, str] = {
    sqlite3.SQLITE_FULL: "Free some space on its disk.",
    sqlite3.SQLITE_BUSY: "Close the program that writes to it; `fuser FILE` names it.",
    sqlite3.SQLITE_READONLY: "Give this user write access to the file and its folder.",
    sqlite3.SQLITE_CANTOPEN: "Check the folder, its owner and mode, and journal.database in the config.",
    sqlite3.SQLITE_CORRUPT: "Move it away to start anew; `sqlite3 FILE .recover` saves what it holds.",
    sqlite3.SQLITE_NOTADB: "Set journal.database to another file, or move this one away.",
}


class Moved(Exception):
    """The database file was deleted or replaced while it was open."""


def storage_reason(error: BaseException) -> str | None:
    """Return in words why the database takes no writes; None if the row itself is at fault."""
    if isinstance(error, Moved):
        return str(error)
    if not isinstance(error, sqlite3.Error):
        return None
    what = _STORAGE.get(_primary_code(error))
    return f"{what} ({error})" if what else None


def explained(error: sqlite3.Error, path: Path, doing: str) -> JournalError:
    """Return the journal's error for one of SQLite's, naming the file and what to do."""
    code = _primary_code(error)
    what = _STORAGE.get(code)
    reason = f"{what} ({error})" if what else str(error)
    return JournalError(f"cannot {doing} {path}: {reason}", hint=_HINTS.get(code), file=str(path))


def _primary_code(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in their low byte; Python's own errors carry none.
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def connect_writer(path: Path, durability: Durability, timeout_s: float) -> sqlite3.Connection:
    """Open (or create, private) the database for its one writer, in WAL mode, not yet migrated.

    Raises:
        sqlite3.Error: It cannot be opened.
        JournalError: Its folder cannot be made, or its file system takes no write-ahead log.
    """
    _create_private(path)
    conn = _connect(path.absolute().as_uri() + "?mode=rw", timeout_s)
    try:
        _enter_wal_mode(conn, path, timeout_s)
        # Killed process: nothing acknowledged is lost either way. FULL adds an fsync a commit.
        conn.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA cache_size = -8192")
        # The checkpointer folds the log in beside the writer; this bound is for when it cannot.
        conn.execute("PRAGMA wal_autocheckpoint = 16384")
    except BaseException:
        conn.close()
        raise
    return conn


def connect_reader(path: Path, timeout_s: float) -> sqlite3.Connection:
    """Open the database read-only; the connection may be used from any one thread at a time.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    conn = _connect(path.absolute().as_uri() + "?mode=ro", timeout_s)
    conn.execute("PRAGMA query_only = ON")
    # Bytes that are not UTF-8 (written by another program) must not stop a listing.
    conn.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return conn


def _connect(uri: str, timeout_s: float) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None, check_same_thread=False)


def _create_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives the log and the shared memory the mode of the database file.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalError(
            f"cannot create the journal {path}: {error.strerror}",
            hint="Check the folder's owner, mode and free space, or set journal.database.",
            file=str(path),
        ) from None


def _enter_wal_mode(conn: sqlite3.Connection, path: Path, timeout_s: float) -> None:
    # Changing the mode needs the file to itself and does not wait as other statements do.
    mode = waiting_for_lock(lambda: conn.execute("PRAGMA journal_mode = WAL").fetchone()[0], timeout_s)
    if mode != "wal":
        raise JournalError(
            f"the file system of {path} takes no write-ahead log (journal mode stays {mode!r})",
            hint="Set journal.database to a file on a local disk.",
            file=str(path),
        )


def waiting_for_lock(action: Callable[[], _T], timeout_s: float) -> _T:
    """Repeat ``action`` while another process holds the lock, for at most ``timeout_s`` seconds."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
