"""Rows that found no room in memory either, counted, so that no loss is silent."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

from subcortex.journal.records import JournalHealth


class Losses:
    """Counts what is lost while the database takes nothing; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted = 0
        self._since: datetime | None = None
        self._reason: str | None = None
        self.rows = 0

    def add(self, health: JournalHealth) -> None:
        """Count a row that is lost, and why."""
        with self._lock:
            if self.rows == self._noted:
                self._since = health.since
            self.rows += 1
            self._reason = health.reason

    def news(self) -> dict[str, Any] | None:
        """Return what was lost since the last call, for the record; None if nothing was."""
        with self._lock:
            rows, self._noted = self.rows - self._noted, self.rows
            if not rows:
                return None
            since = self._since.isoformat() if self._since else None
            return {"rows": rows, "reason": self._reason, "since": since}
