"""The fleet: the one owner of every engine's state.

All changes go through ``_apply``, which takes an event, asks the pure machine what follows, and does it;
after each the pure schedule is asked who is to come and to go. Neither ever awaits, so on the event loop each
change is whole before anybody else looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from subcortex.clock import Clock, SystemClock
from subcortex.engines.protocol import Engine
from subcortex.errors import SubcortexError
from subcortex.fleet import machine, refusals
from subcortex.fleet.forecast import forecast
from subcortex.fleet.gate import Gate
from subcortex.fleet.grounds import Grounds, Rules
from subcortex.fleet.machine import COMING, LEAVING, Effect, Event
from subcortex.fleet.post import Member, Post, TierLoad
from subcortex.fleet.room import Memory, Seen
from subcortex.fleet.running import BootWatch, Running, Ties, Timing
from subcortex.fleet.scene import Device, Scene, Waiter
from subcortex.fleet.schedule import Come, Go, Schedule, Stay, schedule
from subcortex.fleet.swaps import SwapBook
from subcortex.fleet.trees import Tree, trees
from subcortex.types import Rest, TierState, TierStatus

#: A tier for which no room showed is not tried again for so long, seconds.
_NO_ROOM_PAUSE_S = 2.0
#: Between looks at an engine that a thought could not reach, seconds.
_DOUBT_POLL_S = 0.02
#: Moves that one change may lead to before the fleet looks up.
_MOST_ROUNDS = 50

#: Told of every change: tier, kind (``ready``, ``failed``, …), facts.
Listener = Callable[[str, str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Lease:
    """A place in a ready engine, with what it took to get it (seconds)."""

    engine: Engine
    queued_s: float
    load_s: float


class Fleet:
    """Starts, watches, swaps, restarts and stops the engines of all tiers.

    Args:
        members: From least to most capable.
        on_change: Told of every change of state, at once and on the loop.
        watch: Told of every start, before and after.
        memory: Knows what tiers need and what the machine has; None: there is room for all.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        on_change: Listener | None = None,
        watch: BootWatch | None = None,
        memory: Memory | None = None,
        rules: Rules | None = None,
        timing: Timing | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._rules = rules or Rules()
        self._grounds = Grounds(memory, self._rules, self._clock)
        self._timing = timing or Timing()
        self._on_change = on_change or (lambda tier, kind, facts: None)
        self.swaps = SwapBook()
        self._posts = {member.name: self._post(member, watch) for member in members}
        self._prepared = memory is None
        self._closing = False
        self._scheduling = False
        self._again = False
        #: Whether any tier that is not ready has thoughts waiting, or one is about to leave.
        self._unsettled = False
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("fleet")

    def _post(self, member: Member, watch: BootWatch | None) -> Post:
        now = self._clock.monotonic_s
        gate = Gate(member.name, member.max_concurrent, member.max_waiting, now, self._rules.max_wait_s)
        post = Post(member, gate, since_s=now())
        ties = Ties(
            apply=lambda event: self._apply(post, event),
            tell=lambda kind, facts: self._tell(post, kind, facts),
            at_work=lambda: post.gate.in_flight,
            missing=lambda seen: self._grounds.missing(post, seen),
            crowded=lambda: self._crowded(post),
            seen=self._grounds.saw,
            gone=self._reschedule,
        )
        post.running = Running(
            member.name,
            member.engine,
            post.progress,
            ties,
            clock=self._clock,
            timing=self._timing,
            memory=self._grounds.memory if member.local else None,
            watch=watch,
        )
        if member.start_s is not None:
            self.swaps.nominal(member.name, member.start_s)
        return post

    def open(self) -> None:
        """Have every eager tier come up; returns at once."""
        self._looking = asyncio.create_task(self._look(), name="fleet looks")
        for post in self._posts.values():
            if self._rules.adopt and post.member.local:
                self._apply(post, machine.Adopt())
        self._reschedule()

    async def close(self) -> None:
        """Stop every engine and return when all process trees are gone."""
        self._closing = True
        for post in self._posts.values():
            self._apply(post, machine.StopAsked(closing=True))
        if self._timer:
            self._timer.cancel()
        if self._looking:
            self._looking.cancel()
        tasks = [task for post in self._posts.values() if (task := post.running.task)]
        await asyncio.gather(*tasks, *([self._looking] if self._looking else ()), return_exceptions=True)

    def want(self, tier: str) -> None:
        """Have a tier come up where that drives nobody out."""
        self._apply(self._posts[tier], machine.Wanted())
        self._reschedule()

    def make_way(self, for_s: float | None, gpus: list[int] | None) -> None:
        """Lend GPUs to somebody else: tiers there rest until then, or until ``resume``.

        Args:
            for_s: Seconds; None for as long as it takes.
            gpus: By NVML's index; None for all tiers that run here.
        """
        self._grounds.make_way(for_s, gpus)
        self._reschedule()

    def resume(self) -> None:
        """Take back what ``make_way`` lent."""
        self._grounds.resume()
        self._reschedule()

    def lend_to(self, holder: str, gpus: list[int] | None) -> None:
        """Have tiers rest for a part of this program, until ``give_back``; as ``make_way``."""
        self._grounds.lend_to(holder, gpus)
        self._reschedule()

    def give_back(self, holder: str) -> None:
        """End what ``lend_to`` lent."""
        self._grounds.give_back(holder)
        self._reschedule()

    def lent(self, gpus: frozenset[int], *, aside: str) -> str | None:
        """Return why these GPUs are somebody else's than ``aside``'s, in words; None if they are not."""
        return self._grounds.lending.why(gpus, self._clock.monotonic_s(), aside=aside)

    def up_on(self, gpus: frozenset[int] | None) -> list[str]:
        """Return the tiers that run here and are not at rest: on these GPUs, or (None) on any device."""
        busy = machine.UP | COMING | LEAVING
        return [
            post.name
            for post in self._posts.values()
            if post.member.local
            and post.life.state in busy
            and post.life.state is not TierState.ASLEEP
            and (gpus is None or not (needs := self._grounds.needs(post)).awake or needs.gpus & gpus)
        ]

    async def look(self) -> Seen:
        """Look at the machine now; nothing is in it where nobody knows its memory."""
        await self._grounds.look()
        return self._grounds.seen

    @asynccontextmanager
    async def lease(
        self,
        tier: str,
        priority: int = 0,
        *,
        patient: bool = True,
        deadline_s: float | None = None,
        wait_s: float | None = None,
    ) -> AsyncIterator[Lease]:
        """Hold a place in a ready engine, having it started or woken first if need be.

        Args:
            tier: Which one.
            priority: Higher goes first.
            patient: Wait for a tier that died, or whose GPU is lent, to come back; else leave at once.
            deadline_s: When the answer must be complete, in seconds from now.
            wait_s: How long it may wait for a swap that serves others too; None: it is wanted now.

        Raises:
            SubcortexError: Why the tier cannot serve (its start failed, its queue is full, …).
        """
        post = self._posts[tier]
        queued_s = load_s = 0.0
        if not post.gate.try_enter():
            now_s = self._clock.monotonic_s()
            waiter = Waiter(now_s, priority, None if deadline_s is None else now_s + deadline_s, wait_s)
            queued_s, load_s = await self._wait(post, waiter, patient)
        entered_s = self._clock.monotonic_s()
        try:
            yield Lease(post.member.engine, queued_s, load_s)
            post.served += 1
        finally:
            left_s = self._clock.monotonic_s()
            post.gate.held(left_s - entered_s)
            post.gate.leave()
            post.idle_since_s = left_s
            if self._unsettled and not post.gate.in_flight:
                self._apply(post, machine.Drained())
                self._reschedule()

    async def _wait(self, post: Post, waiter: Waiter, patient: bool) -> tuple[float, float]:
        began_s = waiter.since_s
        if not patient and (error := self._reason(post)):
            raise type(error)(error.message, hint=error.hint, **error.details)
        was_ready = post.life.state is TierState.READY
        admitted = post.gate.join(waiter, patient=patient)
        if not was_ready:
            self._apply(post, machine.Wanted())
            self._reschedule()
        try:
            await post.gate.entered(admitted)
        except BaseException:
            if not self._closing and not (was_ready and post.life.state is TierState.READY):
                # Perhaps he was let in and was the last; perhaps nobody waits, and who makes room may stay.
                if not post.gate.in_flight:
                    self._apply(post, machine.Drained())
                self._reschedule()
            raise
        waited_s = self._clock.monotonic_s() - began_s
        if was_ready:
            return waited_s, 0.0
        ready_s = min(waited_s, max(0.0, post.since_s - began_s))
        return waited_s - ready_s, ready_s

    def _reason(self, post: Post) -> SubcortexError | None:
        """Return why a thought with another tier to go to should go there now."""
        if post.life.state is TierState.BACKING_OFF:
            return post.life.error
        why = self._grounds.held_back(post)
        return refusals.lent(post.name, why) if why and post.life.state is not TierState.READY else None

    async def doubted(self, tier: str, limit_s: float = 3.0) -> None:
        """Return once it is known whether an engine that could not be reached is dead, or after a while."""
        post, until_s = self._posts[tier], self._clock.monotonic_s() + limit_s
        while post.life.state is TierState.READY and self._clock.monotonic_s() < until_s:
            if await post.member.engine.healthy():
                return
            await asyncio.sleep(_DOUBT_POLL_S)

    def loads(self) -> list[TierLoad]:
        """Return what a decision needs of every tier, from least to most capable; cheap."""
        scene: Scene | None = None
        found = []
        for name, post in self._posts.items():
            comes_s, leaves = 0.0, tuple[str, ...]()
            if post.life.state is not TierState.READY:
                scene = scene or self._scene()
                comes_s, leaves = (told := forecast(scene, name)).wait_s, told.leaves
            gate = post.gate
            load = TierLoad(
                name, post.member.rank, post.life.state, gate.in_flight, gate.waiting, comes_s, leaves
            )
            found.append(load)
        return found

    def state(self, tier: str) -> TierState:
        """Return where a tier's engine is in its life; KeyError for an unknown tier."""
        return self._posts[tier].life.state

    def counted(self) -> dict[Device, float]:
        """Return what is reckoned to be held of each device by all tiers together, MiB."""
        held: dict[Device, float] = {}
        for tier in self._scene().tiers:
            for device, mib in tier.holds.items():
                held[device] = held.get(device, 0.0) + mib
        return held

    def states(self) -> dict[str, TierState]:
        """Return where every tier's engine is in its life."""
        return {name: post.life.state for name, post in self._posts.items()}

    def status(self) -> list[TierStatus]:
        """Return every tier as it is now, from least to most capable."""
        now_s = self._clock.monotonic_s()
        return [post.status(now_s) for post in self._posts.values()]

    def trees(self) -> dict[str, Tree]:
        """Return the process tree of every engine that has one; reads ``/proc`` once."""
        infos = {name: post.member.engine.process for name, post in self._posts.items()}
        roots = {name: info.pid for name, info in infos.items() if info is not None}
        found = trees(roots.values())
        return {name: found[pid] for name, pid in roots.items() if pid in found}

    def log_tail(self, tier: str, lines: int) -> str:
        """Return the end of an engine's log; KeyError for an unknown tier."""
        return self._posts[tier].member.engine.log_tail(lines)

    def listen(self, tier: str, listener: Callable[[str], None]) -> Callable[[], None]:
        """Have ``listener`` told how a tier's start proceeds; returns what ends that."""
        listeners = self._posts[tier].progress.listeners
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    def _apply(self, post: Post, event: Event) -> None:
        before, now_s = post.life, self._clock.monotonic_s()
        outcome = machine.step(before, event, now_s, post.member.max_restarts)
        post.life = outcome.life
        if post.life.state is not before.state:
            self._learn(post, before, now_s - post.since_s)
            # To look for what a former daemon left, and find nothing, is no news.
            looking = isinstance(event, machine.Adopt | machine.Stopped) and TierState.STARTING in (
                before.state,
                post.life.state,
            )
            if not looking:
                self._announce(post, before, now_s - post.since_s)
            post.since_s = now_s
            if machine.comes_to_rest(before.state, post.life.state):
                post.rested_s = now_s
        if isinstance(event, machine.NoRoom) and before.state in machine.COMING:
            post.not_before_s = now_s + _NO_ROOM_PAUSE_S
        # Who becomes ready on a GPU that was lent meanwhile goes to rest before anybody is let in.
        post.gate.open = post.life.state is TierState.READY and not self._grounds.held_back(post)
        for effect in outcome.effects:
            self._do(post, effect)
        if post.life.state is TierState.DRAINING and not post.gate.in_flight:
            self._apply(post, machine.Drained())
        elif post.life.state is not before.state:
            self._reschedule()

    def _learn(self, post: Post, before: machine.Life, seconds: float) -> None:
        match before.state, post.life.state:
            case TierState.STARTING, TierState.READY if post.running.load_s is not None:
                self.swaps.came(post.name, Rest.STOP, post.running.load_s)
            case TierState.WAKING, TierState.READY if before.rest is not None:
                self.swaps.came(post.name, before.rest, seconds)
            case TierState.SLEEPING, TierState.ASLEEP if post.life.rest is not None:
                first = post.life.rest not in post.running.slept
                self.swaps.left(post.name, post.life.rest, seconds, first=first)
            case TierState.STOPPING, TierState.STOPPED:
                self.swaps.left(post.name, Rest.STOP, seconds)

    def _announce(self, post: Post, before: machine.Life, seconds: float) -> None:
        life = post.life
        facts: dict[str, Any] = {"was": str(before.state), "was_for_s": round(seconds, 3)}
        if life.error and life.state in (TierState.BACKING_OFF, TierState.FAILED):
            facts["error"] = life.error.message
        if life.rest is not None:
            facts["rest"] = str(life.rest)
        if post.why:
            facts["why"], post.why = post.why, None
        if life.state is TierState.READY:
            facts["version"] = post.member.engine.version
            if before.state is TierState.STARTING:
                facts["load_s"] = post.running.load_s
            elif before.state is TierState.WAKING:
                facts["wake_s"], facts["rest"] = round(seconds, 3), str(before.rest)
                if woke := post.running.woke:
                    facts["engine_s"] = round(woke.engine_s, 3)
                    facts["canary_s"] = round(woke.canary_s, 3)
        self._tell(post, str(life.state), facts)

    def _tell(self, post: Post, kind: str, facts: dict[str, Any]) -> None:
        self._log.info("tier", tier=post.name, state=kind, **facts)
        self._on_change(post.name, kind, facts)

    def _do(self, post: Post, effect: Effect) -> None:
        match effect:
            case Effect.START | Effect.ADOPT:
                post.running.begin(adopt=effect is Effect.ADOPT)
            case Effect.STOP:
                post.running.end()
            case Effect.SLEEP:
                post.running.order(post.life.rest)
            case Effect.WAKE:
                post.running.order(None)
            case Effect.SCHEDULE:
                loop = asyncio.get_running_loop()
                post.timer = loop.call_later(post.life.delay_s, self._apply, post, machine.Due())
                post.not_before_s = self._clock.monotonic_s() + post.life.delay_s
                if post.life.error:
                    post.gate.refuse(post.life.error, patient_too=False)
            case Effect.ADMIT:
                post.gate.admit()
            case Effect.REFUSE:
                if post.timer:
                    post.timer.cancel()
                post.gate.refuse(post.life.error or refusals.stopping(post.name), patient_too=True)

    def _scene(self) -> Scene:
        now_s = self._clock.monotonic_s()
        grounds, tiers = self._grounds, []
        known = frozenset(grounds.seen.offered)
        for post in self._posts.values():
            swaps = self.swaps.swaps(
                post.name,
                post.gate.mean_hold_s,
                slept=post.running.slept,
                pins_mib=grounds.pins_mib(post),
            )
            tiers.append(post.scene(grounds.needs(post), known, swaps, grounds.held_back(post)))
        return Scene(now_s, tuple(tiers), grounds.seen.offered, self._rules.max_wait_s, grounds.seen_s)

    def _reschedule(self) -> None:
        """Ask the schedule what to do, until it has nothing more to say."""
        self._again = True
        if self._scheduling or self._closing or not self._prepared:
            return
        self._scheduling = True
        try:
            for _ in range(_MOST_ROUNDS):
                if not self._again:
                    break
                self._again = False
                made = schedule(self._scene())
                self._carry_out(made)
            else:
                self._log.error("the schedule does not settle")
        finally:
            self._scheduling = False
        self._unsettled = bool(made.waits) or any(
            post.life.state is TierState.DRAINING for post in self._posts.values()
        )
        self._look_again(made)

    def _carry_out(self, made: Schedule) -> None:
        for post in self._posts.values():
            post.waits_for = made.waits.get(post.name)
        for move in made.moves:
            post = self._posts[move.tier]
            match move:
                case Come():
                    asleep = post.life.state is TierState.ASLEEP
                    self._apply(post, machine.Wake() if asleep else machine.Start())
                case Go(rest=rest, why=why, room_for=room_for):
                    post.why = why
                    if room_for is not None:
                        self._posts[room_for].swapped_in = True
                    post.swapped_in = False
                    self._apply(post, machine.Leave(rest))
                case Stay():
                    self._apply(post, machine.Recall())
        for name, shortage in made.hopeless.items():
            self._posts[name].waits_for = "it does not fit"
            refusal = refusals.too_small(name, shortage, self._grounds.seen)
            self._posts[name].gate.refuse(refusal, patient_too=True)
        for name, why in made.waits.items():
            post = self._posts[name]
            if self._grounds.held_back(post):
                post.gate.refuse(refusals.lent(name, why), patient_too=False)
            self._send_away(post, why)

    def _send_away(self, post: Post, why: str) -> None:
        """Tell those who have waited twice as long as anybody should that the tier does not come."""
        longest_s = 2 * self._rules.max_wait_s + self.swaps.swaps(post.name).back_s[Rest.STOP]
        if self._clock.monotonic_s() - post.rested_s < longest_s:
            return
        error = refusals.never_came(post.name, longest_s, why, self._rules.max_wait_s)
        post.gate.refuse(error, patient_too=True, older_than_s=longest_s)

    def _look_again(self, made: Schedule) -> None:
        now_s = self._clock.monotonic_s()
        at_s = made.next_look_s(now_s, self._rules.max_wait_s, self._grounds.lending.ends_s(now_s))
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if at_s is not None:
            # A timer that fires a moment early would find nothing to do.
            delay_s = max(0.0, at_s - now_s) + 0.001
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._reschedule)

    def _crowded(self, post: Post) -> bool:
        """Return whether others hold memory of a tier's devices, or of which is not known."""
        mine = self._grounds.needs(post).awake.keys()
        for other in self._posts.values():
            if other is post or not other.member.local:
                continue
            if other.life.state not in machine.UP and other.life.state is not TierState.ASLEEP:
                continue
            theirs = self._grounds.needs(other).awake.keys()
            if not mine or not theirs or mine & theirs:
                return True
        return False

    async def _look(self) -> None:
        """Find out what tiers need, then look at the machine from time to time."""
        if self._grounds.memory is None:
            return
        try:
            await self._grounds.prepare()
        except Exception:
            self._log.exception("nothing is known of memory")
        self._prepared = True
        self._reschedule()
        while True:
            await asyncio.sleep(self._timing.look_every_s)
            with suppress(SubcortexError, OSError):
                calm = self.calm()
                await self._grounds.look()
                if calm and self.calm():
                    self._grounds.lend()
                self._reschedule()

    def calm(self) -> bool:
        """Return whether nothing of ours comes, goes or is being cleared away."""
        moving = COMING | LEAVING
        return not any(
            post.life.state in moving or (post.running.remains and post.life.state not in machine.UP)
            for post in self._posts.values()
            if post.life.state is not TierState.ASLEEP
        )
