"""What a decision is made from and what it is made of: the snapshot of the tiers, the ask, the decision."""

from __future__ import annotations

from dataclasses import dataclass, field

from subcortex.routing.scoring import Complexity
from subcortex.types import Route, TierState

#: Taken for the least capable tier when nothing is known, in seconds; each tier above doubles the first two.
DEFAULT_TTFT_S = 0.2
DEFAULT_TPOT_S = 0.02
DEFAULT_LOAD_S = 30.0
#: Figures from here on are taken for nonsense, and so for unknown.
LONGEST_S = 1e7
#: Share of a load that is still to come, by state; a sleeping engine keeps its process and its graphs.
LOAD_SHARE: dict[TierState, float] = {
    TierState.READY: 0.0,
    TierState.STARTING: 0.5,
    TierState.WAKING: 0.1,
    TierState.ASLEEP: 0.25,
    TierState.DRAINING: 0.25,
    TierState.SLEEPING: 0.5,
    TierState.STOPPED: 1.0,
    TierState.STOPPING: 1.0,
    TierState.BACKING_OFF: 1.0,
    TierState.FAILED: 1.0,
}
#: Seconds on top of the load, by state: to finish stopping, to sit out a restart's delay, to be mended.
EXTRA_WAIT_S: dict[TierState, float] = {
    TierState.STOPPING: 5.0,
    TierState.BACKING_OFF: 30.0,
    TierState.FAILED: 3600.0,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a tier costs when warm, and to get it warm.

    Args:
        ttft_s: Seconds from the engine taking a thought to its first token.
        tpot_s: Seconds a token after the first.
        load_s: Seconds from stopped to ready.
        n: Thoughts measured behind it; 0 means nominal. A figure of 0 means unknown, whatever n is.
    """

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    load_s: float = 0.0
    n: int = 0


@dataclass(frozen=True, slots=True)
class TierView:
    """A tier as it is at the moment of deciding.

    Args:
        rank: 0 is the least capable.
        in_flight: Thoughts at work in the engine.
        waiting: Thoughts before this one.
        max_concurrent: Thoughts that the engine works on at once.
        comes_s: Seconds until its engine takes thoughts, as the fleet foresees it: who is in its way,
            and what swaps have taken; None where nobody can tell.
        leaves: Who would have to make room for it.
    """

    name: str
    rank: int
    state: TierState
    cost: Cost = field(default_factory=Cost)
    in_flight: int = 0
    waiting: int = 0
    max_concurrent: int = 32
    comes_s: float | None = None
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of the router.

    Args:
        complexity: Complexity of the prompt, scored or given by the caller.
        drive_name: Drive behind the thought, for the reasons.
        drive_lean: −1 (shallow) to 1 (deep): moves the score.
        drive_floor: 0 to 1: least score that this drive's thoughts get.
        tier: Name of the tier that the caller forces.
        deadline_s: Seconds from now by which the answer must be complete.
        expected_tokens: Tokens that the answer is expected to have.
    """

    complexity: Complexity
    drive_name: str | None = None
    drive_lean: float = 0.0
    drive_floor: float = 0.0
    tier: str | None = None
    deadline_s: float | None = None
    expected_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a thought goes.

    Args:
        order: Names of tiers: the chosen one, then the fallbacks in the order to try them.
        route: The same explained, ready for the thought's record.
        preferred: The tier that the score alone would take; worth starting when it is not up.
    """

    order: tuple[str, ...]
    route: Route
    preferred: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What one tier is expected to cost one thought.

    Args:
        place: Its place on the ladder, 0 the least capable.
        wait_s: Seconds until its engine takes the thought: loading, then the queue.
        ttft_s: Seconds from then to the first token.
        answer_s: Seconds from then to the last token.
    """

    tier: TierView
    place: int
    wait_s: float
    ttft_s: float
    answer_s: float

    @property
    def total_s(self) -> float:
        """Seconds from now to the last token."""
        return self.wait_s + self.answer_s

    @property
    def failing(self) -> int:
        """0: alive; 1: backing off; 2: failed."""
        return {TierState.BACKING_OFF: 1, TierState.FAILED: 2}.get(self.tier.state, 0)


def expect(tier: TierView, place: int, tokens: int) -> Expected:
    """Return what ``tier`` is expected to cost a thought of ``tokens`` tokens; unknown figures by default."""
    ttft_s = _known(tier.cost.ttft_s, DEFAULT_TTFT_S * 2.0 ** min(place, 16))
    tpot_s = _known(tier.cost.tpot_s, DEFAULT_TPOT_S * 2.0 ** min(place, 16))
    load_s = _known(tier.cost.load_s, DEFAULT_LOAD_S)
    answer_s = ttft_s + max(tokens - 1, 0) * tpot_s
    wait_s = tier.comes_s
    if wait_s is None:
        wait_s = LOAD_SHARE[tier.state] * load_s + EXTRA_WAIT_S.get(tier.state, 0.0)
    slots = max(tier.max_concurrent, 1)
    # With all slots taken, one comes free every answer_s / slots on average.
    before = max(tier.in_flight, 0) + max(tier.waiting, 0) - slots + 1
    if before > 0:
        wait_s += before * answer_s / slots
    return Expected(tier, place, wait_s, ttft_s, answer_s)


def _known(seconds: float, default: float) -> float:
    return seconds if 0 < seconds < LONGEST_S else default
