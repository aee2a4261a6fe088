"""How long a thought would wait for a tier, in seconds that follow from the scene."""

from __future__ import annotations

import pytest

from subcortex.fleet.forecast import Forecast, forecast
from subcortex.fleet.scene import HOST
from subcortex.types import Rest, TierState
from tests.fleet.scenes import NOW_S, SLEEPS, ready, scene, tier, waiter


def told(name: str, *tiers, **more) -> Forecast:
    return forecast(scene(*tiers, **more), name)


def test_none_for_one_that_is_ready_however_busy():
    assert told("fast", ready(in_flight=9, waiters=(waiter(),))) == Forecast(0.0)


def test_an_hour_for_one_that_failed_or_is_held_back():
    assert told("deep", tier(state=TierState.FAILED)).wait_s == 3600.0
    assert told("deep", ready("deep", held_back="lent")).wait_s == 3600.0


def test_an_unknown_tier_is_a_key_error():
    with pytest.raises(KeyError):
        told("nobody", ready())


@pytest.mark.parametrize(("passed_s", "wait_s"), [(0.0, 80.0), (50.0, 30.0), (79.0, 8.0), (500.0, 8.0)])
def test_the_rest_of_a_start_and_never_less_than_a_tenth(passed_s, wait_s):
    starting = tier(state=TierState.STARTING, since_s=NOW_S - passed_s)
    assert told("deep", starting).wait_s == pytest.approx(wait_s)


def test_the_rest_of_a_wake():
    waking = tier(state=TierState.WAKING, rest=Rest.SLEEP_2, asleep=SLEEPS, since_s=NOW_S - 5.0)
    assert told("deep", waking).wait_s == 15.0


def test_a_start_or_a_wake_where_there_is_room():
    assert told("deep", tier(), ready(awake={0: 30_000.0})) == Forecast(80.0)
    asleep = tier(state=TierState.ASLEEP, rest=Rest.SLEEP_1, asleep=SLEEPS)
    assert told("deep", asleep) == Forecast(2.0)


def test_an_idle_one_in_the_way_only_has_to_leave():
    assert told("deep", tier(), ready()) == Forecast(10.0 + 80.0, ("fast",))
    # The quickest of its ways out.
    assert told("deep", tier(), ready(asleep=SLEEPS)) == Forecast(5.0 + 80.0, ("fast",))


def test_a_busy_one_finishes_what_it_has_but_not_beyond_the_bound():
    # Answers take 3 s each.
    busy = ready(in_flight=2, waiters=(waiter(),) * 3)
    assert told("deep", tier(), busy) == Forecast(15.0 + 10.0 + 80.0, ("fast",))
    # max_wait_s 120 less a swap of 90.
    swamped = ready(in_flight=2, waiters=(waiter(),) * 300)
    assert told("deep", tier(), swamped) == Forecast(30.0 + 10.0 + 80.0, ("fast",))
    # One waits for deep since 20 s: it is due in 10.
    assert told("deep", tier(waiters=(waiter(20.0),)), swamped).wait_s == 10.0 + 10.0 + 80.0


def test_one_that_has_only_just_come_stays_for_its_residency():
    fresh = ready(swapped_in=True, since_s=NOW_S - 40.0)
    assert told("deep", tier(), fresh) == Forecast(50.0 + 10.0 + 80.0, ("fast",))


def test_one_that_comes_first_has_to_be_up_and_to_have_had_its_residency():
    # 30 s more to start, a residency of 90, 10 to leave, 80 to come.
    coming = tier("fast", TierState.STARTING, since_s=NOW_S - 50.0, swapped_in=True)
    assert told("deep", tier(), coming) == Forecast(30.0 + 90.0 + 10.0 + 80.0, ("fast",))


def test_one_that_leaves_is_waited_for():
    leaving = tier("fast", TierState.STOPPING, rest=Rest.STOP, since_s=NOW_S - 4.0)
    assert told("deep", tier(), leaving) == Forecast(6.0 + 80.0, ("fast",))


def test_one_that_is_leaving_itself_leaves_and_comes_back():
    leaving = tier(state=TierState.SLEEPING, rest=Rest.SLEEP_1, asleep=SLEEPS, since_s=NOW_S - 10.0)
    assert told("deep", leaving) == Forecast(30.0 + 2.0)


def test_one_that_leaves_for_another_comes_back_after_him():
    draining = tier("fast", TierState.DRAINING, rest=Rest.STOP, since_s=NOW_S)
    invited = tier("deep", waiters=(waiter(),), swapped_in=True)
    # fast stops (10), deep starts (80), stays (90), stops (10); fast starts (80). It waits for both at once.
    assert told("fast", draining, invited) == Forecast(10.0 + 80.0 + (80.0 + 90.0 + 10.0), ("deep",))


def test_a_sleeper_in_the_way_costs_no_time():
    sleeper = tier("fast", TierState.ASLEEP, rest=Rest.SLEEP_1, asleep=SLEEPS)
    made = told("deep", tier(), sleeper, room={0: 101_000.0, HOST: 500_000.0})
    assert made == Forecast(80.0, ("fast",))


def test_who_backs_off_is_waited_for_first():
    failed = tier(state=TierState.BACKING_OFF, not_before_s=NOW_S + 7.0)
    assert told("deep", failed) == Forecast(87.0)


def test_those_who_go_soonest_go_first_until_it_is_enough():
    quick, slow = ready("quick", awake={0: 60_000.0}), ready("slow", awake={0: 60_000.0}, in_flight=5)
    assert told("deep", tier(awake={0: 60_000.0}), slow, quick).leaves == ("quick",)
    assert told("deep", tier(awake={0: 130_000.0}), slow, quick).leaves == ("quick", "slow")
