"""The life of an engine: rules that hold for any sequence of events, and the ways that matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError, DoesNotFit, EngineFailed
from subcortex.fleet import machine
from subcortex.fleet.machine import Effect, Life, step
from subcortex.types import Rest, TierState

CRASH = EngineFailed("died")
EVENTS = st.sampled_from(
    [
        machine.Wanted(),
        machine.Adopt(),
        machine.Start(),
        machine.Wake(),
        machine.Leave(Rest.STOP),
        machine.Leave(Rest.SLEEP_1),
        machine.Recall(),
        machine.Drained(),
        machine.Slept(),
        machine.Ready(),
        machine.NoRoom(),
        machine.Failed(CRASH),
        machine.Failed(ConfigError("no such file")),
        machine.Failed(DoesNotFit("3 GiB short"), crowded=True),
        machine.Due(),
        machine.StopAsked(),
        machine.StopAsked(closing=True),
        machine.Stopped(),
    ]
)
UP = (machine.Start(), machine.Ready())


def walk(*events: machine.Event, max_restarts: int = 2) -> Life:
    life = Life()
    for event in events:
        life = step(life, event, 0.0, max_restarts).life
    return life


@given(st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=80), st.integers(0, 5))
def test_any_sequence_keeps_the_rules(steps, max_restarts):
    life, now_s, running = Life(), 0.0, False
    for event, passed_s in steps:
        now_s += passed_s
        if isinstance(event, machine.Failed | machine.Stopped) and not running:
            continue  # a process that does not exist cannot end
        before = life
        outcome = step(life, event, now_s, max_restarts)
        life = outcome.life
        if isinstance(event, machine.Failed | machine.Stopped | machine.NoRoom) and (
            life.state is not before.state and life.state not in (TierState.ASLEEP, TierState.STOPPING)
        ):
            running = False
        if Effect.START in outcome.effects or Effect.ADOPT in outcome.effects:
            assert not running, "two processes of one engine"
            assert life.state is TierState.STARTING
            running = True
        assert (life.state in machine.UP or life.state is TierState.ASLEEP) == running
        assert (Effect.SCHEDULE in outcome.effects) == (
            life.state is TierState.BACKING_OFF and before.state is not TierState.BACKING_OFF
        )
        assert (Effect.SLEEP in outcome.effects) == (
            life.state is TierState.SLEEPING and before.state is TierState.DRAINING
        )
        assert (Effect.WAKE in outcome.effects) == (
            life.state is TierState.WAKING and before.state is TierState.ASLEEP
        )
        if life.state is TierState.READY:
            assert life.error is None
            assert life.rest is None
            assert before.state in (*machine.COMING, TierState.DRAINING, TierState.READY)
        if life.state in (TierState.SLEEPING, TierState.ASLEEP):
            assert life.rest in (Rest.SLEEP_1, Rest.SLEEP_2), "asleep, and nobody knows how"
        if life.state is TierState.BACKING_OFF:
            assert 0 <= life.delay_s <= 60
            assert life.error is not None
        if life.state is TierState.FAILED:
            assert Effect.REFUSE in outcome.effects or before.state is TierState.FAILED
        if before.closing:
            assert not {Effect.START, Effect.ADOPT, Effect.WAKE, Effect.ADMIT} & set(outcome.effects)


def test_a_start_that_succeeds_admits_those_who_wait():
    outcome = step(walk(machine.Start()), machine.Ready(), 1.0, 2)
    assert outcome.life.state is TierState.READY
    assert outcome.effects == (Effect.ADMIT,)


def test_crashes_back_off_twice_as_long_each_time_and_then_fail():
    life, delays = walk(*UP, max_restarts=3), []
    for _ in range(3):
        life = step(life, machine.Failed(CRASH), 0.0, 3).life
        assert life.state is TierState.BACKING_OFF
        delays.append(life.delay_s)
        for event in (machine.Due(), *UP):
            life = step(life, event, 0.0, 3).life
    assert delays == [0.5, 1.0, 2.0]
    outcome = step(life, machine.Failed(CRASH), 0.0, 3)
    assert outcome.life.state is TierState.FAILED
    assert outcome.effects == (Effect.REFUSE,)
    assert outcome.life.restarts == 3


def test_what_died_is_wanted_again_once_its_delay_is_over():
    life = walk(*UP, machine.Failed(CRASH), machine.Due())
    assert (life.state, life.wanted) == (TierState.STOPPED, True)


def test_old_failures_are_forgotten():
    life = walk(*UP, machine.Failed(CRASH), machine.Due(), *UP, max_restarts=1)
    later = step(life, machine.Failed(CRASH), machine.WINDOW_S + 1.0, 1).life
    assert later.state is TierState.BACKING_OFF
    assert later.delay_s == 0.5


def test_starts_that_take_longer_to_fail_than_failures_are_remembered_end_too():
    life, now_s = Life(), 0.0
    for _ in range(3):
        life = step(life, machine.Start(), now_s, 2).life
        now_s += machine.WINDOW_S + 1.0
        outcome = step(life, machine.Failed(EngineFailed("not ready in 601 s")), now_s, 2)
        life = step(outcome.life, machine.Due(), now_s, 2).life
    assert outcome.life.state is TierState.FAILED
    assert outcome.life.error is not None
    assert outcome.life.error.details["failures"] == 3


def test_failures_in_a_row_end_with_one_start_that_succeeds():
    life = walk(*UP, machine.Failed(CRASH), machine.Due(), *UP)
    assert life.in_row == 0


@pytest.mark.parametrize(
    ("before", "after", "rests"),
    [
        (TierState.SLEEPING, TierState.ASLEEP, True),
        (TierState.STOPPING, TierState.STOPPED, True),
        (TierState.READY, TierState.BACKING_OFF, True),
        (TierState.STARTING, TierState.FAILED, True),
        (TierState.WAKING, TierState.ASLEEP, False),
        (TierState.STARTING, TierState.STOPPED, False),
        (TierState.BACKING_OFF, TierState.STOPPED, False),
        (TierState.FAILED, TierState.STOPPED, False),
        (TierState.READY, TierState.DRAINING, False),
    ],
)
def test_what_gives_memory_back_and_what_never_had_it(before, after, rests):
    assert machine.comes_to_rest(before, after) == rests


@pytest.mark.parametrize("error", [ConfigError("no file"), DoesNotFit("3 GiB short")])
def test_what_fails_the_same_way_every_time_is_not_retried(error):
    outcome = step(walk(machine.Start()), machine.Failed(error), 0.0, 5)
    assert outcome.life.state is TierState.FAILED
    assert outcome.life.error is error


def test_memory_that_ran_out_beside_others_is_tried_once_more_alone():
    short = machine.Failed(DoesNotFit("3 GiB short"), crowded=True)
    first = step(walk(machine.Start()), short, 0.0, 5)
    assert (first.life.state, first.life.alone, first.life.delay_s) == (TierState.BACKING_OFF, True, 0.0)
    again = step(first.life, machine.Due(), 0.0, 5).life
    second = step(step(again, machine.Start(), 0.0, 5).life, short, 1.0, 5)
    assert second.life.state is TierState.FAILED


def test_a_failed_tier_is_tried_again_when_wanted_later():
    failed = step(walk(machine.Start()), machine.Failed(ConfigError("no file")), 10.0, 5).life
    soon = step(failed, machine.Wanted(), 11.0, 5)
    assert soon.effects == (Effect.REFUSE,)
    later = step(failed, machine.Wanted(), 10.0 + machine.RETRY_FAILED_S, 5).life
    assert (later.state, later.wanted, later.failures) == (TierState.STOPPED, True, ())


def test_a_tier_sleeps_and_wakes():
    draining = walk(*UP, machine.Leave(Rest.SLEEP_1))
    assert draining.state is TierState.DRAINING
    sleeping = step(draining, machine.Drained(), 0.0, 2)
    assert (sleeping.life.state, sleeping.effects) == (TierState.SLEEPING, (Effect.SLEEP,))
    asleep = step(sleeping.life, machine.Slept(), 0.0, 2).life
    assert (asleep.state, asleep.rest) == (TierState.ASLEEP, Rest.SLEEP_1)
    waking = step(asleep, machine.Wake(), 0.0, 2)
    assert (waking.life.state, waking.effects) == (TierState.WAKING, (Effect.WAKE,))
    assert step(waking.life, machine.NoRoom(), 0.0, 2).life == asleep
    assert step(waking.life, machine.Ready(), 0.0, 2).life.state is TierState.READY


def test_who_finds_no_room_to_sleep_in_is_stopped():
    sleeping = walk(*UP, machine.Leave(Rest.SLEEP_1), machine.Drained())
    stopping = step(sleeping, machine.NoRoom(), 0.0, 2)
    assert (stopping.life.state, stopping.effects) == (TierState.STOPPING, (Effect.STOP,))
    assert stopping.life.rest is Rest.STOP
    assert step(stopping.life, machine.Stopped(), 0.0, 2).life.state is TierState.STOPPED


def test_what_drains_may_be_called_back_or_stopped():
    draining = walk(*UP, machine.Leave(Rest.STOP))
    back = step(draining, machine.Recall(), 0.0, 2)
    assert (back.life.state, back.effects) == (TierState.READY, (Effect.ADMIT,))
    stopping = step(draining, machine.Drained(), 0.0, 2)
    assert (stopping.life.state, stopping.effects) == (TierState.STOPPING, (Effect.STOP,))
    assert step(stopping.life, machine.Stopped(), 0.0, 2).life.state is TierState.STOPPED


def test_a_wake_that_failed_is_a_failure():
    life = walk(*UP, machine.Leave(Rest.SLEEP_2), machine.Drained(), machine.Slept(), machine.Wake())
    outcome = step(life, machine.Failed(EngineFailed("woke up wrong")), 0.0, 2)
    assert outcome.life.state is TierState.BACKING_OFF
    assert outcome.life.rest is None


def test_nothing_starts_while_closing():
    life = walk(machine.Start(), machine.StopAsked(closing=True))
    assert life.state is TierState.STOPPING
    assert step(life, machine.Wanted(), 0.0, 2).effects == (Effect.REFUSE,)
    assert step(life, machine.Stopped(), 0.0, 2).life.state is TierState.STOPPED
