"""The fleet: the one owner of every engine's state.

All changes go through ``_apply``, which takes an event, asks the pure machine what follows, and does it.
It never awaits, so on the event loop each change is whole before anybody else looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import structlog

from subcortex.clock import Clock, SystemClock
from subcortex.engines.protocol import Engine, Progress
from subcortex.errors import Cancelled, EngineFailed, SubcortexError
from subcortex.fleet import machine
from subcortex.fleet.gate import Gate
from subcortex.fleet.machine import Effect, Event, Life
from subcortex.fleet.trees import Tree, trees
from subcortex.types import TierState, TierStatus

#: How long an engine may take to end when asked, seconds; and what is left of one that died.
_GRACE_S = 10.0
_GRACE_AFTER_DEATH_S = 2.0
#: How often a running engine is looked at, seconds, and how often it may miss before it counts as hung.
_LOOK_EVERY_S = 10.0
_MISSES = 3
#: How long the start of an engine may wait for whoever watches starts, seconds.
_WATCH_S = 10.0

#: Told of every change: tier, kind (``ready``, ``failed``, …), facts.
Listener = Callable[[str, str, dict[str, Any]], None]


class BootWatch(Protocol):
    """Told of every start. What goes wrong in it is logged and stops no engine."""

    async def began(self, tier: str) -> None:
        """Look at the machine as it is before the engine starts; no other start is under way."""
        ...

    async def ended(self, tier: str, error: SubcortexError | None) -> None:
        """The engine is ready, or its start failed with ``error``; what its log said is still there."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A tier's engine and the limits it runs under."""

    name: str
    rank: int
    engine: Engine
    eager: bool
    max_restarts: int
    max_concurrent: int
    max_waiting: int


class TierLoad(NamedTuple):
    """A tier's state, thoughts at work in its engine, and thoughts waiting for it."""

    name: str
    rank: int
    state: TierState
    in_flight: int
    waiting: int


@dataclass(slots=True)
class _Post:
    """What the fleet keeps of one member."""

    member: Member
    gate: Gate
    progress: Progress = field(default_factory=Progress)
    life: Life = field(default_factory=Life)
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    since_s: float = 0.0
    load_s: float | None = None
    served: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A place in a ready engine, with what it took to get it (seconds)."""

    engine: Engine
    queued_s: float
    load_s: float


class Fleet:
    """Starts, watches, restarts and stops the engines of all tiers.

    Args:
        members: From least to most capable.
        on_change: Told of every change of state, at once and on the loop.
        watch: Told of every start, before and after.
        clock: Where time comes from.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        on_change: Listener | None = None,
        watch: BootWatch | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._watch = watch
        self._on_change = on_change or (lambda tier, kind, facts: None)
        self._posts = {
            member.name: _Post(member, Gate(member.name, member.max_concurrent, member.max_waiting))
            for member in members
        }
        # Profiling runs that overlap on one GPU corrupt each other's memory readings (vLLM issue 55827).
        self._one_start = asyncio.Lock()
        self._log = structlog.get_logger("fleet")

    def open(self) -> None:
        """Want every eager tier; returns at once, they start one after the other."""
        for post in self._posts.values():
            if post.member.eager:
                self._apply(post, machine.Wanted())

    async def close(self) -> None:
        """Stop every engine and return when all process trees are gone."""
        for post in self._posts.values():
            self._apply(post, machine.StopAsked(closing=True))
        tasks = [post.task for post in self._posts.values() if post.task]
        await asyncio.gather(*tasks, return_exceptions=True)

    def want(self, tier: str) -> None:
        """Have a tier started if it is not up."""
        self._apply(self._posts[tier], machine.Wanted())

    @asynccontextmanager
    async def lease(self, tier: str, priority: int = 0, *, patient: bool = True) -> AsyncIterator[Lease]:
        """Hold a place in a ready engine, starting it first if it is stopped.

        Args:
            tier: Which one.
            priority: Higher goes first.
            patient: Wait for a tier that died to come back; otherwise leave at once with the reason.

        Raises:
            SubcortexError: Why the tier cannot serve (its start failed, its queue is full, …).
        """
        post = self._posts[tier]
        queued_s = load_s = 0.0
        if not post.gate.try_enter():
            queued_s, load_s = await self._wait(post, priority, patient)
        entered_s = self._clock.monotonic_s()
        try:
            yield Lease(post.member.engine, queued_s, load_s)
            post.served += 1
        finally:
            post.gate.held(self._clock.monotonic_s() - entered_s)
            post.gate.leave()

    async def _wait(self, post: _Post, priority: int, patient: bool) -> tuple[float, float]:
        began_s = self._clock.monotonic_s()
        if post.life.state is TierState.BACKING_OFF and not patient and post.life.error:
            error = post.life.error
            raise type(error)(error.message, hint=error.hint, **error.details)
        was_ready = post.life.state is TierState.READY
        admitted = post.gate.join(priority, patient=patient)
        self._apply(post, machine.Wanted())
        await post.gate.entered(admitted)
        waited_s = self._clock.monotonic_s() - began_s
        if was_ready:
            return waited_s, 0.0
        ready_s = min(waited_s, max(0.0, post.since_s - began_s))
        return waited_s - ready_s, ready_s

    def loads(self) -> list[TierLoad]:
        """Return what a decision needs of every tier, from least to most capable; cheap."""
        return [
            TierLoad(name, post.member.rank, post.life.state, post.gate.in_flight, post.gate.waiting)
            for name, post in self._posts.items()
        ]

    def state(self, tier: str) -> TierState:
        """Return where a tier's engine is in its life; KeyError for an unknown tier."""
        return self._posts[tier].life.state

    def status(self) -> list[TierStatus]:
        """Return every tier as it is now, from least to most capable."""
        return [self._status(post) for post in self._posts.values()]

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

    def _status(self, post: _Post) -> TierStatus:
        member, engine, life = post.member, post.member.engine, post.life
        process = engine.process
        ready = life.state is TierState.READY
        return TierStatus(
            name=member.name,
            rank=member.rank,
            engine=engine.kind,
            model=engine.model,
            state=life.state,
            pid=process.pid if process else None,
            in_flight=post.gate.in_flight,
            queued=post.gate.waiting,
            served=post.served,
            restarts=life.restarts,
            uptime_s=self._clock.monotonic_s() - post.since_s if ready else None,
            load_s=post.load_s,
            progress=post.progress.text if life.state is TierState.STARTING else None,
            engine_version=engine.version,
            error=life.error.message if life.error else None,
            error_code=life.error.code if life.error else None,
        )

    def _apply(self, post: _Post, event: Event) -> None:
        before = post.life.state
        outcome = machine.step(post.life, event, self._clock.monotonic_s(), post.member.max_restarts)
        post.life = outcome.life
        if post.life.state is not before:
            post.since_s = self._clock.monotonic_s()
            self._announce(post, before)
        post.gate.open = post.life.state is TierState.READY
        for effect in outcome.effects:
            self._do(post, effect)

    def _announce(self, post: _Post, before: TierState) -> None:
        facts: dict[str, Any] = {"was": str(before)}
        if post.life.error:
            facts["error"] = post.life.error.message
        if post.life.state is TierState.READY:
            facts["load_s"] = post.load_s
            facts["version"] = post.member.engine.version
        self._log.info("tier", tier=post.member.name, state=str(post.life.state), **facts)
        self._on_change(post.member.name, str(post.life.state), facts)

    def _do(self, post: _Post, effect: Effect) -> None:
        match effect:
            case Effect.START:
                life = self._run(post, post.task)
                post.task = asyncio.create_task(life, name=f"engine {post.member.name}")
            case Effect.STOP:
                if post.task:
                    post.task.cancel()
            case Effect.SCHEDULE:
                loop = asyncio.get_running_loop()
                post.timer = loop.call_later(post.life.delay_s, self._apply, post, machine.Due())
                if post.life.error:
                    post.gate.refuse(post.life.error, patient_too=False)
            case Effect.ADMIT:
                post.gate.admit()
            case Effect.REFUSE:
                if post.timer:
                    post.timer.cancel()
                post.gate.refuse(post.life.error or _stopping(post.member.name), patient_too=True)

    async def _run(self, post: _Post, before: asyncio.Task[None] | None) -> None:
        """One life of an engine's process, from launch until it is gone.

        Its death is applied at once, so that thoughts go elsewhere while the remains are cleared away; the
        next life (``before`` is the last one) begins when that is done.
        """
        engine = post.member.engine
        try:
            if before is not None:
                await asyncio.wait({before})
        except asyncio.CancelledError:
            await _to_the_end(asyncio.wait({before}))
            self._apply(post, machine.Stopped())
            return
        try:
            async with self._one_start:
                await self._start(post)
            self._apply(post, machine.Started())
            await self._told(post, self._watch.ended(post.member.name, None) if self._watch else None)
            why = await self._until_dead(engine)
            self._apply(post, machine.Failed(self._died(engine, why)))
        except SubcortexError as error:
            self._apply(post, machine.Failed(error))
        except asyncio.CancelledError:
            await self._stopped(engine, _GRACE_S)
            self._apply(post, machine.Stopped())
            return
        except Exception as error:
            self._log.exception("engine task failed", tier=post.member.name)
            unexpected = EngineFailed(f"{post.member.name}: {type(error).__name__}: {error}")
            self._apply(post, machine.Failed(unexpected))
        await self._stopped(engine, _GRACE_AFTER_DEATH_S)

    async def _start(self, post: _Post) -> None:
        await self._told(post, self._watch.began(post.member.name) if self._watch else None)
        began_s = self._clock.monotonic_s()
        post.progress.report("starting")
        try:
            await post.member.engine.start(post.progress)
        except SubcortexError as error:
            await self._told(post, self._watch.ended(post.member.name, error) if self._watch else None)
            raise
        post.load_s = self._clock.monotonic_s() - began_s

    async def _told(self, post: _Post, telling: Coroutine[Any, Any, None] | None) -> None:
        if telling is None:
            return
        try:
            async with asyncio.timeout(_WATCH_S):
                await telling
        except Exception:
            self._log.exception("start not recorded", tier=post.member.name)

    async def _until_dead(self, engine: Engine) -> str:
        """Return why an engine is no more use: it ended, or its health route is silent again and again."""
        gone = asyncio.ensure_future(engine.exited())
        missed = 0
        try:
            while not (await asyncio.wait({gone}, timeout=_LOOK_EVERY_S))[0]:
                missed = 0 if await engine.healthy() else missed + 1
                if missed == _MISSES:
                    return f"did not answer its health route {missed} times, {_LOOK_EVERY_S:g} s apart"
            return gone.result()
        finally:
            gone.cancel()

    async def _stopped(self, engine: Engine, grace_s: float) -> None:
        try:
            await _to_the_end(engine.stop(grace_s))
        except Exception:
            self._log.exception("engine would not stop", engine=engine.kind, model=engine.model)

    def _died(self, engine: Engine, why: str) -> EngineFailed:
        return EngineFailed(
            f"{engine.kind} serving {engine.model} died: {why}",
            hint="It is restarted by itself; `subcortex logs` shows its own words.",
            log_tail=engine.log_tail(),
            transient=True,
        )


def _stopping(tier: str) -> Cancelled:
    return Cancelled(f"{tier} is being stopped", hint="Start it again with `subcortex up`.")


async def _to_the_end(work: Coroutine[Any, Any, Any]) -> None:
    """Await ``work`` whatever cancellation comes: a process tree must not be left behind."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
