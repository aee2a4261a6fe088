"""One process's way to the sessions, the board and the drives: short transactions that take turns."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from subcortex.clock import Clock, SystemClock
from subcortex.errors import JournalError
from subcortex.journal.database import connect_writer, explained, storage_reason
from subcortex.journal.migrations import migrate
from subcortex.types import Durability

#: How long a transaction waits for another process's, which take milliseconds.
BUSY_TIMEOUT_S = 10.0


class Diary:
    """The journal's database, for what people, agents and the tick write; made by ``Diary.open``.

    Any process may have one, beside the daemon's writer: each change is one ``BEGIN IMMEDIATE`` transaction
    that reads what it decides on, so none acts on a state that has passed. Safe for threads, one at a time.
    """

    def __init__(self, path: Path, conn: sqlite3.Connection, clock: Clock) -> None:
        """Private: use ``open``."""
        self.path = path
        self.clock = clock
        self._conn = conn
        self._lock = threading.RLock()
        self._writing = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        durability: Durability = "process",
        clock: Clock | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> Diary:
        """Open the database, creating it (file 0600, folder 0700) and migrating it as need be.

        Raises:
            JournalError: It cannot be created, opened or written; it is damaged, another program's, or from a
                newer version.
        """
        try:
            conn = connect_writer(path, durability, busy_timeout_s)
            try:
                migrate(conn, path)
            except BaseException:
                conn.close()
                raise
        except sqlite3.Error as error:
            raise explained(error, path, "open the journal") from error
        conn.row_factory = sqlite3.Row
        return cls(path, conn, clock or SystemClock())

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for as long as the block runs; commit at its end, undo on any error.

        A block within another's is part of that one: all of it is kept, or nothing.

        Raises:
            JournalError: The database takes no writes now; nothing of the block is kept.
        """
        with self._lock:
            if self._writing:
                yield self._conn
                return
            self._run("BEGIN IMMEDIATE")
            self._writing = True
            try:
                yield self._conn
                self._run("COMMIT")
            except BaseException as error:
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error) and storage_reason(error) is not None:
                    raise explained(error, self.path, "write the journal") from error
                raise
            finally:
                self._writing = False

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the database for as long as the block runs; within a transaction, that one's.

        Raises:
            JournalError: It cannot be read.
        """
        with self._lock:
            if self._writing:
                yield self._conn
                return
            self._run("BEGIN")
            try:
                yield self._conn
            except sqlite3.Error as error:
                raise explained(error, self.path, "read the journal") from error
            finally:
                if self._conn.in_transaction:
                    self._conn.execute("ROLLBACK")

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        with self._lock:
            self._conn.close()

    def __enter__(self) -> Diary:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, statement: str) -> None:
        try:
            self._conn.execute(statement)
        except sqlite3.ProgrammingError as error:
            raise JournalError(f"the journal {self.path} is closed", hint="Open it again.") from error
        except sqlite3.Error as error:
            raise explained(error, self.path, "write the journal") from error
