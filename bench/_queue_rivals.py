"""Who else could decide which tier is up: strictly by arrival, or whoever was used longest ago goes.

Both are functions from a scene to moves, as the schedule is; they rest tiers in whatever way is cheapest
there and back, so that only the order differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from subcortex.fleet.machine import COMING, LEAVING
from subcortex.fleet.scene import Scene, TierScene
from subcortex.fleet.schedule import Come, Go, Schedule
from subcortex.types import Rest, TierState


@dataclass(frozen=True)
class Arrival:
    """A thought of a trace; seconds. ``answer_s`` is for a simulation, the prompt for a model."""

    at_s: float
    tier: str
    tokens: int
    answer_s: float = 0.0
    prompt: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a trace: swaps, each thought's wait for its engine, what a swap and an answer take."""

    swaps: int
    waits_s: list[float]
    swap_s: float
    longest_answer_s: float


_AT_REST = (TierState.STOPPED, TierState.ASLEEP)


def fifo(scene: Scene) -> Schedule:
    """Serve the thought that came first; swap whenever that is another tier's."""
    first = min((tier for tier in scene.tiers if tier.waiters), key=_oldest, default=None)
    made = Schedule()
    for tier in scene.tiers:
        if tier.waiters and tier.state in _AT_REST:
            made.waits[tier.name] = "its turn has not come"
    if first is not None and first.state in _AT_REST:
        _call(first, scene, made, [tier for tier in scene.tiers if tier.state is TierState.READY])
    return made


def lru(scene: Scene) -> Schedule:
    """Have whoever was used longest ago leave at once for whoever is needed, as soon as he is idle."""
    made = Schedule()
    for tier in sorted((one for one in scene.tiers if one.waiters and one.state in _AT_REST), key=_oldest):
        made.waits[tier.name] = "nobody is idle"
        idle = [one for one in scene.tiers if one.state is TierState.READY and not one.busy]
        _call(tier, scene, made, sorted(idle, key=lambda one: one.idle_since_s)[:1])
    return made


def _call(tier: TierScene, scene: Scene, made: Schedule, leavers: list[TierScene]) -> None:
    free, held = scene.free(), tier.holds
    if all(mib - held.get(device, 0.0) <= free.get(device, mib) for device, mib in tier.awake.items()):
        # One at a time: whoever came second was counted against the same room.
        if not made.moves and not any(one.state in COMING for one in scene.tiers):
            made.moves.append(Come(tier.name))
        return
    if not made.moves and not any(one.state in (*LEAVING, *COMING) for one in scene.tiers):
        for one in leavers:
            made.moves.append(Go(one.name, cheapest(one), f"room for {tier.name}", tier.name))


def cheapest(tier: TierScene) -> Rest:
    """Return the way to rest that costs least there and back."""
    return min((Rest.STOP, *tier.asleep), key=lambda rest: tier.swaps.leave_s[rest] + tier.swaps.back_s[rest])


def _oldest(tier: TierScene) -> float:
    return min(waiter.since_s for waiter in tier.waiters)
