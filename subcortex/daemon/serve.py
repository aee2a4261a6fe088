"""The daemon's life: lock, leftovers, mind, socket, then waiting to be stopped."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TextIO, cast

import structlog
from aiohttp import web

from subcortex import engines, paths
from subcortex.config import Config
from subcortex.daemon import lock
from subcortex.daemon.app import build
from subcortex.daemon.keys import Service
from subcortex.daemon.supervisor import Supervisor
from subcortex.errors import ConfigError, SubcortexError
from subcortex.journal.diary.board_records import FactRecord
from subcortex.mind import Subcortex
from subcortex.mind.experimenting.measured import measured_facts
from subcortex.mind.experimenting.worker import reap_lab
from subcortex.mind.foresight import foresight, this_machine

#: Open thoughts get this long to end after a stop was asked, seconds.
_DRAIN_S = 5.0
#: Listeners get this long to take in the last events, seconds.
_LAST_WORDS_S = 0.5
_LONGEST_SOCKET_PATH = 107


def serve(config: Config, *, ready_fd: int | None = None) -> int:
    """Run the daemon until it is stopped, and return its exit code.

    Args:
        config: What to serve.
        ready_fd: A pipe to tell the starter ``{"ready": pid}`` or ``{"error": …}`` on.
    """
    try:
        asyncio.run(_serve(config, ready_fd))
    except SubcortexError as error:
        _tell(ready_fd, {"error": error.to_wire()})
        structlog.get_logger("daemon").error("stopped", error=str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        structlog.get_logger("daemon").exception("stopped by an error of its own")
        unexpected = SubcortexError(
            f"the daemon could not go on: {type(error).__name__}: {error}",
            hint=f"The whole story is in {config.log_dir / 'daemon.log'}.",
        )
        _tell(ready_fd, {"error": unexpected.to_wire()})
        return unexpected.exit_code
    return 0


async def _serve(config: Config, ready_fd: int | None) -> None:
    log = structlog.get_logger("daemon")
    runtime_dir = paths.private_folder(config.runtime_dir)
    _check_socket_path(config.socket_path)
    supervisor = Supervisor.of(os.environ)
    with lock.hold(runtime_dir):
        # A tier's own engine is left to it: it knows what to adopt, and ends what it does not want.
        keep = [tier.name for tier in config.tiers] if config.fleet.adopt_s else []
        for line in await asyncio.to_thread(engines.reap_leftovers, runtime_dir, keep):
            log.warning("reaped", what=line)
        for line in await asyncio.to_thread(reap_lab, runtime_dir):
            log.warning("reaped", what=line)
        foretold, machine = foresight(config), this_machine()
        async with Subcortex.open(config, predict=foretold, machine=machine) as mind:
            service = Service(mind.clock.now(), mind.clock.monotonic_s())
            _stop_on_signals(service)
            async with AsyncExitStack() as stack:
                await _listen(stack, build(mind, service), config)
                stack.push_async_callback(_close_mind, mind, service)
                # Gone first: who comes while we stop waits for our lock and starts the next daemon.
                stack.callback(lambda: config.socket_path.unlink(missing_ok=True))
                log.info("ready", pid=os.getpid(), socket=str(config.socket_path), tcp=config.daemon.tcp)
                _tell(ready_fd, {"ready": os.getpid()})
                supervisor.tell("READY=1")
                looking_back = asyncio.create_task(_look_back(config))
                await _until_stopped(mind, service)
                looking_back.cancel()
                supervisor.tell("STOPPING=1")
                log.info("stopping")


async def _look_back(config: Config) -> None:
    """Take back what was measured on another machine than this one is now."""
    log = structlog.get_logger("daemon")
    try:
        for fact in await asyncio.to_thread(_outgrown, config):
            log.info("expired", fact=fact.id, what=fact.statement, why=fact.expired_why)
    except SubcortexError as error:
        log.warning("what was measured could not be looked at", error=error.message)
    except Exception:
        # A daemon thinks without it.
        log.exception("what was measured could not be looked at")


def _outgrown(config: Config) -> list[FactRecord]:
    if not measured_facts(config):
        return []
    # Imported here, in a thread: it brings all experiments with it, and the first thought waits for none.
    from subcortex.mind.experimenting.expiring import look_back

    return look_back(config)


async def _listen(stack: AsyncExitStack, app: web.Application, config: Config) -> None:
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=_DRAIN_S, keepalive_timeout=3600.0
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    socket_path = config.socket_path
    _remove_stale(socket_path)
    before = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(socket_path)).start()
    finally:
        os.umask(before)
    stack.callback(lambda: socket_path.unlink(missing_ok=True))
    if config.daemon.tcp:
        host, port = _loopback(config.daemon.tcp)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"daemon.tcp: cannot listen on {config.daemon.tcp}: {error.strerror or error}",
                hint="Another program has that port: choose another, or leave daemon.tcp out.",
                key="daemon.tcp",
            ) from None


def _loopback(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if host not in ("127.0.0.1", "localhost", "::1") or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(
            f"daemon.tcp is {address!r}",
            hint="A loopback address and a port, such as 127.0.0.1:8741; the routes have no password.",
            key="daemon.tcp",
        )
    return host, int(port)


def _check_socket_path(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"the socket's path has {length} bytes, {_LONGEST_SOCKET_PATH} are possible: {path}",
            hint="Set daemon.runtime_dir to a shorter folder.",
            key="daemon.runtime_dir",
        )


def _remove_stale(socket_path: Path) -> None:
    # We hold the lock, so a socket here was left by a daemon that is dead.
    if socket_path.is_socket():
        socket_path.unlink()
    elif socket_path.exists():
        raise ConfigError(
            f"{socket_path} is taken by something that is not a socket",
            hint="Move it away, or set daemon.runtime_dir to another folder.",
            key="daemon.runtime_dir",
        )


def _stop_on_signals(service: Service) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.stop.set)
    # The terminal that started a daemon may close; the daemon stays.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def _until_stopped(mind: Subcortex, service: Service) -> None:
    """Return when a stop is asked for, or nobody has thought for ``daemon.idle_stop_s`` seconds."""
    idle_stop_s = mind.config.daemon.idle_stop_s
    while not service.stop.is_set():
        # Who has a GPU on loan would lose it to the daemon that the next thought starts.
        busy = mind.busy or service.yields(mind.clock.now())
        idle_s = 0.0 if busy else mind.clock.monotonic_s() - mind.last_active_s
        if idle_stop_s and idle_s >= idle_stop_s:
            return
        wait_s = max(0.05, idle_stop_s - idle_s) if idle_stop_s else None
        with suppress(TimeoutError):
            await asyncio.wait_for(service.stop.wait(), wait_s)


async def _close_mind(mind: Subcortex, service: Service) -> None:
    await mind.close(_DRAIN_S)
    service.stopped.set()
    if service.listening:
        # They have heard the last event; one whose reader has fallen asleep is not waited for.
        _, asleep = await asyncio.wait(service.listening, timeout=_LAST_WORDS_S)
        for task in asleep:
            task.cancel()


def _tell(fd: int | None, message: dict[str, object]) -> None:
    if fd is None:
        return
    with suppress(OSError):
        os.write(fd, json.dumps(message, default=str).encode() + b"\n")
        os.close(fd)


class _Unfailing(io.TextIOBase):
    """Writes to a descriptor what it takes, and drops the rest: a full disk must stop no work that logs."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        return len(text)


def log_to_stderr() -> None:
    """Write one JSON object a line to stderr, or plain lines when that is a terminal."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unfailing(sys.stderr.fileno()))),
        cache_logger_on_first_use=True,
    )
