"""Steps 5 to 7 of the schema: sessions, gaps and claims, drives (``migrations.py``).

Text that a person or an agent wrote stays whole in one column; the columns beside it are what was understood
of it. Times are UTC as the rest of the journal writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database


def step_005_sessions(db: Database) -> None:
    """Sessions: the markdown whole, what was read in it, and what an open one has collected so far.

    ``text`` is the truth and every other column can be read from it again, but for a person's rating
    (``depth_by``) and ``evidence_depth``, which comes from facts. ``encoding`` gives back a file's bytes.
    ``seq`` is the session's time in microseconds since 1970, or of its arrival where it has no time, moved on
    until it is free: so every index lists in order of time without sorting, and so does search. ``file`` is
    its name under the folder of sessions, ``source`` the path it was imported from. ``session_entries`` keeps
    each note of an open session as it is made, so that a killed agent leaves them; they stay after the end,
    as what was said when.
    """
    db.execute("""
        CREATE TABLE sessions (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            at TEXT,
            at_written TEXT,
            recorded_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z')),
            kind TEXT NOT NULL CHECK (kind IN ('session', 'satisfaction', 'deferral', 'note')),
            shape TEXT NOT NULL CHECK (shape IN
                ('fields', 'front_matter', 'satisfaction', 'deferral', 'plain')),
            origin TEXT NOT NULL CHECK (origin IN ('agent', 'tick', 'import')),
            state TEXT NOT NULL CHECK (state IN ('open', 'ended', 'interrupted')),
            owner_pid INTEGER,
            owner_started_s REAL,
            ended_at TEXT,
            drive TEXT,
            title TEXT,
            topic TEXT,
            depth TEXT CHECK (depth IN ('none', 'shallow', 'moderate', 'deep', 'full')),
            depth_reason TEXT,
            depth_by TEXT CHECK (depth_by IN ('writer', 'person')),
            evidence_depth TEXT CHECK (evidence_depth IN ('none', 'shallow', 'moderate', 'deep', 'full')),
            evidence_reasons TEXT,
            pressure_before REAL,
            pressure_after REAL,
            file TEXT UNIQUE,
            source TEXT,
            encoding TEXT NOT NULL DEFAULT 'utf-8',
            digest TEXT NOT NULL,
            not_understood TEXT,
            text TEXT NOT NULL
        )""")
    db.execute("""
        CREATE TABLE session_drives (
            session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            drive TEXT NOT NULL,
            level_percent REAL,
            session_seq INTEGER NOT NULL,
            PRIMARY KEY (session_id, place)
        ) WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE session_entries (
            seq INTEGER PRIMARY KEY,
            session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            at TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('note', 'thought', 'experiment', 'field')),
            section TEXT,
            text TEXT NOT NULL
        )""")
    # An index ends in seq by itself; the one of drives says it, since its table has no number of its own.
    db.execute("CREATE INDEX sessions_by_depth ON sessions (depth)")
    db.execute("CREATE INDEX sessions_by_kind ON sessions (kind)")
    db.execute("CREATE INDEX sessions_by_digest ON sessions (digest)")
    db.execute("CREATE INDEX sessions_by_source ON sessions (source) WHERE source IS NOT NULL")
    db.execute("CREATE INDEX sessions_not_ended ON sessions (state) WHERE state <> 'ended'")
    db.execute("CREATE INDEX session_drives_by_drive ON session_drives (drive, session_seq)")
    db.execute("CREATE INDEX session_entries_by_session ON session_entries (session_id)")
    db.execute("""
        CREATE VIRTUAL TABLE sessions_fts USING fts5 (
            text, content = 'sessions', content_rowid = 'seq', prefix = '2 3',
            tokenize = 'unicode61 remove_diacritics 2'
        )""")
    # Every sixteenth session would pay for a merge of the index; every sixty-fourth costs a search little.
    for name, value in (("automerge", 0), ("crisismerge", 64)):
        db.execute("INSERT INTO sessions_fts (sessions_fts, rank) VALUES (?, ?)", (name, value))
    add = "INSERT INTO sessions_fts (rowid, text) VALUES (new.seq, new.text);"
    remove = "INSERT INTO sessions_fts (sessions_fts, rowid, text) VALUES ('delete', old.seq, old.text);"
    db.execute(f"CREATE TRIGGER sessions_search_inserted AFTER INSERT ON sessions BEGIN {add} END")
    db.execute(f"""
        CREATE TRIGGER sessions_search_changed AFTER UPDATE OF seq, text ON sessions
        BEGIN {remove} {add} END""")
    db.execute(f"CREATE TRIGGER sessions_search_deleted AFTER DELETE ON sessions BEGIN {remove} END")


def step_006_board(db: Database) -> None:
    """The board: what is not known (gaps), what is said to be so (claims), and what was found out (facts).

    A gap is linked to the session that raised it and the one that closed it; a claim to the fact that decided
    it. ``key`` is what makes the same question or statement of the same session the same row. A claim's
    figures are read to a quantity, a subject and a unit, so that a fact about the same can decide them; their
    ends have the writing's own rounding in them, and are null where it bounds one side only.
    """
    db.execute("""
        CREATE TABLE facts (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            at TEXT NOT NULL,
            source TEXT NOT NULL CHECK (source IN ('arithmetic', 'measurement', 'person')),
            quantity TEXT NOT NULL,
            subject TEXT NOT NULL,
            value REAL,
            low REAL,
            high REAL,
            unit TEXT,
            n INTEGER,
            statement TEXT NOT NULL,
            working TEXT,
            provenance TEXT NOT NULL,
            session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
            expired_at TEXT,
            expired_why TEXT
        )""")
    db.execute("""
        CREATE TABLE gaps (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL UNIQUE,
            at TEXT NOT NULL,
            question TEXT NOT NULL,
            topic TEXT,
            kind TEXT,
            state TEXT NOT NULL CHECK (state IN ('open', 'planned', 'answered', 'dropped')),
            found_by TEXT NOT NULL CHECK (found_by IN ('rule', 'thought', 'person', 'experiment')),
            session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
            section TEXT,
            line INTEGER,
            closed_at TEXT,
            closed_by TEXT REFERENCES sessions (id) ON DELETE SET NULL,
            fact_id TEXT REFERENCES facts (id),
            answer TEXT
        )""")
    db.execute("""
        CREATE TABLE claims (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL UNIQUE,
            at TEXT NOT NULL,
            statement TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('statement', 'figure', 'fits', 'result')),
            topic TEXT,
            state TEXT NOT NULL CHECK (state IN ('claimed', 'confirmed', 'refuted', 'expired')),
            found_by TEXT NOT NULL CHECK (found_by IN ('rule', 'thought', 'person', 'experiment')),
            session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
            section TEXT,
            line INTEGER,
            decided_at TEXT,
            fact_id TEXT REFERENCES facts (id)
        )""")
    db.execute("""
        CREATE TABLE claim_figures (
            claim_id TEXT NOT NULL REFERENCES claims (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            written TEXT NOT NULL,
            quantity TEXT,
            subject TEXT,
            value REAL NOT NULL,
            low REAL,
            high REAL,
            unit TEXT,
            PRIMARY KEY (claim_id, place)
        ) WITHOUT ROWID""")
    db.execute("CREATE INDEX facts_by_quantity ON facts (quantity, subject)")
    db.execute("CREATE INDEX gaps_by_state ON gaps (state)")
    db.execute("CREATE INDEX gaps_by_session ON gaps (session_id)")
    db.execute("CREATE INDEX gaps_by_closing ON gaps (closed_by) WHERE closed_by IS NOT NULL")
    db.execute("CREATE INDEX claims_by_state ON claims (state)")
    db.execute("CREATE INDEX claims_by_session ON claims (session_id)")
    db.execute("CREATE INDEX claims_by_fact ON claims (fact_id) WHERE fact_id IS NOT NULL")
    db.execute("CREATE INDEX claim_figures_by_quantity ON claim_figures (quantity, subject)")


def step_007_drives(db: Database) -> None:
    """Drives: the pressure each has built, and what raised and lowered it. Their definitions are files."""
    db.execute("""
        CREATE TABLE drive_states (
            drive TEXT PRIMARY KEY,
            pressure REAL NOT NULL CHECK (pressure >= 0),
            grown_at TEXT NOT NULL,
            satisfied_at TEXT,
            thwarted INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE drive_events (
            seq INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            drive TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('triggered', 'satisfied', 'bumped', 'thwarted', 'deferred')),
            pressure_before REAL,
            pressure_after REAL,
            depth TEXT,
            session_id TEXT REFERENCES sessions (id) ON DELETE SET NULL,
            reason TEXT
        )""")
    db.execute("CREATE INDEX drive_events_by_drive ON drive_events (drive, seq)")
