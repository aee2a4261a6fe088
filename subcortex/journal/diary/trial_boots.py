"""Starts of engines by experiments, among all starts on record: the planner learns from them as from any."""

from __future__ import annotations

from datetime import datetime

from subcortex.journal import boots
from subcortex.journal.diary.access import Diary
from subcortex.journal.records import BootEnd, BootStart

_LAST_RUN = "SELECT id FROM daemon_runs ORDER BY started_at DESC LIMIT 1"


def keep(diary: Diary, start: BootStart, end: BootEnd, ended_at: datetime) -> bool:
    """Keep a start that is over, once: the same id again changes nothing.

    Returns:
        False where no daemon has ever run here, to whose starts it would belong.

    Raises:
        JournalError: The database takes nothing now.
    """
    with diary.transaction() as conn:
        row = conn.execute(_LAST_RUN).fetchone()
        if row is None:
            return False
        conn.execute(boots.RESTORE_BOOT, boots.start_row(start, row["id"]))
        conn.execute(boots.UPDATE_BOOT, boots.end_row(end, ended_at))
        return True
