"""What a decision about the fleet is made from: all tiers, the room of each device, what swaps have cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from subcortex.fleet.machine import COMING, LEAVING, UP
from subcortex.types import Rest, TierState

#: A GPU by NVML's index; ``HOST`` is host memory.
Device = int
HOST: Device = -1
#: Room by device, MiB.
Room = Mapping[Device, float]


@dataclass(frozen=True, slots=True)
class Waiter:
    """A thought that waits for a tier; times in seconds on the fleet's clock.

    Args:
        since_s: When it came.
        deadline_s: When its answer must be complete.
        wait_s: How long it may wait for a swap that serves others too; None: it is wanted now.
    """

    since_s: float
    priority: int = 0
    deadline_s: float | None = None
    wait_s: float | None = None


#: A driver shows as free what a process held this long after its end, or before; seconds.
_GIVEN_BACK_S = 15.0
#: Assumed until measured, seconds: to leave by each way, and to come back from it.
LEAVE_S = {Rest.STOP: 5.0, Rest.SLEEP_1: 10.0, Rest.SLEEP_2: 5.0}
BACK_S = {Rest.STOP: 30.0, Rest.SLEEP_1: 3.0, Rest.SLEEP_2: 15.0}


@dataclass(frozen=True, slots=True)
class Swaps:
    """What it takes a tier to leave and to come back, in seconds by the way it rests, as measured.

    Args:
        answer_s: What a usual thought takes it.
    """

    leave_s: Mapping[Rest, float] = field(default_factory=lambda: LEAVE_S)
    back_s: Mapping[Rest, float] = field(default_factory=lambda: BACK_S)
    answer_s: float = 1.0


#: States that lead into sleep and out of it.
_BETWEEN = frozenset({TierState.DRAINING, TierState.SLEEPING, TierState.WAKING})


def most(one: Room, other: Room) -> Room:
    """Return the larger of both for each device, MiB."""
    return {device: max(one.get(device, 0.0), other.get(device, 0.0)) for device in {*one, *other}}


@dataclass(frozen=True, slots=True)
class TierScene:
    """One tier as it is.

    Args:
        rest: How it sleeps, while it does.
        since_s: When it came into its state.
        idle_since_s: When its last thought ended, or it became ready.
        swapped_in: Somebody had to leave for it.
        awake: What it holds of each device when it works, MiB.
        asleep: The same asleep, by the kinds of sleep it knows.
        remains: Its process failed and is not gone yet.
        held_back: Why it may not be up now (a GPU is lent to somebody), if so.
        not_before_s: It is not tried again before.
        alone: It needs its devices for itself.
        turns: The devices on which nobody else may start while it does.
        rested_s: When it last came to rest, or failed, after it had been up.
    """

    name: str
    rank: int
    state: TierState
    rest: Rest | None = None
    since_s: float = 0.0
    idle_since_s: float = 0.0
    in_flight: int = 0
    waiters: tuple[Waiter, ...] = ()
    eager: bool = False
    wanted: bool = False
    swapped_in: bool = False
    awake: Room = field(default_factory=dict)
    asleep: Mapping[Rest, Room] = field(default_factory=dict)
    swaps: Swaps = field(default_factory=Swaps)
    remains: bool = False
    held_back: str | None = None
    not_before_s: float = -inf
    alone: bool = False
    turns: frozenset[Device] = frozenset({HOST})
    rested_s: float = -inf

    @property
    def busy(self) -> bool:
        """Whether thoughts are at work in it or wait for it."""
        return self.in_flight > 0 or bool(self.waiters)

    @property
    def holds(self) -> Room:
        """What it holds now, or will before it holds less, by device."""
        if self.state in _BETWEEN and self.rest is not None:
            # Its weights are on both sides for a while.
            return most(self.awake, self.asleep.get(self.rest, {}))
        # One that is stopped out of its sleep holds no more than a sleeper.
        if self.state in (TierState.ASLEEP, TierState.STOPPING) and self.rest not in (None, Rest.STOP):
            return self.asleep.get(self.rest, self.awake)
        if self.state in UP or self.remains:
            return self.awake
        return {}

    @property
    def will_hold(self) -> Room:
        """What it holds once it has come to where it is going, if it is on its way; else what it holds."""
        if self.state is TierState.WAKING:
            return self.awake
        if self.state not in LEAVING and not (self.remains and self.state not in UP):
            return self.holds
        if self.state is TierState.STOPPING or self.remains or self.rest in (None, Rest.STOP):
            return {}
        return self.asleep.get(self.rest, {}) if self.rest else {}

    @property
    def coming_s(self) -> float:
        """How long it takes from where it rests to ready, seconds."""
        asleep = self.rest if self.state is TierState.ASLEEP else None
        return self.swaps.back_s[asleep or Rest.STOP]


@dataclass(frozen=True, slots=True)
class Scene:
    """All tiers at one moment.

    Args:
        room: What tiers together may hold of each device, MiB; a device that is not named has no limit.
        max_wait_s: No thought waits longer for a swap, however busy the tier in its way is.
        seen_s: When ``room`` was looked at.
    """

    now_s: float
    tiers: tuple[TierScene, ...]
    room: Room = field(default_factory=dict)
    max_wait_s: float = 120.0
    seen_s: float = inf

    def free(self) -> dict[Device, float]:
        """Return what is left of each device, MiB; below 0 where more is held than there is."""
        left = dict(self.room)
        for tier in self.tiers:
            for device, mib in tier.holds.items():
                if device in left:
                    left[device] -= mib
        return left

    def coming_free(self) -> dict[Device, float]:
        """Return what those on their way will have given back of each device, MiB."""
        back = dict.fromkeys(self.room, 0.0)
        for tier in self.tiers:
            after = tier.will_hold
            for device, mib in tier.holds.items():
                if device in back:
                    back[device] += mib - after.get(device, 0.0)
        return back

    def starting_on(self) -> frozenset[Device]:
        """Return the devices that somebody starts or wakes on now."""
        return frozenset(device for tier in self.tiers if tier.state in COMING for device in tier.turns)

    def unsure(self, device: Device) -> bool:
        """Return whether what was seen of a device may lack what a tier has just given back."""
        return any(
            device in tier.awake
            and (tier.state in LEAVING or tier.remains or tier.rested_s + _GIVEN_BACK_S > self.seen_s)
            for tier in self.tiers
        )


def due_s(tier: TierScene, max_wait_s: float, lead_s: float) -> float:
    """Return when the way must be cleared for a tier, so that none of its thoughts waits too long.

    Args:
        tier: Whose thoughts wait; infinity if none do.
        max_wait_s: How long a thought waits at most.
        lead_s: What the swap takes.
    """
    return min((_due_s(one, tier, max_wait_s, lead_s) for one in tier.waiters), default=inf)


def _due_s(waiter: Waiter, tier: TierScene, max_wait_s: float, lead_s: float) -> float:
    # While its tier was up it waited for nobody to make room.
    since_s = max(waiter.since_s, tier.rested_s)
    latest_s = since_s + (max_wait_s if waiter.wait_s is None else waiter.wait_s) - lead_s
    if waiter.deadline_s is None:
        return latest_s
    by_deadline_s = waiter.deadline_s - tier.swaps.answer_s - lead_s
    # One that was too late from the start gains nothing by driving others out.
    return min(latest_s, by_deadline_s) if by_deadline_s >= waiter.since_s else latest_s


def wants_now(waiter: Waiter, tier: TierScene, now_s: float, max_wait_s: float, lead_s: float) -> bool:
    """Return whether a thought that waits for a tier would have it now, rather than ride along later."""
    return waiter.wait_s is None or _due_s(waiter, tier, max_wait_s, lead_s) <= now_s
