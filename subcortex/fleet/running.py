"""One life of an engine's process, from launch until it is gone: start, watch, sleep, wake, stop.

It does what the machine's effects ask for and tells what came of it; it decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from subcortex.clock import Clock
from subcortex.engines import canary
from subcortex.engines.protocol import Canary, Engine, Progress
from subcortex.errors import DoesNotFit, EngineFailed, SubcortexError
from subcortex.fleet import machine
from subcortex.fleet.machine import Event
from subcortex.fleet.room import Memory, Seen
from subcortex.fleet.scene import HOST, Device
from subcortex.types import Rest, TierState


class BootWatch(Protocol):
    """Told of every start. What goes wrong in it is logged and stops no engine."""

    async def began(self, tier: str) -> None:
        """Look at the machine as it is before the engine starts; no other start there is under way."""
        ...

    async def ended(self, tier: str, error: SubcortexError | None) -> None:
        """The engine is ready, or its start failed with ``error``; what its log said is still there."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds.

    Args:
        grace_s: For an engine to end when asked.
        grace_after_death_s: The same for what is left of one that died.
        look_every_s: Between looks at a running engine; ``misses`` in a row and it counts as hung.
        watch_s: For whoever watches starts.
        room_s: For memory that is being given back to show as free.
        sleep_room_s: The same for host memory to sleep in; somebody may wait for the GPU meanwhile.
        room_poll_s: Between looks at it.
    """

    grace_s: float = 10.0
    grace_after_death_s: float = 2.0
    look_every_s: float = 10.0
    misses: int = 3
    watch_s: float = 10.0
    room_s: float = 15.0
    sleep_room_s: float = 2.0
    room_poll_s: float = 0.2


@dataclass(frozen=True, slots=True)
class Ties:
    """What a life is tied to.

    Args:
        apply: Takes what happened.
        tell: Takes a kind and facts worth recording that change no state.
        at_work: Returns how many thoughts are in the engine.
        missing: Returns what is missing of each device for what it is about to do, given a look; MiB.
        crowded: Returns whether others hold memory of its devices.
        seen: Takes each look at the machine.
        gone: Told once what a failure left is cleared away.
    """

    apply: Callable[[Event], None]
    tell: Callable[[str, dict[str, Any]], None]
    at_work: Callable[[], int]
    missing: Callable[[Seen], Mapping[Device, float]]
    crowded: Callable[[], bool]
    seen: Callable[[Seen], None]
    gone: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Woke:
    """What a wake took: the engine's own part, and the canary, in seconds."""

    engine_s: float
    canary_s: float


class _NoRoom(Exception):
    """The room did not show in time."""


class Running:
    """The lives of one engine, one after the other.

    Args:
        tier: Its name.
        progress: Where its starts say how far they are.
        memory: Who knows the machine's memory; None if nobody does.
    """

    def __init__(
        self,
        tier: str,
        engine: Engine,
        progress: Progress,
        ties: Ties,
        *,
        clock: Clock,
        timing: Timing,
        memory: Memory | None,
        watch: BootWatch | None,
    ) -> None:
        self._tier = tier
        self._engine = engine
        self._progress = progress
        self._ties = ties
        self._clock = clock
        self._timing = timing
        self._memory = memory
        self._watch = watch
        self._orders: asyncio.Queue[Rest | None] = asyncio.Queue()
        self._resting = False
        self._slept: Rest | None = None
        self._canary: Canary | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("fleet")
        #: How long the last start took, seconds; and the last wake.
        self.load_s: float | None = None
        self.woke: Woke | None = None
        #: The kinds of sleep that this process has slept.
        self.slept: set[Rest] = set()
        #: Whether a process may be there that holds memory.
        self.remains = False
        #: Whether it only sees what a former daemon left: nothing is being started.
        self.looking = False

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The life under way, or the last one."""
        return self._task

    def begin(self, *, adopt: bool = False) -> None:
        """Begin a life as soon as the one before is over; with ``adopt``, only if one was left running."""
        self.looking = adopt
        life = self._run(self._task, adopt)
        self._task = asyncio.create_task(life, name=f"engine {self._tier}")

    def order(self, rest: Rest | None) -> None:
        """Have the engine sleep, or wake (None)."""
        self._orders.put_nowait(rest)

    def end(self) -> None:
        """Have the engine stop, whatever it is at."""
        if self._task:
            self._task.cancel()

    async def _run(self, before: asyncio.Task[None] | None, adopt: bool) -> None:
        """Its death is applied at once, so that thoughts go elsewhere while the remains are cleared away."""
        apply = self._ties.apply
        try:
            if before is not None:
                await asyncio.wait({before})
        except asyncio.CancelledError:
            assert before is not None
            await _to_the_end(asyncio.wait({before}))
            apply(machine.Stopped())
            return
        self._orders, self._resting, self._canary = asyncio.Queue(), False, None
        self.slept = set()
        try:
            if adopt:
                self.remains = True
                found = await self._engine.adopt(self._progress)
                self.looking = False
                if not found:
                    self.remains = False
                    apply(machine.Stopped())
                    return
            else:
                await self._room(self._timing.room_s)
                self.remains = True
                await self._start()
            await self._come()
            apply(machine.Ready())
            if not adopt:
                await self._told(self._watch.ended(self._tier, None) if self._watch else None)
            why = await self._live()
            apply(machine.Failed(self._died(why)))
        except _NoRoom:
            apply(machine.NoRoom())
            return
        except SubcortexError as error:
            apply(machine.Failed(error, self._ties.crowded()))
        except asyncio.CancelledError:
            await self._stopped(self._timing.grace_s)
            self.remains = False
            apply(machine.Stopped())
            return
        except Exception as error:
            self._log.exception("engine task failed", tier=self._tier)
            apply(machine.Failed(EngineFailed(f"{self._tier}: {type(error).__name__}: {error}")))
        await self._stopped(self._timing.grace_after_death_s)
        self.remains = False
        self._ties.gone()

    async def _start(self) -> None:
        await self._told(self._watch.began(self._tier) if self._watch else None)
        began_s = self._clock.monotonic_s()
        self._progress.report("starting")
        await self._about_to_change()
        try:
            await self._start_or_shrink()
        except SubcortexError as error:
            await self._told(self._watch.ended(self._tier, error) if self._watch else None)
            raise
        self.load_s = self._clock.monotonic_s() - began_s

    async def _start_or_shrink(self) -> None:
        try:
            await self._engine.start(self._progress)
        except DoesNotFit as error:
            words = self._engine.shrink()
            if words is None:
                raise
            self._ties.tell("shrunk", {"what": words, "error": error.message})
            await self._engine.stop(self._timing.grace_after_death_s)
            self._progress.report(f"starting again with {words}")
            await self._engine.start(self._progress)

    async def _come(self) -> None:
        """Take the canary of an engine that may sleep later."""
        if self._engine.rests - {Rest.STOP}:
            self._canary = await self._engine.canary()
            why = canary.implausible(self._canary) if self._canary is not None else None
            if why is not None:
                raise EngineFailed(
                    f"{self._engine.kind} serving {self._engine.model} started wrong: {why}",
                    hint="Damaged weights, or a kernel that fails on this GPU.",
                    log_tail=self._engine.log_tail(),
                )
        await self._settled(TierState.READY, None)

    async def _live(self) -> str:
        """Carry out orders until the engine dies; return why in words."""
        dead = asyncio.ensure_future(self._until_dead())
        order: asyncio.Future[Rest | None] | None = None
        try:
            while True:
                order = asyncio.ensure_future(self._orders.get())
                await asyncio.wait({dead, order}, return_when=asyncio.FIRST_COMPLETED)
                if dead.done():
                    return dead.result()
                rest = order.result()
                await (self._wake() if rest is None else self._sleep(rest))
        finally:
            dead.cancel()
            if order is not None:
                order.cancel()

    async def _sleep(self, rest: Rest) -> None:
        # What was free when this was decided may be somebody else's by now.
        try:
            await self._room(self._timing.sleep_room_s)
        except _NoRoom:
            self._ties.apply(machine.NoRoom())
            return
        self._resting, self._slept = True, rest
        await self._about_to_change()
        await self._engine.sleep(rest)
        await self._settled(TierState.ASLEEP, rest)
        self._ties.apply(machine.Slept())
        self.slept.add(rest)

    async def _wake(self) -> None:
        try:
            await self._room(self._timing.room_s)
        except _NoRoom:
            self._ties.apply(machine.NoRoom())
            return
        self._progress.report("waking")
        await self._about_to_change()
        began_s = self._clock.monotonic_s()
        await self._engine.wake()
        woken_s = self._clock.monotonic_s()
        await self._verify()
        self._resting = False
        self.woke = Woke(woken_s - began_s, self._clock.monotonic_s() - woken_s)
        self._ties.apply(machine.Ready())
        await self._settled(TierState.READY, self._slept)

    async def _verify(self) -> None:
        """Hold what the engine says now against what it said at its start."""
        if self._canary is None:
            return
        now = await self._engine.canary()
        how = "it tells no log-probabilities any more" if now is None else canary.differs(self._canary, now)
        if how is not None:
            raise EngineFailed(
                f"{self._engine.kind} serving {self._engine.model} woke up wrong: {how}",
                hint="It is started anew, cold; if that happens often, leave sleep_mode off for the tier.",
                transient=True,
            )

    async def _room(self, within_s: float) -> None:
        """Wait until the room that was decided on shows as free.

        Raises:
            _NoRoom: It did not in time.
        """
        if self._memory is None:
            return
        until_s = self._clock.monotonic_s() + within_s
        while True:
            seen = await self._memory.look()
            self._ties.seen(seen)
            missing = self._ties.missing(seen)
            if not missing:
                return
            device, mib = max(missing.items(), key=lambda pair: pair[1])
            where = "host memory" if device == HOST else f"GPU {device}"
            self._progress.report(f"waiting for {mib:.0f} MiB of {where}")
            if self._clock.monotonic_s() >= until_s:
                self._ties.tell("no_room", {"missing_mib": mib, "device": where})
                raise _NoRoom
            await asyncio.sleep(self._timing.room_poll_s)

    async def _about_to_change(self) -> None:
        if self._memory is not None:
            await self._told(self._memory.before(self._tier))

    async def _settled(self, state: TierState, rest: Rest | None) -> None:
        if self._memory is not None:
            await self._told(self._memory.settled(self._tier, state, rest))

    async def _told(self, telling: Coroutine[Any, Any, None] | None) -> None:
        if telling is None:
            return
        try:
            async with asyncio.timeout(self._timing.watch_s):
                await telling
        except Exception:
            self._log.exception("not recorded", tier=self._tier)

    async def _until_dead(self) -> str:
        """Return why an engine is no more use: it ended, fell silent, or works on nothing though asked."""
        every_s, most = self._timing.look_every_s, self._timing.misses
        gone = asyncio.ensure_future(self._engine.exited())
        silent = still = 0
        before: int | None = None
        try:
            while not (await asyncio.wait({gone}, timeout=every_s))[0]:
                if self._resting:
                    silent, still, before = 0, 0, None
                    continue
                silent = 0 if await self._engine.healthy() else silent + 1
                if silent == most:
                    return f"did not answer its health route {silent} times, {every_s:g} s apart"
                if silent:
                    # Its counters would not come either, and each question waits for seconds.
                    continue
                before, moved = await self._moved(before)
                still = 0 if moved else still + 1
                if still == most:
                    return f"moved no token for {still * every_s:g} s with thoughts in it"
            return gone.result()
        finally:
            gone.cancel()

    async def _moved(self, before: int | None) -> tuple[int | None, bool]:
        """Return the engine's count now, and whether it works, or need not."""
        if not self._ties.at_work():
            return None, True
        try:
            beat = await self._engine.beat()
        except (SubcortexError, OSError, TimeoutError):
            return before, False
        return beat, beat is None or before is None or beat != before

    async def _stopped(self, grace_s: float) -> None:
        try:
            await _to_the_end(self._engine.stop(grace_s))
        except Exception:
            self._log.exception("engine would not stop", engine=self._engine.kind, model=self._engine.model)

    def _died(self, why: str) -> EngineFailed:
        return EngineFailed(
            f"{self._engine.kind} serving {self._engine.model} died: {why}",
            hint="It is restarted by itself; `subcortex logs` shows its own words.",
            log_tail=self._engine.log_tail(),
            transient=True,
        )


async def _to_the_end(work: Coroutine[Any, Any, Any]) -> None:
    """Await ``work`` whatever cancellation comes: a process tree must not be left behind."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()
