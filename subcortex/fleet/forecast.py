"""How long a thought would wait for a tier to be up, from the schedule's scene: what the router weighs."""

from __future__ import annotations

from dataclasses import dataclass

from subcortex.fleet.machine import COMING, LEAVING
from subcortex.fleet.scene import Scene, TierScene, due_s
from subcortex.types import Rest, TierState

#: A failed tier is no choice while another lives; seconds.
_FAILED_S = 3600.0
#: What is left of a start that takes longer than it used to, as a share of what it used to take.
_LATE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a thought for a tier has before it.

    Args:
        wait_s: Seconds until the engine takes thoughts; its queue comes on top.
        leaves: Who would have to make room.
    """

    wait_s: float
    leaves: tuple[str, ...] = ()


def forecast(scene: Scene, name: str) -> Forecast:
    """Return what a thought would wait for the tier of that name; KeyError if there is none."""
    tier = next((one for one in scene.tiers if one.name == name), None)
    if tier is None:
        raise KeyError(name)
    if tier.held_back or tier.state is TierState.FAILED:
        return Forecast(_FAILED_S)
    if tier.state is TierState.READY:
        return Forecast(0.0)
    if tier.state in COMING:
        return Forecast(_comes_s(tier, scene))
    if tier.state in LEAVING:
        rest = tier.rest or Rest.STOP
        gone_s = tier.swaps.leave_s[rest] - (scene.now_s - tier.since_s)
        return _with_room(tier, scene, max(0.0, gone_s) + tier.swaps.back_s[rest])
    wait_s = max(0.0, tier.not_before_s - scene.now_s) if tier.state is TierState.BACKING_OFF else 0.0
    return _with_room(tier, scene, wait_s + tier.coming_s)


def _comes_s(tier: TierScene, scene: Scene) -> float:
    """Return in how many seconds a tier that starts or wakes is ready."""
    starting = tier.state is TierState.STARTING
    whole_s = tier.swaps.back_s[Rest.STOP if starting else tier.rest or Rest.SLEEP_1]
    return max(whole_s * _LATE_SHARE, whole_s - (scene.now_s - tier.since_s))


def _invited(tier: TierScene) -> bool:
    """Return whether others leave for a tier that is not on its way yet."""
    at_rest = tier.state in (TierState.STOPPED, TierState.ASLEEP)
    return at_rest and tier.swapped_in and bool(tier.waiters) and not tier.held_back


def _with_room(tier: TierScene, scene: Scene, coming_s: float) -> Forecast:
    """Return a forecast that counts those in the way: what they still have to do, then their leaving."""
    free, held = scene.free(), tier.holds
    there = []
    for other in scene.tiers:
        if other.name == tier.name:
            continue
        if _invited(other):
            # The room that is made for it is as good as taken.
            for device, mib in other.awake.items():
                if device in free:
                    free[device] -= mib - other.holds.get(device, 0.0)
            there.append((other, other.awake))
        elif other.holds:
            there.append((other, other.holds))
    short = {
        device: missing
        for device, mib in tier.awake.items()
        if device in free and (missing := mib - held.get(device, 0.0) - free[device]) > 0
    }
    leaves, cleared_s = [], 0.0
    # Those who go soonest go first, until there is enough.
    for other, takes in sorted(there, key=lambda pair: _clears_s(pair[0], tier, scene)):
        if not any(mib > 0 for mib in short.values()):
            break
        if not any(takes.get(device, 0.0) > 0 for device, mib in short.items() if mib > 0):
            continue
        for device in short:
            short[device] -= takes.get(device, 0.0)
        leaves.append(other.name)
        cleared_s = max(cleared_s, _clears_s(other, tier, scene))
    return Forecast(coming_s + cleared_s, tuple(leaves))


def _clears_s(other: TierScene, comer: TierScene, scene: Scene) -> float:
    """Return in how many seconds a tier could be out of another's way."""
    leave_s = min(other.swaps.leave_s[rest] for rest in (Rest.STOP, *other.asleep))
    if other.state in LEAVING:
        return max(0.0, leave_s - (scene.now_s - other.since_s))
    comes_s = 0.0
    if other.state in COMING:
        comes_s = _comes_s(other, scene)
    elif _invited(other):
        comes_s = other.coming_s
    elif other.state is not TierState.READY:
        return 0.0
    swap_s = leave_s + comer.coming_s
    ready_s = other.since_s - scene.now_s if other.state is TierState.READY else comes_s
    settled_s = max(0.0, ready_s + swap_s) if other.swapped_in else comes_s
    busy_s = comes_s + (other.in_flight + len(other.waiters)) * other.swaps.answer_s
    # Its thoughts go first, but not beyond what those who wait here already are promised.
    due = due_s(comer, scene.max_wait_s, swap_s)
    bound_s = max(comes_s, min(due - scene.now_s, scene.max_wait_s - swap_s))
    return leave_s + max(settled_s, min(busy_s, bound_s))
