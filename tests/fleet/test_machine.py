"""The life of an engine: rules that hold for any sequence of events, and the ways that matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError, DoesNotFit, EngineFailed
from subcortex.fleet import machine
from subcortex.fleet.machine import Effect, Life, step
from subcortex.types import TierState

CRASH = EngineFailed("died")
EVENTS = st.sampled_from(
    [
        machine.Wanted(),
        machine.Started(),
        machine.Failed(CRASH),
        machine.Failed(ConfigError("no such file")),
        machine.Due(),
        machine.StopAsked(),
        machine.StopAsked(closing=True),
        machine.Stopped(),
    ]
)


def walk(*events: machine.Event, max_restarts: int = 2) -> Life:
    life = Life()
    for event in events:
        life = step(life, event, 0.0, max_restarts).life
    return life


@given(st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=60), st.integers(0, 5))
def test_any_sequence_keeps_the_rules(steps, max_restarts):
    life, now_s, running, waiting = Life(), 0.0, False, False
    for event, passed_s in steps:
        now_s += passed_s
        if isinstance(event, machine.Failed | machine.Stopped) and not running:
            continue  # a process that does not exist cannot end
        before = life
        outcome = step(life, event, now_s, max_restarts)
        life = outcome.life
        if isinstance(event, machine.Failed | machine.Stopped):
            running = False
        waiting = waiting or isinstance(event, machine.Wanted)
        if Effect.ADMIT in outcome.effects or Effect.REFUSE in outcome.effects:
            waiting = False
        if waiting:
            assert life.state not in (TierState.STOPPED, TierState.READY, TierState.FAILED), (
                "a waiter forgotten"
            )
        if Effect.START in outcome.effects:
            assert not running, "two processes of one engine"
            assert life.state is TierState.STARTING
            running = True
        assert (Effect.SCHEDULE in outcome.effects) == (
            life.state is TierState.BACKING_OFF and before.state is not TierState.BACKING_OFF
        )
        if life.state is TierState.BACKING_OFF:
            assert 0 < life.delay_s <= 60
            assert len(life.failures) <= max_restarts
        if before.closing:
            assert Effect.START not in outcome.effects


def test_a_start_that_succeeds_admits_those_who_wait():
    life = walk(machine.Wanted())
    outcome = step(life, machine.Started(), 1.0, 2)
    assert outcome.life.state is TierState.READY
    assert outcome.effects == (Effect.ADMIT,)


def test_crashes_back_off_twice_as_long_each_time_and_then_fail():
    life, delays = walk(machine.Wanted(), machine.Started(), max_restarts=3), []
    for _ in range(3):
        life = step(life, machine.Failed(CRASH), 0.0, 3).life
        assert life.state is TierState.BACKING_OFF
        delays.append(life.delay_s)
        life = step(life, machine.Due(), 0.0, 3).life
        life = step(life, machine.Started(), 0.0, 3).life
    assert delays == [0.5, 1.0, 2.0]
    outcome = step(life, machine.Failed(CRASH), 0.0, 3)
    assert outcome.life.state is TierState.FAILED
    assert outcome.effects == (Effect.REFUSE,)
    assert outcome.life.restarts == 3


def test_old_failures_are_forgotten():
    life = walk(machine.Wanted(), machine.Started(), max_restarts=1)
    life = step(life, machine.Failed(CRASH), 0.0, 1).life
    life = step(life, machine.Due(), 0.0, 1).life
    life = step(life, machine.Started(), 0.0, 1).life
    later = step(life, machine.Failed(CRASH), machine.WINDOW_S + 1.0, 1).life
    assert later.state is TierState.BACKING_OFF
    assert later.delay_s == 0.5


@pytest.mark.parametrize("error", [ConfigError("no file"), DoesNotFit("3 GiB short")])
def test_what_fails_the_same_way_every_time_is_not_retried(error):
    outcome = step(walk(machine.Wanted()), machine.Failed(error), 0.0, 5)
    assert outcome.life.state is TierState.FAILED
    assert outcome.life.error is error


def test_a_failed_tier_is_tried_again_when_wanted_later():
    failed = step(walk(machine.Wanted()), machine.Failed(ConfigError("no file")), 10.0, 5).life
    soon = step(failed, machine.Wanted(), 11.0, 5)
    assert soon.effects == (Effect.REFUSE,)
    later = step(failed, machine.Wanted(), 10.0 + machine.RETRY_FAILED_S, 5)
    assert later.effects == (Effect.START,)
    assert later.life.failures == ()


def test_wanted_while_stopping_starts_again_once_it_is_gone():
    life = walk(machine.Wanted(), machine.Started(), machine.StopAsked(), machine.Wanted())
    assert life.state is TierState.STOPPING
    assert step(life, machine.Stopped(), 0.0, 2).effects == (Effect.START,)


def test_nothing_starts_while_closing():
    life = walk(machine.Wanted(), machine.StopAsked(closing=True))
    assert life.state is TierState.STOPPING
    assert step(life, machine.Wanted(), 0.0, 2).effects == (Effect.REFUSE,)
    assert step(life, machine.Stopped(), 0.0, 2).life.state is TierState.STOPPED
