"""What the engines that run here have in common: launch, readiness, death, end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import ClassVar

import aiohttp
import psutil

from subcortex import paths
from subcortex.config import Config, LlamaCppTier, VllmTier
from subcortex.engines import _questions, _remains
from subcortex.engines._metrics import Effort, Heart
from subcortex.engines._place import environment, socket_path
from subcortex.engines.enginelog import tail_of_file
from subcortex.engines.process import EngineProcess, reap
from subcortex.engines.protocol import Canary, Delta, GenerateRequest, ProcessInfo, Progress
from subcortex.engines.wire import Wire
from subcortex.errors import EngineFailed, SubcortexError
from subcortex.types import BootFigures, Rest

_FIRST_LOOK_S = 0.005
_LONGEST_LOOK_S = 0.2
#: How many lines of a start are kept for what they say of memory, and how long to wait for the last of them
#: once the engine answers.
_BOOT_LINES = 4000
_LAST_LINE_S = 0.25
_ORIGIN = "http://engine"
#: The first question after a start may have kernels compiled: 22 s were seen on two cores.
_FIRST_CANARY_S, _CANARY_S = 120.0, 30.0


class LocalEngine(ABC):
    """An engine in a process of ours, reached by a Unix socket in a private folder."""

    kind: str
    reuse_streams: ClassVar[bool] = True
    #: In a line that comes after all that is said of memory.
    last_boot_line: ClassVar[str]
    #: Figures at ``/metrics`` of which one moves at every step, and none while it is idle.
    counters: ClassVar[frozenset[str]]

    def __init__(self, tier: LlamaCppTier | VllmTier, config: Config) -> None:
        self.model = tier.model
        self._tier = tier
        self._config = config
        self._folder = config.runtime_dir / "engines" / tier.name
        self._log_path = config.log_dir / f"{tier.name}.log"
        self._process: EngineProcess | None = None
        self._wire: Wire | None = None
        self._socket: Path | None = None
        self._version: str | None = None
        self._boot_lines: list[str] = []
        self._boot_told = asyncio.Event()
        self._failure: SubcortexError | None = None
        self._canary_limit_s = _FIRST_CANARY_S
        self._heart = Heart()
        self._effort = Effort()

    @property
    def version(self) -> str | None:
        """The backend's version once it has started."""
        return self._version

    @property
    def process(self) -> ProcessInfo | None:
        """The engine's main process while there is one."""
        return self._process.info if self._process else None

    @property
    def socket(self) -> Path:
        """The Unix socket that it serves on, while it runs.

        Raises:
            EngineFailed: It does not run.
        """
        if self._socket is None:
            raise EngineFailed(f"{self.kind} serving {self.model} is not running", transient=True)
        return self._socket

    async def start(self, progress: Progress) -> None:
        """Launch and wait for the health route; see ``Engine.start``."""
        self._failure, self._canary_limit_s = None, _FIRST_CANARY_S
        try:
            await self._start(progress)
        except SubcortexError as error:
            self._failure = error
            raise
        except asyncio.CancelledError:
            # Whoever cancels may be going down himself: nothing may outlive this call.
            await asyncio.shield(asyncio.ensure_future(self.stop(grace_s=0.0)))
            raise

    async def _start(self, progress: Progress) -> None:
        self._boot_lines.clear()
        self._boot_told.clear()
        progress.report("checking files")
        await self._check()
        paths.private_folder(self._config.runtime_dir)
        paths.private_folder(self._folder.parent)
        self._socket = socket_path(paths.private_folder(self._folder))
        await asyncio.to_thread(reap, self._folder)
        self._socket.unlink(missing_ok=True)

        def tell(lines: list[str]) -> None:
            for line in lines:
                self._keep(line)
                if text := self._progress(line):
                    progress.report(text)

        progress.report("starting")
        self._process = await EngineProcess.spawn(
            self._command(self._socket),
            env=self._env(),
            folder=self._folder,
            log_path=self._log_path,
            on_lines=tell,
            adopt_s=self._config.fleet.adopt_s,
            digest=self._digest(self._socket),
            serves_on=str(self._socket),
        )
        self._wire = self._wired(self._socket)
        limit_s = self._tier.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._await_health(self._process, self._wire)
                self._version = await self._asked_version(self._wire)
                await self._last_words()
        except TimeoutError:
            raise EngineFailed(
                f"{self.kind} serving {self.model} was not ready within {limit_s:g} s",
                hint="Raise start_timeout_s of the tier if it only needs longer.",
                log_tail=self.log_tail(),
            ) from None
        self._process.log.unhook()
        await self._process.note(version=self._version, boot=self._boot_lines)
        progress.report("ready")

    async def adopt(self, progress: Progress) -> bool:
        """Take over what a former daemon left, if it is what the config asks for; see ``Engine.adopt``."""
        try:
            adopted = await self._adopted()
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.ensure_future(self._give_up()))
            raise
        if adopted:
            progress.report("ready")
        else:
            await self._give_up()
        return adopted

    async def _adopted(self) -> bool:
        adopt_s = self._config.fleet.adopt_s
        # A record that cannot be read, a file that is not there: a start says better what is wrong.
        with contextlib.suppress(ValueError, SubcortexError):
            record = await asyncio.to_thread(_remains.read, self._folder)
            if record is None or not adopt_s:
                return False
            await self._check()
            socket = Path(record.socket)
            if self._digest(socket) != record.digest:
                return False
            self._process = await EngineProcess.adopt(
                self._folder, record, log_path=self._log_path, adopt_s=adopt_s
            )
            if self._process is None:
                return False
            self._socket, self._wire = socket, self._wired(socket)
            self._version, self._boot_lines = record.version, list(record.boot)
            with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
                # One that was put to sleep has given up its room, which may be another's by now.
                return await self.healthy() and await self._awake()
        return False

    async def _awake(self) -> bool:
        """Return whether the server, which is healthy, is not asleep."""
        return True

    async def _give_up(self) -> None:
        """End what could not be adopted."""
        await self.stop(grace_s=_remains.LEFTOVER_GRACE_S)
        await asyncio.to_thread(reap, self._folder)

    def _wired(self, socket: Path) -> Wire:
        return Wire(
            f"{_ORIGIN}/v1",
            model=self._tier.name,
            socket=socket,
            reuse_streams=self.reuse_streams,
            log_tail=self.log_tail,
        )

    def _digest(self, socket: Path) -> str:
        """Return what tells one start from another: the command, and the environment that the config sets."""
        asked = [self._command(socket), self._tier.gpus, sorted(self._tier.env.items())]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    @property
    def rests(self) -> frozenset[Rest]:
        """See ``Engine.rests``."""
        return frozenset({Rest.STOP})

    async def sleep(self, rest: Rest) -> None:
        """See ``Engine.sleep``."""
        raise EngineFailed(f"{self.kind} serving {self.model} knows no {rest}")

    async def wake(self) -> None:
        """See ``Engine.wake``."""
        raise EngineFailed(f"{self.kind} serving {self.model} does not sleep")

    async def canary(self) -> Canary | None:
        """Ask it a fixed prompt; see ``Engine.canary``."""
        url, limit_s = f"{_ORIGIN}/v1/completions", self._canary_limit_s
        found = await _questions.ask_canary(
            self._connected(), url, model=self._tier.name, limit_s=limit_s, log_tail=self.log_tail
        )
        self._canary_limit_s = _CANARY_S
        return found

    async def beat(self) -> int | None:
        """Look whether its counters have moved; see ``Engine.beat``."""
        busy = self._busy()
        try:
            seen = await _questions.ask_counters(self._connected(), f"{_ORIGIN}/metrics", self.counters)
        except EngineFailed as error:
            # Some builds answer between two steps only.
            if not (busy and error.details.get("timed_out")):
                raise
        else:
            if seen is None:
                return None
            return self._heart.beat(seen, busy=busy)
        return self._heart.beat(None, busy=True)

    @property
    def _computes_here(self) -> bool:
        """Whether time that it spends on the CPU is time at work on requests."""
        return False

    def _busy(self) -> bool:
        """Return whether it has spent its time computing since the last look."""
        if self._process is None or not self._computes_here:
            return False
        with contextlib.suppress(psutil.Error):
            spent = psutil.Process(self._process.info.pid).cpu_times()
            return self._effort.at_work(time.monotonic(), spent.user + spent.system)
        return False

    def _connected(self) -> Wire:
        if self._wire is None:
            raise EngineFailed(f"{self.kind} serving {self.model} is not running", transient=True)
        return self._wire

    def _failure_once(self) -> SubcortexError | None:
        """Return why the last start failed, the first time that it is asked."""
        failure, self._failure = self._failure, None
        return failure

    def shrink(self) -> str | None:
        """See ``Engine.shrink``."""
        return None

    def boot_figures(self) -> BootFigures | None:
        """Return what the last start's log said of its memory; see ``Engine.boot_figures``."""
        return self._read_boot(self._boot_lines)

    async def stop(self, grace_s: float = 10.0) -> None:
        """End the whole process tree; returns when processes and socket are gone."""
        if self._wire is not None:
            self._wire.break_off()
        if self._process is not None:
            await self._process.stop(grace_s)
            self._process = None
        if self._wire is not None:
            # Only now: who still waits for a first byte hears of the end from the server's own.
            await self._wire.close()
            self._wire = None
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
            if self._socket.parent != self._folder:
                shutil.rmtree(self._socket.parent, ignore_errors=True)
            self._socket = None

    async def exited(self) -> str:
        """Wait until the engine dies by itself; return why in words."""
        if self._process is None:
            return "is not running"
        return await self._process.exited()

    async def healthy(self) -> bool:
        """Return whether the health route answers with 200 within 5 seconds."""
        if self._process is None or self._wire is None or not self._process.running:
            return False
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
            status, _ = await self._wire.get(f"{_ORIGIN}/health")
            return status == 200
        return False

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; see ``Engine.generate``."""
        return self._connected().generate(request)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the log, inert for a terminal."""
        if self._process is not None:
            return self._process.log.tail(lines)
        return tail_of_file(self._log_path, lines)

    async def _await_health(self, process: EngineProcess, wire: Wire) -> None:
        assert self._socket is not None
        delay_s = _FIRST_LOOK_S
        ended = asyncio.ensure_future(process.exited())
        try:
            while True:
                await asyncio.wait({ended}, timeout=delay_s)
                if ended.done():
                    raise await self._explained(process, ended.result())
                delay_s = min(delay_s * 1.3, _LONGEST_LOOK_S)
                if not self._socket.exists():
                    continue
                with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
                    status, _ = await wire.get(f"{_ORIGIN}/health", timeout_s=2.0)
                    if status == 200:
                        return
        finally:
            ended.cancel()

    def _keep(self, line: str) -> None:
        if len(self._boot_lines) < _BOOT_LINES and self._says_memory(line):
            self._boot_lines.append(line)
        if self.last_boot_line in line:
            self._boot_told.set()

    async def _last_words(self) -> None:
        # It may answer while what it wrote before is still in the pipe.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LINE_S):
                await self._boot_told.wait()

    async def _explained(self, process: EngineProcess, why: str) -> SubcortexError:
        # The last words may still be in the pipe.
        await asyncio.to_thread(process.log.join, 1.0)
        return self._diagnosis(process.log.tail()) or EngineFailed(
            f"{self.kind} serving {self.model} {why} before it was ready",
            hint="The end of its log says why; `subcortex logs` shows all of it.",
            log_tail=process.log.tail(30),
        )

    def _env(self) -> dict[str, str]:
        return environment(self._tier, self._config)

    @abstractmethod
    async def _check(self) -> None:
        """Raise ConfigError if what the engine needs is not there."""

    @abstractmethod
    def _command(self, socket: Path) -> list[str]:
        """Return program and arguments of a server on ``socket``."""

    @abstractmethod
    async def _asked_version(self, wire: Wire) -> str | None:
        """Return the version of the server that now runs."""

    @abstractmethod
    def _progress(self, line: str) -> str | None:
        """Return what a log line says about how far the start has come."""

    @abstractmethod
    def _says_memory(self, line: str) -> bool:
        """Return whether a line of the start is worth keeping for ``_read_boot``."""

    @abstractmethod
    def _read_boot(self, lines: list[str]) -> BootFigures | None:
        """Return what the kept lines of a start say of its memory."""

    @abstractmethod
    def _diagnosis(self, log: str) -> SubcortexError | None:
        """Return the error that the end of the log shows, None if it shows none that is known."""
