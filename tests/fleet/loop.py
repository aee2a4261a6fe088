"""An event loop whose time jumps to the next timer, and engines and memory that take time by it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from subcortex.engines.protocol import Progress
from subcortex.errors import SubcortexError
from subcortex.fleet import Needs, Seen
from subcortex.fleet.scene import Device, Room, most
from subcortex.types import Rest, TierState
from tests.fakes import ScriptedEngine
from tests.fleet.world import Spec


class _Jump(selectors.SelectSelector):
    """Waits for nothing: the clock is put forward instead."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise AssertionError("everybody waits, and nothing is ever going to happen")
        self.seconds += timeout
        return super().select(0)


class FakeLoop(asyncio.SelectorEventLoop):
    """Runs at once what a real loop would take hours for; the same each time."""

    def __init__(self) -> None:
        self.jump = _Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.seconds


class LoopClock:
    """The clock of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic_s(self) -> float:
        return self._loop.time()

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self._loop.time())


class TimedEngine(ScriptedEngine):
    """An engine that takes its time and its memory as a ``Spec`` says."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec.name)
        self.spec = spec
        self.can_rest = frozenset({Rest.STOP, *spec.asleep})
        self.held: Room = {}
        self.rest: Rest | None = None
        self.alive = False
        self.fails: list[SubcortexError] = []

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)

    async def start(self, progress: Progress) -> None:
        assert not self.alive, "two processes of one engine"
        self.alive, self.held, self.rest = True, self.spec.awake, None
        self.death = asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.spec.start_s)
        self._fail()
        self.started += 1

    async def sleep(self, rest: Rest) -> None:
        self.held = most(self.spec.awake, self.spec.asleep[rest])
        await asyncio.sleep(self.spec.leave_s[rest])
        self._fail()
        self.held, self.rest = self.spec.asleep[rest], rest

    async def wake(self) -> None:
        assert self.rest is not None
        self.held = most(self.spec.awake, self.spec.asleep[self.rest])
        await asyncio.sleep(self.spec.wake_s[self.rest])
        self._fail()
        self.held, self.rest = self.spec.awake, None

    async def stop(self, grace_s: float = 10.0) -> None:
        if self.alive:
            await asyncio.sleep(self.spec.leave_s[Rest.STOP])
        self.alive, self.held, self.rest = False, {}, None
        self.stopped += 1

    def die(self, why: str = "killed by signal 9") -> None:
        if self.alive and self.death is not None and not self.death.done():
            self.death.set_result(why)


class FakeMemory:
    """A machine of so much of each device, shared by engines and other programs; MiB."""

    def __init__(self, engines: Mapping[str, TimedEngine], total: Room, reserve_mib: float = 3_000.0) -> None:
        self.engines = engines
        self.total = total
        self.reserve_mib = reserve_mib
        self.foreign: dict[Device, float] = {}

    def free(self, device: Device) -> float:
        """Return what nobody holds; below 0 where more is held than there is."""
        ours = sum(engine.held.get(device, 0.0) for engine in self.engines.values())
        return self.total[device] - self.foreign.get(device, 0.0) - ours

    async def prepare(self) -> None:
        return

    def needs(self, tier: str) -> Needs:
        spec = self.engines[tier].spec
        return Needs(spec.awake, spec.asleep)

    async def look(self) -> Seen:
        free = {device: max(0.0, self.free(device) - self.reserve_mib) for device in self.total}
        offered = {
            device: mib + sum(engine.held.get(device, 0.0) for engine in self.engines.values())
            for device, mib in free.items()
        }
        return Seen(free, offered, {device: self.foreign.get(device, 0.0) for device in self.total})

    async def before(self, tier: str) -> None:
        return

    async def settled(self, tier: str, state: TierState, rest: Rest | None) -> None:
        return
