"""Steps 1 to 4 of the schema: thoughts, events, search, and starts of engines (``migrations.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database


def step_001_thoughts(db: Database) -> None:
    """Thoughts, the daemon runs that had them, and what is being said while they run.

    ``seq`` counts in order of arrival and is what the search index points at. ``said`` holds the
    partial answer apart, so that saving it does not rewrite a long prompt.
    """
    db.execute("""
        CREATE TABLE daemon_runs (
            id TEXT PRIMARY KEY,
            started_at TEXT NOT NULL,
            pid INTEGER NOT NULL,
            process_started_s REAL,
            version TEXT NOT NULL,
            stopped_at TEXT
        )""")
    db.execute("""
        CREATE TABLE thoughts (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            run_id TEXT NOT NULL REFERENCES daemon_runs (id),
            status TEXT NOT NULL CHECK (status IN
                ('running', 'completed', 'failed', 'cancelled', 'interrupted')),
            created_at TEXT NOT NULL,
            ended_at TEXT,
            drive TEXT,
            session TEXT,
            tier TEXT NOT NULL,
            model TEXT NOT NULL,
            engine TEXT NOT NULL,
            engine_version TEXT,
            score REAL,
            complexity REAL,
            route TEXT NOT NULL,
            params TEXT NOT NULL,
            prompt_tokens INTEGER,
            completion_tokens INTEGER,
            queued_s REAL,
            load_s REAL,
            ttft_s REAL,
            tpot_s REAL,
            total_s REAL,
            finish_reason TEXT,
            error_code TEXT,
            error_message TEXT,
            recorded TEXT NOT NULL CHECK (recorded IN ('full', 'redacted', 'none')),
            replaced_characters INTEGER NOT NULL DEFAULT 0,
            prompt_chars INTEGER NOT NULL DEFAULT 0,
            answer_chars INTEGER NOT NULL DEFAULT 0,
            reasoning_chars INTEGER NOT NULL DEFAULT 0,
            prompt TEXT,
            messages TEXT,
            answer TEXT,
            reasoning TEXT,
            tool_calls TEXT
        )""")
    db.execute("""
        CREATE TABLE said (
            thought_id TEXT PRIMARY KEY REFERENCES thoughts (id) ON DELETE CASCADE,
            at TEXT NOT NULL,
            answer TEXT,
            reasoning TEXT,
            answer_chars INTEGER NOT NULL,
            reasoning_chars INTEGER NOT NULL
        )""")
    # Every index ends in seq by itself, so each filter lists its newest rows without sorting.
    db.execute("CREATE INDEX thoughts_by_tier ON thoughts (tier)")
    db.execute("CREATE INDEX thoughts_by_drive ON thoughts (drive) WHERE drive IS NOT NULL")
    db.execute("CREATE INDEX thoughts_by_session ON thoughts (session) WHERE session IS NOT NULL")
    db.execute("CREATE INDEX thoughts_not_completed ON thoughts (status) WHERE status <> 'completed'")


def step_002_events(db: Database) -> None:
    """What happened to the engines: starts, ready with the seconds it took, crashes, stops."""
    db.execute("""
        CREATE TABLE events (
            seq INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            run_id TEXT NOT NULL REFERENCES daemon_runs (id),
            tier TEXT,
            kind TEXT NOT NULL,
            detail TEXT NOT NULL
        )""")
    db.execute("CREATE INDEX events_by_kind ON events (kind, tier)")


def step_003_search(db: Database) -> None:
    """Full-text search over prompt, answer and reasoning of thoughts that have ended.

    A thought enters the index when it ends, not when it begins: the request waits for the row, and
    nobody waits for the index. The index holds no copy of the texts.
    """
    db.execute("""
        CREATE VIRTUAL TABLE thoughts_fts USING fts5 (
            prompt, answer, reasoning,
            content = 'thoughts', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2'
        )""")
    add = (
        "INSERT INTO thoughts_fts (rowid, prompt, answer, reasoning)"
        " VALUES (new.seq, new.prompt, new.answer, new.reasoning);"
    )
    remove = (
        "INSERT INTO thoughts_fts (thoughts_fts, rowid, prompt, answer, reasoning)"
        " VALUES ('delete', old.seq, old.prompt, old.answer, old.reasoning);"
    )
    db.execute(f"""
        CREATE TRIGGER thoughts_search_ended AFTER UPDATE OF status ON thoughts
        WHEN old.status = 'running' AND new.status <> 'running' BEGIN {add} END""")
    db.execute(f"""
        CREATE TRIGGER thoughts_search_changed AFTER UPDATE OF prompt, answer, reasoning ON thoughts
        WHEN old.status <> 'running' BEGIN {remove} {add} END""")
    db.execute(f"""
        CREATE TRIGGER thoughts_search_inserted AFTER INSERT ON thoughts
        WHEN new.status <> 'running' BEGIN {add} END""")
    db.execute(f"""
        CREATE TRIGGER thoughts_search_deleted AFTER DELETE ON thoughts
        WHEN old.status <> 'running' BEGIN {remove} END""")
    db.execute("""
        INSERT INTO thoughts_fts (rowid, prompt, answer, reasoning)
        SELECT seq, prompt, answer, reasoning FROM thoughts WHERE status <> 'running'""")


def step_004_boots(db: Database) -> None:
    """Starts of engines: what was predicted before each, and what was measured. Machines they ran on.

    A row is written before the engine starts, so that a prediction cannot know its outcome. ``outcome``
    stays NULL where the daemon ended first.
    """
    db.execute("""
        CREATE TABLE hardware_snapshots (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            digest TEXT NOT NULL UNIQUE,
            snapshot TEXT NOT NULL
        )""")
    db.execute("""
        CREATE TABLE boots (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            at TEXT NOT NULL,
            run_id TEXT NOT NULL REFERENCES daemon_runs (id),
            tier TEXT NOT NULL,
            engine TEXT NOT NULL,
            engine_version TEXT,
            model TEXT NOT NULL,
            architecture TEXT,
            gpus TEXT NOT NULL,
            tensor_parallel_size INTEGER NOT NULL,
            pipeline_parallel_size INTEGER NOT NULL,
            setup TEXT,
            predicted TEXT,
            hardware TEXT,
            ended_at TEXT,
            outcome TEXT CHECK (outcome IN ('ready', 'failed')),
            measured TEXT,
            residuals TEXT,
            error TEXT
        )""")
    db.execute("CREATE INDEX boots_by_engine ON boots (engine, model)")
