"""The line before an engine: order, bounds, refusals, and no place lost whoever leaves when."""

from __future__ import annotations

import asyncio
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import EngineFailed, Overloaded
from subcortex.fleet.gate import Gate, turn, waits_from_s
from subcortex.fleet.scene import Waiter
from tests.fakes import FakeClock

MAX_WAIT_S = 120.0


def gate(clock: FakeClock, *, concurrent=1, waiting=9) -> Gate:
    made = Gate("deep", concurrent, waiting, clock.monotonic_s, MAX_WAIT_S)
    made.open = True
    return made


def order(*waiters: Waiter, now_s: float = 100.0) -> list[int]:
    """Return the order in which they go in, by arrival."""
    places = range(len(waiters))
    return sorted(places, key=lambda place: turn(waiters[place], place, now_s, MAX_WAIT_S))


def test_order_by_priority_then_deadline_then_arrival():
    line = (
        Waiter(90.0),
        Waiter(91.0, deadline_s=200.0),
        Waiter(92.0, priority=1),
        Waiter(93.0, deadline_s=150.0),
        Waiter(94.0),
    )
    assert order(*line) == [2, 3, 1, 0, 4]


@pytest.mark.parametrize(("now_s", "first"), [(119.9, 1), (120.0, 0)])
def test_order_puts_first_who_has_waited_for_the_bound(now_s, first):
    assert order(Waiter(0.0), Waiter(50.0, priority=9, deadline_s=121.0), now_s=now_s)[0] == first


def test_order_among_those_beyond_the_bound_is_arrival():
    assert order(Waiter(0.0), Waiter(1.0, priority=9), now_s=500.0) == [0, 1]


_line = st.builds(
    Waiter,
    since_s=st.floats(0.0, 300.0),
    priority=st.integers(-3, 3),
    deadline_s=st.none() | st.floats(0.0, 500.0),
)


@given(st.lists(_line, min_size=1, max_size=20), st.floats(0.0, 1000.0))
def test_order_starves_nobody_who_is_beyond_the_bound(line, now_s):
    line = sorted(line, key=lambda waiter: waiter.since_s)
    ordered = [line[place] for place in order(*line, now_s=now_s)]
    late = [now_s - waiter.since_s >= MAX_WAIT_S for waiter in ordered]
    assert late == sorted(late, reverse=True)
    overdue = [waiter for waiter, is_late in zip(ordered, late, strict=True) if is_late]
    assert [one.since_s for one in overdue] == sorted(one.since_s for one in overdue)


def test_a_thought_waits_for_longer_than_it_may_only_from_then_on():
    assert waits_from_s(Waiter(5.0)) == 5.0
    assert waits_from_s(Waiter(5.0, wait_s=300.0)) == 305.0


async def test_nobody_enters_a_closed_gate_and_nobody_overtakes_the_line():
    clock = FakeClock()
    made = gate(clock)
    made.open = False
    assert not made.try_enter()
    made.open = True
    assert made.try_enter()
    waits = made.join(Waiter(0.0), patient=True)
    made.leave()
    assert waits.done()
    assert not made.try_enter()


async def test_the_line_is_bounded_and_says_when_to_come_back():
    made = gate(FakeClock(), waiting=1)
    assert made.try_enter()
    made.join(Waiter(0.0), patient=True)
    made.held(6.0)
    with pytest.raises(Overloaded) as refused:
        made.join(Waiter(0.0), patient=True)
    # A place is held for 1 + 0.2 · (6 - 1) s; one waits before him.
    assert refused.value.details["retry_after_s"] == pytest.approx(4.0)


@pytest.mark.parametrize(("wait_s", "refused"), [(None, True), (40.0, True), (60.0, False)])
async def test_who_has_waited_too_long_is_sent_away_but_not_before_his_own_time(wait_s, refused):
    clock = FakeClock()
    made = gate(clock)
    made.open = False
    place = made.join(Waiter(0.0, wait_s=wait_s), patient=True)
    clock.advance(300.0)
    made.refuse(Overloaded("late"), patient_too=True, older_than_s=250.0)
    assert place.done() == refused
    if refused:
        assert isinstance(place.exception(), Overloaded)


async def test_a_failure_sends_everybody_away_whatever_they_said_they_may_wait():
    made = gate(FakeClock())
    made.open = False
    places = [made.join(Waiter(0.0, wait_s=900.0), patient=patient) for patient in (True, False)]
    made.refuse(EngineFailed("no", transient=True), patient_too=False)
    assert [place.done() for place in places] == [False, True]
    made.refuse(EngineFailed("no"), patient_too=True)
    assert all(isinstance(place.exception(), EngineFailed) for place in places)
    assert places[0].exception() is not places[1].exception()
    assert made.waiting == 0


async def test_one_admitted_and_cancelled_in_the_same_turn_gives_his_place_on():
    made = gate(FakeClock())
    assert made.try_enter()
    first, second = (made.join(Waiter(0.0), patient=True) for _ in range(2))
    entering = asyncio.create_task(made.entered(first))
    await asyncio.sleep(0)
    made.leave()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert second.done()
    assert made.in_flight == 1


@given(st.data())
def test_never_more_inside_than_may_be_and_nobody_outside_while_there_is_room(data):
    async def play() -> None:
        clock = FakeClock()
        made = gate(clock, concurrent=data.draw(st.integers(1, 3)), waiting=6)
        most = made._max_concurrent
        line: list[asyncio.Future[None]] = []
        inside = 0
        for _ in range(data.draw(st.integers(0, 30))):
            clock.advance(data.draw(st.sampled_from([0.0, 1.0, 200.0])))
            match data.draw(st.sampled_from(["join", "leave", "close", "open", "refuse"])):
                case "join" if made.waiting < 6:
                    waiter = Waiter(clock.seconds, data.draw(st.integers(-1, 1)))
                    line.append(made.join(waiter, patient=data.draw(st.booleans())))
                case "leave" if inside:
                    made.leave()
                    inside -= 1
                case "close":
                    made.open = False
                case "open":
                    made.open = True
                    made.admit()
                case "refuse":
                    made.refuse(Overloaded("no"), patient_too=data.draw(st.booleans()))
            inside += sum(place.done() and place.exception() is None for place in line)
            line = [place for place in line if not place.done()]
            assert made.in_flight == inside <= most
            assert made.waiting == len(line)
            assert not (made.open and line and inside < most)

    asyncio.run(play())


def test_no_bound_named_is_none():
    assert turn(Waiter(0.0), 0, 1e9, inf)[0] is True
