"""Who starts, wakes, leaves and stays: a pure function from a scene to moves.

``docs/design/fleet.md`` says by what rules. Nothing is moved that would take more than there is, no two come
on one device at once, and whoever had to make room for another is told why he waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import inf

from subcortex.fleet.scene import HOST, Device, Room, Scene, TierScene, due_s, wants_now
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


@dataclass(slots=True)
class _Books:
    """What is left to give away while a schedule is made, MiB by device.

    Args:
        free: What nobody holds or was promised.
        back: What those who leave will have given back.
        turns: Devices on which somebody starts.
        gone: Tiers that were asked to leave just now.
        short: What tiers that wait still lack.
    """

    free: dict[Device, float]
    back: dict[Device, float]
    turns: set[Device]
    gone: set[str] = field(default_factory=set)
    short: dict[str, Room] = field(default_factory=dict)

    def take(self, need: Room) -> None:
        """Promise this to somebody."""
        for device, mib in need.items():
            if device in self.free:
                self.free[device] -= mib

    def leaves(self, tier: TierScene, rest: Rest) -> None:
        """Reckon with a tier's leaving; what it takes of the host to sleep is taken at once."""
        self.gone.add(tier.name)
        for device, mib in _gives(tier, rest).items():
            if device in self.free and mib < 0:
                self.free[device] += mib
            elif device in self.back:
                self.back[device] += mib


def schedule(scene: Scene) -> Schedule:
    """Return the moves that a scene asks for.

    Tiers whose thoughts wait are served in the order in which they become due; then those that are to be up
    anyway, where that drives nobody out who has anything to do.
    """
    made = Schedule()
    books = _Books(scene.free(), scene.coming_free(), set(scene.starting_on()))
    for tier in scene.tiers:
        if tier.held_back and tier.state is TierState.READY:
            rest = _resting(tier, None, {}, books)
            made.moves.append(Go(tier.name, rest, tier.held_back))
            books.leaves(tier, rest)
    wanted = _wanted(scene, made)
    for tier in wanted:
        if tier.waiters:
            _place(tier, scene, made, books)
    for tier in scene.tiers:
        if tier.state is TierState.BACKING_OFF and tier.waiters and not tier.held_back:
            # It is tried again in a moment: nobody moves in whom nobody waits for.
            books.take(_extra(tier))
    for tier in wanted:
        if not tier.waiters:
            _place(tier, scene, made, books)
    for tier in scene.tiers:
        if tier.state is TierState.DRAINING and not tier.held_back and not _needed(tier, scene, books):
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
        # Others left for it: what they gave back is nobody else's, not even theirs.
        invited = tier.swapped_in and bool(tier.waiters)
        due = due_s(tier, scene.max_wait_s, tier.coming_s)
        highest = max((waiter.priority for waiter in tier.waiters), default=0)
        oldest = min((waiter.since_s for waiter in tier.waiters), default=inf)
        overdue = due <= scene.now_s
        key = (
            not invited,
            not overdue,
            due if overdue else 0.0,
            -highest,
            oldest,
            not tier.eager,
            tier.rank,
        )
        found.append((key, tier))
    return [tier for _, tier in sorted(found, key=lambda pair: pair[0])]


def _place(tier: TierScene, scene: Scene, made: Schedule, books: _Books) -> None:
    """Find room for one tier: take what is free, wait for what is given back, or ask others to leave."""
    need = _extra(tier)
    for device, mib in tier.awake.items():
        if device in scene.room and mib > scene.room[device]:
            if scene.unsure(device):
                made.waits[tier.name] = "memory is being given back"
                books.short[tier.name] = {device: mib - scene.room[device]}
            else:
                made.hopeless[tier.name] = Shortage(device, mib, scene.room[device])
            return
    short = {
        device: mib - books.free[device]
        for device, mib in need.items()
        if device in books.free and mib > 0 and mib > books.free[device]
    }
    others_there = tier.alone and any(_beside(tier, other) for other in scene.tiers)
    if tier.not_before_s > scene.now_s:
        made.look_again(tier.not_before_s)
        made.waits[tier.name] = "tried a moment ago, and there was no room"
        books.take(need)
        books.short[tier.name] = short
        return
    if not short and not others_there:
        books.take(need)
        if tier.turns & books.turns:
            made.waits[tier.name] = "another engine is starting there"
            return
        made.moves.append(Come(tier.name))
        books.turns |= tier.turns
        return
    books.short[tier.name] = short or dict.fromkeys(tier.turns, 0.0)
    if short and all(mib <= books.back.get(device, 0.0) for device, mib in short.items()):
        made.waits[tier.name] = "memory is being given back"
        books.take(need)
        return
    leavers, why, at_s = None, "another engine is starting there", inf
    if not tier.turns & books.turns:
        # Not before: a start may take minutes, and whoever makes room serves until it can be used.
        leavers, why, at_s = _leavers(tier, scene, short, books, others_there)
    if leavers is None:
        made.waits[tier.name] = why
        made.look_again(at_s)
        if due_s(tier, scene.max_wait_s, tier.coming_s) <= scene.now_s:
            # What becomes free is his, not the next one's.
            books.take(need)
        return
    for leaver, rest in leavers:
        made.moves.append(Go(leaver.name, rest, f"room for {tier.name}", tier.name))
        books.leaves(leaver, rest)
    made.waits[tier.name] = f"{', '.join(leaver.name for leaver, _ in leavers)} makes room"
    books.take(need)


def _needed(tier: TierScene, scene: Scene, books: _Books) -> bool:
    """Return whether somebody waits for what a draining tier gives back."""
    gives = {device for device, mib in _gives(tier, tier.rest or Rest.STOP).items() if mib > 0}
    lacking = {one.name: books.short.get(one.name, {}).keys() for one in scene.tiers}
    return any(gives & lacks for lacks in lacking.values())


def _leavers(
    tier: TierScene, scene: Scene, short: Room, books: _Books, everyone: bool
) -> tuple[list[tuple[TierScene, Rest]] | None, str, float]:
    """Return who is to leave for a tier; or None, why nobody may now, and when somebody may."""
    missing = {device: mib - books.back.get(device, 0.0) for device, mib in short.items()}
    missing = {device: mib for device, mib in missing.items() if mib > 0}
    there = [
        other
        for other in scene.tiers
        if other.name not in books.gone
        and other.state in (TierState.READY, TierState.ASLEEP)
        and (
            _beside(tier, other)
            if everyone
            else other.name != tier.name and any(other.holds.get(device, 0.0) > 0 for device in missing)
        )
    ]
    if not there:
        return None, "nobody there can leave now", inf
    best: tuple[float, list[tuple[TierScene, Rest]]] | None = None
    why, soonest_s = "nobody there can leave", inf
    for group in _groups(there, everyone):
        ways = _ways(group, tier, missing, books)
        if not everyone and not _enough(ways, missing):
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


def _ways(
    group: tuple[TierScene, ...], comer: TierScene, missing: Room, books: _Books
) -> list[tuple[TierScene, Rest]]:
    """Return how each of a group had best leave; who would not give enough asleep is stopped."""
    host = books.free.get(HOST, inf) - max(0.0, _extra(comer).get(HOST, 0.0))
    ways: list[tuple[TierScene, Rest]] = []
    for one in group:
        rest = _resting(one, comer, missing, books, host)
        host += min(0.0, _gives(one, rest).get(HOST, 0.0))
        ways.append((one, rest))
    for place, (one, _) in enumerate(ways):
        if _enough(ways, missing):
            break
        ways[place] = one, Rest.STOP
    return ways


def _groups(there: Sequence[TierScene], everyone: bool) -> Iterator[tuple[TierScene, ...]]:
    if everyone:
        yield tuple(there)
        return
    for count in range(1, min(len(there), _MOST_LEAVERS) + 1):
        yield from combinations(there, count)
    if len(there) > _MOST_LEAVERS:
        yield tuple(there)


def _enough(ways: Iterable[tuple[TierScene, Rest]], missing: Room) -> bool:
    gives = [_gives(tier, rest) for tier, rest in ways]
    return all(sum(one.get(device, 0.0) for one in gives) >= mib for device, mib in missing.items())


def _may_leave(leaver: TierScene, comer: TierScene, scene: Scene, rest: Rest) -> _Leave:
    """Return when a tier may be asked to leave for another."""
    if not comer.waiters and (leaver.eager or not comer.eager):
        return _Leave(inf, "keeps its place: nobody waits")
    if leaver.state is TierState.ASLEEP:
        return _Leave(-inf, "")
    swap_s = leaver.swaps.leave_s[rest] + comer.coming_s
    settled_s = leaver.since_s + swap_s if leaver.swapped_in else -inf
    if not comer.waiters:
        back_and_forth_s = swap_s + leaver.swaps.back_s[rest]
        idle_s = inf if leaver.busy else leaver.idle_since_s + back_and_forth_s
        return _Leave(max(settled_s, idle_s), "may be needed again")
    due = due_s(comer, scene.max_wait_s, swap_s)
    pressing = [one for one in comer.waiters if wants_now(one, comer, scene.now_s, scene.max_wait_s, swap_s)]
    if leaver.busy:
        ours = max((waiter.priority for waiter in leaver.waiters), default=0)
        if max((waiter.priority for waiter in pressing), default=ours) > ours:
            return _Leave(settled_s, "has only just come")
        count = leaver.in_flight + len(leaver.waiters)
        return _Leave(max(settled_s, due), f"has {count} {'thought' if count == 1 else 'thoughts'}")
    if pressing:
        return _Leave(settled_s, "has only just come")
    return _Leave(max(settled_s, due), "stays: what waits may wait")


def _resting(
    tier: TierScene, comer: TierScene | None, missing: Room, books: _Books, host_mib: float | None = None
) -> Rest:
    """Return how a tier had best rest: what leaving costs now, and coming back later, of what is possible.

    Args:
        missing: A kind of sleep that gives nothing of this back is no way to leave.
        host_mib: What its sleep may take of the host.
    """
    if tier.state is TierState.ASLEEP:
        return Rest.STOP
    host_mib = books.free.get(HOST, inf) if host_mib is None else host_mib
    possible = [Rest.STOP]
    for rest in tier.asleep:
        gives = _gives(tier, rest)
        # Its weights go to host memory, which must have room for them besides what it holds already.
        fits = -gives.get(HOST, 0.0) <= max(0.0, host_mib)
        if fits and (not missing or any(gives.get(device, 0.0) > 0 for device in missing)):
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


def _extra(tier: TierScene) -> dict[Device, float]:
    """Return what a tier at rest takes more of each device once it is up."""
    held = tier.holds
    return {device: max(0.0, mib - held.get(device, 0.0)) for device, mib in tier.awake.items()}


def _beside(tier: TierScene, other: TierScene) -> bool:
    """Return whether another has a process on a device that a tier runs on."""
    return other.name != tier.name and bool(other.holds) and bool(tier.turns & other.turns)


def _gives(tier: TierScene, rest: Rest) -> dict[Device, float]:
    """Return what a tier gives back of each device by such a rest; below 0 where it takes more."""
    after = {} if rest is Rest.STOP else tier.asleep.get(rest, {})
    held = tier.holds
    return {device: held.get(device, 0.0) - after.get(device, 0.0) for device in {*held, *after}}
