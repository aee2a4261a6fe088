"""Who starts, wakes, leaves and stays: a pure function from a scene to moves.

``docs/design/fleet.md`` says by what rules. Nothing is moved that would take more than there is, no two come
on one device at once, and whoever had to make room for another is told why he waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import inf

from subcortex.fleet.scene import HOST, Device, Room, Scene, TierScene, due_s, wanted_now
from subcortex.types import Rest, TierState

#: Sets of up to so many tiers are weighed against each other as those who make room.
_MOST_LEAVERS = 3


@dataclass(frozen=True, slots=True)
class Come:
    """Start or wake a tier."""

    tier: str


@dataclass(frozen=True, slots=True)
class Go:
    """Have a tier rest, to make room for another or because its GPU is lent."""

    tier: str
    rest: Rest
    why: str
    room_for: str | None = None


@dataclass(frozen=True, slots=True)
class Stay:
    """Let a tier that drains go on: its room is no longer needed."""

    tier: str


Move = Come | Go | Stay


@dataclass(frozen=True, slots=True)
class Shortage:
    """A device that can never hold a tier as things are, with all others gone; MiB."""

    device: Device
    needs_mib: float
    room_mib: float


@dataclass(slots=True)
class Schedule:
    """What to do now.

    Args:
        waits: Why a tier that is wanted is not on its way, by its name.
        hopeless: Tiers that fit nowhere.
        look_at_s: When to ask again though nothing has happened; None: no need.
    """

    moves: list[Move] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    hopeless: dict[str, Shortage] = field(default_factory=dict)
    look_at_s: float | None = None

    def look_again(self, at_s: float) -> None:
        """Ask again at that time, or before."""
        if at_s < inf:
            self.look_at_s = at_s if self.look_at_s is None else min(self.look_at_s, at_s)

    def next_look_s(self, now_s: float, max_wait_s: float, loan_ends_s: float) -> float | None:
        """Return when to ask again at the latest; None: once something happens."""
        at_s = min(inf if self.look_at_s is None else self.look_at_s, loan_ends_s)
        if self.waits:
            at_s = min(at_s, now_s + max_wait_s)
        return at_s if at_s < inf else None


@dataclass(frozen=True, slots=True)
class _Leave:
    """Whether a tier may be asked to leave for another; ``at_s``: when it may, infinity if never."""

    at_s: float
    why: str


def schedule(scene: Scene) -> Schedule:
    """Return the moves that a scene asks for.

    Tiers whose thoughts wait are served in the order in which they become due; then those that are to be up
    anyway, where that drives nobody out who has anything to do.
    """
    made = Schedule()
    free, back, turns = scene.free(), scene.coming_free(), set(scene.starting_on())
    gone: set[str] = set()
    for tier in scene.tiers:
        if tier.held_back and tier.state is TierState.READY:
            rest = _resting(tier, scene, None)
            made.moves.append(Go(tier.name, rest, tier.held_back))
            gone.add(tier.name)
            _give_back(tier, rest, back)
    for tier in _wanted(scene, made):
        _place(tier, scene, made, free, back, turns, gone)
    needed = {move.room_for for move in made.moves if isinstance(move, Go)} | set(made.waits)
    for tier in scene.tiers:
        if tier.state is TierState.DRAINING and not tier.held_back:
            rivals = [one for one in scene.tiers if one.name in needed and not one.held_back]
            if not any(_overlap(tier, rival) for rival in rivals):
                made.moves.append(Stay(tier.name))
    return made


def _wanted(scene: Scene, made: Schedule) -> list[TierScene]:
    """Return the tiers at rest that are to come, the most urgent first."""
    found: list[tuple[tuple[object, ...], TierScene]] = []
    for tier in scene.tiers:
        if tier.state not in (TierState.STOPPED, TierState.ASLEEP):
            continue
        if not (tier.waiters or tier.eager or tier.wanted):
            continue
        if tier.held_back:
            made.waits[tier.name] = tier.held_back
            continue
        if tier.not_before_s > scene.now_s:
            made.look_again(tier.not_before_s)
            made.waits[tier.name] = made.waits.get(tier.name, "tried a moment ago, and there was no room")
            continue
        due = due_s(tier, scene.max_wait_s, tier.coming_s)
        highest = max((waiter.priority for waiter in tier.waiters), default=0)
        oldest = min((waiter.since_s for waiter in tier.waiters), default=inf)
        overdue = due <= scene.now_s
        key = (not overdue, due if overdue else 0.0, -highest, oldest, not tier.eager, tier.rank)
        found.append((key, tier))
    return [tier for _, tier in sorted(found, key=lambda pair: pair[0])]


def _place(
    tier: TierScene,
    scene: Scene,
    made: Schedule,
    free: dict[Device, float],
    back: dict[Device, float],
    turns: set[Device],
    gone: set[str],
) -> None:
    """Find room for one tier: take what is free, wait for what is given back, or ask others to leave."""
    need = _extra(tier, scene)
    most = _most(tier, scene)
    for device, mib in need.items():
        if device in scene.room and mib > most.get(device, 0.0):
            made.hopeless[tier.name] = Shortage(device, tier.awake.get(device, mib), scene.room[device])
            return
    short = {
        device: mib - free[device] for device, mib in need.items() if device in free and mib > free[device]
    }
    others_there = tier.alone and any(
        other.name != tier.name and other.holds and _overlap(tier, other) for other in scene.tiers
    )
    if not short and not others_there:
        if tier.turns & turns:
            made.waits[tier.name] = "another engine is starting there"
            return
        made.moves.append(Come(tier.name))
        turns |= tier.turns
        _take(need, free)
        return
    if short and all(mib <= back.get(device, 0.0) for device, mib in short.items()):
        made.waits[tier.name] = "memory is being given back"
        _take(need, free)
        return
    leavers, why, at_s = _leavers(tier, scene, short, back, gone, others_there)
    if leavers is None:
        made.waits[tier.name] = why
        made.look_again(at_s)
        if due_s(tier, scene.max_wait_s, tier.coming_s) <= scene.now_s:
            # What becomes free is his, not the next one's.
            _take(need, free)
        return
    for leaver, rest in leavers:
        made.moves.append(Go(leaver.name, rest, f"room for {tier.name}", tier.name))
        gone.add(leaver.name)
        _give_back(leaver, rest, back)
    made.waits[tier.name] = f"{', '.join(leaver.name for leaver, _ in leavers)} makes room"
    _take(need, free)


def _leavers(
    tier: TierScene,
    scene: Scene,
    short: Mapping[Device, float],
    back: Mapping[Device, float],
    gone: set[str],
    everyone: bool,
) -> tuple[list[tuple[TierScene, Rest]] | None, str, float]:
    """Return who is to leave for a tier; or None, why nobody may now, and when somebody may."""
    there = [
        other
        for other in scene.tiers
        if other.name not in (tier.name, *gone)
        and other.state in (TierState.READY, TierState.ASLEEP)
        and other.holds
        and _overlap(tier, other)
    ]
    if not there:
        return None, "nobody there can leave now", inf
    missing = {device: mib - back.get(device, 0.0) for device, mib in short.items()}
    best: tuple[float, list[tuple[TierScene, Rest]]] | None = None
    why, soonest_s = "nobody there can leave", inf
    for group in _groups(there, everyone):
        ways = [(one, _resting(one, scene, tier, missing)) for one in group]
        if not everyone and not _enough(ways, missing):
            ways = [(one, Rest.STOP) for one in group]
            if not _enough(ways, missing):
                continue
        verdicts = [(_may_leave(one, tier, scene, rest), one) for one, rest in ways]
        last, blocker = max(verdicts, key=lambda pair: pair[0].at_s)
        if last.at_s > scene.now_s:
            if last.at_s < soonest_s or soonest_s == inf:
                soonest_s, why = min(soonest_s, last.at_s), f"{blocker.name} {last.why}"
            continue
        cost = sum(_loss(one, rest, scene) for one, rest in ways)
        if best is None or cost < best[0]:
            best = cost, ways
    if best is None:
        return None, why, soonest_s
    return best[1], "", inf


def _groups(there: Sequence[TierScene], everyone: bool) -> Iterator[tuple[TierScene, ...]]:
    if everyone:
        yield tuple(there)
        return
    for count in range(1, min(len(there), _MOST_LEAVERS) + 1):
        yield from combinations(there, count)
    if len(there) > _MOST_LEAVERS:
        yield tuple(there)


def _enough(ways: Iterable[tuple[TierScene, Rest]], missing: Mapping[Device, float]) -> bool:
    given = dict.fromkeys(missing, 0.0)
    for tier, rest in ways:
        _give_back(tier, rest, given)
    return all(given[device] >= mib for device, mib in missing.items())


def _may_leave(leaver: TierScene, comer: TierScene, scene: Scene, rest: Rest) -> _Leave:
    """Return when a tier may be asked to leave for another."""
    if leaver.state is TierState.ASLEEP:
        return _Leave(-inf, "")
    swap_s = leaver.swaps.leave_s[rest] + comer.coming_s
    settled_s = leaver.since_s + swap_s if leaver.swapped_in else -inf
    if not comer.waiters:
        if leaver.eager or not comer.eager:
            return _Leave(inf, "keeps its place: nobody waits")
        back_and_forth_s = swap_s + leaver.swaps.back_s[rest]
        idle_s = inf if leaver.busy else leaver.idle_since_s + back_and_forth_s
        return _Leave(max(settled_s, idle_s), "may be needed again")
    due = due_s(comer, scene.max_wait_s, swap_s)
    if leaver.busy:
        ours = max((waiter.priority for waiter in leaver.waiters), default=0)
        theirs = max(waiter.priority for waiter in comer.waiters)
        if theirs > ours:
            return _Leave(settled_s, "has only just come")
        count = leaver.in_flight + len(leaver.waiters)
        return _Leave(max(settled_s, due), f"has {count} {'thought' if count == 1 else 'thoughts'}")
    if wanted_now(comer, scene.now_s, scene.max_wait_s, swap_s):
        return _Leave(settled_s, "has only just come")
    return _Leave(max(settled_s, due), "stays: what waits may wait")


def _resting(
    tier: TierScene, scene: Scene, comer: TierScene | None, missing: Mapping[Device, float] | None = None
) -> Rest:
    """Return how a tier had best rest: what leaving costs now, and coming back later, of what is possible."""
    if tier.state is TierState.ASLEEP:
        return Rest.STOP
    free = scene.free()
    possible = [Rest.STOP]
    for rest, after in tier.asleep.items():
        # Its weights go to host memory, which must have room for them besides what it holds already.
        host_mib = after.get(HOST, 0.0) - tier.awake.get(HOST, 0.0)
        fits = HOST not in free or host_mib <= free[HOST] - (comer.awake.get(HOST, 0.0) if comer else 0.0)
        enough = missing is None or _enough([(tier, rest)], missing)
        if fits and enough:
            possible.append(rest)
    on_path = 1.0 if comer is not None and comer.waiters else 0.0
    reuse = 1.0 if tier.eager or tier.waiters or tier.rank else 0.5
    return min(
        possible, key=lambda rest: on_path * tier.swaps.leave_s[rest] + reuse * tier.swaps.back_s[rest]
    )


def _loss(tier: TierScene, rest: Rest, scene: Scene) -> float:
    """Return what it costs that a tier leaves, in seconds of waiting."""
    waiting = len(tier.waiters) + tier.in_flight
    reuse = 1.0 if waiting or tier.eager else 0.5
    leave_s = 0.0 if tier.state is TierState.ASLEEP else tier.swaps.leave_s[rest]
    recent = 1.0 / (1.0 + max(0.0, scene.now_s - tier.idle_since_s) / (tier.swaps.back_s[rest] + 1.0))
    return leave_s + tier.swaps.back_s[rest] * (reuse + waiting + recent)


def _extra(tier: TierScene, scene: Scene) -> dict[Device, float]:
    """Return what a tier at rest takes more of each device once it is up."""
    held = tier.holds
    return {device: mib - held.get(device, 0.0) for device, mib in tier.awake.items()}


def _most(tier: TierScene, scene: Scene) -> Room:
    """Return what a device could give a tier at rest if all others were gone."""
    held = tier.holds
    return {device: mib - held.get(device, 0.0) for device, mib in scene.room.items()}


def _overlap(one: TierScene, other: TierScene) -> bool:
    return bool(one.awake.keys() & other.awake.keys())


def _take(need: Room, free: dict[Device, float]) -> None:
    for device, mib in need.items():
        if device in free:
            free[device] -= mib


def _give_back(tier: TierScene, rest: Rest, back: dict[Device, float]) -> None:
    after = {} if rest is Rest.STOP else tier.asleep.get(rest, {})
    for device, mib in tier.holds.items():
        if device in back:
            back[device] += mib - after.get(device, 0.0)
