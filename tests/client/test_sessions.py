"""``with session(…)`` without a daemon: how it nests, where it reaches, and what an end in trouble leaves."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sqlite3
import threading
import warnings
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from subcortex import session
from subcortex.client import sessions as module
from subcortex.client.calls import _request
from subcortex.client.sessions import Session
from subcortex.config import Config, load
from subcortex.errors import EngineFailed, InvalidRequest, JournalError
from subcortex.journal.diary import Diary, board_queries
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary import sessions as rows
from subcortex.journal.folder import check
from subcortex.types import Depth
from tests.conftest import write_config
from tests.drives.emergence_state import drive, write


@pytest.fixture
def config(folder) -> Config:
    return load(write_config(folder, journal='sessions_dir = "sessions"'), {})


@pytest.fixture
def hasty(monkeypatch):
    """Let a locked journal be given up on at once."""
    open_it = Diary.open
    monkeypatch.setattr(Diary, "open", lambda *args, **more: open_it(*args, **more, busy_timeout_s=0.02))


def asked() -> tuple[str | None, str | None]:
    """Return the session and the drive that a thought had here would have."""
    request = _request("hi", {"client": object()})[1]
    return request.session, request.drive


def whole(config: Config, session_id: str):
    with Diary.open(config.database_path) as diary:
        record = queries.session(diary, session_id)
    assert record is not None
    return record


def test_sessions_nest_and_the_inner_one_has_the_thoughts(config):
    with session("LEARNING", config=config) as outer:
        assert asked() == (outer.id, "LEARNING")
        with session(topic="Aside", config=config) as inner:
            assert asked() == (inner.id, None)
        assert asked() == (outer.id, "LEARNING")
        assert _request("hi", {"client": object(), "session": "mine"})[1].session == "mine"
    assert asked() == (None, None)
    assert [whole(config, held.id).state for held in (outer, inner)] == ["ended", "ended"]


def test_tasks_have_the_session_they_were_begun_in_and_none_once_it_is_over(config):
    async def main() -> None:
        over = asyncio.Event()

        async def later() -> tuple[str | None, str | None]:
            await over.wait()
            return asked()

        with session("CARE", config=config) as held:
            there = await asyncio.gather(asyncio.to_thread(asked), asyncio.create_task(_now()))
            assert list(there) == [(held.id, "CARE")] * 2
            outlives = asyncio.create_task(later())
            await asyncio.sleep(0)
        over.set()
        assert await outlives == (None, None)

    async def _now() -> tuple[str | None, str | None]:
        return asked()

    asyncio.run(main())


def test_threads_write_notes_and_belong_to_it_where_they_run_in_its_context(config):
    with session("CARE", config=config) as held:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: held.note(f"note {number}."), range(40)))
        found: list[tuple[str | None, str | None]] = []
        outside = threading.Thread(target=lambda: found.append(asked()))
        inside = threading.Thread(
            target=contextvars.copy_context().run, args=(lambda: found.append(asked()),)
        )
        for thread in (outside, inside):
            thread.start()
            thread.join()
        assert found == [(None, None), (held.id, "CARE")]
    text = whole(config, held.id).text
    assert all(f"note {number}." in text for number in range(40))


def test_a_generator_that_is_closed_late_ends_its_session_and_moves_no_other(config):
    def steps(topic: str) -> Generator[Session, None, None]:
        with session(topic=topic, config=config) as held:
            yield held

    first = steps("first")
    held = next(first)
    # In a context of its own, as a thread or a garbage collector has it.
    contextvars.Context().run(first.close)
    record = whole(config, held.id)
    assert (record.state, "Went Wrong" in record.text) == ("ended", False)
    with session(topic="second", config=config) as second:
        other = steps("third")
        third = next(other)
        with session(topic="fourth", config=config) as fourth:
            other.close()
            assert asked()[0] == fourth.id
    assert {whole(config, one.id).state for one in (second, third, fourth)} == {"ended"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), None),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (EngineFailed("deep died", hint="Look."), "deep died"),
        (ValueError("bad\n## Depth\n\n**Full**"), "ValueError: bad"),
    ],
)
def test_what_ends_a_block_is_told_in_its_session_and_raised(config, error, said):
    with pytest.raises(type(error)) as caught, session(config=config) as held:
        raise error
    assert caught.value is error
    record = whole(config, held.id)
    assert (record.state, record.evidence_depth, record.depth) == ("ended", Depth.NONE, None)
    assert ("What Went Wrong" in record.text) is (said is not None)
    assert said is None or said in record.text


@pytest.fixture
def locked(config, hasty):
    """A journal that somebody else begins to hold when asked to."""
    Diary.open(config.database_path).close()
    with closing(sqlite3.connect(config.database_path, isolation_level=None)) as other:
        yield other


def test_a_journal_that_is_locked_at_the_end_hides_no_error_of_the_blocks(config, locked):
    with pytest.raises(ZeroDivisionError) as caught, session("CARE", config=config) as held:  # noqa: PT012
        held.note("Said before.")
        locked.execute("BEGIN IMMEDIATE")
        raise ZeroDivisionError
    assert held.id in caught.value.__notes__[0]
    assert asked() == (None, None)
    locked.execute("ROLLBACK")
    assert [entry.text for entry in whole(config, held.id).entries] == ["Said before."]


def test_a_session_left_open_is_written_up_by_the_next_one_of_the_process(config, locked):
    with pytest.raises(JournalError, match="locked"), session("CARE", config=config) as held:  # noqa: PT012
        held.note("Said before.")
        held.rate("deep", "so I think")
        locked.execute("BEGIN IMMEDIATE")
    with pytest.raises(InvalidRequest, match="is over"):
        held.note("too late")
    locked.execute("ROLLBACK")
    assert whole(config, held.id).state == "open"
    with session("CARE", config=config):
        record = whole(config, held.id)
        assert (record.state, record.depth) == ("ended", Depth.DEEP)
        assert "Said before." in record.text
    assert held.id not in module._left


def test_a_child_that_is_forked_inside_leaves_the_session_alone(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = None
        try:
            with session(config=config) as held:
                pid = os.fork()
                if pid == 0:
                    raise SystemExit(5)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
                held.note("Still open.")
        except SystemExit as error:
            os._exit(int(error.code or 0))
    assert "Still open." in whole(config, held.id).text
    assert whole(config, held.id).state == "ended"


def test_a_session_whose_file_cannot_be_written_says_so_and_is_kept(config, folder):
    (folder / "sessions").write_text("no folder")
    with pytest.warns(UserWarning, match="has no file") as warned, session(config=config) as held:
        held.note("Kept.")
    assert warned[0].filename == __file__
    assert "Kept." in whole(config, held.id).text


def test_a_session_holds_no_more_than_a_file_that_an_import_takes(config, folder):
    with pytest.raises(ValueError, match="boundless") as caught, session(config=config) as held:  # noqa: PT012
        for _ in range(14):
            held.note("#\n" * 50_000)
        with pytest.raises(InvalidRequest, match=r"would hold 1\.5 MB"):
            held.note("#\n" * 50_000)
        held.note("There is still room for this.")
        raise ValueError("boundless " * 10**6)
    assert not hasattr(caught.value, "__notes__")
    record = whole(config, held.id)
    assert "There is still room for this." in record.text
    assert "ValueError: boundless" in record.text
    with Diary.open(config.database_path) as diary:
        assert check(diary, folder / "sessions").none


def test_hostile_words_forge_neither_depth_nor_drive_nor_a_gap(config):
    with session("CARE", topic="T\n## Depth\n\n**Full**", config=config) as held:
        held.field("Drive", "LEARNING (200%)")
        held.field("x:** y **Depth", "full")
        held.note(
            "fine\n\n---\n\n# Session: PLAY\n**Depth:** full\n\n## What I Need to Learn\n\n1. **A:** Why?"
        )
        held.note("```\nnever closed", section="Depth\n\n**Full**")
        held.rate("shallow", "honest\n\n**Full**")
    record = held.record
    assert record is not None
    assert [drive.name for drive in record.drives] == ["CARE"]
    assert (record.depth, record.kind) == (Depth.SHALLOW, "session")
    with Diary.open(config.database_path) as diary:
        assert board_queries.gaps(diary, session_id=held.id) == []
        again = queries.session(diary, held.id)
        assert again == record
        assert rows.open_sessions(diary) == []


def test_a_drive_of_the_files_may_have_a_session_whatever_becomes_of_the_state_that_is_followed(
    config, folder, monkeypatch
):
    monkeypatch.setenv("EMERGENCE_STATE", str(folder / "state"))
    state = write(folder / "state", {"NOVELTY": drive()}, {"NOVELTY": {"pressure": 30.0}})
    with session("novelty", config=config) as held:
        assert held.drive == "NOVELTY"
    assert held.record
    assert held.record.drives[0].level_percent == 150.0
    with session("learning", config=config) as held:
        assert held.drive == "LEARNING"
    (state / "drives.json").write_text("{ broken")
    with session("learning", config=config) as held:
        held.note("It went on.")
    assert held.record
    assert held.record.drives[0].level_percent is None
    with pytest.raises(InvalidRequest, match="unknown drive"), session("NOBODY", config=config):
        pytest.fail("there is no such drive")
