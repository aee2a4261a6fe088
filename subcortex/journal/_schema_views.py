"""Steps 8 and 9 of the schema: views with plain names, and an index that knows how words begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database


def step_008_views(db: Database) -> None:
    """Lists for people: sessions, thoughts, open gaps, claims with their figures, drives, starts of engines.

    A view is made anew by a later step rather than edited here. None sorts: whoever reads one does, by the
    columns that an index has (``seq`` of sessions and thoughts is their order in time).
    """
    db.execute("""
        CREATE VIEW session_list AS
        SELECT s.seq, s.id, s.at, s.kind,
            (SELECT group_concat(
                    d.drive || coalesce(' (' || CAST(round(d.level_percent) AS INTEGER) || '%)', ''), ', ')
                FROM session_drives d WHERE d.session_id = s.id) AS drives,
            coalesce(s.topic, s.title) AS topic, s.depth, s.depth_by, s.evidence_depth, s.state, s.origin,
            s.pressure_before, s.pressure_after, s.file
        FROM sessions s""")
    db.execute("""
        CREATE VIEW thought_list AS
        SELECT t.seq, t.id, t.created_at AS at, t.drive, t.session, t.tier, t.model, t.status,
            substr(t.prompt, 1, 200) AS prompt, substr(t.answer, 1, 200) AS answer,
            t.prompt_tokens, t.completion_tokens, t.ttft_s, t.total_s, t.error_code
        FROM thoughts t""")
    db.execute("""
        CREATE VIEW open_gaps AS
        SELECT g.seq, g.id, g.at, g.question, g.topic, g.kind, g.state, g.found_by, g.session_id,
            s.drive AS session_drive, s.topic AS session_topic, g.section, g.line
        FROM gaps g LEFT JOIN sessions s ON s.id = g.session_id
        WHERE g.state IN ('open', 'planned')""")
    db.execute("""
        CREATE VIEW claims_with_figures AS
        SELECT c.seq, c.id, c.at, c.state, c.statement, f.written, f.quantity, f.subject, f.value, f.low,
            f.high, f.unit, a.statement AS decided_by, a.source AS decided_from, c.decided_at,
            c.session_id, c.topic
        FROM claim_figures f JOIN claims c ON c.id = f.claim_id LEFT JOIN facts a ON a.id = c.fact_id""")
    db.execute("""
        CREATE VIEW drive_pressures AS
        SELECT d.drive, d.pressure, d.grown_at, d.satisfied_at, d.thwarted,
            (SELECT count(*) FROM drive_events e
                WHERE e.drive = d.drive AND e.kind = 'satisfied') AS satisfactions,
            (SELECT e.depth FROM drive_events e WHERE e.drive = d.drive AND e.kind = 'satisfied'
                ORDER BY e.seq DESC LIMIT 1) AS last_depth
        FROM drive_states d""")
    db.execute("""
        CREATE VIEW engine_starts AS
        SELECT b.seq, b.id, b.at, b.tier, b.engine, b.engine_version, b.model, b.outcome, b.ended_at, b.error
        FROM boots b""")


def step_009_beginnings(db: Database) -> None:
    """Make the index of thoughts anew with the first two and three letters of words in it.

    Without them ``th*`` joins the lists of every word that begins so, which takes a second among a million
    thoughts. Making it takes about ten seconds for each hundred thousand; the triggers of step 3 stay.
    """
    db.execute("DROP TABLE thoughts_fts")
    db.execute("""
        CREATE VIRTUAL TABLE thoughts_fts USING fts5 (
            prompt, answer, reasoning,
            content = 'thoughts', content_rowid = 'seq', prefix = '2 3',
            tokenize = 'unicode61 remove_diacritics 2'
        )""")
    db.execute("""
        INSERT INTO thoughts_fts (rowid, prompt, answer, reasoning)
        SELECT seq, prompt, answer, reasoning FROM thoughts WHERE status <> 'running'""")
