"""What a session left behind, counted; the depth it supports is decided elsewhere (``sessions.depth``)."""

from __future__ import annotations

from datetime import datetime

from subcortex.journal.diary.access import Diary
from subcortex.journal.rows import timestamp
from subcortex.journal.sessions.depth import Evidence

_MEASURED = "(SELECT id FROM facts WHERE source = 'measurement' AND session_id = :session)"
_COUNTS = {
    "thoughts": "SELECT count(*) FROM session_entries WHERE session_id = :session AND kind = 'thought'",
    "notes": (
        "SELECT count(*) FROM session_entries WHERE session_id = :session AND kind IN ('note', 'experiment')"
    ),
    "gaps_measured": f"SELECT count(*) FROM gaps WHERE state = 'answered' AND fact_id IN {_MEASURED}",  # noqa: S608
    "claims_refuted": f"SELECT count(*) FROM claims WHERE state = 'refuted' AND fact_id IN {_MEASURED}",  # noqa: S608
    "claims_confirmed": f"SELECT count(*) FROM claims WHERE state = 'confirmed' AND fact_id IN {_MEASURED}",  # noqa: S608
}
_ANSWERED = "SELECT state = 'answered' FROM gaps WHERE id = :gap"


def evidence(diary: Diary, session_id: str, *, gap_id: str | None = None, gaps_left: int = 0) -> Evidence:
    """Return what the session of this id left behind.

    Args:
        diary: The journal's database.
        session_id: The whole id.
        gap_id: The question it was held for, None for none.
        gaps_left: Questions that its text raises; it may be counted before they are on the board.

    Raises:
        JournalError: The database cannot be read.
    """
    values = {"session": session_id, "gap": gap_id}
    with diary.reading() as conn:
        counts = {name: int(conn.execute(sql, values).fetchone()[0]) for name, sql in _COUNTS.items()}
        row = conn.execute(_ANSWERED, values).fetchone() if gap_id is not None else None
    answered = bool(row[0]) if row else None
    return Evidence(**counts, question_answered=answered, gaps_left=gaps_left)


def taken_up(diary: Diary) -> dict[str, int]:
    """Return, for each question that a session was held for (its field ``Gap``), how many were.

    Raises:
        JournalError: The database cannot be read.
    """
    with diary.reading() as conn:
        found = conn.execute(
            "SELECT text, count(*) FROM session_entries"
            " WHERE kind = 'field' AND section = 'Gap' GROUP BY text"
        )
        return {row[0]: row[1] for row in found}


def thoughts_since(diary: Diary, at: datetime, *, most: int = 1000) -> int:
    """Return how many thoughts have been completed since ``at``, of the last ``most``.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = (
        "SELECT count(*) FROM (SELECT status, ended_at FROM thoughts ORDER BY seq DESC LIMIT :most)"
        " WHERE status = 'completed' AND ended_at > :at"
    )
    with diary.reading() as conn:
        return int(conn.execute(sql, {"most": most, "at": timestamp(at)}).fetchone()[0])


def last_thought_at(diary: Diary) -> datetime | None:
    """Return when the newest thought came, or ended; None if there never was one.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = "SELECT coalesce(ended_at, created_at) FROM thoughts ORDER BY seq DESC LIMIT 1"
    with diary.reading() as conn:
        row = conn.execute(sql).fetchone()
    return datetime.fromisoformat(row[0]) if row else None


def unsettled(diary: Diary) -> list[str]:
    """Return sessions of a tick that are over while no drive was told so: its process died in between.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = (
        "SELECT id FROM sessions s"
        " WHERE origin = 'tick' AND kind = 'session' AND state = 'ended' AND NOT EXISTS"
        " (SELECT 1 FROM drive_events e WHERE e.session_id = s.id AND e.kind IN ('satisfied', 'thwarted'))"
        " ORDER BY seq DESC LIMIT 20"
    )
    with diary.reading() as conn:
        return [row[0] for row in conn.execute(sql)]
