"""Folds the write-ahead log back into the database beside the writer, so that no thought waits for it."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from pathlib import Path

from subcortex.journal.records import Limits


class Checkpointer:
    """A thread that checkpoints once enough was written.

    SQLite would do it inside the commit that crosses a size, with an fsync: tens of milliseconds for
    that one thought. A passive checkpoint on another connection hinders neither writer nor readers.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._rows = 0
        self._bytes = 0.0
        self._due = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="subcortex-journal-checkpoint", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks until a checkpoint under way is done."""
        self._stopping = True
        self._due.set()
        self._thread.join()

    def count(self, rows: int, size_bytes: int) -> None:
        """Take note of what was committed; called by the writer alone."""
        self._rows += rows
        self._bytes += size_bytes
        if self._rows >= self._limits.checkpoint_rows or self._bytes >= self._limits.checkpoint_mib * 2**20:
            self._rows, self._bytes = 0, 0.0
            self._due.set()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._stopping:
                return
            # Whatever hinders it (a full disk, a lock) the writer meets too, and reports.
            with contextlib.suppress(sqlite3.Error):
                self._checkpoint()

    def _checkpoint(self) -> None:
        # A connection for each: the file may have been replaced since the last.
        conn = sqlite3.connect(self._path.absolute().as_uri() + "?mode=rw", uri=True, isolation_level=None)
        try:
            conn.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            conn.close()
