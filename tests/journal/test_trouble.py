"""A database that takes nothing for a while: thoughts go on, none is lost, and health says why."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from subcortex.errors import JournalError
from subcortex.journal import BootEnd, BootStart, Journal, Limits, Reader
from subcortex.types import ThoughtStatus, new_thought_id
from tests.journal.samples import AT, end, read, start, think, until

QUICK = Limits(retry_first_s=0.005, retry_max_s=0.02, busy_timeout_s=0.02, say_interval_s=0.01)


def pragma(journal: Journal, statement: str) -> int:
    conn = journal._writer._conn
    assert conn is not None
    return int(conn.execute(f"PRAGMA {statement}").fetchone()[0])


def fill(journal: Journal) -> None:
    """Let the database not grow by a page more: SQLite then says that the disk is full."""
    pragma(journal, f"max_page_count = {pragma(journal, 'page_count')}")


def make_room(journal: Journal) -> None:
    pragma(journal, "max_page_count = 1000000")


def answers(path: Path) -> dict[str, str | None]:
    with Reader.open(path) as reader:
        return {record.id: record.text for record in reader.thoughts(limit=10_000)}


LONG = "x" * 5000


async def test_a_full_disk_fails_no_thought_and_loses_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=QUICK) as journal:
        before = await think(journal, text="before")
        half = start()
        await journal.begin(half)
        fill(journal)
        during = [await think(journal, LONG, f"during {i}") for i in range(20)]
        journal.say(half.id, "so far", "")
        await journal.complete(end(half.id, f"half {LONG}"))
        journal.event("fast", "ready", load_s=1.0)
        health = journal.health
        assert health.state == "degraded"
        assert "the disk is full" in (health.reason or "")
        assert health.held_rows >= 40
        assert health.held_bytes > 20 * 5000
        assert str(health).startswith("degraded: the disk is full")
        assert set(answers(path)) == {before, half.id}
        make_room(journal)
        await until(lambda: journal.health.state == "ok")
        assert (journal.health.held_rows, str(journal.health)) == (0, "ok")
        expected = {
            before: "before",
            half.id: f"half {LONG}",
            **{d: f"during {i}" for i, d in enumerate(during)},
        }
        assert answers(path) == expected
        after = await think(journal, text="after")
        assert read(path, after).text == "after"
    with Reader.open(path) as reader:
        assert len(reader.thoughts(query=LONG, limit=100)) == 21
        assert reader.tier_costs()["fast", "tiny"].load_s == 1.0


async def test_little_room_takes_a_part_of_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=QUICK) as journal:
        pages = pragma(journal, "page_count")
        fill(journal)
        ids = [await think(journal, "y" * 400_000) for _ in range(10)]
        pragma(journal, f"max_page_count = {pages + 1000}")  # 4 MiB, for 8 and their index
        await until(lambda: journal.health.held_rows < 20)
        assert journal.health.state == "degraded"
        some = set(answers(path))
        assert some < set(ids)
        make_room(journal)
        await until(lambda: journal.health.state == "ok")
    assert set(answers(path)) == set(ids)


async def test_held_thoughts_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=QUICK) as journal:
        fill(journal)
        ids = [await think(journal, LONG) for _ in range(10)]
        make_room(journal)
        await until(lambda: journal.health.state == "ok")
    assert list(answers(path)) == ids[::-1]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(held_rows=10, retry_first_s=0.005, retry_max_s=0.02),
        Limits(held_mib=0.05, retry_first_s=0.005, retry_max_s=0.02),
    ],
    ids=["rows", "bytes"],
)
async def test_beyond_the_bound_thoughts_go_on_and_each_that_is_lost_is_counted(
    tmp_path: Path, limits: Limits
) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=limits) as journal:
        half = start()
        await journal.begin(half)
        fill(journal)
        had = [await think(journal, LONG)]
        while journal.health.lost_rows == 0:
            had.append(await think(journal, LONG))
        held = journal.health
        lost = [had.pop()]
        assert 2 <= len(had) < 20
        lost += [await think(journal, LONG) for _ in range(50)]
        journal.event("fast", "ready")
        journal.save_hardware({"gpus": 0})
        assert journal.health.held_rows == held.held_rows, "memory stays bounded"
        assert journal.health.lost_rows == 1 + 50 + 2
        assert str(journal.health).endswith(" wait in memory; 53 rows are lost")
        late = start()
        await journal.begin(late)  # no room for its start, but there will be for its end
        journal.say(late.id, "so far", "")
        await journal.complete(end(half.id, "ended"))
        make_room(journal)
        await until(lambda: journal.health.state == "ok")
        journal.say(late.id, "so far", "")
        await journal.complete(end(late.id, "late"))
        assert str(journal.health) == "ok; 53 rows are lost"
        had.append(await think(journal))
    assert set(answers(path)) == {half.id, late.id, *had}
    assert not set(answers(path)) & set(lost)
    assert read(path, half.id).text == "ended"
    assert (read(path, late.id).text, read(path, late.id).prompt) == ("late", "What is 7 + 5?")
    with Reader.open(path) as reader:
        (noted,) = reader.events(kind="rows_lost")
    assert (noted.tier, noted.detail["rows"]) == (None, 53)
    assert "the disk is full" in noted.detail["reason"]
    assert noted.at.isoformat() > noted.detail["since"]


async def test_starts_of_engines_beyond_the_bound_are_lost_or_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=Limits(held_rows=2, retry_first_s=0.005)) as journal:
        fill(journal)
        await think(journal, LONG)
        lost, whole = (BootStart(new_thought_id(), AT, "fast", "llama.cpp", "tiny") for _ in range(2))
        assert await journal.boot_began(lost) == lost.id
        assert await journal.boot_began(whole) == whole.id
        journal.boot_ended(BootEnd(lost.id, "ready"))
        assert journal.health.lost_rows == 1
        make_room(journal)
        await until(lambda: journal.health.state == "ok")
        journal.boot_ended(BootEnd(whole.id, "ready"))
    with Reader.open(path) as reader:
        assert [(boot.id, boot.outcome) for boot in reader.boots()] == [(whole.id, "ready")]


async def test_a_log_on_the_same_full_disk_ends_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", full)
        async with Journal.open(path, limits=QUICK) as journal:
            fill(journal)
            ids = [await think(journal, LONG) for _ in range(3)]
            assert journal.health.held_rows >= 6
            make_room(journal)
            await until(lambda: journal.health.state == "ok")
    full.close()
    assert set(answers(path)) == set(ids)


async def test_closing_while_full_says_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal.open(path, limits=QUICK)
    fill(journal)
    await think(journal, LONG)
    with pytest.raises(JournalError, match="not written") as caught:
        await journal.aclose()
    assert caught.value.details["held_rows"] >= 2


async def test_another_programs_lock_holds_up_no_thought(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=QUICK) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        had = [await think(journal, text=str(i)) for i in range(5)]
        assert "locked" in (journal.health.reason or "")
        assert answers(path) == {}
        other.execute("COMMIT")
        other.close()
        await until(lambda: journal.health.state == "ok")
        assert answers(path) == {thought_id: str(i) for i, thought_id in enumerate(had)}


async def test_a_file_deleted_under_the_daemon_is_made_anew_with_all_since(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=QUICK) as journal:
        await think(journal, text="gone with the file")
        half = start(prompt="asked before")
        await journal.begin(half)
        for file in tmp_path.iterdir():
            file.unlink()
        during = await think(journal, text="during")
        await journal.complete(end(half.id, "ended after"))
        await until(lambda: journal.health.state == "ok")
        assert answers(path) == {during: "during", half.id: "ended after"}
        assert read(path, half.id).prompt == "asked before"


async def test_a_corrupt_page_degrades_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        for _ in range(50):
            await think(journal, LONG)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))
    with pytest.raises(JournalError, match="damaged") as caught:
        await _open_and_think(path)
    assert caught.value.hint


async def _open_and_think(path: Path) -> None:
    async with Journal.open(path, limits=QUICK) as journal:
        await think(journal)
        raise JournalError(str(journal.health))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a database, but long enough to look at" * 100, "not a database"),
        (b"SQLite format 3\0" + b"\xff" * 84, "cannot"),
    ],
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=reason) as caught:
        Journal.open(path)
    assert str(path) in caught.value.message
    with pytest.raises(JournalError, match=reason):
        Reader.open(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("inside", ["file", "missing/file"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, inside: str) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(JournalError, match="blocked") as caught:
        Journal.open(tmp_path / "blocked" / inside)
    assert caught.value.hint


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot open"):
        Journal.open(tmp_path)


_LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from subcortex.journal import Journal, Limits
from tests.journal.samples import think, until

async def main():
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    journal = Journal.open(path, limits=Limits(retry_first_s=0.005, retry_max_s=0.02))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    had = 0
    while journal.health.state == "ok":
        await think(journal, "x" * 5000)
        had += 1
    for _ in range(5):
        await think(journal, "x" * 5000)
        had += 1
    print("degraded:", journal.health.reason, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await until(lambda: journal.health.state == "ok")
    await journal.aclose()
    print("had", had)

asyncio.run(main())
"""


def test_a_write_that_the_kernel_refuses_waits_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    asked = [sys.executable, "-c", _LIMITED, str(path), str(300_000)]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    degraded, had = done.stdout.splitlines()
    assert degraded.startswith("degraded: the disk")
    assert len(answers(path)) == int(had.split()[1]) > 5
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    check.close()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own; needs root, so elsewhere the page limit above stands in for it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"no right to mount a file system here: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_really_full_file_system(small_disk: Path) -> None:
    path, ballast = small_disk / "journal.db", small_disk / "ballast"
    async with Journal.open(path, limits=QUICK) as journal:
        half = start()
        await journal.begin(half)
        ids = [half.id, await think(journal, LONG)]
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(b"\0" * 2**21)
        assert shutil.disk_usage(small_disk).free == 0
        while journal.health.state == "ok":
            ids.append(await think(journal, LONG))
        ids += [await think(journal, LONG) for _ in range(10)]
        await journal.complete(end(half.id, "ended"))
        assert "full" in (journal.health.reason or "")
        ballast.unlink()
        await until(lambda: journal.health.state == "ok")
        assert set(answers(path)) == set(ids)
        assert read(path, half.id).status is ThoughtStatus.COMPLETED


async def test_health_is_ok_again_only_once_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with Journal.open(path, limits=QUICK) as journal:
        fill(journal)
        ids = [await think(journal, LONG) for _ in range(300)]
        make_room(journal)
        late = [await think(journal) for _ in range(50)]
        await until(lambda: journal.health.state == "ok")
        assert set(answers(path)) == {*ids, *late}
        await asyncio.gather(*(think(journal) for _ in range(10)))
        assert journal.health.state == "ok"
