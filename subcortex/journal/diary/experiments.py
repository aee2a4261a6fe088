"""Runs of experiments written down: asked for, begun, their raw data as it comes, how they end.

Each function is one transaction on a ``Diary``, durable once it returns. Reading is next door
(``experiment_queries``); its functions are named here as well.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from subcortex.errors import InvalidRequest
from subcortex.journal import processes
from subcortex.journal.diary import experiment_queries as queries
from subcortex.journal.diary.access import Diary
from subcortex.journal.diary.experiment_queries import (
    boots,
    commands,
    readings,
    remembered,
    run,
    runs,
    spent_gpu_minutes,
    writes_up,
)
from subcortex.journal.diary.experiment_records import OPEN_STATES, AskedBy, RunRecord, RunState
from subcortex.journal.rows import storable, timestamp
from subcortex.types import new_thought_id

__all__ = [
    "begin",
    "boots",
    "cancelled",
    "commands",
    "enqueue",
    "expire",
    "failed",
    "keep_boot",
    "keep_command",
    "keep_readings",
    "lost",
    "measured",
    "progress",
    "readings",
    "remembered",
    "run",
    "runs",
    "settled",
    "spent_gpu_minutes",
    "writes_up",
    "written_up",
    "yielded",
]

#: Whose wish waits for least comes first.
_PATIENCE: tuple[AskedBy, ...] = ("person", "agent", "schedule")
_TAKE_OVER = """
UPDATE experiment_runs SET asked_by = ?, seconds = max(seconds, ?), gap_id = coalesce(gap_id, ?),
  drive = coalesce(drive, ?) WHERE id = ?
"""
_INSERT_RUN = """
INSERT INTO experiment_runs (id, at, experiment, subject, state, inquiry, asked_by, gap_id, drive, seconds,
    digest)
VALUES (?, ?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?)"""
_INSERT_READING = """
INSERT INTO experiment_readings (run_id, life, at_s, metric, value, unit, arm, block, facts, readings)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_COMMAND = "INSERT INTO experiment_commands (run_id, life, at, words, version) VALUES (?, ?, ?, ?, ?)"
_INSERT_BOOT = "INSERT INTO experiment_boots (run_id, life, at, facts) VALUES (?, ?, ?, ?)"
_BEGIN = """
UPDATE experiment_runs SET state = 'running', started_at = coalesce(started_at, :at), heard_at = :at,
    lives = lives + 1, owner_pid = :pid, owner_started_s = :started_s, error = NULL, progress = '',
    share = NULL
WHERE id = :id"""
#: A sign of life: what it took since the last one is spent.
_HEARD = """
UPDATE experiment_runs SET heard_at = :at, gpu_minutes = gpu_minutes
    + max(0, julianday(:at) - julianday(heard_at)) * 1440
    * max(1, coalesce(inquiry ->> '$.needs.gpus', 0))
WHERE id = :id AND state = 'running'"""
_END = """
UPDATE experiment_runs SET state = :state, ended_at = :at, owner_pid = NULL, owner_started_s = NULL,
    error = :error WHERE id = :id"""


class Sampled(Protocol):
    """A raw sample, as the laboratory has it (``experiments.laboratory.record.Reading``)."""

    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def unit(self) -> str: ...
    @property
    def arm(self) -> str: ...
    @property
    def block(self) -> int: ...
    @property
    def at_s(self) -> float: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...
    @property
    def readings(self) -> Mapping[str, Any]: ...


def enqueue(
    diary: Diary,
    *,
    experiment: str,
    subject: str,
    inquiry: Mapping[str, Any],
    asked_by: AskedBy,
    seconds: float,
    digest: str,
    gap_id: str | None = None,
    drive: str | None = None,
) -> RunRecord:
    """Have a run wait for the machine. The same question that waits or runs already is not asked twice.

    It is whose wish is kept with least patience from then on: a person's before an agent's before the
    schedule's, with as much time as any of them gave.

    Args:
        diary: The journal's database.
        experiment: Its name in the catalogue.
        subject: A tier's name, or ``machine``.
        inquiry: As ``RunRecord.inquiry``.
        asked_by: Who wants to know.
        seconds: What it may take.
        digest: Of what its answer depends on.
        gap_id: The question on the board it is run for.
        drive: The drive that raised that.

    Raises:
        InvalidRequest: The time is none.
        JournalError: The database cannot be written.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise InvalidRequest(f"an experiment may take {seconds:g} s", hint="Give it more.", param="minutes")
    run_id = new_thought_id()
    with diary.transaction() as conn:
        there = conn.execute(
            "SELECT id, asked_by FROM experiment_runs WHERE experiment = ? AND subject = ? AND digest = ?"
            " AND state IN ('queued', 'running', 'yielded') ORDER BY seq LIMIT 1",
            (storable(experiment), storable(subject), digest),
        ).fetchone()
        if there is not None:
            if _PATIENCE.index(asked_by) < _PATIENCE.index(there["asked_by"]):
                taken = (asked_by, seconds, gap_id, storable(drive.upper()) if drive else None, there["id"])
                conn.execute(_TAKE_OVER, taken)
            return queries.whole(conn, there["id"])
        named = (storable(experiment), storable(subject), _json(inquiry), asked_by, gap_id)
        at = timestamp(diary.clock.now())
        drive = storable(drive.upper()) if drive else None
        conn.execute(_INSERT_RUN, (run_id, at, *named, drive, seconds, digest))
        return queries.whole(conn, run_id)


def begin(diary: Diary, run_id: str) -> RunRecord:
    """Begin a run in this process, or go on with one: a new life of it.

    Raises:
        InvalidRequest: There is no such run, it is over, or another process runs it.
    """
    pid = os.getpid()
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "queued", "running", "yielded")
        other = found.state == "running" and found.owner_pid not in (None, pid)
        if other and processes.alive(found.owner_pid or 0, found.owner_started_s):
            raise InvalidRequest(
                f"the run {found.id} is process {found.owner_pid}'s, which runs",
                hint="Let it end, or `subcortex experiments cancel` it.",
                param="id",
            )
        at = timestamp(diary.clock.now())
        owner = {"pid": pid, "started_s": processes.started_s(pid)}
        conn.execute(_BEGIN, {"id": found.id, "at": at, **owner})
        return queries.whole(conn, found.id)


def keep_readings(diary: Diary, run_id: str, found: Sequence[Sampled]) -> None:
    """Keep raw samples of a run, in order, as those of its present life.

    Raises:
        InvalidRequest: There is no such run; a figure is not finite.
    """
    for one in found:
        if not math.isfinite(one.value):
            raise InvalidRequest(f"a sample of {one.metric} is not finite: {one.value}", param="value")
    with diary.transaction() as conn:
        life = _life(conn, run_id)
        conn.executemany(
            _INSERT_READING,
            [(run_id, life, *_reading_row(one)) for one in found],
        )
        _heard(conn, run_id, diary.clock.now())


def keep_command(diary: Diary, run_id: str, words: Sequence[str], version: str | None) -> None:
    """Keep a command as it was run, with the version of its program; InvalidRequest: no such run."""
    with diary.transaction() as conn:
        life, now = _life(conn, run_id), diary.clock.now()
        row = (run_id, life, timestamp(now), _json(list(words)), storable(version) if version else None)
        conn.execute(_INSERT_COMMAND, row)
        _heard(conn, run_id, now)


def keep_boot(diary: Diary, run_id: str, facts: Mapping[str, Any]) -> None:
    """Keep an engine's start, or why it failed; InvalidRequest: no such run."""
    with diary.transaction() as conn:
        life, now = _life(conn, run_id), diary.clock.now()
        conn.execute(_INSERT_BOOT, (run_id, life, timestamp(now), _json(facts)))
        _heard(conn, run_id, now)


def progress(diary: Diary, run_id: str, text: str | None, share: float | None = None) -> None:
    """Say how far a run has come; None says only that it is alive. One that does not run stays as it is."""
    with diary.transaction() as conn:
        _heard(conn, run_id, diary.clock.now())
        if text is not None:
            conn.execute(
                "UPDATE experiment_runs SET progress = ?, share = ? WHERE id = ? AND state = 'running'",
                (storable(text), share, run_id),
            )


def yielded(diary: Diary, run_id: str, why: str) -> RunRecord:
    """Note that a run gave way and goes on later; one that had not begun stays in the queue.

    Raises:
        InvalidRequest: There is no such run, or it is over.
    """
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "queued", "running", "yielded")
        if found.state == "running":
            now = diary.clock.now()
            _heard(conn, found.id, now)
            error = _json({"message": why})
            _end(conn, found.id, "yielded", error=error, at=None)
        return queries.whole(conn, found.id)


def lost(diary: Diary, run_id: str, why: str) -> RunRecord:
    """As ``yielded``, of a run whose process died, at a time that nobody knows: nothing more is spent."""
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "running")
        conn.execute("UPDATE experiment_runs SET losses = losses + 1 WHERE id = ?", (found.id,))
        _end(conn, found.id, "yielded", error=_json({"message": why}), at=None)
        return queries.whole(conn, found.id)


def measured(
    diary: Diary, run_id: str, report: Mapping[str, Any], provenance: Mapping[str, Any]
) -> RunRecord:
    """Keep what a run came to, before anything has followed from it.

    Raises:
        InvalidRequest: There is no such run, or it does not run.
    """
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "running")
        now = diary.clock.now()
        _heard(conn, found.id, now)
        conn.execute(
            "UPDATE experiment_runs SET report = ?, provenance = ?, share = 1 WHERE id = ?",
            (_json(report), _json(provenance), found.id),
        )
        _end(conn, found.id, "measured", error=None, at=now)
        return queries.whole(conn, found.id)


def settled(diary: Diary, run_id: str, session_id: str | None) -> RunRecord:
    """Note that all that follows from a run's answers is in the journal.

    Raises:
        InvalidRequest: There is no such run or session, or it has no report.
    """
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "measured", "settled")
        if session_id is not None:
            there = conn.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone()
            if there is None:
                raise InvalidRequest(f"there is no session {session_id!r}", param="session")
        conn.execute(
            "UPDATE experiment_runs SET state = 'settled', session_id = ? WHERE id = ?",
            (session_id, found.id),
        )
        return queries.whole(conn, found.id)


def written_up(diary: Diary, run_id: str, session_id: str) -> RunRecord:
    """Note which session a run was written up as, before all has followed from it.

    Raises:
        InvalidRequest: There is no such run, or it has no report.
    """
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "measured")
        conn.execute("UPDATE experiment_runs SET session_id = ? WHERE id = ?", (session_id, found.id))
        return queries.whole(conn, found.id)


def failed(diary: Diary, run_id: str, error: Mapping[str, Any]) -> RunRecord:
    """Note why a run came to nothing (``SubcortexError.to_wire``); InvalidRequest: it is over already."""
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, *OPEN_STATES)
        now = diary.clock.now()
        _end(conn, found.id, "failed", error=_json(error), at=now)
        return queries.whole(conn, found.id)


def cancelled(diary: Diary, run_id: str) -> RunRecord:
    """Give a run up; InvalidRequest: there is no such run, or it is over already."""
    with diary.transaction() as conn:
        found = _wanted(conn, run_id, "queued", "running", "yielded")
        now = diary.clock.now()
        _heard(conn, found.id, now)
        _end(conn, found.id, "cancelled", error=None, at=now)
        return queries.whole(conn, found.id)


def expire(diary: Diary, run_id: str, why: str) -> RunRecord:
    """Have a run's answer count for nothing from now on: the same question may be asked again.

    Raises:
        InvalidRequest: There is no such run.
    """
    with diary.transaction() as conn:
        found = queries.whole(conn, run_id)
        conn.execute(
            "UPDATE experiment_runs SET expired_at = ?, expired_why = ? WHERE id = ? AND expired_at IS NULL",
            (timestamp(diary.clock.now()), storable(why), found.id),
        )
        return queries.whole(conn, found.id)


def _wanted(conn: sqlite3.Connection, run_id: str, *states: RunState) -> RunRecord:
    found = queries.whole(conn, run_id)
    if found.state not in states:
        raise InvalidRequest(
            f"the run {found.id} is {found.state} already"
            if found.state not in OPEN_STATES
            else f"the run {found.id} is {found.state}",
            hint=f"`subcortex experiments show {found.id[:16]}` shows how it went.",
            param="id",
        )
    return found


def _life(conn: sqlite3.Connection, run_id: str) -> int:
    row = conn.execute("SELECT lives FROM experiment_runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise InvalidRequest(f"there is no run {run_id!r}", param="id")
    return int(row["lives"])


def _heard(conn: sqlite3.Connection, run_id: str, now: datetime) -> None:
    conn.execute(_HEARD, {"id": run_id, "at": timestamp(now)})


def _end(
    conn: sqlite3.Connection, run_id: str, state: RunState, *, error: str | None, at: datetime | None
) -> None:
    values = {"id": run_id, "state": state, "error": error, "at": timestamp(at) if at else None}
    conn.execute(_END, values)


def _reading_row(one: Sampled) -> tuple[Any, ...]:
    named = (storable(one.metric), one.value, storable(one.unit), storable(one.arm), one.block)
    return (one.at_s, *named, _json(one.facts), _json(one.readings))


def _json(value: Any) -> str:
    return storable(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"), default=str))


def _plain(value: Any) -> Any:
    """Return it as JSON has it: SQLite takes no number that is none, and reads nothing of a row with one."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
