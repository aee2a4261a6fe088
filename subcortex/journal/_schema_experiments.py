"""Steps 10 and 11 of the schema: runs of experiments, what they left behind (``migrations.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database


def step_010_experiments(db: Database) -> None:
    """Runs of experiments, and of each run every raw sample, command and start of an engine.

    ``inquiry`` and ``report`` are JSON as ``experiments/forms.py`` writes it. ``lives`` counts how often a
    run was begun: one that gave way, or whose process was killed (``losses``), goes on from the samples it
    has. The process that runs it now is ``owner_pid``, known by its start as well. ``heard_at`` is its last
    sign of life, up to which ``gpu_minutes`` is reckoned. ``digest`` is of what the answer depends on: the
    same question with the same digest is answered already, unless the run has expired. A chart of one metric
    reads ``experiment_readings`` by run and metric, so that is its index.
    """
    db.execute("""
        CREATE TABLE experiment_runs (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            at TEXT NOT NULL,
            experiment TEXT NOT NULL,
            subject TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN
                ('queued', 'running', 'yielded', 'measured', 'settled', 'failed', 'cancelled')),
            inquiry TEXT NOT NULL,
            asked_by TEXT NOT NULL CHECK (asked_by IN ('person', 'schedule', 'agent')),
            gap_id TEXT REFERENCES gaps (id) ON DELETE SET NULL,
            drive TEXT,
            seconds REAL NOT NULL,
            digest TEXT NOT NULL,
            started_at TEXT,
            ended_at TEXT,
            heard_at TEXT,
            gpu_minutes REAL NOT NULL DEFAULT 0,
            lives INTEGER NOT NULL DEFAULT 0,
            losses INTEGER NOT NULL DEFAULT 0,
            owner_pid INTEGER,
            owner_started_s REAL,
            progress TEXT NOT NULL DEFAULT '',
            share REAL,
            report TEXT,
            provenance TEXT,
            error TEXT,
            session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
            expired_at TEXT,
            expired_why TEXT
        )""")
    db.execute("""
        CREATE TABLE experiment_readings (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL REFERENCES experiment_runs (id) ON DELETE CASCADE,
            life INTEGER NOT NULL,
            at_s REAL NOT NULL,
            metric TEXT NOT NULL,
            value REAL NOT NULL,
            unit TEXT NOT NULL,
            arm TEXT NOT NULL,
            block INTEGER NOT NULL,
            facts TEXT NOT NULL,
            readings TEXT NOT NULL
        )""")
    db.execute("""
        CREATE TABLE experiment_commands (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL REFERENCES experiment_runs (id) ON DELETE CASCADE,
            life INTEGER NOT NULL,
            at TEXT NOT NULL,
            words TEXT NOT NULL,
            version TEXT
        )""")
    db.execute("""
        CREATE TABLE experiment_boots (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL REFERENCES experiment_runs (id) ON DELETE CASCADE,
            life INTEGER NOT NULL,
            at TEXT NOT NULL,
            facts TEXT NOT NULL
        )""")
    db.execute("CREATE INDEX experiment_runs_by_state ON experiment_runs (state)")
    db.execute("CREATE INDEX experiment_runs_by_digest ON experiment_runs (digest)")
    db.execute("CREATE INDEX experiment_runs_by_name ON experiment_runs (experiment)")
    db.execute("CREATE INDEX experiment_runs_by_gap ON experiment_runs (gap_id) WHERE gap_id IS NOT NULL")
    db.execute(
        "CREATE INDEX experiment_runs_by_session ON experiment_runs (session_id) WHERE session_id IS NOT NULL"
    )
    db.execute("CREATE INDEX experiment_readings_by_run ON experiment_readings (run_id, metric)")
    db.execute("CREATE INDEX experiment_commands_by_run ON experiment_commands (run_id)")
    db.execute("CREATE INDEX experiment_boots_by_run ON experiment_boots (run_id)")
    db.execute("""
        CREATE VIEW experiment_list AS
        SELECT r.seq, r.id, r.at, r.experiment, r.subject, r.state,
            r.inquiry ->> '$.question' AS question,
            r.report ->> '$.answers[0].statement' AS answer,
            r.asked_by, r.drive, r.started_at, r.ended_at, round(r.gpu_minutes, 2) AS gpu_minutes, r.lives,
            (SELECT count(*) FROM experiment_readings s WHERE s.run_id = r.id) AS samples,
            r.error ->> '$.message' AS error, r.gap_id, r.session_id, r.expired_at
        FROM experiment_runs r""")


def step_011_facts(db: Database) -> None:
    """Facts by what reads them: the measured ones, at each start of a daemon, and those of a session."""
    db.execute(
        "CREATE INDEX facts_measured ON facts (seq) WHERE source = 'measurement' AND expired_at IS NULL"
    )
    db.execute("CREATE INDEX facts_by_session ON facts (session_id) WHERE session_id IS NOT NULL")
    db.execute(
        "CREATE INDEX drive_events_by_session ON drive_events (session_id, kind) WHERE session_id IS NOT NULL"
    )
