"""Keeping the drives ourselves: growth, satisfaction, bumps and deferrals, as rows and as levels."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from subcortex.config import load
from subcortex.drives import Level
from subcortex.errors import EmergenceFailed, InvalidRequest
from subcortex.journal.diary import Diary
from subcortex.journal.rows import timestamp
from subcortex.mind.keeping import DriveKeeper
from tests.conftest import write_config
from tests.drives.emergence_state import drive, write

NOON = datetime(2026, 2, 22, 12, tzinfo=UTC)


class At:
    """A clock that a test sets."""

    at = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def clock():
    return At()


@pytest.fixture
def config(folder):
    return load(write_config(folder), {})


@pytest.fixture
def keeper(config, clock):
    with DriveKeeper.open(config, clock) as opened:
        yield opened


def level(keeper: DriveKeeper, name: str) -> Level:
    return next(found for found in keeper.levels() if found.drive == name)


def test_looking_makes_no_database(keeper, config):
    assert {found.percent for found in keeper.levels()} == {0.0}
    assert keeper.history() == []
    assert not config.database_path.exists()


def test_pressure_rises_a_session_is_held_and_pressure_falls(keeper, clock):
    keeper.grow()
    clock.at += timedelta(hours=16)
    keeper.grow()
    # Both need 16 hours; LEARNING and SOCIAL have waited as long, so the name decides. CURIOSITY needs ten.
    assert [found.drive for found in keeper.triggered()] == ["CURIOSITY", "LEARNING", "SOCIAL"]

    moved = keeper.satisfy("learning", "deep", reason="measured it")
    assert (moved.before, moved.after, moved.level.percent) == (24.0, 6.0, 25.0)
    assert [found.drive for found in keeper.triggered()] == ["CURIOSITY", "SOCIAL"]
    kinds = [event.kind for event in keeper.history("LEARNING")]
    assert kinds == ["satisfied", "triggered"]

    clock.at += timedelta(hours=1)
    assert level(keeper, "LEARNING").pressure == 7.5


def test_a_drive_is_triggered_once_a_crossing(keeper, clock):
    for _ in range(40):
        keeper.grow()
        clock.at += timedelta(hours=1)
    assert [event.kind for event in keeper.history("LEARNING")] == ["triggered"]


def test_growing_often_is_growing_once(config, clock, tmp_path):
    with Diary.open(tmp_path / "other.db", clock=clock) as diary:
        often, once = DriveKeeper(config, diary), DriveKeeper(config, clock=clock)
        often.grow()
        once.grow()
        for _ in range(360):
            clock.at += timedelta(seconds=30)
            often.grow()
        assert level(often, "LEARNING").pressure == pytest.approx(level(once, "LEARNING").pressure)
        assert level(once, "LEARNING").pressure == pytest.approx(4.5)


def test_work_builds_what_is_activity_driven(keeper, clock):
    keeper.grow()
    clock.at += timedelta(days=9)
    assert level(keeper, "REST").pressure == 0.0
    assert keeper.bump("rest").after == 2.0
    assert keeper.bump("rest", 18.0).level.is_triggered


def test_a_session_without_depth_is_a_drive_thwarted(keeper, clock):
    keeper.bump("CARE", 28.0)
    for _ in range(3):
        moved = keeper.satisfy("CARE", "none", reason="nobody there")
    assert (moved.before, moved.after) == (28.0, 28.0)
    assert (moved.level.thwarted, moved.level.valence, moved.level.is_triggered) == (3, "aversive", True)
    assert [event.kind for event in keeper.history("CARE")] == ["thwarted"] * 3 + ["bumped"]
    assert keeper.satisfy("CARE", "shallow").level.thwarted == 0


def test_a_deferral_changes_nothing_and_says_why(keeper):
    keeper.bump("CARE", 28.0)
    keeper.defer("care", "quiet hours")
    [event] = keeper.history("CARE", limit=1)
    assert (event.kind, event.reason, event.pressure_before, event.pressure_after) == (
        "deferred",
        "quiet hours",
        28.0,
        28.0,
    )
    assert level(keeper, "CARE").is_triggered


@pytest.mark.parametrize("amount", [0.0, -1.0, float("nan"), float("inf")])
def test_an_amount_that_is_none_is_refused(keeper, amount):
    with pytest.raises(InvalidRequest, match="no amount"):
        keeper.bump("CARE", amount)
    with pytest.raises(InvalidRequest, match="unknown drive 'NOVELTY'"):
        keeper.bump("NOVELTY")
    with pytest.raises(InvalidRequest, match="no session"):
        keeper.satisfy("CARE", "full", session_id="none")


def worked(keeper: DriveKeeper, clock: At, thoughts: int) -> None:
    """Complete thoughts, one a second from a minute before the clock's time."""
    with keeper._opened().transaction() as conn:
        conn.execute(
            "INSERT OR IGNORE INTO daemon_runs (id, started_at, pid, version)"
            " VALUES ('r', '2026-02-22T00:00:00Z', 1, '0')"
        )
        for number in range(thoughts):
            at = timestamp(clock.at - timedelta(seconds=60 - number))
            conn.execute(
                "INSERT INTO thoughts"
                " (id, run_id, status, created_at, ended_at, tier, model, engine, route, params, recorded)"
                " VALUES (?, 'r', 'completed', ?, ?, 'deep', 'm', 'e', '{}', '{}', 'full')",
                (f"{at}-{number}", at, at),
            )


def test_work_builds_what_is_driven_by_it_whoever_writes_the_drive_down_next(keeper, clock):
    keeper.grow()
    clock.at += timedelta(hours=1)
    worked(keeper, clock, 40)
    # Forty thoughts at a tenth of an hour, a unit an hour; seen before anybody writes it down.
    assert level(keeper, "REST").pressure == pytest.approx(4.0)
    moved = keeper.satisfy("REST", "moderate")
    assert (moved.before, moved.after) == (pytest.approx(4.0), pytest.approx(2.0))
    clock.at += timedelta(hours=1)
    worked(keeper, clock, 10)
    assert keeper.bump("REST", 1.0).after == pytest.approx(4.0)
    keeper.grow()
    keeper.grow()
    assert level(keeper, "REST").pressure == pytest.approx(4.0)
    # Growth is no event, as time's is none: a history of one a minute is none to read.
    assert [event.kind for event in keeper.history("REST")] == ["bumped", "satisfied"]
    assert level(keeper, "CARE").pressure == pytest.approx(2 * keeper.drive("CARE").rate_per_hour)


class TestFollowing:
    """The same, where an Emergence state has the drives."""

    @pytest.fixture
    def state(self, folder, monkeypatch):
        monkeypatch.setenv("EMERGENCE_STATE", str(folder / "state"))
        return write(
            folder / "state",
            {"NOVELTY": drive(), "CARE": drive(min_interval_seconds=7200)},
            {"NOVELTY": {"pressure": 5.0}, "CARE": {"pressure": 28.0}},
        )

    def test_its_drives_alone_have_levels(self, state, keeper):
        assert [(found.drive, found.percent) for found in keeper.levels()] == [
            ("CARE", 140.0),
            ("NOVELTY", 25.0),
        ]
        assert keeper.owner == "emergence"
        assert keeper.grow() == keeper.levels()
        with pytest.raises(InvalidRequest, match="unknown drive 'PLAY'"):
            keeper.satisfy("PLAY", "deep")

    def test_a_bump_is_its_own_affair(self, state, keeper):
        with pytest.raises(InvalidRequest, match="NOVELTY is Emergence's own") as caught:
            keeper.bump("novelty")
        assert "emergence drives bump NOVELTY" in (caught.value.hint or "")

    def test_a_report_that_fails_leaves_no_record(self, state, folder, clock):
        nowhere = load(write_config(folder), {"SUBCORTEX_DRIVES__EMERGENCE_COMMAND": "/nonexistent"})
        with DriveKeeper.open(nowhere, clock) as keeper:
            with pytest.raises(EmergenceFailed, match="not there"):
                keeper.satisfy("CARE", "deep")
            assert keeper.history() == []

    def test_its_interval_runs_from_what_was_reported(self, state, keeper, clock):
        from subcortex.journal.diary import drives

        assert keeper.triggered()
        keeper.satisfy("CARE", "none", reason="nobody there")
        assert keeper.triggered()
        drives.record(keeper._opened(), "CARE", "satisfied", depth="shallow")
        assert keeper.triggered() == []
        clock.at += timedelta(hours=2)
        assert [found.drive for found in keeper.triggered()] == ["CARE"]

    def test_a_folder_that_is_named_and_empty_is_an_error(self, folder, clock):
        named = load(write_config(folder), {"SUBCORTEX_DRIVES__EMERGENCE": "nothing"})
        with (
            DriveKeeper.open(named, clock) as keeper,
            pytest.raises(EmergenceFailed, match="no Emergence state"),
        ):
            keeper.levels()
