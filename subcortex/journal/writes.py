"""Writes, and how a batch becomes one transaction in which who is at fault takes nobody along."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subcortex.errors import JournalError
from subcortex.journal.database import storage_reason

Statement = tuple[str, tuple[Any, ...]]


@dataclass(slots=True, eq=False)
class Write:
    """Statements that belong together, and who waits for them.

    Args:
        statements: SQL and parameters, run in order in one transaction.
        what: What is written, in words, for errors.
        urgent: Goes before writes that are not.
        otherwise: Run first, once, if the first statement found no row to change; None where that
            is no matter.
        waiter: Completed on its own event loop once the write is on disk, or held in memory.
    """

    statements: Sequence[Statement]
    what: str
    urgent: bool = False
    otherwise: Sequence[Statement] | None = None
    waiter: asyncio.Future[None] | None = None

    def size_bytes(self) -> int:
        """Return about how much memory the texts take."""
        return 512 + sum(
            len(value) for _, values in self.statements for value in values if isinstance(value, str)
        )


def transact(conn: sqlite3.Connection, batch: Sequence[Write]) -> dict[int, Exception]:
    """Commit ``batch`` as one; return the writes (by place) that are at fault themselves.

    Raises:
        Exception: The database takes nothing; all of the batch is still to be written.
    """
    if len(batch) == 1 and len(batch[0].statements) == 1 and batch[0].otherwise is None:
        return _run_alone(conn, batch[0])
    return _run_together(conn, batch)


def _run_alone(conn: sqlite3.Connection, write: Write) -> dict[int, Exception]:
    # A lone statement is its own transaction: three round trips into SQLite become one.
    try:
        conn.execute(*write.statements[0])
    except Exception as error:
        if storage_reason(error) is not None:
            raise
        return {0: error}
    return {}


def _run_together(conn: sqlite3.Connection, batch: Sequence[Write]) -> dict[int, Exception]:
    failures: dict[int, Exception] = {}
    conn.execute("BEGIN IMMEDIATE")
    try:
        for place, write in enumerate(batch):
            error = _run_guarded(conn, write)
            if error is not None:
                failures[place] = error
        conn.execute("COMMIT")
    except BaseException:
        # Some errors (a full disk) have rolled back already.
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return failures


def _run_guarded(conn: sqlite3.Connection, write: Write) -> Exception | None:
    """Run one write inside the open transaction; undo and return it if the write itself is at fault."""
    conn.execute("SAVEPOINT one")
    try:
        _run_statements(conn, write)
    except Exception as error:
        if storage_reason(error) is not None:
            raise
        conn.execute("ROLLBACK TO one")
        conn.execute("RELEASE one")
        return error
    conn.execute("RELEASE one")
    return None


def _run_statements(conn: sqlite3.Connection, write: Write) -> None:
    first, *rest = write.statements
    found = conn.execute(*first).rowcount
    if write.otherwise is not None and found == 0:
        for statement in write.otherwise:
            conn.execute(*statement)
        if conn.execute(*first).rowcount == 0:
            raise JournalError(f"{write.what}: it is not in the journal, or has ended already")
    for statement in rest:
        conn.execute(*statement)
