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
