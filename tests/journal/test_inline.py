"""Writes on the caller's thread and writes on the journal's own, mixed: one connection, nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from subcortex.journal import Journal, Reader
from subcortex.types import ThoughtStatus
from tests.journal.samples import end, start


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_many_at_once_are_all_on_record(tmp_path: Path, durability) -> None:
    path = tmp_path / "journal.db"
    ids: list[str] = []

    async def one(journal: Journal) -> None:
        for number in range(25):
            begun = start()
            await journal.begin(begun)
            journal.say(begun.id, f"half {number}", "")
            journal.event("fast", "said", number=number)  # by the journal's own thread, meanwhile
            await asyncio.sleep(0)
            await journal.complete(end(begun.id, text=f"whole {number}"))
            ids.append(begun.id)

    async with Journal.open(path, durability=durability) as journal:
        await asyncio.gather(*(one(journal) for _ in range(24)))
        assert journal.health.state == "ok"
    with Reader.open(path) as reader:
        kept = [reader.thought(thought_id) for thought_id in ids]
    assert len(ids) == len(set(ids)) == 600
    assert all(record is not None and record.status is ThoughtStatus.COMPLETED for record in kept)
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert conn.execute("SELECT count(*) FROM said").fetchone() == (0,), "nothing is said after the end"
    conn.close()
