"""Run an engine's process: its launch, its log, its death, and the end of everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from subcortex import paths
from subcortex.engines import _keeper, _processes, _remains
from subcortex.engines._processes import Identity
from subcortex.engines._remains import Record, reap
from subcortex.engines.enginelog import LogPump
from subcortex.engines.protocol import ProcessInfo
from subcortex.errors import EngineFailed

__all__ = ["EngineProcess", "reap", "reap_leftovers"]

_LAUNCHER = Path(__file__).with_name("_launch.py")
#: How long a keeper may take to say how the engine ended, and to end when it is let go, seconds.
_KEEPER_S = 2.0
#: How long a keeper may take to answer the next owner: it looks up only once the last one is gone.
_HAIL_S = 5.0
_LOOK_EVERY_S = 0.01
#: More than any message between keeper and owner has.
_WORD_BYTES = 64


class EngineProcess:
    """One engine and all of its descendants, from spawn or adoption until none is left.

    Its parent is a keeper (``_keeper.py``), which outlives this process and reports over ``channel``.
    """

    def __init__(
        self,
        record: Record,
        folder: Path,
        log: LogPump,
        channel: socket.socket,
        child: subprocess.Popen[bytes] | None,
    ) -> None:
        assert record.engine is not None
        assert record.keeper is not None
        self.record = record
        self.info = ProcessInfo(record.engine.pid, _processes.start_time_s(record.engine))
        self.log = log
        self._engine, self._keeper = record.engine, record.keeper
        self._folder = folder
        self._channel = channel
        self._child = child
        self._seen: set[Identity] = {record.engine}
        self._released = False
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[str] = loop.create_future()
        self._kept: asyncio.Future[None] = loop.create_future()
        self._pidfd = os.pidfd_open(record.engine.pid)
        loop.add_reader(self._pidfd, self._on_exit)
        loop.add_reader(channel, self._on_word)

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        folder: Path,
        log_path: Path,
        on_lines: Callable[[list[str]], None] | None = None,
        adopt_s: float = 0.0,
        digest: str = "",
        serves_on: str = "",
    ) -> EngineProcess:
        """Start ``command`` in a session of its own.

        Args:
            command: Program and arguments; never passed to a shell.
            env: The whole environment of the engine; its mark is added.
            folder: Private folder for its record; ``reap`` it first.
            log_path: Where its output goes.
            on_lines: Called in the event loop with each batch of whole output lines.
            adopt_s: How long it outlives this process if that is killed, in seconds.
            digest: Kept on record; ``adopt`` wants the same.
            serves_on: The engine's socket, removed with it.

        Raises:
            EngineFailed: The process could not be started.
        """
        paths.private_folder(folder)
        record = Record(secrets.token_hex(16), digest=digest, socket=serves_on)
        # On record before it exists: whenever we are killed, the next daemon finds it by its mark.
        _record(folder, record)
        log = LogPump(log_path)
        try:
            read_end, write_end, ours, theirs = _channels()
        except OSError as error:
            _remains.remove(folder, record)
            raise EngineFailed(f"cannot start {command[0]}: {error.strerror}") from error
        orders = [record.mark, os.getpid(), adopt_s, theirs.fileno(), read_end, folder, log_path]
        env = {**env, _processes.MARK_VARIABLE: record.mark}
        try:
            child = _launched([*map(str, orders), *command], env, write_end, (theirs.fileno(), read_end))
        except OSError as error:
            os.close(read_end)
            ours.close()
            _remains.remove(folder, record)
            raise EngineFailed(f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            os.close(write_end)
            theirs.close()
        log.start(read_end, _in_loop(on_lines))
        try:
            engine, keeper = await _started(ours), _processes.identify(child.pid)
            record = record._replace(engine=engine, keeper=keeper)
            _record(folder, record)
            return cls(record, folder, log, ours, child)
        except BaseException:
            # Nobody else would end it: neither its owner nor, without a record, the next daemon.
            ours.close()
            child.kill()
            child.wait()
            # Without a handle to look with it waits for one; the record stays for the next daemon.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_remains.end_orphan, str(folder), record.mark, None, grace_s=0.0)
            raise

    @classmethod
    async def adopt(
        cls, folder: Path, record: Record, *, log_path: Path, adopt_s: float
    ) -> EngineProcess | None:
        """Become the owner of an engine that a dead daemon left; None if its keeper does not agree.

        Args:
            folder: Its private folder.
            record: What was found there.
            log_path: Where its output goes from here on, after what is there.
            adopt_s: As for ``spawn``, from now on.
        """
        if record.engine is None or record.keeper is None or not _remains.adoptable(folder):
            return None
        hailed = await asyncio.to_thread(_hail, folder, record, adopt_s)
        if hailed is None:
            return None
        channel, output = hailed
        log = LogPump(log_path)
        log.start(output, resume=True)
        try:
            return cls(record, folder, log, channel, None)
        except OSError:  # it ended between two looks
            channel.close()
            return None

    @property
    def running(self) -> bool:
        """Whether the main process has not ended."""
        return not self._ended.done()

    async def note(self, *, version: str | None, boot: Sequence[str]) -> None:
        """Put on record that it is ready, so that it may be adopted, and what it leaves if it is killed."""
        shared = await asyncio.to_thread(self._shared)
        self.record = self.record._replace(
            version=version, boot=tuple(boot), ready=True, shared=tuple(sorted(map(str, shared)))
        )
        with contextlib.suppress(OSError):  # a full disk: it serves, and will not be adopted
            _remains.write(self._folder, self.record)

    async def exited(self) -> str:
        """Wait for the end of the main process; return it in words, e.g. ``exited with code 3``."""
        why = await asyncio.shield(self._ended)
        # Its last words may still be on their way to the log; a worker that lives on keeps that open.
        await asyncio.to_thread(self.log.join, 0.1)
        return why

    async def stop(self, grace_s: float) -> None:
        """End every process of the engine; returns when none is left. May be called again.

        Raises:
            EngineFailed: Some would not die within 30 seconds of SIGKILL (stuck in the kernel).
        """
        shared = await asyncio.to_thread(self._shared)
        left = await asyncio.to_thread(_processes.end, self._members, grace_s=grace_s)
        if left:
            raise EngineFailed(
                f"processes {', '.join(str(identity.pid) for identity in sorted(left))} do not die",
                hint="They hang in the kernel (a GPU driver, a network disk); their memory stays taken.",
                pids=sorted(identity.pid for identity in left),
            )
        if not self._released:
            await self._ended
            # Only now: until then the keeper held the engine's id, and so its session's, from strangers.
            await self._release()
            await asyncio.to_thread(self.log.join, 2.0)
        _remains.remove_files(shared)
        _remains.remove(self._folder, self.record)

    def kill(self) -> None:
        """Kill what is there now without waiting; ``stop`` does the rest."""
        with contextlib.suppress(OSError):  # no handle left to look with
            _processes.kill(self._members())

    def _shared(self) -> set[Path]:
        with contextlib.suppress(OSError):
            return _processes.shared_memory(self._members())
        return set()

    async def _release(self) -> None:
        self._released = True
        with contextlib.suppress(OSError):
            self._channel.send(b"release")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEPER_S):
                await asyncio.shield(self._kept)
        _processes.kill({self._keeper})
        if self._child is not None:
            await asyncio.to_thread(self._child.wait)

    def _members(self) -> set[Identity]:
        session = self.info.pid if not self._released and _processes.held(self._engine) else None
        self._seen |= _processes.family(self.record.mark, session=session)
        self._seen.discard(self._keeper)
        return self._seen

    def _on_exit(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # How it ended the keeper knows; that it did does not depend on the keeper.
        loop.call_later(_KEEPER_S, self._end, "ended")

    def _on_word(self) -> None:
        try:
            data = self._channel.recv(_WORD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._kept.set_result(None)
            self._end("lost its keeper" if _processes.alive(self._engine) else "ended")
            return
        word, *numbers = data.split()
        if word == b"exit":
            self._end(_in_words(*map(int, numbers)))

    def _end(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)


def _in_words(code: int, status: int) -> str:
    if code == os.CLD_EXITED:
        return f"exited with code {status}"
    name = signal.Signals(status).name
    hint = ", perhaps by the kernel for want of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _in_loop(tell: Callable[[list[str]], None] | None) -> Callable[[list[str]], None] | None:
    if tell is None:
        return None
    loop = asyncio.get_running_loop()

    def forward(lines: list[str]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens
            loop.call_soon_threadsafe(tell, lines)

    return forward


def _record(folder: Path, record: Record) -> None:
    try:
        _remains.write(folder, record)
    except OSError as error:
        raise EngineFailed(f"cannot record the engine's process in {folder}: {error.strerror}") from error


def _channels() -> tuple[int, int, socket.socket, socket.socket]:
    """Return both ends of a pipe and of a channel of messages; OSError without either."""
    read_end, write_end = os.pipe()
    try:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    except OSError:
        os.close(read_end)
        os.close(write_end)
        raise
    ours.setblocking(False)
    return read_end, write_end, ours, theirs


def _launched(
    arguments: list[str], env: Mapping[str, str], output: int, handles: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # -I and -S: the launcher needs nothing installed, and starts in 10 ms so.
        [sys.executable, "-I", "-S", str(_LAUNCHER), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=handles,
        start_new_session=True,
    )


async def _started(channel: socket.socket) -> Identity:
    """Return the process that the keeper says it has started."""
    said = await asyncio.get_running_loop().sock_recv(channel, _WORD_BYTES)
    engine = _processes.identify(int(said.split()[1])) if said else None
    if engine is None:
        raise EngineFailed("the engine's keeper ended before it had begun")
    return engine


def _hail(folder: Path, record: Record, adopt_s: float) -> tuple[socket.socket, int] | None:
    """Ask a keeper for its engine; return the channel to it and the read end of the engine's output."""
    assert record.engine is not None
    assert record.keeper is not None
    deadline_s = time.monotonic() + _HAIL_S
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.settimeout(_HAIL_S)
        # By way of the folder's handle: a Unix socket's address has 108 bytes, a path may have more.
        while channel.connect_ex(f"/proc/self/fd/{handle}/{_keeper.SOCKET}"):
            if time.monotonic() > deadline_s or not _processes.alive(record.keeper):
                raise TimeoutError
            time.sleep(_LOOK_EVERY_S)
        channel.send(f"adopt {adopt_s}".encode())
        said, handles, _, _ = socket.recv_fds(channel, _WORD_BYTES, 1)
    except OSError:
        channel.close()
        return None
    finally:
        os.close(handle)
    if said.split() != [b"engine", str(record.engine.pid).encode()] or len(handles) != 1:
        channel.close()
        for handle in handles:
            os.close(handle)
        return None
    channel.setblocking(False)
    return channel, handles[0]


def reap_leftovers(
    runtime_dir: Path, keep: Collection[str] = (), *, grace_s: float = _remains.LEFTOVER_GRACE_S
) -> list[str]:
    """End the engines that a dead daemon left behind; blocks until they are gone.

    A process is ended only if it carries the mark on record, and the recorded one only if its start
    time agrees too. Call it holding the daemon's lock.

    Args:
        runtime_dir: The daemon's folder.
        keep: Names of tiers whose engines are left to be adopted if they can be.
        grace_s: Between being asked to end and being killed.

    Returns:
        A sentence for each engine something was done about.
    """
    folders = sorted(path.parent for path in (runtime_dir / "engines").glob(f"*/{_remains.FILE}"))
    left = [folder for folder in folders if folder.name not in keep or not _remains.adoptable(folder)]
    return [done for folder in left if (done := reap(folder, grace_s=grace_s))]
