"""Find and end the processes of one engine, wherever in the process tree they have gone.

An engine's workers outlive it (vLLM's do) and may leave its process group, so three tests tell them:
they carry the engine's mark in their environment, they are in the session that it was started in, or
their parent is one of them. A process is always named by its id *and* its start, since ids are reused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

#: The variable that marks every process of an engine.
MARK_VARIABLE = "SUBCORTEX_ENGINE_ID"
_ANY_MARK = f"{MARK_VARIABLE}=".encode()

#: No handle was left to ask with: what was asked is not known, and that is neither yes nor no.
_NO_HANDLE = frozenset({errno.EMFILE, errno.ENFILE})
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.02
#: Python's and vLLM's names; others (a CUDA service's, say) may outlive the engine on purpose.
_ENGINE_SHARED = re.compile(r"(?:^|(?<= ))/dev/shm/(?:psm_|sem\.mp-|vllm)[^\n/]*?$", re.MULTILINE)


class Identity(NamedTuple):
    """A process: its id, and its start in clock ticks since boot."""

    pid: int
    start_ticks: int


class _Stat(NamedTuple):
    identity: Identity
    parent: int
    session: int
    zombie: bool


def identify(pid: int) -> Identity | None:
    """Return the identity of the process that has this id now; None if there is none, or none can be read."""
    with contextlib.suppress(OSError):
        found = _stat(pid)
        return found.identity if found else None
    return None


def start_time_s(identity: Identity) -> float:
    """Return when the process started, in seconds since the epoch."""
    lines = Path("/proc/stat").read_text().splitlines()
    boot_s = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    return boot_s + identity.start_ticks / _TICKS_PER_S


def alive(identity: Identity) -> bool:
    """Return whether that very process still runs (a zombie does not); without a handle to ask, yes."""
    try:
        found = _stat(identity.pid)
    except OSError:
        return True
    return found is not None and found.identity == identity and not found.zombie


def held(identity: Identity) -> bool:
    """Return whether the id is still that process's: it runs, or its parent has not asked how it ended."""
    try:
        found = _stat(identity.pid)
    except OSError:
        return True
    return found is not None and found.identity == identity


def marked(pid: int, mark: str) -> bool:
    """Return whether the process was started with that engine's mark; without a handle to ask, no."""
    with contextlib.suppress(OSError):
        return _marked(pid, f"{MARK_VARIABLE}={mark}".encode())
    return False


def is_engines(pid: int) -> bool:
    """Return whether a process is an engine's, of this daemon or another, or about to be gone."""
    try:
        environ = _read(f"/proc/{pid}/environ")
    except (FileNotFoundError, ProcessLookupError):
        # What has begun to end has no environment any more.
        return True
    except OSError as error:
        return error.errno in _NO_HANDLE
    return not environ or any(word.startswith(_ANY_MARK) for word in environ.split(b"\0"))


def family(mark: str, *, session: int | None = None) -> set[Identity]:
    """Return the living processes of the engine with that mark.

    Args:
        mark: Value of the engine's mark.
        session: Session that the engine was started in; only while its leader is known to be ours.

    Raises:
        OSError: No handle is left to look with, so nobody knows.
    """
    me = os.getpid()
    stats = [found for pid in _pids() if pid != me and (found := _stat(pid)) and not found.zombie]
    needle = f"{MARK_VARIABLE}={mark}".encode()
    members = {
        stat.identity
        for stat in stats
        if (session is not None and stat.session == session) or _marked(stat.identity.pid, needle)
    }
    grown = True
    while grown:
        parents = {identity.pid for identity in members}
        more = {stat.identity for stat in stats if stat.parent in parents} - members
        members |= more
        grown = bool(more)
    return members


def shared_memory(identities: Iterable[Identity]) -> set[Path]:
    """Return the files in ``/dev/shm`` that the processes have open and that engines are known to make.

    A process that is killed leaves them behind, and in a container they are what runs out first.
    """
    found: set[Path] = set()
    for identity in identities:
        with contextlib.suppress(OSError):
            maps = _read(f"/proc/{identity.pid}/maps").decode("utf-8", errors="replace")
            found.update(Path(path) for path in _ENGINE_SHARED.findall(maps))
    return found


def is_shared_memory(path: str) -> bool:
    """Return whether that is a file in ``/dev/shm`` of the kind that engines are known to make."""
    return _ENGINE_SHARED.fullmatch(path) is not None


def end(look: Callable[[], Iterable[Identity]], *, grace_s: float, limit_s: float = 30.0) -> set[Identity]:
    """Ask the processes that ``look`` finds to end, then kill them; return those left after ``limit_s``.

    ``look`` is called again and again, so that what is forked in the meantime is found too. Blocks. Where it
    raises OSError, for want of a handle, it is asked again: what cannot be seen is not gone.

    Raises:
        OSError: ``look`` still does after ``limit_s``.
    """
    asked: set[Identity] = set()
    began = time.monotonic()
    while True:
        waited_s = time.monotonic() - began
        try:
            found = {identity for identity in look() if alive(identity)}
        except OSError:
            if waited_s > grace_s + limit_s:
                raise
            time.sleep(_POLL_S)
            continue
        if not found or waited_s > grace_s + limit_s:
            return found
        if waited_s < grace_s:
            _signal(found - asked, signal.SIGTERM)
            # A process that was stopped hears of it only once it goes on.
            _signal(found - asked, signal.SIGCONT)
            asked |= found
        else:
            _signal(found, signal.SIGKILL)
        time.sleep(_POLL_S)


def kill(identities: Iterable[Identity]) -> None:
    """Send SIGKILL to each, without waiting."""
    _signal(identities, signal.SIGKILL)


def _signal(identities: Iterable[Identity], number: signal.Signals) -> None:
    for identity in identities:
        try:
            handle = os.pidfd_open(identity.pid)
        except OSError:
            continue
        try:
            # Between the handle and this look the id cannot pass to another process unseen.
            if alive(identity):
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def _pids() -> Iterable[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - a third of the time


def _stat(pid: int) -> _Stat | None:
    try:
        raw = _read(f"/proc/{pid}/stat")
    except OSError as error:
        if error.errno in _NO_HANDLE:
            raise
        return None
    # The command's name may hold spaces and brackets; what follows the last bracket is plain.
    state, parent, _, session, *rest = raw[raw.rindex(b")") + 2 :].split()
    # A leader that has ended is a zombie until its last thread has, and that one may still be giving back
    # what it held: a worker of vLLM takes seconds to unlock the memory that a sleep went to.
    ended = state in (b"Z", b"X") and int(rest[13]) <= 1
    return _Stat(Identity(pid, int(rest[15])), int(parent), int(session), ended)


def _marked(pid: int, needle: bytes) -> bool:
    try:
        return needle in _read(f"/proc/{pid}/environ").split(b"\0")
    except OSError as error:
        if error.errno in _NO_HANDLE:
            raise
        return False


def _read(path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(handle, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)
