"""What a tick does, from what it sees."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.drives import Level
from subcortex.journal.diary.board_records import GapRecord, GapState
from subcortex.mind.agent import Defer, Hold, Moment, Resume, Wait, choose, why_busy
from subcortex.mind.agent.decision import best_gap
from subcortex.types import DaemonInfo, Status, TierState, TierStatus, Yielded

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ASKING = frozenset({"LEARNING"})


def level(name: str, percent: float = 120.0) -> Level:
    return Level(name, percent, 100.0, percent, "triggered", "appetitive", 0, None, None, NOW, True)


def gap(seq: int, *, kind: str | None = None, state: GapState = "open") -> GapRecord:
    return GapRecord(
        seq=seq,
        id=f"gap{seq}",
        at=NOW,
        question=f"question {seq}?",
        topic=None,
        kind=kind,
        state=state,
        found_by="rule",
        session_id=None,
        section=None,
        line=None,
        closed_at=None,
        closed_by=None,
        fact_id=None,
        answer=None,
    )


def test_the_most_pressing_drive_gets_its_session_and_a_question_if_it_asks():
    seen = Moment(triggered=[level("CARE", 150), level("LEARNING")], asking=ASKING, gaps=[gap(1)])
    assert choose(seen) == Hold(level("CARE", 150), None)
    learning = Moment(triggered=[level("LEARNING")], asking=ASKING, gaps=[gap(1)])
    assert choose(learning) == Hold(level("LEARNING"), gap(1))


def test_a_drive_whose_experiment_is_under_way_asks_for_nothing_more():
    seen = Moment(triggered=[level("LEARNING"), level("CARE", 110)], finding=ASKING)
    assert choose(seen) == Hold(level("CARE", 110), None)
    assert choose(replace(seen, busy="thoughts are at work")) == Defer(
        (level("CARE", 110),), "the machine is not idle: thoughts are at work"
    )
    assert choose(replace(seen, resting=frozenset({"CARE"}))) == Wait(
        "an experiment is under way for LEARNING; the last sessions came to nothing, so these rest: CARE"
    )


def test_without_a_question_it_thinks_on_its_own_prompt():
    assert choose(Moment(triggered=[level("LEARNING")], asking=ASKING)) == Hold(level("LEARNING"), None)


@pytest.mark.parametrize("held_up", [{"quiet": "22:00-07:30"}, {"busy": "thoughts are at work"}])
def test_what_holds_a_session_up_puts_off_every_drive_and_is_said(held_up):
    found = choose(Moment(triggered=[level("CARE"), level("REST")], unfinished="s1", **held_up))
    assert isinstance(found, Defer)
    assert [drive.drive for drive in found.drives] == ["CARE", "REST"]
    assert next(iter(held_up.values())) in found.reason


def test_what_was_begun_goes_on_before_anything_new_but_not_in_quiet_hours():
    assert choose(Moment(triggered=[level("CARE")], unfinished="s1")) == Resume("s1")
    assert choose(Moment(unfinished="s1")) == Resume("s1")
    assert isinstance(choose(Moment(unfinished="s1", quiet="00:00-06:00")), Wait)


def test_what_rests_is_neither_held_nor_put_off():
    seen = Moment(triggered=[level("CARE", 150), level("REST")], resting=frozenset({"CARE"}))
    assert choose(seen) == Hold(level("REST"), None)
    assert choose(replace(seen, busy="b")) == Defer((level("REST"),), "the machine is not idle: b")
    seen = replace(seen, resting=frozenset({"CARE", "REST"}))
    assert choose(seen) == Wait("the last sessions came to nothing, so these rest: CARE, REST")
    assert isinstance(choose(replace(seen, busy="b")), Wait)
    assert choose(replace(seen, unfinished="s1")) == Resume("s1")


def test_nothing_triggered_is_nothing_to_do():
    assert choose(Moment(gaps=[gap(1)])) == Wait("no drive is triggered")


def test_a_question_taken_up_before_comes_after_those_that_were_not():
    gaps = [gap(1), gap(2, kind="interconnect"), gap(3)]
    assert best_gap(gaps, {}) == gaps[1]
    assert best_gap(gaps, {"gap2": 1}) == gaps[0]
    assert best_gap(gaps, {"gap1": 1, "gap2": 1}) == gaps[2]
    assert best_gap([gap(1, state="answered")], {}) is None


@given(st.permutations(range(1, 7)))
def test_every_question_has_its_turn_before_one_comes_again(order):
    gaps = [gap(seq, kind="load_time" if seq % 2 else None) for seq in order]
    taken: dict[str, int] = {}
    for _ in range(12):
        found = best_gap(gaps, taken)
        assert found is not None
        taken[found.id] = taken.get(found.id, 0) + 1
    assert set(taken.values()) == {2}


def status(*, in_flight: int = 0, queued: int = 0, yielded: bool = False) -> Status:
    daemon = DaemonInfo(
        pid=1,
        version="0",
        started_at=NOW,
        uptime_s=1.0,
        socket="s",
        database="d",
        config=None,
        tcp=None,
        yielded=[Yielded(gpus=[0], until=None)] if yielded else [],
    )
    tier = TierStatus(
        name="deep",
        rank=0,
        engine="llama.cpp",
        model="m",
        state=TierState.READY,
        in_flight=in_flight,
        queued=queued,
    )
    return Status(daemon=daemon, tiers=[tier])


def test_a_machine_is_idle_when_nothing_is_at_work_and_nothing_came_lately():
    ago = NOW - timedelta(seconds=61)
    assert why_busy(None, None, NOW, 60) is None
    assert why_busy(status(), ago, NOW, 60) is None
    assert why_busy(status(in_flight=1), ago, NOW, 60) == "thoughts are at work"
    assert why_busy(status(queued=1), ago, NOW, 60) == "thoughts are at work"
    assert why_busy(status(yielded=True), ago, NOW, 60) == "its GPUs are left to other programs"
    assert "the last 60 s" in (why_busy(status(), NOW - timedelta(seconds=59), NOW, 60) or "")
    assert why_busy(None, None, NOW, 60, may_start=False) == "no daemon is up, and daemon.autostart is off"
    assert why_busy(status(), ago, NOW, 60, may_start=False) is None
    # A clock that was set back makes nobody wait for ever.
    assert why_busy(status(), NOW + timedelta(days=1), NOW, 60) is None
