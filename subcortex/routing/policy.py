"""The policy: from an ask and a snapshot of the tiers to a decision, without side effects.

A score cuts the ladder of n tiers into n bands of equal width. Then cost speaks: a tier's penalty
says how far its wait exceeds what patience allows, a tier's distance says how far the score is from
its band, and the least sum of both wins. Since penalties do not depend on the score, and the
distance to a higher band shrinks against that to a lower one as the score grows, a more complex
thought never goes to a lower tier, all else equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from subcortex.routing.ladder import Ask, Decision, Expected, TierView, expect
from subcortex.types import Route, TierCost, TierState

#: How far a full lean of a drive moves the score.
LEAN_REACH = 0.35
#: Share of a band's width within which a border may be crossed to save a wait, at patience 0.5.
BORDER_SHARE = 0.3
#: Weight of the distance to a band above the score's own. A tier more capable than a thought needs costs
#: time and no quality, so whatever the score, less than one answer's excess of waiting is worth the step up.
STEP_UP = 0.9
#: Least odds, so that patience 0 divides by something; borders are then as wide as the ladder.
_LEAST_ODDS = 1e-3


def decide(ask: Ask, tiers: Sequence[TierView], *, deep_bias: float = 0.0, patience: float = 0.5) -> Decision:
    """Choose the tier for a thought, and the order of the others.

    Args:
        ask: What is asked.
        tiers: All tiers as they are now, in any order; names differ.
        deep_bias: −1 to 1, added to every score.
        patience: 0: never wait for a better tier; 1: waiting is free.

    Raises:
        ValueError: There are no tiers, or the forced one is not among them.
    """
    if not tiers:
        raise ValueError("there are no tiers to choose from")
    ladder = sorted(tiers, key=lambda tier: tier.rank)
    expected = [expect(tier, place, ask.expected_tokens) for place, tier in enumerate(ladder)]
    value, reasons = score(ask, deep_bias)
    if ask.tier is not None:
        return _forced(ask, expected, value)
    chosen, wanted = _choose(ask, expected, value, patience, reasons)
    degraded_reason = _why_not(wanted, ask) if chosen is not wanted else None
    if degraded_reason:
        reasons.append(f"{chosen.tier.name} instead: {degraded_reason}")
    if ask.deadline_s is not None and chosen.total_s > ask.deadline_s:
        reasons.append(
            f"the deadline of {_seconds(ask.deadline_s)} will likely be missed: {chosen.tier.name} is the "
            f"quickest that lives, at about {_seconds(chosen.total_s)}"
        )
    order = tuple(one.tier.name for one in _fallbacks(chosen, expected, ask.deadline_s))
    route = _route(ask, expected, value, chosen, reasons)
    route.degraded, route.degraded_reason = degraded_reason is not None, degraded_reason
    return Decision(order, route, expected[band(value, len(expected))].tier.name)


def score(ask: Ask, deep_bias: float = 0.0) -> tuple[float, list[str]]:
    """Return the need for depth, 0 to 1, and how it came about.

    ``clip(max(complexity + 0.35 × lean, floor) + deep_bias)``: never falls as any of the four rises.
    """
    because = f" ({'; '.join(ask.complexity.reasons)})" if ask.complexity.reasons else ""
    reasons = [f"complexity {ask.complexity.score:.2f}{because}"]
    drive = ask.drive_name or "the drive"
    value = ask.complexity.score
    if ask.drive_lean:
        value += LEAN_REACH * ask.drive_lean
        way = "deep" if ask.drive_lean > 0 else "shallow"
        reasons.append(f"{drive} leans {way}: {LEAN_REACH * ask.drive_lean:+.2f}")
    if ask.drive_floor > value:
        value = ask.drive_floor
        reasons.append(f"{drive} asks for at least {ask.drive_floor:.2f}")
    if deep_bias:
        value += deep_bias
        reasons.append(f"deep_bias: {deep_bias:+.2f}")
    return _clip(value), reasons


def band(value: float, tiers: int) -> int:
    """Return the place on a ladder of ``tiers`` that a score of 0 to 1 falls on."""
    return min(int(value * tiers), tiers - 1)


def _choose(
    ask: Ask, expected: list[Expected], value: float, patience: float, reasons: list[str]
) -> tuple[Expected, Expected]:
    """Return the tier that serves, and the one that would if none failed or were late."""
    count = len(expected)
    by_score = expected[band(value, count)]
    reasons.append(
        f"score {value:.2f} → {by_score.tier.name}"
        + (f" (band {by_score.place + 1} of {count}, from {by_score.place / count:.2f})" if count > 1 else "")
    )
    odds = _odds(patience)
    penalties = _penalties(expected, odds)
    wanted = _cheapest(expected, value, count, penalties, odds)
    if wanted is not by_score:
        distance = _distance(value, wanted.place, count)
        reasons.append(
            f"{_state(by_score)}, about {_seconds(by_score.wait_s)} of waiting for "
            f"{_seconds(by_score.answer_s)} of answer; {wanted.tier.name} {_readiness(wanted)} and the score "
            f"is {distance:.2f} from its band: {wanted.tier.name}"
        )
    elif by_score.wait_s > 0 and not by_score.failing:
        reasons.append(f"{_state(by_score)}: worth about {_seconds(by_score.wait_s)} of waiting")
    least_failing = min(one.failing for one in expected)
    living = [one for one in expected if one.failing == least_failing]
    in_time = [one for one in living if ask.deadline_s is None or one.total_s <= ask.deadline_s]
    if not in_time:
        return min(living, key=lambda one: (one.total_s, -one.place)), wanted
    return _cheapest(in_time, value, count, penalties, odds), wanted


def _odds(patience: float) -> float:
    patience = _clip(patience)
    return patience / (1.0 - patience) if patience < 1.0 else float("inf")


def _penalties(expected: list[Expected], odds: float) -> dict[int, float]:
    """Return a tier's penalty by place, 0 to 1: how far its wait exceeds patience, in answers.

    Failing tiers have none: they are dealt with as failing, not as slow. Nor has a tier that would
    still finish before all others.
    """
    quickest_s = min((one.total_s for one in expected if not one.failing), default=0.0)
    penalties = {}
    for one in expected:
        if one.failing or one.wait_s <= 0 or odds == float("inf"):
            penalties[one.place] = 0.0
            continue
        excess_s = min(one.wait_s - odds * one.answer_s, one.total_s - quickest_s)
        penalties[one.place] = _clip(excess_s / one.answer_s)
    return penalties


def _cheapest(
    among: Iterable[Expected], value: float, count: int, penalties: dict[int, float], odds: float
) -> Expected:
    border = BORDER_SHARE / count / max(odds, _LEAST_ODDS)

    def cost(one: Expected) -> tuple[float, int]:
        # At patience 1 the border is 0 wide and nothing has a penalty: distance alone decides.
        distance = _distance(value, one.place, count)
        if border > 0:
            above = one.place / count > value
            weighed = distance * STEP_UP * odds if above else distance / border
            weighed += penalties[one.place]
        else:
            weighed = distance
        # Rounded, so that what is equal but for the last bit counts as equal; then the more capable.
        return round(weighed, 9), -one.place

    return min(among, key=cost)


def _distance(value: float, place: int, count: int) -> float:
    """Return how far a score is from a place's band; 0 within it."""
    if band(value, count) == place:
        return 0.0
    low, high = place / count, (place + 1) / count
    return max(low - value, value - high, 0.0)


def _fallbacks(chosen: Expected, expected: list[Expected], deadline_s: float | None) -> list[Expected]:
    """Order the tiers to try: living before failing, in time before late, near before far, then capable."""

    def turn(one: Expected) -> tuple[bool, int, bool, int, int]:
        late = deadline_s is not None and one.total_s > deadline_s
        return one is not chosen, one.failing, late, abs(one.place - chosen.place), -one.place

    return sorted(expected, key=turn)


def _forced(ask: Ask, expected: list[Expected], value: float) -> Decision:
    for one in expected:
        if one.tier.name == ask.tier:
            break
    else:
        names = ", ".join(one.tier.name for one in expected)
        raise ValueError(f"there is no tier {ask.tier!r}; the tiers are {names}")
    reasons = [f"{ask.tier} was asked for by name; the score of {value:.2f} was not consulted"]
    if one.wait_s > 0:
        reasons.append(f"{_state(one)}: about {_seconds(one.wait_s)} of waiting")
    if ask.deadline_s is not None and one.total_s > ask.deadline_s:
        reasons.append(
            f"the deadline of {_seconds(ask.deadline_s)} will likely be missed: {ask.tier} needs about "
            f"{_seconds(one.total_s)}"
        )
    route = _route(ask, expected, value, one, reasons)
    route.forced = True
    return Decision((one.tier.name,), route, one.tier.name)


def _route(ask: Ask, expected: list[Expected], value: float, chosen: Expected, reasons: list[str]) -> Route:
    return Route(
        tier=chosen.tier.name,
        score=value,
        complexity=_clip(ask.complexity.score),
        reasons=reasons,
        alternatives=[
            TierCost(
                tier=one.tier.name,
                state=one.tier.state,
                wait_s=one.wait_s,
                ttft_s=one.wait_s + one.ttft_s,
                total_s=one.total_s,
                n=one.tier.cost.n,
            )
            for one in expected
        ],
    )


def _why_not(wanted: Expected, ask: Ask) -> str:
    if wanted.failing:
        return _state(wanted)
    deadline_s = ask.deadline_s or 0.0
    return (
        f"{wanted.tier.name} would take about {_seconds(wanted.total_s)}, past the deadline of "
        f"{_seconds(deadline_s)}"
    )


def _state(one: Expected) -> str:
    state = one.tier.state
    words = {
        TierState.READY: "is busy" if one.wait_s > 0 else "is ready",
        TierState.BACKING_OFF: "is backing off after a failure",
        TierState.FAILED: "has failed",
    }
    return f"{one.tier.name} {words.get(state, f'is {state.value}')}"


def _readiness(one: Expected) -> str:
    if one.wait_s <= 0:
        return "is ready"
    return f"takes {_seconds(one.total_s)} in all"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def _clip(value: float) -> float:
    # Written so that NaN becomes 0.
    return min(value, 1.0) if value > 0.0 else 0.0
