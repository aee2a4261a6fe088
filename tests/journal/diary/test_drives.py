"""What drives have built up: each change decided on the row as it is, with what it changed on record."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from subcortex.drives import State
from subcortex.errors import InvalidRequest, JournalError
from subcortex.journal.diary import Diary, drives

NOON = datetime(2026, 2, 22, 12, 0, 0, 123456, tzinfo=UTC)


class At:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def clock():
    return At()


@pytest.fixture
def diary(tmp_path, clock):
    with Diary.open(tmp_path / "journal.db", clock=clock) as opened:
        yield opened


def begun(name: str = "CARE") -> drives.Grow:
    return lambda row: row or State(name, 0.0, NOON)


def more(amount: float) -> drives.Decide:
    return lambda row: replace(row, pressure=row.pressure + amount)


def session(diary: Diary, name: str) -> None:
    with diary.transaction() as conn:
        conn.execute(
            "INSERT INTO sessions (id, kind, shape, origin, state, digest, text)"
            " VALUES (?, 'session', 'fields', 'agent', 'ended', ?, '')",
            (name, name),
        )


def test_a_row_comes_back_as_it_was_kept(diary):
    kept = State("好奇心 at night", 12.5, NOON, NOON - timedelta(hours=3), 2)
    drives.grow_all(diary, {kept.drive: lambda row: kept})
    assert drives.levels(diary) == {kept.drive: kept}


def test_growing_leaves_the_others_alone_and_records_what_it_triggered(diary):
    drives.bump(diary, "CARE", begun(), more(9.0))
    drives.bump(diary, "REST", begun("REST"), more(3.0))
    grown = drives.grow_all(
        diary,
        {"CARE": lambda row: replace(row or State("CARE", 0.0, NOON), pressure=11.0), "NEW": begun("NEW")},
        triggers=lambda before, after: after.pressure >= 10.0 > (before.pressure if before else 0.0),
    )
    assert {name: row.pressure for name, row in drives.levels(diary).items()} == {
        "CARE": 11.0,
        "NEW": 0.0,
        "REST": 3.0,
    }
    assert set(grown) == {"CARE", "NEW"}
    [event] = [found for found in drives.history(diary) if found.kind == "triggered"]
    assert (event.drive, event.pressure_before, event.pressure_after) == ("CARE", 9.0, 11.0)


def test_a_satisfaction_is_recorded_with_all_it_came_from(diary, clock):
    session(diary, "s-1234")
    drives.bump(diary, "CARE", begun(), more(8.0), reason="asked for")
    clock.at += timedelta(hours=1)
    before, after = drives.satisfy(
        diary,
        "CARE",
        lambda row: more(2.0)(begun()(row)),
        lambda row: replace(row, pressure=row.pressure / 2, satisfied_at=clock.at),
        depth="moderate",
        session_id="s-12",
        reason="did it \ud800",
    )
    assert (before.pressure, after.pressure) == (10.0, 5.0)
    event, bumped = drives.history(diary, "CARE")
    assert (event.kind, event.at, event.depth, event.session_id, event.reason) == (
        "satisfied",
        clock.at,
        "moderate",
        "s-1234",
        "did it �",
    )
    assert (event.pressure_before, event.pressure_after) == (10.0, 5.0)
    assert (bumped.kind, bumped.reason, bumped.pressure_before) == ("bumped", "asked for", 0.0)
    assert drives.last(diary, "CARE", "satisfied") == event
    assert drives.last(diary, "CARE", "deferred") is None


@pytest.mark.parametrize("named", ["s-9", "", "s-", "%", "S-1234"])
def test_a_session_that_is_none_or_several_undoes_the_whole(diary, named):
    session(diary, "s-1234")
    session(diary, "s-1299")
    drives.bump(diary, "CARE", begun(), more(8.0))
    with pytest.raises(InvalidRequest, match="no session, or more than one"):
        drives.satisfy(diary, "CARE", begun(), more(-8.0), depth="full", session_id=named)
    with pytest.raises(InvalidRequest):
        drives.session_named(diary, named)
    assert drives.levels(diary)["CARE"].pressure == 8.0
    assert [event.kind for event in drives.history(diary)] == ["bumped"]
    assert drives.session_named(diary, "s-123") == "s-1234"


def test_what_an_emergence_state_keeps_is_recorded_without_a_row(diary):
    drives.record(diary, "CARE", "deferred", pressure_before=3.0, reason="quiet hours")
    assert drives.levels(diary) == {}
    assert drives.history(diary)[0].reason == "quiet hours"


def test_history_is_newest_first_and_goes_on_where_it_stopped(diary):
    for amount in range(5):
        drives.bump(diary, "CARE", begun(), more(amount))
        drives.bump(diary, "REST", begun("REST"), more(1))
    newest = drives.history(diary, "CARE", limit=2)
    older = drives.history(diary, "CARE", limit=9, before=newest[-1].seq)
    assert [event.pressure_after for event in (*newest, *older)] == [10.0, 6.0, 3.0, 1.0, 0.0]
    assert len(drives.history(diary, limit=100)) == 10


def test_an_error_in_deciding_and_a_negative_pressure_keep_nothing(diary):
    drives.bump(diary, "CARE", begun(), more(8.0))

    def fails(row):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drives.bump(diary, "CARE", begun(), fails)
    with pytest.raises(Exception, match="CHECK"):
        drives.bump(diary, "CARE", begun(), more(-9.0))
    assert drives.levels(diary)["CARE"].pressure == 8.0
    assert len(drives.history(diary)) == 1


def _bumping(path: Path, times: int) -> None:
    with Diary.open(path) as diary:
        for _ in range(times):
            drives.bump(diary, "CARE", begun(), more(1.0))


def test_processes_that_bump_at_once_lose_no_bump(tmp_path):
    path = tmp_path / "journal.db"
    Diary.open(path).close()
    fork = multiprocessing.get_context("spawn")
    workers = [fork.Process(target=_bumping, args=(path, 25)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    with Diary.open(path) as diary:
        assert drives.levels(diary)["CARE"].pressure == 75.0
        assert len(drives.history(diary, limit=1000)) == 75


def test_a_closed_diary_says_so(diary):
    diary.close()
    with pytest.raises(JournalError, match="closed"):
        drives.levels(diary)
