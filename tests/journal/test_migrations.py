"""From the first schema to the last, on a file with thoughts in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from subcortex.errors import JournalError
from subcortex.journal import Journal, Reader
from subcortex.journal.database import connect_writer
from subcortex.journal.migrations import LATEST, migrate
from subcortex.types import ThoughtStatus
from tests.journal.samples import think


def schema(path: Path) -> set[tuple[str, str]]:
    conn = sqlite3.connect(path)
    try:
        return set(conn.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    finally:
        conn.close()


def at_version(path: Path, version: int) -> sqlite3.Connection:
    conn = connect_writer(path, "process", 1.0)
    assert migrate(conn, path, to=version) == 0
    return conn


def insert(conn: sqlite3.Connection, thought_id: str, status: str) -> None:
    conn.execute(
        "INSERT INTO thoughts"
        " (id, run_id, status, created_at, tier, model, engine, route, params, recorded, prompt)"
        " VALUES (?, 'run', ?, '2026-02-22T15:08:07.000000Z', 'fast', 'm', 'vllm', ?, '{}', 'full', ?)",
        (thought_id, status, '{"tier": "fast", "score": 0, "complexity": 0}', f"prompt of {thought_id}"),
    )


@pytest.mark.parametrize("version", range(1, LATEST + 1))
async def test_every_earlier_version_comes_up_to_date_with_its_thoughts(tmp_path: Path, version: int) -> None:
    path = tmp_path / "journal.db"
    conn = at_version(path, version)
    conn.execute("INSERT INTO daemon_runs VALUES ('run', '2026', 999999999, NULL, '0.1', NULL)")
    insert(conn, "aa", "completed")
    insert(conn, "bb", "running")
    conn.close()
    async with Journal.open(path) as journal:
        new = await think(journal, "prompt of a new one")
    with Reader.open(path) as reader:
        found = {record.id: record.status for record in reader.thoughts(query='"prompt of"')}
    assert found == {
        "aa": ThoughtStatus.COMPLETED,
        "bb": ThoughtStatus.INTERRUPTED,
        new: ThoughtStatus.COMPLETED,
    }
    fresh = tmp_path / "fresh.db"
    at_version(fresh, LATEST).close()
    assert schema(path) == schema(fresh)


#: A row for every table, by the version that brought it; each refers to rows of the tables before.
_AT = "2026-02-22T15:08:07.000000Z"
_ROWS: dict[int, dict[str, dict[str, object]]] = {
    1: {
        "daemon_runs": {"id": "run", "started_at": _AT, "pid": 999999999, "version": "0.1"},
        "thoughts": {
            **{"id": "aa", "run_id": "run", "status": "completed", "created_at": _AT, "tier": "fast"},
            **{"model": "m", "engine": "vllm", "params": "{}", "recorded": "full", "prompt": "prompt \x00 é"},
            "route": '{"tier": "fast", "score": 0, "complexity": 0}',
        },
        "said": {"thought_id": "aa", "at": _AT, "answer": "so far", "answer_chars": 6, "reasoning_chars": 0},
    },
    2: {"events": {"at": _AT, "run_id": "run", "tier": "fast", "kind": "ready", "detail": '{"load_s": 2.5}'}},
    4: {
        "hardware_snapshots": {"at": _AT, "digest": "d", "snapshot": "{}"},
        "boots": {
            **{"id": "b", "at": _AT, "run_id": "run", "tier": "fast", "engine": "vllm", "model": "m"},
            **{"gpus": "[]", "tensor_parallel_size": 2, "pipeline_parallel_size": 1, "predicted": '{"x": 1}'},
            **{"outcome": "failed", "error": '["engine_failed", "no room"]'},
        },
    },
    5: {
        "sessions": {
            **{"seq": 1771772887000000, "id": "s", "at": _AT, "kind": "session", "shape": "fields"},
            **{
                "origin": "import",
                "state": "ended",
                "file": "a.md",
                "digest": "d",
                "text": "# A \x00 zebra\r\n",
            },
        },
        "session_drives": {"session_id": "s", "place": 0, "drive": "CARE", "session_seq": 1771772887000000},
        "session_entries": {"session_id": "s", "at": _AT, "kind": "note", "text": "noted"},
    },
    6: {
        "facts": {
            **{"id": "f", "at": _AT, "source": "arithmetic", "quantity": "memory", "subject": "70B"},
            **{"value": 35.0, "statement": "35 GB", "provenance": "{}"},
        },
        "gaps": {
            **{"id": "g", "key": "g", "at": _AT, "question": "How slow?", "state": "answered"},
            **{"found_by": "rule", "session_id": "s", "closed_by": "s", "fact_id": "f"},
        },
        "claims": {
            **{
                "id": "c",
                "key": "c",
                "at": _AT,
                "statement": "35 GB",
                "kind": "statement",
                "state": "confirmed",
            },
            **{"found_by": "rule", "session_id": "s", "fact_id": "f"},
        },
        "claim_figures": {
            "claim_id": "c",
            "place": 0,
            "written": "35 GB",
            "value": 35.0,
            "low": 34.0,
            "high": 36.0,
        },
    },
    7: {
        "drive_states": {"drive": "CARE", "pressure": 12.5, "grown_at": _AT, "thwarted": 2},
        "drive_events": {"at": _AT, "drive": "CARE", "kind": "satisfied", "depth": "deep", "session_id": "s"},
    },
    10: {
        "experiment_runs": {
            **{"id": "x", "at": _AT, "experiment": "load_time", "subject": "fast", "state": "settled"},
            **{"inquiry": '{"question": "?"}', "asked_by": "person", "gap_id": "g", "seconds": 60.0},
            **{"digest": "d", "session_id": "s"},
        },
        "experiment_readings": {
            **{"run_id": "x", "life": 1, "at_s": 0.5, "metric": "load", "value": 1.25, "unit": "s"},
            **{"arm": "cold", "block": 0, "facts": "{}", "readings": "{}"},
        },
        "experiment_commands": {"run_id": "x", "life": 1, "at": _AT, "words": '["engine"]'},
        "experiment_boots": {"run_id": "x", "life": 1, "at": _AT, "facts": "{}"},
    },
}


def contents(conn: sqlite3.Connection, tables: list[str]) -> dict[str, list[tuple[object, ...]]]:
    return {table: conn.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


@pytest.mark.parametrize("version", range(1, LATEST + 1))
def test_every_row_of_every_table_is_there_after(tmp_path: Path, version: int) -> None:
    conn = at_version(tmp_path / "journal.db", version)
    conn.execute("PRAGMA foreign_keys = ON")
    filled: list[str] = []
    for step in range(1, version + 1):
        for table, columns in _ROWS.get(step, {}).items():
            marks = ", ".join("?" * len(columns))
            conn.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())
            )
            filled.append(table)
    before = contents(conn, filled)
    assert migrate(conn, tmp_path / "journal.db") == version
    after = contents(conn, filled)
    # A later step may add columns; it changes none that were there.
    assert {table: [row[: len(before[table][0])] for row in rows] for table, rows in after.items()} == before
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
    found = {"thoughts_fts": "prompt"} | ({"sessions_fts": "zebra"} if version >= 5 else {})
    for index, word in found.items():
        conn.execute(f"INSERT INTO {index} ({index}, rank) VALUES ('integrity-check', 1)")
        assert len(conn.execute(f"SELECT 1 FROM {index}('{word[:2]}*')").fetchall()) == 1
    conn.close()


def test_every_table_has_a_row_in_that_test(tmp_path: Path) -> None:
    conn = at_version(tmp_path / "journal.db", LATEST)
    tables = {name for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    conn.close()
    own = {name for name in tables if "_fts" not in name and not name.startswith("sqlite_")}
    assert own == {table for rows in _ROWS.values() for table in rows}


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    conn = at_version(path, LATEST)
    before = schema(path)
    assert migrate(conn, path) == LATEST
    conn.close()
    assert schema(path) == before


def test_a_step_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    conn = at_version(path, 1)
    conn.execute("CREATE TABLE thoughts_fts (in_the_way)")
    before = schema(path)
    with pytest.raises(sqlite3.OperationalError, match="thoughts_fts"):
        migrate(conn, path)
    assert conn.execute("PRAGMA user_version").fetchone() == (1,)
    assert not conn.in_transaction
    conn.close()
    assert schema(path) == before
    with pytest.raises(JournalError, match="thoughts_fts"):
        Journal.open(path)


async def test_a_newer_version_is_refused_naming_both(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        await think(journal)
    conn = sqlite3.connect(path)
    conn.execute(f"PRAGMA user_version = {LATEST + 7}")
    conn.close()
    for refused in (Journal.open, Reader.open):
        with pytest.raises(JournalError, match=rf"version {LATEST + 7}.* {LATEST}\b"):
            refused(path)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE bookmarks (url)")
    conn.close()
    before = schema(path)
    with pytest.raises(JournalError, match="another program"):
        Journal.open(path)
    with pytest.raises(JournalError, match="another program"):
        Reader.open(path)
    assert schema(path) == before


def test_reading_an_older_version_says_how_to_migrate(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    at_version(path, 1).close()
    with pytest.raises(JournalError, match="version 1") as caught:
        Reader.open(path)
    assert "subcortex up" in (caught.value.hint or "")


async def test_the_index_follows_later_changes_and_deletions(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        changed, deleted = await think(journal, "zebra"), await think(journal, "zebra")
        conn = journal._writer._conn
        assert conn is not None
        conn.execute("UPDATE thoughts SET prompt = 'masked' WHERE id = ?", (changed,))
        conn.execute("DELETE FROM thoughts WHERE id = ?", (deleted,))
        conn.execute("INSERT INTO thoughts_fts (thoughts_fts, rank) VALUES ('integrity-check', 1)")
        with Reader.open(path) as reader:
            assert reader.thoughts(query="zebra") == []
            assert [record.id for record in reader.thoughts(query="masked")] == [changed]
