"""Each rule of docs/design/fleet.md on the schedule, by its name, with the figures that it turns on."""

from __future__ import annotations

from math import inf

import pytest

from subcortex.fleet.scene import HOST, Swaps
from subcortex.fleet.schedule import Shortage
from subcortex.types import Rest, TierState
from tests.fleet.scenes import GPU_MIB, NOW_S, ROOM, SLEEPS, comes, decided, goes, ready, stays, tier, waiter

#: What a swap of these tiers takes: 10 s to stop, 80 s to start.
SWAP_S = 90.0


# Room


def test_who_fits_comes_at_once_and_nobody_else_is_asked():
    made = decided(ready(awake={0: 30_000.0}), tier(waiters=(waiter(),)))
    assert (comes(made), goes(made), made.look_at_s) == (["deep"], [], None)


def test_room_is_counted_to_the_last_mebibyte():
    small = ready(awake={0: 40_000.0}, in_flight=1)
    assert comes(decided(small, tier(waiters=(waiter(),)))) == ["deep"]
    large = ready(awake={0: 40_001.0}, in_flight=1)
    assert comes(decided(large, tier(waiters=(waiter(),)))) == []


def test_one_start_at_a_time_on_a_device():
    one, other = (
        tier(name, awake={0: 30_000.0}, waiters=(waiter(ago_s),)) for name, ago_s in (("a", 2), ("b", 1))
    )
    made = decided(one, other)
    assert comes(made) == ["a"], "who came first"
    assert made.waits == {"b": "another engine is starting there"}
    busy = tier("c", TierState.WAKING, awake={0: 30_000.0}, rest=Rest.SLEEP_1)
    assert comes(decided(busy, one)) == []


def test_nobody_leaves_for_one_who_could_not_start_yet():
    idle = ready(awake={0: 40_000.0})
    wants = tier("deep", waiters=(waiter(500),), awake={0: 100_000.0})
    made = decided(idle, tier("c", TierState.STARTING, awake={0: 10_000.0}), wants)
    assert (goes(made), made.waits["deep"]) == ([], "another engine is starting there")
    later = decided(idle, ready("c", awake={0: 10_000.0}, in_flight=1), wants)
    assert goes(later) == [("fast", Rest.STOP)]


def test_two_start_at_once_on_devices_of_their_own():
    one = tier("a", waiters=(waiter(),))
    other = tier("b", waiters=(waiter(),), awake={1: 100_000.0, HOST: 4_000.0}, turns=frozenset({1}))
    assert comes(decided(one, other, room={0: GPU_MIB, 1: GPU_MIB, HOST: 10_000.0})) == ["a", "b"]
    assert comes(decided(one, other, room={0: GPU_MIB, 1: GPU_MIB, HOST: 7_000.0})) == ["a"], "host for one"


def test_whoever_waits_for_his_turn_to_start_keeps_his_room():
    starting = tier("c", TierState.STARTING, awake={0: 10_000.0})
    first = tier("a", waiters=(waiter(5),), awake={0: 100_000.0, HOST: 8_000.0})
    second = tier("b", waiters=(waiter(1),), awake={1: 10_000.0, HOST: 8_000.0}, turns=frozenset({1}))
    assert comes(decided(starting, first, second, room={0: GPU_MIB, 1: GPU_MIB, HOST: 10_000.0})) == []


def test_what_is_being_given_back_is_waited_for_and_nobody_else_asked():
    leaving = tier("fast", TierState.STOPPING, rest=Rest.STOP)
    beside = ready("mid", awake={0: 40_000.0})
    made = decided(leaving, beside, tier(waiters=(waiter(),)))
    assert (made.moves, made.waits) == ([], {"deep": "memory is being given back"})


def test_what_a_dead_process_still_holds_is_held():
    dead = tier("fast", TierState.FAILED, remains=True)
    made = decided(dead, tier(waiters=(waiter(),)))
    assert made.waits == {"deep": "memory is being given back"}
    assert comes(decided(tier("fast", TierState.FAILED), tier(waiters=(waiter(),)))) == ["deep"]


def test_who_falls_asleep_is_counted_on_both_sides():
    falling = tier("fast", TierState.SLEEPING, rest=Rest.SLEEP_1, asleep=SLEEPS)
    host_only = tier("cpu", waiters=(waiter(),), awake={HOST: 10_000.0}, turns=frozenset({HOST}))
    # Its weights take 100 000 MiB of the host beside the 4 000 that it has.
    assert comes(decided(falling, host_only, room={0: GPU_MIB, HOST: 113_999.0})) == []
    assert comes(decided(falling, host_only, room={0: GPU_MIB, HOST: 114_000.0})) == ["cpu"]


def test_hopeless_tells_device_need_and_room():
    made = decided(ready(in_flight=1), tier(waiters=(waiter(),)), room={0: 99_000.0, HOST: 9_000.0})
    assert made.hopeless == {"deep": Shortage(0, 100_000.0, 99_000.0)}
    assert (made.moves, made.waits) == ([], {})


@pytest.mark.parametrize(("rested_s", "hopeless"), [(NOW_S - 14.0, False), (NOW_S - 16.0, True)])
def test_hopeless_is_nobody_while_memory_may_be_given_back_late(rested_s, hopeless):
    gone = tier("fast", rested_s=rested_s)
    made = decided(gone, tier(waiters=(waiter(),)), room={0: 60_000.0, HOST: 9_000.0}, seen_s=NOW_S)
    assert ("deep" in made.hopeless) == hopeless
    assert ("deep" in made.waits) != hopeless


# Exhaustive service


def test_exhaustive_service_a_tier_with_thoughts_keeps_its_gpu():
    for busy in (ready(in_flight=1), ready(waiters=(waiter(),))):
        made = decided(busy, tier(waiters=(waiter(1.0),)))
        assert made.moves == []
        assert made.waits == {"deep": "fast has 1 thought"}


def test_exhaustive_service_an_idle_tier_leaves_at_once():
    made = decided(ready(), tier(waiters=(waiter(),)))
    assert goes(made) == [("fast", Rest.STOP)]
    assert made.waits == {"deep": "fast makes room"}


# Bound


@pytest.mark.parametrize(("waited_s", "leaves"), [(29.0, False), (30.0, True)])
def test_bound_drains_the_busy_tier_when_the_oldest_becomes_due(waited_s, leaves):
    # max_wait_s 120 less the swap of 90.
    made = decided(ready(in_flight=3), tier(waiters=(waiter(1.0), waiter(waited_s))))
    assert bool(goes(made)) == leaves
    if not leaves:
        assert made.look_at_s == NOW_S + 1.0


def test_bound_counts_from_when_its_tier_last_left():
    left = tier(waiters=(waiter(500.0),), rested_s=NOW_S - 29.0)
    assert goes(decided(ready(in_flight=1), left)) == []
    assert goes(decided(ready(in_flight=1), tier(waiters=(waiter(500.0),), rested_s=NOW_S - 30.0))) != []


def test_bound_the_longest_due_is_served_before_the_higher_priority():
    due, keen = tier("due", waiters=(waiter(200.0),)), tier("keen", waiters=(waiter(priority=9),))
    assert comes(decided(due, keen)) == ["due"]
    assert comes(decided(keen, tier("fresh", waiters=(waiter(5.0),)))) == ["keen"]


def test_bound_what_becomes_free_is_whose_turn_it_is():
    # "due" needs more than is free; "small" would fit, and may not take it from under him.
    blocked = ready(in_flight=1, awake={0: 100_000.0}, swapped_in=True, since_s=NOW_S - 1.0)
    due = tier("due", waiters=(waiter(200.0),), awake={0: 60_000.0})
    small = tier("small", waiters=(waiter(1.0),), awake={0: 30_000.0})
    assert comes(decided(blocked, due, small)) == []
    assert comes(decided(blocked, tier("due", waiters=(waiter(1.0),), awake={0: 60_000.0}), small)) == [
        "small"
    ]


def test_room_that_others_left_for_one_is_not_theirs_again():
    back = tier("fast", waiters=(waiter(500.0),), rested_s=NOW_S - 200.0)
    invited = tier(waiters=(waiter(),), swapped_in=True)
    assert comes(decided(back, invited)) == ["deep"]


# Residency


@pytest.mark.parametrize(("up_s", "leaves"), [(SWAP_S - 1.0, False), (SWAP_S, True)])
@pytest.mark.parametrize("waiting", [waiter(500.0), waiter(priority=9), waiter(5.0, deadline_s=NOW_S + 94.0)])
def test_residency_who_came_by_a_swap_stays_as_long_as_one_takes(waiting, up_s, leaves):
    fresh = ready(swapped_in=True, since_s=NOW_S - up_s)
    made = decided(fresh, tier(waiters=(waiting,)))
    assert bool(goes(made)) == leaves
    if not leaves:
        assert made.look_at_s == NOW_S + 1.0
        assert made.waits == {"deep": "fast has only just come"}


def test_residency_who_came_for_nothing_has_none():
    assert goes(decided(ready(since_s=NOW_S), tier(waiters=(waiter(),)))) != []


# Going home


@pytest.mark.parametrize(("idle_s", "leaves"), [(169.0, False), (170.0, True)])
def test_going_home_once_idle_as_long_as_the_swap_there_and_back(idle_s, leaves):
    # 10 s + 80 s there, 80 s back.
    guest = ready("deep", idle_since_s=NOW_S - idle_s)
    made = decided(tier("fast", eager=True), guest)
    assert bool(goes(made)) == leaves
    if not leaves:
        assert made.look_at_s == NOW_S + 1.0


def test_going_home_not_while_a_thought_is_there_nor_for_a_lazy_tier_nor_from_an_eager_one():
    long_ago_s = NOW_S - 9_000.0
    home = tier("fast", eager=True)
    assert goes(decided(home, ready("deep", idle_since_s=long_ago_s, in_flight=1))) == []
    assert goes(decided(tier("fast", wanted=True), ready("deep", idle_since_s=long_ago_s))) == []
    made = decided(home, ready("deep", idle_since_s=long_ago_s, eager=True))
    assert (made.moves, made.look_at_s) == ([], None)


def test_going_home_wakes_nobody_else_out_of_his_bed():
    sleeper = tier("deep", TierState.ASLEEP, rest=Rest.SLEEP_1, asleep=SLEEPS)
    room = {0: GPU_MIB, HOST: 106_000.0}
    assert goes(decided(sleeper, tier("fast", wanted=True), room=room)) == [], "lazy, and nobody waits"
    assert goes(decided(sleeper, tier("fast", waiters=(waiter(),)), room=room)) == [("deep", Rest.STOP)]


def test_nobody_moves_in_on_one_that_is_tried_again_in_a_moment():
    failed = tier(state=TierState.BACKING_OFF, waiters=(waiter(),))
    assert comes(decided(tier("fast", eager=True), failed)) == []
    assert comes(decided(tier("fast", waiters=(waiter(),)), failed)) == ["fast"]
    assert comes(decided(tier("fast", eager=True), tier(state=TierState.BACKING_OFF))) == ["fast"]


# wait_s


def test_wait_s_causes_no_swap_before_its_time():
    made = decided(ready(), tier(waiters=(waiter(10.0, wait_s=110.0),)))
    assert made.moves == []
    assert made.waits == {"deep": "fast stays: what waits may wait"}
    assert made.look_at_s == NOW_S + 10.0, "110 s after it came, less the swap"
    assert goes(decided(ready(), tier(waiters=(waiter(20.0, wait_s=110.0),)))) != []


def test_wait_s_rides_along_with_a_swap_for_another():
    patient, hurried = waiter(10.0, wait_s=1000.0), waiter()
    assert goes(decided(ready(), tier(waiters=(patient, hurried)))) != []
    assert comes(decided(tier(waiters=(patient,)))) == ["deep"], "into free room at once"


def test_wait_s_of_a_high_priority_is_still_a_wait():
    made = decided(ready(in_flight=1), tier(waiters=(waiter(priority=9, wait_s=500.0), waiter())))
    assert made.moves == []


# Priority and deadline


def test_priority_above_all_who_wait_there_drains_a_busy_tier_at_once():
    busy = ready(in_flight=1, waiters=(waiter(priority=3),))
    assert goes(decided(busy, tier(waiters=(waiter(priority=4),)))) != []
    assert goes(decided(busy, tier(waiters=(waiter(priority=3),)))) == []


def test_deadline_brings_the_swap_forward():
    # An answer takes 3 s, the swap 90.
    made = decided(ready(in_flight=1), tier(waiters=(waiter(0.0, deadline_s=NOW_S + 95.0),)))
    assert (made.moves, made.look_at_s) == ([], NOW_S + 2.0)
    assert goes(decided(ready(in_flight=1), tier(waiters=(waiter(2.0, deadline_s=NOW_S + 93.0),)))) != []


def test_deadline_that_nobody_could_have_met_drives_nobody_out():
    made = decided(ready(in_flight=1), tier(waiters=(waiter(0.0, deadline_s=NOW_S + 92.0),)))
    assert (made.moves, made.look_at_s) == ([], NOW_S + 30.0)


# Held back


def test_held_back_rests_and_does_not_come():
    lent = ready(held_back="GPU 0 is lent", asleep=SLEEPS, in_flight=1)
    made = decided(lent, tier(waiters=(waiter(),), held_back="GPU 0 is lent"))
    assert goes(made) == [("fast", Rest.SLEEP_1)]
    assert (comes(made), made.waits) == ([], {"deep": "GPU 0 is lent"})


def test_held_back_does_not_stay_when_called_back():
    assert stays(decided(tier("fast", TierState.DRAINING, rest=Rest.STOP, held_back="lent"))) == []


# How to leave


def test_to_leave_by_what_leaving_and_coming_back_cost_together():
    made = decided(ready(asleep=SLEEPS, eager=True), tier(waiters=(waiter(),)))
    # On a thought's path: level 1 is 40 + 2, level 2 is 5 + 20, stopping 10 + 80.
    assert goes(made) == [("fast", Rest.SLEEP_2)]


def test_to_leave_by_the_way_back_alone_where_no_thought_waits():
    guest = ready("deep", asleep=SLEEPS, idle_since_s=0.0, rank=1)
    assert goes(decided(tier("fast", eager=True), guest)) == [("deep", Rest.SLEEP_1)]


def test_to_leave_by_stopping_what_is_seldom_back():
    slow = Swaps({Rest.STOP: 5.0, Rest.SLEEP_1: 60.0}, {Rest.STOP: 80.0, Rest.SLEEP_1: 2.0})
    sleeps = {Rest.SLEEP_1: SLEEPS[Rest.SLEEP_1]}
    # 60 + 2/2 against 5 + 80/2; for an eager one 60 + 2 against 5 + 80.
    assert goes(decided(ready(asleep=sleeps, swaps=slow), tier(waiters=(waiter(),)))) == [("fast", Rest.STOP)]
    eager = ready(asleep=sleeps, swaps=slow, eager=True)
    assert goes(decided(eager, tier(waiters=(waiter(),)))) == [("fast", Rest.SLEEP_1)]


@pytest.mark.parametrize(("host_mib", "rest"), [(111_999.0, Rest.STOP), (112_000.0, Rest.SLEEP_1)])
def test_to_sleep_at_level_1_the_host_must_have_room_for_the_weights_and_the_comer(host_mib, rest):
    # 4 000 held, 100 000 of weights, 8 000 for who comes.
    fast = ready(asleep={Rest.SLEEP_1: SLEEPS[Rest.SLEEP_1]}, eager=True)
    comer = tier(waiters=(waiter(),), awake={0: 100_000.0, HOST: 8_000.0})
    assert goes(decided(fast, comer, room={0: GPU_MIB, HOST: host_mib})) == [("fast", rest)]


def test_a_sleep_that_leaves_too_much_on_the_gpu_is_no_way_out():
    comer = tier(waiters=(waiter(),), awake={0: GPU_MIB, HOST: 4_000.0})
    assert goes(decided(ready(asleep=SLEEPS), comer)) == [("fast", Rest.STOP)]


def test_who_makes_room_together_on_two_gpus_may_both_sleep():
    fast = ready("fast", asleep={Rest.SLEEP_2: {0: 2_000.0}}, eager=True)
    other = ready("mid", asleep={Rest.SLEEP_2: {1: 2_000.0}}, eager=True, awake={1: 100_000.0, HOST: 4_000.0})
    wide = tier(
        waiters=(waiter(),), awake={0: 100_000.0, 1: 100_000.0, HOST: 4_000.0}, turns=frozenset({0, 1})
    )
    made = decided(fast, other, wide, room={0: GPU_MIB, 1: GPU_MIB, HOST: 50_000.0})
    assert goes(made) == [("fast", Rest.SLEEP_2), ("mid", Rest.SLEEP_2)]


def test_two_do_not_sleep_on_the_same_host_memory():
    both = [
        ready(
            name,
            asleep={Rest.SLEEP_1: {gpu: 2_000.0, HOST: 104_000.0}},
            eager=True,
            awake={gpu: 100_000.0, HOST: 4_000.0},
        )
        for name, gpu in (("a", 0), ("b", 1))
    ]
    wide = tier(
        waiters=(waiter(),), awake={0: 100_000.0, 1: 100_000.0, HOST: 4_000.0}, turns=frozenset({0, 1})
    )
    room = {0: GPU_MIB, 1: GPU_MIB, HOST: 8_000.0 + 150_000.0}
    assert goes(decided(*both, wide, room=room)) == [("a", Rest.SLEEP_1), ("b", Rest.STOP)]


def test_the_cheapest_leaves_if_one_is_enough():
    idle = ready("idle", awake={0: 60_000.0}, idle_since_s=0.0)
    used = ready("used", awake={0: 60_000.0}, idle_since_s=NOW_S)
    assert goes(decided(used, idle, tier(waiters=(waiter(),), awake={0: 60_000.0}))) == [("idle", Rest.STOP)]


def test_nobody_is_asked_who_could_not_make_enough_room():
    small = ready("small", awake={0: 30_000.0})
    busy = ready("busy", awake={0: 90_000.0}, in_flight=1)
    made = decided(small, busy, tier(waiters=(waiter(),)))
    assert made.moves == [], "small alone is not enough, and busy keeps its GPU"


# Called back


def test_a_draining_tier_is_called_back_when_nobody_needs_its_room():
    draining = tier("fast", TierState.DRAINING, rest=Rest.STOP, in_flight=1)
    assert stays(decided(draining, tier())) == ["fast"]
    assert stays(decided(draining, tier(waiters=(waiter(),)))) == []


def test_a_draining_tier_is_called_back_though_somebody_waits_elsewhere():
    draining = tier("fast", TierState.DRAINING, rest=Rest.STOP, in_flight=1)
    there = ready("mid", awake={1: 100_000.0, HOST: 4_000.0}, in_flight=1, turns=frozenset({1}))
    waits = tier(waiters=(waiter(),), awake={1: 100_000.0, HOST: 4_000.0}, turns=frozenset({1}))
    made = decided(draining, there, waits, room={0: GPU_MIB, 1: GPU_MIB, HOST: 50_000.0})
    assert stays(made) == ["fast"]


# Alone, and trying again


def test_alone_waits_until_its_devices_are_empty():
    alone = tier(waiters=(waiter(),), alone=True, awake={0: 10_000.0})
    small = ready(awake={0: 10_000.0})
    assert goes(decided(small, alone)) == [("fast", Rest.STOP)]
    assert goes(decided(ready(awake={0: 10_000.0}, in_flight=1), alone)) == []
    elsewhere = ready(awake={1: 10_000.0, HOST: 4_000.0}, turns=frozenset({1}))
    assert comes(decided(elsewhere, alone)) == ["deep"], "host memory is no reason to empty other GPUs"


def test_one_without_room_a_moment_ago_keeps_its_place_and_is_tried_again_on_time():
    again = tier(waiters=(waiter(200.0),), not_before_s=NOW_S + 2.0)
    made = decided(again, tier("fast", waiters=(waiter(),)))
    assert (comes(made), made.look_at_s) == ([], NOW_S + 2.0)


# When to look again


def test_look_again_at_the_soonest_of_all():
    busy = ready("a", in_flight=1)
    other = ready("b", awake={1: 100_000.0}, in_flight=1, turns=frozenset({1}))
    late = tier("c", waiters=(waiter(0.0),))
    soon = tier("d", waiters=(waiter(20.0),), awake={1: 100_000.0}, turns=frozenset({1}))
    made = decided(busy, other, late, soon, room={0: GPU_MIB, 1: GPU_MIB, HOST: inf})
    assert made.look_at_s == NOW_S + 10.0
    assert made.next_look_s(NOW_S, 120.0, inf) == NOW_S + 10.0
    assert made.next_look_s(NOW_S, 120.0, NOW_S + 4.0) == NOW_S + 4.0, "a loan ends"


def test_look_again_in_any_case_while_somebody_waits():
    made = decided(tier("fast", TierState.STOPPING, rest=Rest.STOP), tier(waiters=(waiter(),)))
    assert made.look_at_s is None
    assert made.next_look_s(NOW_S, 120.0, inf) == NOW_S + 120.0
    assert decided(ready()).next_look_s(NOW_S, 120.0, inf) is None


def test_a_machine_without_limits_has_room_for_all():
    assert comes(decided(ready(), tier(waiters=(waiter(),)), room={})) == ["deep"]
    assert ROOM[0] == GPU_MIB
