"""What cannot be had twice: a clock to set by hand, and an engine that fails at an exact moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta

from subcortex.engines.protocol import Canary, Delta, GenerateRequest, ProcessInfo, Progress
from subcortex.errors import SubcortexError
from subcortex.types import BootFigures, Rest, Usage


class FakeClock:
    """Time stands still until it is advanced."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic_s(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class ScriptedEngine:
    """An engine whose starts, answers and deaths the test decides."""

    kind = "scripted"
    version = "scripted 1"

    def __init__(self, model: str = "m", *, starts: list[SubcortexError | None] | None = None) -> None:
        self.model = model
        self.starts = list(starts or [])
        self.started = 0
        self.stopped = 0
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.death: asyncio.Future[str] | None = None
        self.requests: list[GenerateRequest] = []
        self.closed_early = 0
        self.is_healthy = True
        self.can_rest = frozenset({Rest.STOP})
        self.slept: list[Rest] = []
        self.woken = 0
        self.may_sleep, self.may_wake = asyncio.Event(), asyncio.Event()
        self.may_sleep.set()
        self.may_wake.set()
        self.sleep_error: SubcortexError | None = None
        self.wake_error: SubcortexError | None = None
        self.canaries: list[Canary] = []
        self.beats: int | None = None
        self.shrinks: list[str] = []
        self.figures: BootFigures | None = None
        self.script: Callable[[GenerateRequest], AsyncGenerator[Delta, None]] = _echo

    @property
    def process(self) -> ProcessInfo | None:
        return None

    async def start(self, progress: Progress) -> None:
        progress.report("loading")
        await self.may_start.wait()
        self.started += 1
        self.death = asyncio.get_running_loop().create_future()
        outcome = self.starts.pop(0) if self.starts else None
        if outcome is not None:
            raise outcome

    async def adopt(self, progress: Progress) -> bool:
        return False

    @property
    def rests(self) -> frozenset[Rest]:
        return self.can_rest

    async def sleep(self, rest: Rest) -> None:
        await self.may_sleep.wait()
        self.slept.append(rest)
        if self.sleep_error is not None:
            raise self.sleep_error

    async def wake(self) -> None:
        await self.may_wake.wait()
        self.woken += 1
        if self.wake_error is not None:
            raise self.wake_error

    async def canary(self) -> Canary | None:
        return self.canaries.pop(0) if self.canaries else None

    async def beat(self) -> int | None:
        return self.beats

    def shrink(self) -> str | None:
        return self.shrinks.pop(0) if self.shrinks else None

    def boot_figures(self) -> BootFigures | None:
        return self.figures

    async def stop(self, grace_s: float = 10.0) -> None:
        self.stopped += 1

    async def exited(self) -> str:
        assert self.death is not None
        return await self.death

    def die(self, why: str = "killed by signal 9") -> None:
        assert self.death is not None
        self.death.set_result(why)

    async def healthy(self) -> bool:
        return self.is_healthy

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        done = False
        try:
            async for delta in self.script(request):
                yield delta
            done = True
        finally:
            self.closed_early += not done

    def log_tail(self, lines: int = 20) -> str:
        return "the end of the log"


async def _echo(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
    words = str(request.messages[-1]["content"]).split()
    for word in words:
        yield Delta(text=f"{word} ")
    yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=len(words)))
