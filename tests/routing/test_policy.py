"""The policy: what it must do in plain cases, and what it must never do in any."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from subcortex.routing import Ask, Complexity, Cost, Decision, TierView, decide
from subcortex.routing.ladder import DEFAULT_LOAD_S, expect
from subcortex.types import Route, TierState

READY, ASLEEP, STOPPED = TierState.READY, TierState.ASLEEP, TierState.STOPPED
STARTING, STOPPING = TierState.STARTING, TierState.STOPPING
BACKING_OFF, FAILED = TierState.BACKING_OFF, TierState.FAILED
FAST = TierView("fast", 0, READY, Cost(0.1, 0.01, 2.0, n=9))
DEEP = TierView("deep", 1, READY, Cost(0.5, 0.05, 40.0, n=9))
MID = TierView("mid", 1, READY, Cost(0.3, 0.03, 20.0, n=9))
TOP = dataclasses.replace(DEEP, rank=2)


def ask(complexity: float, **other: Any) -> Ask:
    return Ask(Complexity(complexity), **{"expected_tokens": 101, **other})


def state(tier: TierView, state: TierState, **other: Any) -> TierView:
    return dataclasses.replace(tier, state=state, **other)


def first(decision: Decision) -> str:
    return decision.order[0]


# --- the ladder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("complexity", "tier"),
    [(0.0, "fast"), (0.33, "fast"), (0.34, "mid"), (0.66, "mid"), (0.67, "deep"), (1.0, "deep")],
)
def test_the_score_cuts_the_ladder_into_equal_bands(complexity: float, tier: str):
    assert tier == first(decide(ask(complexity), [TOP, FAST, MID]))


def test_one_tier_serves_everything():
    assert decide(ask(1.0), [FAST]).order == ("fast",)


def test_drive_floor_and_bias_move_the_score_by_what_is_written():
    route = decide(ask(0.3, drive_name="LEARNING", drive_lean=0.4), [FAST, DEEP], deep_bias=0.1).route
    assert route.score == pytest.approx(0.3 + 0.35 * 0.4 + 0.1)
    assert route.complexity == 0.3
    assert route.tier == "deep"
    assert "LEARNING leans deep: +0.14" in route.reasons
    assert "deep_bias: +0.10" in route.reasons
    floor = decide(ask(0.1, drive_floor=0.6), [FAST, DEEP]).route
    assert (floor.score, floor.tier) == (0.6, "deep")
    assert "the drive asks for at least 0.60" in floor.reasons
    assert decide(ask(0.2, drive_lean=-1.0), [FAST, DEEP]).route.score == 0.0


def test_the_scorers_reasons_come_along():
    asked = Ask(Complexity(0.9, ("words of reasoning: 3 (+1.05)",)))
    assert decide(asked, [FAST, DEEP]).route.reasons[0] == "complexity 0.90 (words of reasoning: 3 (+1.05))"


# --- waiting --------------------------------------------------------------------------------------


def test_near_the_border_a_ready_neighbour_spares_the_wait_and_says_so():
    stopped = state(DEEP, STOPPED)
    near, far = decide(ask(0.55), [FAST, stopped]), decide(ask(0.9), [FAST, stopped])
    assert near.order == ("fast", "deep")
    assert not near.route.degraded
    assert near.route.reasons[-1] == (
        "deep is stopped, about 40.0 s of waiting for 5.5 s of answer; fast is ready and the score is "
        "0.05 from its band: fast"
    )
    assert far.order == ("deep", "fast")
    assert far.route.reasons[-1] == "deep is stopped: worth about 40.0 s of waiting"


@pytest.mark.parametrize("easy", [0.45, 0.1, 0.0])
def test_a_ready_deep_tier_serves_the_easiest_thought_while_fast_is_cold(easy):
    cold = state(FAST, STOPPED, cost=Cost(0.1, 0.01, 60.0, n=1))
    decision = decide(ask(easy), [cold, DEEP])
    assert decision.order == ("deep", "fast")
    assert not decision.route.degraded
    assert decision.preferred == "fast", "so that it can be started meanwhile"


def test_a_short_queue_at_fast_is_no_reason_to_trouble_deep():
    busy = state(FAST, READY, cost=Cost(0.1, 0.01, 60.0, n=1), in_flight=40)
    assert first(decide(ask(0.0), [busy, DEEP])) == "fast"


def test_a_short_load_that_is_quicker_in_all_is_waited_for():
    cold = state(FAST, STOPPED, cost=Cost(0.1, 0.001, 1.0, n=1))
    assert first(decide(ask(0.45), [cold, DEEP])) == "fast"


def test_a_wait_within_patience_is_waited():
    asleep = state(DEEP, ASLEEP, cost=Cost(0.5, 0.05, 16.0, n=1))
    assert first(decide(ask(0.51), [FAST, asleep])) == "deep"
    assert first(decide(ask(0.51), [FAST, asleep], patience=0.2)) == "fast"


def test_reach_grows_with_the_wait_up_to_one_answer_beyond_patience():
    half = state(DEEP, ASLEEP, cost=Cost(0.5, 0.05, 4 * 1.5 * 5.5, n=1))
    assert first(decide(ask(0.57), [FAST, half])) == "fast"
    assert first(decide(ask(0.58), [FAST, half])) == "deep"
    whole = state(DEEP, ASLEEP, cost=Cost(0.5, 0.05, 4 * 5 * 5.5, n=1))
    assert first(decide(ask(0.64), [FAST, whole])) == "fast"
    assert first(decide(ask(0.66), [FAST, whole])) == "deep"


def test_patience_0_never_waits_and_patience_1_waits_for_anything():
    stopped = state(DEEP, STOPPED)
    assert first(decide(ask(1.0), [FAST, stopped], patience=0.0)) == "fast"
    assert first(decide(ask(0.5), [FAST, stopped], patience=1.0)) == "deep"


def test_a_full_tier_near_the_border_gives_way_to_a_free_one():
    busy = dataclasses.replace(DEEP, in_flight=4, waiting=12, max_concurrent=4)
    free = dataclasses.replace(DEEP, in_flight=3, max_concurrent=4)
    assert first(decide(ask(0.55), [FAST, busy])) == "fast"
    assert first(decide(ask(0.55), [FAST, free])) == "deep"


def test_the_wait_in_a_queue_is_places_ahead_times_answer_over_slots():
    busy = dataclasses.replace(DEEP, in_flight=4, waiting=3, max_concurrent=4)
    found = expect(busy, 1, 101)
    assert found.answer_s == pytest.approx(0.5 + 100 * 0.05)
    assert found.wait_s == pytest.approx((4 + 3 - 4 + 1) * 5.5 / 4)
    assert found.total_s == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("in_state", "wait_s"),
    [
        (READY, 0),
        (STARTING, 20),
        (ASLEEP, 10),
        (STOPPED, 40),
        (STOPPING, 45),
        (BACKING_OFF, 70),
        (FAILED, 3640),
    ],
)
def test_the_wait_by_state(in_state: TierState, wait_s: float):
    assert wait_s == expect(state(DEEP, in_state), 1, 1).wait_s


@pytest.mark.parametrize("unknown", [0.0, -1.0, math.nan, math.inf])
def test_unknown_costs_take_the_stated_defaults(unknown: float):
    tier = TierView("new", 1, STOPPED, Cost(unknown, unknown, unknown))
    found = expect(tier, 1, 101)
    assert (found.wait_s, found.ttft_s) == (DEFAULT_LOAD_S, 0.4)
    assert found.answer_s == pytest.approx(0.4 + 100 * 0.04)


# --- deadlines ------------------------------------------------------------------------------------


def test_a_tier_too_slow_for_the_deadline_is_passed_over():
    decision = decide(ask(0.9, deadline_s=3.0), [FAST, DEEP])
    assert decision.order == ("fast", "deep")
    assert decision.route.degraded
    assert decision.route.degraded_reason == "deep would take about 5.5 s, past the deadline of 3.0 s"
    assert not decide(ask(0.9, deadline_s=6.0), [FAST, DEEP]).route.degraded


def test_the_best_that_can_is_the_one_nearest_to_what_was_wanted():
    assert decide(ask(0.9, deadline_s=4.0), [FAST, MID, TOP]).order == ("mid", "fast", "deep")


def test_a_cold_fast_tier_gives_way_to_a_warm_deep_one_under_a_deadline():
    cold = state(FAST, STOPPED, cost=Cost(0.1, 0.01, 60.0, n=1))
    assert decide(ask(0.0, deadline_s=10.0), [cold, DEEP]).order == ("deep", "fast")


def test_when_none_can_the_quickest_goes_first_and_the_reasons_say_so():
    decision = decide(ask(0.9, deadline_s=0.5), [FAST, MID, TOP])
    assert first(decision) == "fast"
    assert decision.route.degraded
    assert decision.route.reasons[-1] == (
        "the deadline of 500 ms will likely be missed: fast is the quickest that lives, at about 1.1 s"
    )


# --- failing tiers, fallbacks, forcing ------------------------------------------------------------


def test_failing_tiers_go_last_failed_after_backing_off():
    decision = decide(ask(0.9), [FAST, state(MID, BACKING_OFF), state(TOP, FAILED)])
    assert decision.order == ("fast", "mid", "deep")
    assert decision.route.degraded_reason == "deep has failed"
    assert "fast instead: deep has failed" in decision.route.reasons
    assert decide(ask(0.9), [state(MID, BACKING_OFF), state(TOP, FAILED)]).order == ("mid", "deep")


def test_a_failure_degrades_even_near_the_border():
    assert decide(ask(0.55), [FAST, state(DEEP, FAILED)]).route.degraded


def test_a_living_tier_that_is_late_is_tried_before_a_failing_one_that_is_not():
    late = dataclasses.replace(MID, in_flight=32, waiting=1000)
    tiers = [state(FAST, BACKING_OFF), late, TOP]
    assert decide(ask(0.9, deadline_s=50.0), tiers).order == ("deep", "mid", "fast")


def test_a_failing_tier_that_was_not_wanted_degrades_nothing():
    assert not decide(ask(0.1), [FAST, state(DEEP, FAILED)]).route.degraded


def test_fallbacks_are_near_first_and_the_more_capable_of_two():
    tiers = [TierView(f"t{i}", i, READY) for i in range(5)]
    assert decide(ask(0.5), tiers).order == ("t2", "t3", "t1", "t4", "t0")


def test_between_two_equally_near_the_more_capable_serves_to_the_last_bit():
    tiers = [TierView(f"t{i}", i, FAILED if i == 1 else READY) for i in range(5)]
    assert first(decide(ask(0.3), tiers)) == "t2"


def test_a_forced_tier_is_the_only_one_and_never_degrades():
    decision = decide(ask(0.0, tier="deep", deadline_s=1.0), [FAST, state(DEEP, FAILED)])
    assert decision.order == ("deep",)
    assert (
        decision.route.forced,
        decision.route.degraded,
        decision.route.degraded_reason,
    ) == (True, False, None)
    assert [other.tier for other in decision.route.alternatives] == ["fast", "deep"]


def test_what_cannot_be_decided_is_a_value_error():
    with pytest.raises(ValueError, match="no tiers"):
        decide(ask(0.5), [])
    with pytest.raises(ValueError, match="'nope'; the tiers are fast, deep"):
        decide(ask(0.5, tier="nope"), [FAST, DEEP])


def test_alternatives_say_what_each_tier_would_cost():
    fast, deep = decide(ask(0.1), [FAST, state(DEEP, STOPPED)]).route.alternatives
    assert (fast.tier, fast.state, fast.wait_s, fast.n) == ("fast", READY, 0.0, 9)
    assert pytest.approx((fast.ttft_s, fast.total_s)) == (0.1, 1.1)
    assert pytest.approx((deep.wait_s, deep.ttft_s, deep.total_s)) == (40.0, 40.5, 45.5)


# --- rules for any snapshot -----------------------------------------------------------------------

_SECONDS = st.one_of(st.floats(allow_nan=True), st.sampled_from([0.0, 0.01, 0.1, 1.0, 5.0, 40.0]))
_COST = st.builds(Cost, _SECONDS, _SECONDS, _SECONDS, st.integers(0, 99))
_COUNT = st.integers(0, 40)
_UNIT = st.one_of(st.floats(0, 1), st.integers(0, 12).map(lambda twelfth: twelfth / 12))
_LEAN = st.floats(-1, 1)


@st.composite
def _ladders(draw: st.DrawFn) -> list[TierView]:
    count = draw(st.integers(1, 5))
    ranks = draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    states = st.sampled_from(TierState)
    return [
        TierView(
            f"t{i}", rank, draw(states), draw(_COST), draw(_COUNT), draw(_COUNT), draw(st.integers(1, 16))
        )
        for i, rank in enumerate(ranks)
    ]


_ASKS = st.builds(
    Ask,
    complexity=_UNIT.map(Complexity),
    drive_name=st.sampled_from([None, "CARE"]),
    drive_lean=_LEAN,
    drive_floor=_UNIT,
    tier=st.none(),
    deadline_s=st.one_of(st.none(), st.floats(0.001, 1e4)),
    expected_tokens=st.integers(0, 10**6),
)
_SETTINGS = st.fixed_dictionaries({"deep_bias": _LEAN, "patience": _UNIT})


def place(tiers: Sequence[TierView], decision: Decision) -> int:
    return [tier.name for tier in sorted(tiers, key=lambda tier: tier.rank)].index(decision.order[0])


@given(_ASKS, _ladders(), _SETTINGS)
def test_it_decides_anything_the_same_way_twice(
    asked: Ask, tiers: list[TierView], settings: dict[str, float]
):
    decision = decide(asked, tiers, **settings)
    assert decision == decide(asked, tiers, **settings)
    assert sorted(decision.order) == sorted(tier.name for tier in tiers)
    route = decision.route
    assert decision.order[0] == route.tier
    assert 0.0 <= route.score <= 1.0
    assert (route.degraded_reason is not None) == route.degraded
    assert not route.forced
    assert route == Route.model_validate_json(route.model_dump_json())
    assert all(math.isfinite(other.total_s) for other in route.alternatives)


@given(_ASKS, _ladders(), _SETTINGS, st.data())
def test_forced_never_degrades(
    asked: Ask, tiers: list[TierView], settings: dict[str, float], data: st.DataObject
):
    name = data.draw(st.sampled_from([tier.name for tier in tiers]))
    decision = decide(dataclasses.replace(asked, tier=name), tiers, **settings)
    assert ((name,), True, False) == (decision.order, decision.route.forced, decision.route.degraded)


@given(_ASKS, _ladders(), _SETTINGS)
def test_a_failing_tier_is_never_first_while_another_lives(
    asked: Ask, tiers: list[TierView], settings: dict[str, float]
):
    order = decide(asked, tiers, **settings).order
    badness = {tier.name: {BACKING_OFF: 1, FAILED: 2}.get(tier.state, 0) for tier in tiers}
    assert badness[order[0]] == min(badness.values())
    assert [badness[name] for name in order[1:]] == sorted(badness[name] for name in order[1:])


@settings(max_examples=300)
@given(_ASKS, _ladders(), _SETTINGS, _UNIT)
def test_a_more_complex_thought_never_goes_lower(
    asked: Ask, tiers: list[TierView], settings: dict[str, float], other: float
):
    low, high = sorted((asked.complexity.score, other))
    before = decide(dataclasses.replace(asked, complexity=Complexity(low)), tiers, **settings)
    after = decide(dataclasses.replace(asked, complexity=Complexity(high)), tiers, **settings)
    assert place(tiers, after) >= place(tiers, before)
    assert after.route.score >= before.route.score


@given(
    _ASKS, _ladders(), _SETTINGS, st.floats(0, 1), st.sampled_from(["drive_lean", "drive_floor", "deep_bias"])
)
def test_lean_floor_and_bias_never_lower_score_or_tier(
    asked: Ask, tiers: list[TierView], settings: dict[str, float], more: float, name: str
):
    before = decide(asked, tiers, **settings)
    if name == "deep_bias":
        after = decide(asked, tiers, **{**settings, "deep_bias": settings["deep_bias"] + more})
    else:
        raised = dataclasses.replace(asked, **{name: getattr(asked, name) + more})
        after = decide(raised, tiers, **settings)
    assert after.route.score >= before.route.score
    assert place(tiers, after) >= place(tiers, before)


@given(_ASKS, _ladders(), _SETTINGS)
def test_a_deadline_that_any_living_tier_can_keep_is_kept(
    asked: Ask, tiers: list[TierView], settings: dict[str, float]
):
    assume(asked.deadline_s is not None)
    route = decide(asked, tiers, **settings).route
    living = [one for one in route.alternatives if one.state not in (BACKING_OFF, FAILED)]
    deadline_s = asked.deadline_s or 0.0
    if any(one.total_s <= deadline_s for one in living):
        chosen = next(one for one in route.alternatives if one.tier == route.tier)
        assert chosen.total_s <= deadline_s


@given(_ASKS, _ladders(), st.floats(-1, 1))
def test_without_patience_a_ready_idle_tier_beats_every_wait(asked: Ask, tiers: list[TierView], bias: float):
    asked = dataclasses.replace(asked, deadline_s=None)
    route = decide(asked, tiers, deep_bias=bias, patience=0.0).route
    cost = {one.tier: one for one in route.alternatives}
    quickest_s = min(one.total_s for one in route.alternatives)
    chosen = cost[route.tier]
    if any(one.state is READY and one.wait_s == 0 for one in route.alternatives):
        answer_s = chosen.total_s - chosen.wait_s
        # Waiting is then only for a tier that still finishes first, or as good as first.
        waits_long = chosen.wait_s > 0.01 * answer_s
        assert not waits_long or chosen.total_s - quickest_s <= 0.01 * answer_s


@given(_ASKS, _ladders())
def test_with_all_patience_the_living_tier_nearest_to_the_score_serves(asked: Ask, tiers: list[TierView]):
    asked = dataclasses.replace(asked, deadline_s=None)
    calm = [dataclasses.replace(tier, state=READY, in_flight=0, waiting=0) for tier in tiers]
    alive = [dataclasses.replace(tier, state=STOPPED, in_flight=30) for tier in tiers]
    assert decide(asked, calm).order == decide(asked, alive, patience=1.0).order
