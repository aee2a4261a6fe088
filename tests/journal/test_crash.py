"""Killed in the middle of writes: what was acknowledged is there, and what ran says what it had said."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from subcortex.journal import Journal, Reader
from subcortex.journal.migrations import LATEST
from subcortex.types import ThoughtStatus
from tests.journal.samples import start, think

# Says on stdout what was acknowledged, after it was: b(egun), c(ompleted).
_CHILD = """
import asyncio, sys
from pathlib import Path
from subcortex.journal import Journal, Limits
from tests.journal.samples import end, start

async def main():
    journal = Journal.open(Path(sys.argv[1]), durability=sys.argv[2], limits=Limits(checkpoint_rows=50))
    print("open", flush=True)

    async def one(number):
        while True:
            begun = start(prompt=f"prompt of thought {'x' * (number * 700)}")
            await journal.begin(begun)
            print("b", begun.id, flush=True)
            journal.say(begun.id, "partial " + begun.id, "")
            await journal.complete(end(begun.id, "answer " + begun.id))
            print("c", begun.id, flush=True)

    await asyncio.gather(*(one(number) for number in range(8)))

asyncio.run(main())
"""


def spawned(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_five_kills_each_lose_nothing_acknowledged(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "journal.db"
    begun: set[str] = set()
    completed: set[str] = set()
    for kill in range(5):
        child = spawned(_CHILD, path, durability)
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        lines = [child.stdout.readline() for _ in range(40 + 53 * kill)]
        child.send_signal(signal.SIGKILL)
        # A line cut in two by the kill was not an acknowledgement.
        lines += [line for line in child.stdout if line.endswith("\n")]
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        begun |= {line.split()[1] for line in lines if line.startswith("b")}
        completed |= {line.split()[1] for line in lines if line.startswith("c")}
        check = sqlite3.connect(path)
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert check.execute("PRAGMA foreign_key_check").fetchall() == []
        check.close()
    await Journal.open(path).aclose()
    with Reader.open(path) as reader:
        records = {record.id: record for record in reader.thoughts(limit=100_000)}
        indexed = {record.id for record in reader.thoughts(query="prompt of thought", limit=100_000)}
    assert begun <= set(records)
    assert {
        thought_id for thought_id in completed if records[thought_id].text != f"answer {thought_id}"
    } == set()
    assert {record.status for record in records.values()} <= {
        ThoughtStatus.COMPLETED,
        ThoughtStatus.INTERRUPTED,
    }
    assert {i for i in completed if records[i].status is not ThoughtStatus.COMPLETED} == set()
    assert indexed == set(records)
    assert len(completed) > 100


_SPEAKER = """
import asyncio, sys
from pathlib import Path
from subcortex.journal import Journal, Limits, Reader
from tests.journal.samples import start, until

async def main():
    path = Path(sys.argv[1])
    journal = Journal.open(path, limits=Limits(say_interval_s=0.001))
    await journal.begin(start("spoke"))
    await journal.begin(start("silent"))
    journal.say("spoke", "It is tw", "7 and 5")
    reader = Reader.open(path)
    await until(lambda: reader.thought("spoke").text == "It is tw")
    print("said", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_killed_thought_is_interrupted_with_what_had_been_said(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    child = spawned(_SPEAKER, path)
    assert child.stdout is not None
    assert child.stdout.readline() == "said\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    async with Journal.open(path) as journal:
        with Reader.open(path) as reader:
            spoke, silent = reader.thought("spoke"), reader.thought("silent")
            found = reader.thoughts(query="tw")
        again = await think(journal)
    assert spoke is not None
    assert silent is not None
    assert (spoke.status, spoke.text, spoke.text_chars) == (ThoughtStatus.INTERRUPTED, "It is tw", 8)
    assert (spoke.reasoning, spoke.error and spoke.error.code) == ("7 and 5", "interrupted")
    assert (silent.status, silent.text, silent.text_chars) == (ThoughtStatus.INTERRUPTED, None, 0)
    assert [record.id for record in found] == ["spoke"]
    assert again


_OPENER = """
import asyncio, sys
from pathlib import Path
from subcortex.journal import Journal
from tests.journal.samples import think

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    async with Journal.open(Path(sys.argv[1])) as journal:
        for _ in range(20):
            await think(journal)

asyncio.run(main())
"""


def test_processes_that_open_at_once_migrate_once(tmp_path: Path) -> None:
    for attempt in range(3):
        path = tmp_path / f"journal{attempt}.db"
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _OPENER, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        errors = [child.communicate()[1] for child in children]
        assert [child.returncode for child in children] == [0] * 4, errors
        conn = sqlite3.connect(path)
        assert conn.execute("PRAGMA user_version").fetchone() == (LATEST,)
        assert conn.execute("SELECT count(*) FROM daemon_runs").fetchone() == (4,)
        assert conn.execute("SELECT count(*) FROM thoughts WHERE status = 'completed'").fetchone() == (80,)
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        conn.close()


async def test_a_process_number_used_again_is_not_taken_for_the_dead_daemon(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        begun = start()
        await journal.begin(begun)
        conn = journal._writer._conn
        assert conn is not None
        conn.execute("UPDATE daemon_runs SET process_started_s = process_started_s - 3600")
        pid = conn.execute("SELECT pid FROM daemon_runs").fetchone()
        assert pid == (os.getpid(),)
        async with Journal.open(path):
            with Reader.open(path) as reader:
                record = reader.thought(begun.id)
    assert record is not None
    assert record.status is ThoughtStatus.INTERRUPTED
