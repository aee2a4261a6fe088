"""Transactions of several processes on one journal: they take turns, and what fails leaves nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest

from subcortex.errors import JournalError
from subcortex.journal.diary import Diary

_SATISFIED = "INSERT INTO drive_states (drive, pressure, grown_at) VALUES (?, 1.0, '2026-01-01')"
_BUMP = "UPDATE drive_states SET pressure = pressure + 1 WHERE drive = 'LEARNING'"
#: A writer of its own: reads, decides and writes, as a tick does.
_BUMPER = """
import sys
from pathlib import Path
from subcortex.journal.diary import Diary
with Diary.open(Path(sys.argv[1])) as diary:
    for _ in range(40):
        with diary.transaction() as conn:
            found = conn.execute("SELECT pressure FROM drive_states").fetchone()[0]
            conn.execute("UPDATE drive_states SET pressure = ?", (found + 1,))
"""


def pressure(diary: Diary) -> float:
    with diary.reading() as conn:
        return float(conn.execute("SELECT pressure FROM drive_states").fetchone()[0])


def bumped_and(diary: Diary, then: Callable[[sqlite3.Connection], object]) -> None:
    with diary.transaction() as conn:
        conn.execute(_BUMP)
        then(conn)


def test_what_raises_inside_leaves_nothing(tmp_path):
    with Diary.open(tmp_path / "journal.db") as diary:
        with diary.transaction() as conn:
            conn.execute(_SATISFIED, ("LEARNING",))
        with pytest.raises(ZeroDivisionError):
            bumped_and(diary, lambda conn: 1 / 0)
        assert pressure(diary) == 1.0
        with diary.transaction() as conn:
            conn.execute(_BUMP)
        assert pressure(diary) == 2.0


def test_a_row_at_fault_is_the_callers_error_and_undone(tmp_path):
    with Diary.open(tmp_path / "journal.db") as diary:
        with diary.transaction() as conn:
            conn.execute(_SATISFIED, ("LEARNING",))
        with pytest.raises(sqlite3.IntegrityError):
            bumped_and(diary, lambda conn: conn.execute(_SATISFIED, ("LEARNING",)))
        assert pressure(diary) == 1.0


def test_a_transaction_within_another_is_part_of_it(tmp_path):
    with Diary.open(tmp_path / "journal.db") as diary:
        with diary.transaction() as conn:
            conn.execute(_SATISFIED, ("LEARNING",))

        def fail_after_an_inner_one(_: sqlite3.Connection) -> None:
            bumped_and(diary, lambda conn: None)
            # Who reads within sees what the inner one did.
            assert pressure(diary) == 3.0
            raise KeyError

        with pytest.raises(KeyError):
            bumped_and(diary, fail_after_an_inner_one)
        assert pressure(diary) == 1.0
        with diary.transaction(), diary.transaction() as inner:
            inner.execute(_BUMP)
        assert pressure(diary) == 2.0


def test_three_processes_that_read_and_write_lose_no_turn(tmp_path):
    path = tmp_path / "journal.db"
    with Diary.open(path) as diary:
        with diary.transaction() as conn:
            conn.execute(_SATISFIED, ("LEARNING",))
        others = [subprocess.Popen([sys.executable, "-c", _BUMPER, str(path)]) for _ in range(3)]
        assert [other.wait() for other in others] == [0, 0, 0]
        assert pressure(diary) == 121.0


def test_a_lock_that_is_never_given_back_is_a_typed_error(tmp_path):
    path = tmp_path / "journal.db"
    with Diary.open(path) as holder, Diary.open(path, busy_timeout_s=0.01) as diary:
        with holder.transaction(), pytest.raises(JournalError, match="locked"), diary.transaction():
            pytest.fail("two at once")
        with diary.transaction() as conn:
            conn.execute(_SATISFIED, ("LEARNING",))
        assert pressure(holder) == 1.0


def test_a_closed_diary_says_so(tmp_path):
    diary = Diary.open(tmp_path / "journal.db")
    diary.close()
    diary.close()
    with pytest.raises(JournalError, match="is closed"), diary.reading():
        pass
