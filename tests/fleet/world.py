"""A machine in a simulation: tiers, their engines and memory, on a clock that jumps from event to event.

No process, no task: what ``Fleet`` does on an event loop is done here in turn, with the real schedule,
machine, costs of swaps, loans and order of the line. What engines do (how long, how much, whether they fail)
the test says. ``World`` mirrors ``Fleet`` step by step: change both.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import inf

from subcortex.errors import Cancelled, DoesNotFit, EngineFailed, Overloaded, SubcortexError
from subcortex.fleet import machine
from subcortex.fleet.gate import turn, waits_from_s
from subcortex.fleet.machine import Effect, Event, Life
from subcortex.fleet.room import Needs, Seen, missing, missing_to_sleep
from subcortex.fleet.scene import HOST, Device, Room, Scene, TierScene, Waiter, most
from subcortex.fleet.schedule import Come, Go, Schedule, Stay, schedule
from subcortex.fleet.swaps import SwapBook
from subcortex.fleet.yielding import Lending
from subcortex.types import Rest, TierState

ROOM_S, ROOM_POLL_S, NO_ROOM_PAUSE_S = 15.0, 0.5, 2.0
MOST_ROUNDS = 50
CLEAR_S = 2.0


@dataclass(frozen=True, eq=False)
class Spec:
    """One tier: what it holds awake and asleep (MiB by device), and how long its engine takes (seconds)."""

    name: str
    awake: Room
    asleep: Mapping[Rest, Room] = field(default_factory=dict)
    start_s: float = 30.0
    leave_s: Mapping[Rest, float] = field(default_factory=lambda: {Rest.STOP: 5.0})
    wake_s: Mapping[Rest, float] = field(default_factory=dict)
    eager: bool = False
    concurrent: int = 4
    max_waiting: int = 10_000
    restarts: int = 3
    rank: int = 0

    def back_s(self, rest: Rest) -> float:
        """Return how long it takes from a rest to ready."""
        return self.start_s if rest is Rest.STOP else self.wake_s[rest]


@cache
def gpus_of(spec: Spec) -> frozenset[Device]:
    """Return the GPUs a tier runs on."""
    return frozenset(device for device in spec.awake if device != HOST)


def turns_of(spec: Spec) -> frozenset[Device]:
    """Return the devices on which nobody else may start while it does."""
    return gpus_of(spec) or frozenset({HOST})


@dataclass(eq=False)
class Thought:
    """One thought and what became of it; times in seconds."""

    tier: str
    waiter: Waiter
    number: int
    answer_s: float
    patient: bool = True
    state: str = "waiting"
    entered_s: float | None = None
    ended_s: float | None = None
    error: SubcortexError | None = None
    #: Whether something but the schedule kept it from its tier: a failure, a loan, want of room.
    hindered: bool = False

    def waited_s(self, now_s: float) -> float:
        """Return how long it has waited, or did."""
        end_s = self.entered_s if self.entered_s is not None else self.ended_s
        return (now_s if end_s is None else end_s) - self.waiter.since_s


@dataclass(eq=False)
class Unit:
    """What ``Post``, ``Gate`` and ``Running`` keep of a tier, and what its process holds."""

    spec: Spec
    life: Life = field(default_factory=Life)
    line: list[Thought] = field(default_factory=list)
    inside: list[Thought] = field(default_factory=list)
    since_s: float = 0.0
    idle_since_s: float = 0.0
    mean_hold_s: float = 1.0
    not_before_s: float = -inf
    rested_s: float = -inf
    swapped_in: bool = False
    held: dict[Device, float] = field(default_factory=dict)
    clearing: bool = False
    begins: bool = False
    epoch: int = 0
    due: int = 0
    began_s: float = 0.0
    load_s: float | None = None
    #: Whether the next start, sleep or wake fails, and how.
    fails: list[SubcortexError | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.spec.name

    #: Whether thoughts are let in.
    open: bool = False


@dataclass
class World:
    """The machine and its fleet; ``decide`` is who decides, ``may_enter`` may hold a thought at the door."""

    specs: tuple[Spec, ...]
    total: Mapping[Device, float]
    reserve_mib: float = 400.0
    max_wait_s: float = 120.0
    late_s: float = 0.0
    decide: Callable[[Scene], Schedule] = schedule
    may_enter: Callable[[World, Thought], bool] = lambda world, thought: True
    check: Callable[[World], None] = lambda world: None
    yield_over_mib: float = 2048.0
    yield_back_s: float = 30.0
    look_every_s: float = 10.0

    def __post_init__(self) -> None:
        self.now_s = 0.0
        self.closing = False
        self.units = {spec.name: Unit(spec) for spec in self.specs}
        self.foreign: dict[Device, float] = {}
        self.late: list[tuple[Device, float]] = []
        self.thoughts: list[Thought] = []
        self.told: list[tuple[float, str, TierState, TierState]] = []
        self.swaps = SwapBook()
        self.lending = Lending()
        self.made = Schedule()
        #: Who was called in, and what held him back.
        self.called: list[tuple[str, str | None]] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._scheduling = self._again = self._unsettled = False
        self._timer = 0
        self.timer_s: float | None = None
        for spec in self.specs:
            self.swaps.nominal(spec.name, spec.start_s)
        self.seen, self.seen_s = self._look_now(), 0.0
        self.after(self.look_every_s, self._look)

    # The clock.

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        """Have something happen later."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._numbers), do))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, do = heapq.heappop(self._events)
            do()
            self.check(self)
        self.now_s = end_s

    # What people do.

    def open(self) -> None:
        """Have every eager tier come up."""
        self._reschedule()
        self.check(self)

    def think(
        self,
        tier: str,
        answer_s: float = 1.0,
        priority: int = 0,
        deadline_s: float | None = None,
        wait_s: float | None = None,
        patient: bool = True,
    ) -> Thought:
        """Have a thought, as ``Fleet.lease`` does."""
        unit = self.units[tier]
        latest_s = None if deadline_s is None else self.now_s + deadline_s
        waiter = Waiter(self.now_s, priority, latest_s, wait_s)
        thought = Thought(tier, waiter, next(self._numbers), answer_s, patient)
        self.thoughts.append(thought)
        if self.closing:
            self._end(thought, "refused", Cancelled("closing"))
        elif not patient and unit.life.state is TierState.BACKING_OFF:
            self._end(thought, "refused", unit.life.error)
        elif not patient and not unit.open and self.held_back(unit):
            self._end(thought, "refused", Overloaded("lent"))
        elif len(unit.line) >= unit.spec.max_waiting:
            self._end(thought, "refused", Overloaded("full"))
        else:
            was_ready = unit.open
            unit.line.append(thought)
            self.admit(unit)
            if not was_ready:
                self._apply(unit, machine.Wanted())
                self._reschedule()
        self.check(self)
        return thought

    def cancel(self, thought: Thought) -> None:
        """Have whoever asked go away."""
        unit = self.units[thought.tier]
        if thought.state == "waiting":
            unit.line.remove(thought)
            self._end(thought, "cancelled")
            if not unit.open:
                self._reschedule()
        elif thought.state == "inside":
            self._leave(thought, "cancelled")
        self.check(self)

    def lend(self, gpus: list[int] | None, for_s: float | None) -> None:
        """Lend GPUs to somebody."""
        self.lending = self.lending.lend(gpus, inf if for_s is None else self.now_s + for_s)
        self._reschedule()
        self.check(self)

    def take_back(self) -> None:
        """Take back what was lent."""
        self.lending = self.lending.take_back()
        self._reschedule()
        self.check(self)

    def foreign_uses(self, device: Device, mib: float) -> None:
        """Have another program hold so much of a device, as far as there is room."""
        room = self.free(device) + self.foreign.get(device, 0.0)
        self.foreign[device] = max(0.0, min(mib, room))

    def die(self, tier: str) -> None:
        """Have an engine die."""
        unit = self.units[tier]
        if unit.life.state in (TierState.READY, TierState.DRAINING, TierState.ASLEEP, TierState.SLEEPING):
            self._fails(unit, EngineFailed("died"))
        self.check(self)

    def close(self) -> None:
        """Close; what is under way comes to its end as time passes."""
        self.closing = True
        for unit in self.units.values():
            self._apply(unit, machine.StopAsked(closing=True))

    # The machine's memory.

    def free(self, device: Device) -> float:
        """Return what nobody holds of a device, MiB; below 0 where more is held than there is."""
        ours = sum(unit.held.get(device, 0.0) for unit in self.units.values())
        late = sum(mib for where, mib in self.late if where == device)
        return self.total[device] - self.foreign.get(device, 0.0) - ours - late

    def _look_now(self) -> Seen:
        free = {device: max(0.0, self.free(device) - self.reserve_mib) for device in self.total}
        ours = {device: sum(u.held.get(device, 0.0) for u in self.units.values()) for device in self.total}
        offered = {device: free[device] + ours[device] for device in self.total}
        return Seen(free, offered, {device: self.foreign.get(device, 0.0) for device in self.total})

    def _look_was(self, seen: Seen) -> None:
        self.seen, self.seen_s = seen, self.now_s
        before, look = self.lending.taken, self.lending.look
        self.lending = look(self.now_s, seen.foreign, self.yield_over_mib, self.yield_back_s)
        if self.lending.taken.keys() != before.keys():
            self._reschedule()

    def _look(self) -> None:
        if self.closing:
            return
        self.after(self.look_every_s, self._look)
        if not any(unit.life.state in machine.COMING for unit in self.units.values()):
            self._look_was(self._look_now())
            self._reschedule()

    def _hold(self, unit: Unit, now: Room) -> None:
        """Have a tier's processes hold this; what they give back shows as free a little later."""
        for device in {*unit.held, *now}:
            more = now.get(device, 0.0) - unit.held.get(device, 0.0)
            if more < 0 and self.late_s > 0:
                entry = (device, -more)
                self.late.append(entry)
                self.after(self.late_s, lambda entry=entry: self.late.remove(entry))  # type: ignore[misc]
        unit.held = dict(now)

    # What Fleet does.

    def held_back(self, unit: Unit) -> str | None:
        return self.lending.why(gpus_of(unit.spec), self.now_s)

    def scene(self) -> Scene:
        tiers = tuple(self._tier_scene(unit) for unit in self.units.values())
        return Scene(self.now_s, tiers, self.seen.offered, self.max_wait_s, self.seen_s)

    def _tier_scene(self, unit: Unit) -> TierScene:
        spec, life = unit.spec, unit.life
        return TierScene(
            name=spec.name,
            rank=spec.rank,
            state=life.state,
            rest=life.rest,
            since_s=unit.since_s,
            idle_since_s=max(unit.idle_since_s, unit.since_s),
            in_flight=len(unit.inside),
            waiters=tuple(thought.waiter for thought in unit.line),
            eager=spec.eager,
            wanted=life.wanted,
            swapped_in=unit.swapped_in,
            awake=spec.awake,
            asleep=spec.asleep,
            swaps=self.swaps.swaps(spec.name, unit.mean_hold_s),
            remains=(unit.clearing or unit.begins)
            and life.state in (TierState.BACKING_OFF, TierState.FAILED, TierState.STOPPED),
            held_back=self.held_back(unit),
            not_before_s=unit.not_before_s,
            alone=life.alone,
            turns=turns_of(spec),
            rested_s=unit.rested_s,
        )

    def _apply(self, unit: Unit, event: Event) -> None:
        before = unit.life
        outcome = machine.step(before, event, self.now_s, unit.spec.restarts)
        unit.life = outcome.life
        if unit.life.state is not before.state:
            self._learn(unit, before)
            self.told.append((self.now_s, unit.name, before.state, unit.life.state))
            unit.since_s = self.now_s
            if machine.comes_to_rest(before.state, unit.life.state):
                unit.rested_s = self.now_s
        unit.open = unit.life.state is TierState.READY and not self.held_back(unit)
        if isinstance(event, machine.NoRoom):
            if before.state in machine.COMING:
                unit.not_before_s = self.now_s + NO_ROOM_PAUSE_S
            self._hinder(unit)
        for effect in outcome.effects:
            self._do(unit, effect)
        if unit.life.state is TierState.DRAINING and not unit.inside:
            self._apply(unit, machine.Drained())
        elif unit.life.state is not before.state:
            self._reschedule()

    def _learn(self, unit: Unit, before: Life) -> None:
        seconds = self.now_s - unit.since_s
        match before.state, unit.life.state:
            case TierState.STARTING, TierState.READY if unit.load_s is not None:
                self.swaps.came(unit.name, Rest.STOP, unit.load_s)
            case TierState.WAKING, TierState.READY if before.rest is not None:
                self.swaps.came(unit.name, before.rest, seconds)
            case TierState.SLEEPING, TierState.ASLEEP if unit.life.rest is not None:
                self.swaps.left(unit.name, unit.life.rest, seconds)
            case TierState.STOPPING, TierState.STOPPED:
                self.swaps.left(unit.name, Rest.STOP, seconds)

    def _do(self, unit: Unit, effect: Effect) -> None:
        match effect:
            case Effect.START:
                unit.begins = True
                if not unit.clearing:
                    self._begin(unit)
            case Effect.STOP:
                self._stop(unit)
            case Effect.SLEEP:
                self._sleep(unit)
            case Effect.WAKE:
                self._with_room(unit, self.now_s + ROOM_S, lambda: self._wake(unit))
            case Effect.SCHEDULE:
                self._hinder(unit)
                unit.due += 1
                unit.not_before_s = self.now_s + unit.life.delay_s
                self.after(unit.life.delay_s, lambda due=unit.due: self._is_due(unit, due))  # type: ignore[misc]
                if unit.life.error:
                    self._refuse(unit, unit.life.error, patient_too=False)
            case Effect.ADMIT:
                self.admit(unit)
            case Effect.REFUSE:
                unit.due += 1
                self._refuse(unit, unit.life.error or Cancelled("stopping"), patient_too=True)

    def _is_due(self, unit: Unit, due: int) -> None:
        if due == unit.due:
            self._apply(unit, machine.Due())

    def _reschedule(self) -> None:
        self._again = True
        if self._scheduling or self.closing:
            return
        self._scheduling = True
        try:
            for _ in range(MOST_ROUNDS):
                if not self._again:
                    break
                self._again = False
                self.made = self.decide(self.scene())
                self._carry_out(self.made)
            else:
                raise AssertionError("the schedule does not settle")
        finally:
            self._scheduling = False
        draining = any(unit.life.state is TierState.DRAINING for unit in self.units.values())
        self._unsettled = bool(self.made.waits) or draining
        self._timer += 1
        self.timer_s = self.made.next_look_s(self.now_s, self.max_wait_s, self.lending.ends_s(self.now_s))
        if self.timer_s is not None:
            delay_s = max(0.0, self.timer_s - self.now_s) + 0.001
            self.after(delay_s, lambda timer=self._timer: self._timed(timer))  # type: ignore[misc]

    def _timed(self, timer: int) -> None:
        if timer == self._timer:
            self._reschedule()

    def _carry_out(self, made: Schedule) -> None:
        for move in made.moves:
            unit = self.units[move.tier]
            match move:
                case Come():
                    self.called.append((unit.name, self.held_back(unit)))
                    asleep = unit.life.state is TierState.ASLEEP
                    self._apply(unit, machine.Wake() if asleep else machine.Start())
                case Go(rest=rest, room_for=room_for):
                    if room_for is not None:
                        self.units[room_for].swapped_in = True
                    unit.swapped_in = False
                    self._apply(unit, machine.Leave(rest))
                case Stay():
                    self._apply(unit, machine.Recall())
        for name in made.hopeless:
            self._refuse(self.units[name], DoesNotFit("too small"), patient_too=True)
        for name in made.waits:
            unit = self.units[name]
            if self.held_back(unit):
                self._hinder(unit)
                self._refuse(unit, Overloaded("lent"), patient_too=False)
            if self.now_s - unit.rested_s >= self.longest_s(unit):
                late = Overloaded("has not come up")
                self._refuse(unit, late, patient_too=True, older_than_s=self.longest_s(unit))

    def longest_s(self, unit: Unit) -> float:
        return 2 * self.max_wait_s + self.swaps.swaps(unit.name).back_s[Rest.STOP]

    def _hinder(self, unit: Unit) -> None:
        # Who fails or cannot come takes the time of those who wait for his room, too.
        for one in self.units.values():
            for thought in one.line:
                thought.hindered = True

    def admit(self, unit: Unit) -> None:
        while unit.open and len(unit.inside) < unit.spec.concurrent:
            may = [thought for thought in unit.line if self.may_enter(self, thought)]
            if not may:
                return
            first = min(may, key=lambda one: turn(one.waiter, one.number, self.now_s, self.max_wait_s))
            unit.line.remove(first)
            unit.inside.append(first)
            first.state, first.entered_s = "inside", self.now_s
            self.after(first.answer_s, lambda first=first: self._leave(first, "done"))  # type: ignore[misc]

    def _leave(self, thought: Thought, state: str, error: SubcortexError | None = None) -> None:
        unit = self.units[thought.tier]
        if thought.state != "inside":
            return
        unit.inside.remove(thought)
        assert thought.entered_s is not None
        unit.mean_hold_s += 0.2 * (self.now_s - thought.entered_s - unit.mean_hold_s)
        self._end(thought, state, error)
        self.admit(unit)
        unit.idle_since_s = self.now_s
        if self._unsettled and not unit.inside:
            self._apply(unit, machine.Drained())
            self._reschedule()

    def _end(self, thought: Thought, state: str, error: SubcortexError | None = None) -> None:
        assert (error is not None) == (state in ("refused", "failed"))
        thought.state, thought.error, thought.ended_s = state, error, self.now_s

    def _refuse(
        self, unit: Unit, error: SubcortexError, *, patient_too: bool, older_than_s: float = 0.0
    ) -> None:
        for thought in list(unit.line):
            old = waits_from_s(thought.waiter) <= self.now_s - older_than_s if older_than_s else True
            if (patient_too or not thought.patient) and old:
                unit.line.remove(thought)
                self._end(thought, "refused", error)

    # What Running and the engine do.

    def _then(self, unit: Unit, delay_s: float, do: Callable[[], None]) -> None:
        epoch = unit.epoch

        def still() -> None:
            if epoch == unit.epoch:
                do()

        self.after(delay_s, still)

    def _begin(self, unit: Unit) -> None:
        unit.begins = False
        self._with_room(unit, self.now_s + ROOM_S, lambda: self._boot(unit))

    def _with_room(self, unit: Unit, until_s: float, do: Callable[[], None]) -> None:
        seen = self._look_now()
        self._look_was(seen)
        if not missing(Needs(unit.spec.awake, unit.spec.asleep), unit.life.rest, seen):
            do()
        elif self.now_s >= until_s:
            self._apply(unit, machine.NoRoom())
        else:
            self._then(unit, ROOM_POLL_S, lambda: self._with_room(unit, until_s, do))

    def _boot(self, unit: Unit) -> None:
        unit.began_s = self.now_s
        self._hold(unit, unit.spec.awake)
        self._then(unit, unit.spec.start_s, lambda: self._come(unit))

    def _wake(self, unit: Unit) -> None:
        assert unit.life.rest is not None
        self._hold(unit, most(unit.spec.awake, unit.spec.asleep[unit.life.rest]))
        self._then(unit, unit.spec.wake_s[unit.life.rest], lambda: self._come(unit))

    def _come(self, unit: Unit) -> None:
        if error := unit.fails.pop(0) if unit.fails else None:
            self._fails(unit, error)
            return
        if unit.life.state is TierState.STARTING:
            unit.load_s = self.now_s - unit.began_s
        self._hold(unit, unit.spec.awake)
        self._apply(unit, machine.Ready())

    def _sleep(self, unit: Unit) -> None:
        rest = unit.life.rest
        assert rest is not None
        seen = self._look_now()
        self._look_was(seen)
        if missing_to_sleep(Needs(unit.spec.awake, unit.spec.asleep), rest, seen):
            self._apply(unit, machine.NoRoom())
            return
        self._hold(unit, most(unit.spec.awake, unit.spec.asleep[rest]))
        self._then(unit, unit.spec.leave_s[rest], lambda: self._slept(unit, rest))

    def _slept(self, unit: Unit, rest: Rest) -> None:
        if error := unit.fails.pop(0) if unit.fails else None:
            self._fails(unit, error)
            return
        self._hold(unit, unit.spec.asleep[rest])
        self._apply(unit, machine.Slept())

    def _fails(self, unit: Unit, error: SubcortexError) -> None:
        unit.epoch += 1
        unit.clearing = True
        crowded = any(other.held for other in self.units.values() if other is not unit)
        self._apply(unit, machine.Failed(error, crowded))
        for thought in list(unit.inside):
            self._leave(thought, "failed", error)
        self.after(CLEAR_S, lambda: self._cleared(unit))

    def _cleared(self, unit: Unit) -> None:
        unit.clearing = False
        self._hold(unit, {})
        if unit.begins:
            if unit.life.state is TierState.STARTING:
                self._begin(unit)
            else:
                unit.begins = False
                self._apply(unit, machine.Stopped())
        self._reschedule()

    def _stop(self, unit: Unit) -> None:
        if unit.clearing:
            return
        unit.epoch += 1
        unit.begins = False
        self._then(unit, unit.spec.leave_s[Rest.STOP], lambda: self._stopped(unit))

    def _stopped(self, unit: Unit) -> None:
        self._hold(unit, {})
        for thought in list(unit.inside):
            self._leave(thought, "failed", EngineFailed("stopped"))
        self._apply(unit, machine.Stopped())
