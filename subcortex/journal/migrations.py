"""The schema, as numbered steps from an empty file to today; each says what it is for.

A step that has been released is never edited: what comes later is a new step. The file's
``user_version`` is the number of the last step it has. All pending steps run in one transaction that
holds the write lock, so two processes that open at once migrate once, and a crash leaves the old schema.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from subcortex.errors import JournalError
from subcortex.journal import _schema_diary, _schema_experiments, _schema_thoughts, _schema_views
from subcortex.journal.database import APPLICATION_ID

if TYPE_CHECKING:
    from sqlite_utils import Database


_STEPS: tuple[Callable[[Database], None], ...] = (
    _schema_thoughts.step_001_thoughts,
    _schema_thoughts.step_002_events,
    _schema_thoughts.step_003_search,
    _schema_thoughts.step_004_boots,
    _schema_diary.step_005_sessions,
    _schema_diary.step_006_board,
    _schema_diary.step_007_drives,
    _schema_views.step_008_views,
    _schema_views.step_009_beginnings,
    _schema_experiments.step_010_experiments,
    _schema_experiments.step_011_facts,
)

#: Version of the schema that this program writes.
LATEST = len(_STEPS)


def migrate(conn: sqlite3.Connection, path: Path, *, to: int = LATEST) -> int:
    """Bring the schema up to ``to`` and return the version found before.

    Raises:
        JournalError: The file is another program's database, or from a newer version.
        sqlite3.Error: The database cannot be written.
    """
    found = checked_version(conn, path)
    if found >= to:
        return found
    # It takes 0.1 s to import, and a database that is up to date does without.
    from sqlite_utils import Database

    conn.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have migrated while this one waited for the lock.
        found = checked_version(conn, path)
        db = Database(conn)
        for step in _STEPS[found:to]:
            step(db)
        if found < to:
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            conn.execute(f"PRAGMA user_version = {to}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return found


def checked_version(conn: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of the file.

    Raises:
        JournalError: The file is another program's database, or from a newer version.
    """
    # One read transaction: another process may be migrating between two of these.
    alone = not conn.in_transaction
    if alone:
        conn.execute("BEGIN")
    try:
        tables = int(conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
        version = int(conn.execute("PRAGMA user_version").fetchone()[0])
        owner = int(conn.execute("PRAGMA application_id").fetchone()[0])
    finally:
        if alone:
            conn.execute("COMMIT")
    if owner != APPLICATION_ID and (tables or owner or version):
        raise JournalError(
            f"{path} is another program's database ({tables} tables and indexes, none of them ours)",
            hint="Set journal.database to a file of its own.",
            file=str(path),
        )
    if version > LATEST:
        raise JournalError(
            f"{path} has journal version {version}; this program knows versions up to {LATEST}",
            hint="Upgrade subcortex, or set journal.database to another file.",
            file=str(path),
            found=version,
            known=LATEST,
        )
    return version
