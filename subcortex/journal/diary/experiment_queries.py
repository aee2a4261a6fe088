"""Runs of experiments read back, with their raw data, and what they have cost."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime
from typing import Any

from subcortex.errors import InvalidRequest
from subcortex.journal.diary.access import Diary
from subcortex.journal.diary.experiment_records import (
    AskedBy,
    CommandRecord,
    ReadingRecord,
    RunRecord,
    RunState,
    TrialBootRecord,
)
from subcortex.journal.rows import timestamp

_TIMES = ("at", "started_at", "ended_at", "heard_at", "expired_at")
_JSON = ("inquiry", "report", "provenance", "error")
_HEX = frozenset("0123456789abcdef")


def run(diary: Diary, run_id: str) -> RunRecord:
    """Return the run of this id, or of an id that begins so; InvalidRequest for none, or several."""
    with diary.reading() as conn:
        return whole(conn, run_id)


def runs(
    diary: Diary,
    *,
    states: Collection[RunState] | None = None,
    experiment: str | None = None,
    limit: int = 1000,
) -> list[RunRecord]:
    """Return runs in the order they were asked for; the latest of them where ``limit`` leaves some out.

    Args:
        diary: The journal's database.
        states: Only those that stand so.
        experiment: Only of this one.
        limit: How many at most.
    """
    wanted = sorted(states) if states is not None else None
    where, values = ["1"], list[Any]()
    if wanted is not None:
        where.append(f"state IN ({', '.join('?' * len(wanted))})")
        values += wanted
    if experiment is not None:
        where.append("experiment = ?")
        values.append(experiment)
    sql = f"SELECT * FROM experiment_runs WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"  # noqa: S608
    with diary.reading() as conn:
        return [_run(row) for row in conn.execute(sql, (*values, limit))][::-1]


def readings(diary: Diary, run_id: str, *, metric: str | None = None) -> list[ReadingRecord]:
    """Return a run's raw samples in order, of all its lives; ``metric`` takes only its own."""
    sql = "SELECT * FROM experiment_readings WHERE run_id = ? AND (? IS NULL OR metric = ?) ORDER BY seq"
    with diary.reading() as conn:
        return [
            ReadingRecord(
                **{name: row[name] for name in ("metric", "value", "unit", "arm", "block", "at_s", "life")},
                facts=json.loads(row["facts"]),
                readings=json.loads(row["readings"]),
            )
            for row in conn.execute(sql, (run_id, metric, metric))
        ]


def commands(diary: Diary, run_id: str) -> list[CommandRecord]:
    """Return the commands of a run in order."""
    sql = "SELECT words, version FROM experiment_commands WHERE run_id = ? ORDER BY seq"
    with diary.reading() as conn:
        return [
            CommandRecord(json.loads(row["words"]), row["version"]) for row in conn.execute(sql, (run_id,))
        ]


def boots(diary: Diary, run_id: str) -> list[TrialBootRecord]:
    """Return the starts of engines of a run in order."""
    sql = "SELECT facts FROM experiment_boots WHERE run_id = ? ORDER BY seq"
    with diary.reading() as conn:
        return [TrialBootRecord(json.loads(row["facts"])) for row in conn.execute(sql, (run_id,))]


def remembered(diary: Diary, *, conclusive: bool = False) -> dict[str, str]:
    """Return digests that are answered, and the latest run that answered each; expired ones left out.

    Args:
        diary: The journal's database.
        conclusive: Leave those out, too, whose first answer is inconclusive.
    """
    sql = (
        "SELECT digest, id FROM experiment_runs WHERE state IN ('measured', 'settled') AND expired_at IS NULL"
    )
    if conclusive:
        sql += " AND coalesce(report ->> '$.answers[0].outcome', '') <> 'inconclusive'"
    sql += " ORDER BY seq"
    with diary.reading() as conn:
        return {row["digest"]: row["id"] for row in conn.execute(sql)}


def writes_up(diary: Diary, session_id: str) -> bool:
    """Return whether a session is what a run was written up as: its figures are facts already."""
    sql = "SELECT EXISTS (SELECT 1 FROM experiment_runs WHERE session_id = ?)"
    with diary.reading() as conn:
        return bool(conn.execute(sql, (session_id,)).fetchone()[0])


def spent_gpu_minutes(diary: Diary, since: datetime, *, asked_by: Collection[AskedBy] | None = None) -> float:
    """Return what runs have cost that were at work since then, in all their lives: rather more than less.

    Args:
        diary: The journal's database.
        since: Aware; those last heard of before it cost nothing now.
        asked_by: Only those that these asked for.
    """
    sql = "SELECT asked_by, gpu_minutes FROM experiment_runs WHERE heard_at >= ?"
    with diary.reading() as conn:
        return sum(
            float(row["gpu_minutes"])
            for row in conn.execute(sql, (timestamp(since),))
            if asked_by is None or row["asked_by"] in asked_by
        )


def whole(conn: sqlite3.Connection, run_id: str) -> RunRecord:
    """Return a run within a transaction, by its id or a beginning of it."""
    sql = "SELECT * FROM experiment_runs WHERE id >= ? AND id < ? || 'g' ORDER BY id LIMIT 3"
    found = conn.execute(sql, (run_id, run_id)).fetchall() if run_id and set(run_id) <= _HEX else []
    exact = [row for row in found if row["id"] == run_id]
    if exact or len(found) == 1:
        return _run((exact or found)[0])
    if found:
        raise InvalidRequest(
            f"several ids of a run begin with {run_id!r}",
            hint=f"Write more of it: {', '.join(row['id'][:16] for row in found)}{', …' * (len(found) > 2)}",
            param="id",
        )
    raise InvalidRequest(
        f"there is no run {run_id!r:.80}", hint="`subcortex experiments list` lists them.", param="id"
    )


def _run(row: sqlite3.Row) -> RunRecord:
    values: dict[str, Any] = dict(row)
    for name in _TIMES:
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    for name in _JSON:
        values[name] = json.loads(values[name]) if values[name] else None
    return RunRecord(**values)
