"""What a session left behind, counted; the depth it supports is decided elsewhere (``sessions.depth``)."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime

from subcortex.journal.diary.access import Diary
from subcortex.journal.rows import timestamp
from subcortex.journal.sessions.depth import Evidence

_MEASURED = "(SELECT id FROM facts WHERE source = 'measurement' AND session_id = :session)"
_COUNTS = {
    "thoughts": "SELECT count(*) FROM session_entries WHERE session_id = :session AND kind = 'thought'",
    "notes": (
        "SELECT count(*) FROM session_entries WHERE session_id = :session AND kind IN ('note', 'experiment')"
        " AND (section IS NULL OR section NOT IN (SELECT value FROM json_each(:carried)))"
    ),
    "gaps_measured": f"SELECT count(*) FROM gaps WHERE state = 'answered' AND fact_id IN {_MEASURED}",  # noqa: S608
    "claims_refuted": f"SELECT count(*) FROM claims WHERE state = 'refuted' AND fact_id IN {_MEASURED}",  # noqa: S608
    "claims_confirmed": f"SELECT count(*) FROM claims WHERE state = 'confirmed' AND fact_id IN {_MEASURED}",  # noqa: S608
}
_ANSWERED = "SELECT state = 'answered' FROM gaps WHERE id = :gap"


def evidence(
    diary: Diary,
    session_id: str,
    *,
    gap_id: str | None = None,
    gaps_left: int = 0,
    carried: Collection[str] = (),
) -> Evidence:
    """Return what the session of this id left behind.

    Args:
        diary: The journal's database.
        session_id: The whole id.
        gap_id: The question it was held for, None for none.
        gaps_left: Questions that its text raises; it may be counted before they are on the board.
        carried: Headings whose notes are no work of the session's: what it was given, and answers that are
            counted as thoughts.

    Raises:
        JournalError: The database cannot be read.
    """
    values = {"session": session_id, "gap": gap_id, "carried": json.dumps(list(carried))}
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


def thoughts_between(diary: Diary, after: datetime, until: datetime, *, most: int = 1000) -> int:
    """Return how many thoughts were completed after one time and up to another, of the last ``most``.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = (
        "SELECT count(*) FROM (SELECT status, ended_at FROM thoughts ORDER BY seq DESC LIMIT :most)"
        " WHERE status = 'completed' AND ended_at > :after AND ended_at <= :until"
    )
    with diary.reading() as conn:
        return int(
            conn.execute(
                sql, {"most": most, "after": timestamp(after), "until": timestamp(until)}
            ).fetchone()[0]
        )


def last_thought_at(diary: Diary, *, most: int = 50) -> datetime | None:
    """Return when the last thought came, or ended, of the last ``most``; None if there is none.

    Those that a tick had for its own sessions do not count: they are no sign that somebody needs the machine.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = (
        "SELECT max(at) FROM (SELECT coalesce(t.ended_at, t.created_at) AS at, s.origin"
        " FROM (SELECT * FROM thoughts ORDER BY seq DESC LIMIT :most) t"
        " LEFT JOIN sessions s ON s.id = t.session)"
        " WHERE origin IS NOT 'tick'"
    )
    with diary.reading() as conn:
        found = conn.execute(sql, {"most": most}).fetchone()[0]
    return datetime.fromisoformat(found) if found else None


#: Sessions that were told something lately, those of ticks and of agents: what nobody finished is among them.
_RECENT = (
    "SELECT DISTINCT session_id FROM (SELECT session_id FROM session_entries ORDER BY seq DESC LIMIT 500)"
)


def unsettled(diary: Diary) -> list[str]:
    """Return sessions of a tick that are over while no drive was told so: its process died in between.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = (
        "SELECT id FROM sessions"  # noqa: S608
        f" WHERE id IN ({_RECENT}) AND origin = 'tick' AND kind = 'session' AND state = 'ended' AND id NOT IN"
        " (SELECT session_id FROM drive_events"
        " WHERE kind IN ('satisfied', 'thwarted') AND session_id IS NOT NULL)"
        " ORDER BY seq"
    )
    with diary.reading() as conn:
        return [row[0] for row in conn.execute(sql)]


def unrated(diary: Diary) -> list[str]:
    """Return sessions of agents that are over and were not rated by evidence, which is the last thing to do.

    Raises:
        JournalError: The database cannot be read.
    """
    sql = (
        "SELECT id FROM sessions"  # noqa: S608
        f" WHERE id IN ({_RECENT}) AND origin = 'agent' AND state <> 'open' AND evidence_depth IS NULL"
        " ORDER BY seq"
    )
    with diary.reading() as conn:
        return [row[0] for row in conn.execute(sql)]
