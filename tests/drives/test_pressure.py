"""How pressure builds, and what a session leaves of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.drives import BANDS, LEFT, Drive, State
from subcortex.drives import pressure as p

NOON = datetime(2026, 2, 22, 12, tzinfo=UTC)
LEARNING = Drive(
    name="LEARNING", description="d", prompt="p", threshold=24.0, rate_per_hour=1.5, min_interval_h=4.0
)
REST = Drive(
    name="REST", description="d", prompt="p", threshold=20.0, rate_per_hour=1.0, activity_driven=True
)


def state(pressure: float, drive: Drive = LEARNING, **more) -> State:
    return State(drive.name, pressure, NOON, **more)


def after(**passed: float) -> datetime:
    return NOON + timedelta(**passed)


drives = st.builds(
    Drive,
    name=st.just("D"),
    description=st.just("d"),
    prompt=st.just("p"),
    threshold=st.floats(0.01, 1e6),
    rate_per_hour=st.floats(0.0, 1e4),
    min_interval_h=st.floats(0.0, 1e4),
    activity_driven=st.booleans(),
)
states = st.builds(
    State,
    drive=st.just("D"),
    pressure=st.floats(0.0, 1e7),
    grown_at=st.just(NOON),
    satisfied_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    thwarted=st.integers(0, 10),
)
hours = st.floats(-1e5, 1e5).map(lambda h: after(hours=h))
depths = st.sampled_from(list(LEFT))


def test_time_builds_at_the_rate():
    assert p.grow(state(10.0), LEARNING, after(hours=4)).pressure == 16.0
    assert p.grow(state(0.0), LEARNING, after(hours=16)).pressure == LEARNING.threshold


def test_an_activity_driven_drive_builds_from_work_alone():
    idle = p.grow(state(3.0, REST), REST, after(days=3))
    assert (idle.pressure, idle.grown_at) == (3.0, after(days=3))
    assert p.bump(idle, REST, None, after(days=3)).pressure == 5.0
    assert p.bump(idle, REST, 7.5, after(days=3)).pressure == 10.5


def test_a_bump_comes_on_top_of_what_time_has_built():
    assert p.bump(state(1.0), LEARNING, 2.0, after(hours=2)).pressure == 6.0


def test_a_clock_that_went_back_builds_nothing_and_does_not_stop_the_drive():
    back = p.grow(state(10.0), LEARNING, after(days=-365))
    assert back.pressure == 10.0
    assert p.grow(back, LEARNING, after(days=-365, hours=2)).pressure == 13.0


def test_months_away_end_in_an_emergency_and_no_further():
    away = p.grow(state(5.0), LEARNING, after(days=200))
    assert away.pressure == 48.0
    assert p.level(away, LEARNING, after(days=200)).band == "emergency"
    assert p.bump(away, LEARNING, 100.0, after(days=200)).pressure == 48.0


def test_what_another_put_above_the_ceiling_stays():
    assert p.grow(state(99.0), LEARNING, after(hours=5)).pressure == 99.0


@pytest.mark.parametrize(
    ("depth", "left"), [("none", 20.0), ("shallow", 14.0), ("moderate", 10.0), ("deep", 5.0), ("full", 0.0)]
)
def test_each_depth_leaves_its_share(depth, left):
    assert p.satisfy(state(20.0), depth, after(hours=1)).pressure == pytest.approx(left)


def test_a_satisfaction_ends_thwarting_and_starts_the_interval():
    found = p.satisfy(state(30.0, thwarted=4), "shallow", after(hours=1))
    assert (found.thwarted, found.satisfied_at) == (0, after(hours=1))
    nothing = state(30.0, thwarted=4)
    assert p.satisfy(nothing, "none", after(hours=1)) == nothing


@pytest.mark.parametrize(
    ("percent", "band"),
    [
        (0.0, "neutral"), (29.9, "neutral"), (30.0, "available"), (69.9, "available"), (70.0, "elevated"),
        (99.9, "elevated"), (100.0, "triggered"), (149.9, "triggered"), (150.0, "crisis"), (199.9, "crisis"),
        (200.0, "emergency"), (5000.0, "emergency"),
    ],
)  # fmt: skip
def test_bands_begin_where_the_field_has_them(percent, band):
    assert p.band(percent) == band


@pytest.mark.parametrize(
    ("pressure", "thwarted", "feels"),
    [
        (7.0, 5, "neutral"),
        (8.0, 0, "appetitive"),
        (8.0, 2, "appetitive"),
        (8.0, 3, "aversive"),
        (36.0, 0, "aversive"),
    ],
)
def test_a_drive_asked_for_in_vain_three_times_or_left_to_a_crisis_turns_aversive(pressure, thwarted, feels):
    assert p.level(state(pressure, thwarted=thwarted), LEARNING, NOON).valence == feels


def test_no_session_before_the_interval_is_over():
    held = state(30.0, satisfied_at=NOON)
    early = p.level(held, LEARNING, after(hours=3.9))
    assert (early.is_triggered, early.ready_at, early.next_at) == (False, after(hours=4), after(hours=4))
    late = p.level(held, LEARNING, after(hours=4))
    assert (late.is_triggered, late.ready_at, late.next_at) == (True, None, after(hours=4))


def test_an_interval_without_end_holds_for_good():
    never = LEARNING.model_copy(update={"min_interval_h": 1e9})
    assert not p.level(state(30.0, satisfied_at=NOON), never, after(days=30000)).is_triggered


def test_a_satisfaction_in_the_far_future_is_a_clocks_slip():
    slipped = state(30.0, satisfied_at=after(days=300))
    assert p.level(slipped, LEARNING, NOON).is_triggered
    a_little = state(30.0, satisfied_at=after(minutes=1))
    assert not p.level(a_little, LEARNING, NOON).is_triggered


def test_when_it_will_be_triggered():
    assert p.level(state(12.0), LEARNING, NOON).next_at == after(hours=8)
    assert p.level(state(23.0, satisfied_at=NOON), LEARNING, NOON).next_at == after(hours=4)
    assert p.level(state(12.0, REST), REST, NOON).next_at is None
    slow = LEARNING.model_copy(update={"rate_per_hour": 1e-300})
    assert p.level(state(12.0), slow, NOON).next_at is None


def test_the_most_pressing_comes_first_and_then_who_waited_longest():
    known = {name: LEARNING.model_copy(update={"name": name, "min_interval_h": 0.0}) for name in "ABCDE"}
    asked = [
        State("A", 24.0, NOON, satisfied_at=after(hours=-1)),
        State("B", 24.0, NOON, satisfied_at=after(hours=-9)),
        State("C", 40.0, NOON),
        State("D", 23.9, NOON),
        State("E", 24.0, NOON),
        State("GONE", 99.0, NOON),
    ]
    assert [level.drive for level in p.triggered(asked, known, NOON)] == ["C", "E", "B", "A"]


@given(states, drives, hours, hours)
def test_growing_twice_is_growing_once(standing, drive, first, second):
    first, second = sorted((max(first, NOON), max(second, NOON)))
    stepwise = p.grow(p.grow(standing, drive, first), drive, second)
    at_once = p.grow(standing, drive, second)
    assert stepwise.pressure == pytest.approx(at_once.pressure, rel=1e-9, abs=1e-9)
    assert stepwise.grown_at == at_once.grown_at == second


@given(states, drives, hours, hours)
def test_time_never_lowers_a_drive(standing, drive, first, second):
    first, second = sorted((first, second))
    early, late = p.grow(standing, drive, first), p.grow(standing, drive, second)
    assert standing.pressure <= early.pressure <= late.pressure
    assert late.pressure <= max(standing.pressure, 2 * drive.threshold)


@given(states, depths, depths, hours)
def test_no_depth_raises_and_none_leaves_more_than_a_shallower(standing, one, other, now):
    shallower, deeper = sorted((one, other), key=lambda depth: list(LEFT).index(depth))
    left = p.satisfy(standing, shallower, now).pressure
    assert 0.0 <= p.satisfy(standing, deeper, now).pressure <= left <= standing.pressure


@given(states, drives, st.floats(allow_nan=False) | st.none(), hours)
def test_pressure_is_never_negative(standing, drive, amount, now):
    raised = p.bump(standing, drive, amount, now)
    assert raised.pressure >= standing.pressure >= 0.0


@given(st.floats(0.0, 1e12))
def test_every_level_is_in_one_band(percent):
    begins = list(BANDS.values())
    assert begins == sorted(begins)
    above = [name for name, at in BANDS.items() if percent >= at]
    assert p.band(percent) == above[-1]


@given(states, drives, hours)
def test_a_level_agrees_with_itself(standing, drive, now):
    level = p.level(standing, drive, now)
    assert level.is_triggered == (level.percent >= 100.0 and level.ready_at is None)
    assert p.triggered([standing], {"D": drive}, now) == ([level] if level.is_triggered else [])
    assert p.level(replace(standing, satisfied_at=None), drive, now).ready_at is None
