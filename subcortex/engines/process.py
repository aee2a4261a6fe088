"""Run an engine's process: its launch, its log, its death, and the end of everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from subcortex import paths
from subcortex.engines import _processes
from subcortex.engines._processes import Identity
from subcortex.engines.enginelog import LogPump
from subcortex.engines.protocol import ProcessInfo
from subcortex.errors import EngineFailed

_LAUNCHER = Path(__file__).with_name("_launch.py")
_PID_FILE = "process.json"
#: Seconds that processes which a dead daemon left get between SIGTERM and SIGKILL.
_LEFTOVER_GRACE_S = 3.0


class EngineProcess:
    """One started engine and all of its descendants, from spawn until none is left."""

    def __init__(self, child: subprocess.Popen[bytes], mark: str, folder: Path, log: LogPump) -> None:
        identity = _processes.identify(child.pid)
        assert identity is not None, "an unreaped child keeps its id"
        self.info = ProcessInfo(child.pid, _processes.start_time_s(identity))
        self.log = log
        self._child = child
        self._mark = mark
        self._folder = folder
        self._seen: set[Identity] = {identity}
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._pidfd = os.pidfd_open(child.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        _write_pid_file(folder, identity, mark)

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        folder: Path,
        log_path: Path,
        on_lines: Callable[[list[str]], None] | None = None,
    ) -> EngineProcess:
        """Start ``command`` in a session of its own.

        Call it from the event loop's thread: the kernel ends the engine with the thread that started it.

        Args:
            command: Program and arguments; never passed to a shell.
            env: The whole environment of the engine; its mark is added.
            folder: Private folder for the pid file; ``reap`` it first.
            log_path: Where its output goes.
            on_lines: Called in the event loop with each batch of whole output lines.

        Raises:
            EngineFailed: The process could not be started.
        """
        paths.private_folder(folder)
        mark = secrets.token_hex(16)
        loop = asyncio.get_running_loop()
        log = LogPump(log_path)
        read_end, write_end = os.pipe()
        try:
            # -I and -S: the launcher needs nothing installed, and starts in 10 ms so.
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command],
                env={**env, _processes.MARK_VARIABLE: mark},
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        except OSError as error:
            os.close(read_end)
            raise EngineFailed(f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            os.close(write_end)
        forward = None
        if on_lines is not None:
            tell = on_lines

            def forward(lines: list[str]) -> None:
                with contextlib.suppress(RuntimeError):  # the loop has closed: nobody listens
                    loop.call_soon_threadsafe(tell, lines)

        log.start(read_end, forward)
        try:
            return cls(child, mark, folder, log)
        except OSError as error:
            # Without a record nobody could find it again.
            child.kill()
            child.wait()
            raise EngineFailed(f"cannot record the engine's process in {folder}: {error.strerror}") from error

    @property
    def running(self) -> bool:
        """Whether the main process has not ended."""
        return not self._ended.done()

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
        shared = await asyncio.to_thread(lambda: _processes.shared_memory(self._members()))
        left = await asyncio.to_thread(_processes.end, self._members, grace_s=grace_s)
        if left:
            raise EngineFailed(
                f"processes {', '.join(str(identity.pid) for identity in sorted(left))} do not die",
                hint="They hang in the kernel (a GPU driver, a network disk); their memory stays taken.",
                pids=sorted(identity.pid for identity in left),
            )
        if self._child.returncode is None:
            # Reaped only now, after its end was read: until then its id, and so its session's, could not
            # pass to a stranger.
            await self._ended
            await asyncio.to_thread(self._child.wait)
            await asyncio.to_thread(self.log.join, 2.0)
        _remove(shared)
        (self._folder / _PID_FILE).unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill what is there now without waiting; ``stop`` does the rest."""
        _processes.kill(self._members())

    def _members(self) -> set[Identity]:
        session = self.info.pid if self._child.returncode is None else None
        self._seen |= _processes.family(self._mark, session=session)
        return self._seen

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            result = None  # somebody has reaped it: that it ended is all there is to know
        os.close(self._pidfd)
        if not self._ended.done():
            self._ended.set_result(_in_words(result))


def _in_words(result: Any) -> str:
    if result is None:
        return "ended"
    if result.si_code == os.CLD_EXITED:
        return f"exited with code {result.si_status}"
    name = signal.Signals(result.si_status).name
    hint = ", perhaps by the kernel for want of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def reap_leftovers(runtime_dir: Path) -> list[str]:
    """End the engines that a dead daemon left behind; blocks until they are gone.

    A process is ended only if it carries the mark on record, and the recorded one only if its start
    time agrees too. Call it holding the daemon's lock.

    Returns:
        A sentence for each engine something was done about.
    """
    folders = sorted(path.parent for path in (runtime_dir / "engines").glob(f"*/{_PID_FILE}"))
    return [done for folder in folders if (done := reap(folder))]


def reap(folder: Path) -> str | None:
    """End what one engine's record says is left of it, as ``reap_leftovers`` does; blocks."""
    file = folder / _PID_FILE
    try:
        record = json.loads(file.read_text())
        recorded, mark = Identity(int(record["pid"]), int(record["start_ticks"])), str(record["mark"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        file.unlink()
        return f"{folder.name}: removed an unreadable process record"
    ours = _processes.alive(recorded) and _processes.marked(recorded.pid, mark)
    ended: set[Identity] = set()

    def members() -> set[Identity]:
        ended.update(_processes.family(mark, session=recorded.pid if ours else None))
        return ended

    shared = _processes.shared_memory(members())
    left = _processes.end(members, grace_s=_LEFTOVER_GRACE_S)
    _remove(shared)
    file.unlink()
    if left:
        pids = ", ".join(str(identity.pid) for identity in sorted(left))
        return f"{folder.name}: processes {pids} of a former daemon do not die"
    if not ended:
        return None
    return f"{folder.name}: ended {len(ended)} processes of a former daemon (engine {recorded.pid})"


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _write_pid_file(folder: Path, identity: Identity, mark: str) -> None:
    record = {"pid": identity.pid, "start_ticks": identity.start_ticks, "mark": mark}
    fresh = folder / f"{_PID_FILE}.new"
    fresh.write_text(json.dumps(record))
    fresh.replace(folder / _PID_FILE)
