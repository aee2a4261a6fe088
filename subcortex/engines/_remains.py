"""What is on record of an engine, and how what is left of it is ended by somebody who did not start it.

Read by the next daemon, and by the keeper of an engine that nobody adopts; the latter has the standard
library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from subcortex.engines import _processes
from subcortex.engines._keeper import SOCKET
from subcortex.engines._processes import Identity

FILE = "process.json"
#: Where a socket goes whose path would be too long in the engine's own folder: in a folder made for it.
SHORT_FOLDER, SHORT_PREFIX = Path("/tmp"), "subcortex-"  # noqa: S108 - the folder is made by mkdtemp
#: Seconds that processes which a dead daemon left get between SIGTERM and SIGKILL.
LEFTOVER_GRACE_S = 3.0
_KEEPER_LIMIT_S = 10.0


class Record(NamedTuple):
    """One engine's record, written before the engine starts and told more as it comes up.

    Args:
        mark: Value of the mark that all of its processes carry.
        engine: Its main process.
        keeper: That process's parent.
        digest: Of the command it was started with, and of what the config sets in its environment.
        socket: Where it serves.
        version: What it says it is.
        ready: Whether it has answered its health route.
        boot: What its start said of its memory, line by line.
        shared: Files in ``/dev/shm`` that its processes had open once it was ready: who is killed leaves
            them behind, and whoever comes after finds nobody to ask.
    """

    mark: str
    engine: Identity | None = None
    keeper: Identity | None = None
    digest: str = ""
    socket: str = ""
    version: str | None = None
    ready: bool = False
    boot: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def read(folder: Path) -> Record | None:
    """Return the record in an engine's folder, None if there is none.

    Raises:
        ValueError: It cannot be understood.
    """
    try:
        data = json.loads((folder / FILE).read_bytes())
        return Record(
            mark=_text(data["mark"]),
            engine=_identity(data["engine"]),
            keeper=_identity(data["keeper"]),
            digest=_text(data["digest"]),
            socket=_text(data["socket"]),
            version=None if data["version"] is None else _text(data["version"]),
            ready=data["ready"] is True,
            boot=tuple(map(_text, data["boot"])),
            shared=tuple(map(_text, data.get("shared", ()))),
        )
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, OSError) as error:
        raise ValueError(f"{folder / FILE}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _identity(value: Any) -> Identity | None:
    return None if value is None else Identity(*map(int, value))


def write(folder: Path, record: Record) -> None:
    """Replace the record in an engine's folder; OSError if that cannot be."""
    fresh = folder / f"{FILE}.new"
    fresh.write_text(json.dumps(record._asdict()))
    fresh.replace(folder / FILE)


def adoptable(folder: Path) -> bool:
    """Return whether there is an engine that was ready and runs, and a keeper that can be asked for it."""
    try:
        record = read(folder)
    except ValueError:
        return False
    return (
        record is not None
        and record.ready
        and record.engine is not None
        and record.keeper is not None
        and _processes.alive(record.engine)
        and _processes.alive(record.keeper)
        and _processes.marked(record.engine.pid, record.mark)
        and _processes.marked(record.keeper.pid, record.mark)
    )


def reap(folder: Path, *, grace_s: float = LEFTOVER_GRACE_S) -> str | None:
    """End what the record in ``folder`` says is left of an engine, its keeper last; blocks until it is gone.

    A process is ended only if it carries the mark on record, or came from one that does; the session of
    the recorded one counts only if its start time agrees too. Between being asked to end and being killed
    it has ``grace_s`` seconds.

    Returns:
        A sentence if something was done.
    """
    try:
        record = read(folder)
    except ValueError:
        (folder / FILE).unlink(missing_ok=True)
        return f"{folder.name}: removed an unreadable process record"
    if record is None:
        return None
    ended, left = _end(record, grace_s=grace_s)
    remove(folder, record)
    if left:
        pids = ", ".join(str(identity.pid) for identity in sorted(left))
        return f"{folder.name}: processes {pids} of a former daemon do not die"
    if not ended:
        return None
    what = f" (engine {record.engine.pid})" if record.engine else ""
    return f"{folder.name}: ended {len(ended)} processes of a former daemon{what}"


def end_orphan(folder: str, mark: str, engine: int | None, *, grace_s: float) -> None:
    """End all of an engine that nobody owns and remove what it had; for its keeper, which stays."""
    main = _processes.identify(engine) if engine is not None else None
    record = None
    with contextlib.suppress(ValueError):
        record = read(Path(folder))
    if record is None or record.mark != mark:
        # Another engine's record is in our place, or none: ours are known by their mark all the same.
        _end(Record(mark, main), grace_s=grace_s)
        return
    _end(record._replace(engine=main, keeper=None), grace_s=grace_s)
    remove(Path(folder), record)


def remove(folder: Path, record: Record) -> None:
    """Remove the files of an engine that is gone: record, sockets and shared memory."""
    remove_files(Path(path) for path in record.shared if _processes.is_shared_memory(path))
    for name in (FILE, SOCKET):
        (folder / name).unlink(missing_ok=True)
    socket = Path(record.socket)
    if socket.is_socket():
        socket.unlink(missing_ok=True)
    if socket.parent.parent == SHORT_FOLDER and socket.parent.name.startswith(SHORT_PREFIX):
        shutil.rmtree(socket.parent, ignore_errors=True)


def remove_files(files: Iterable[Path]) -> None:
    """Remove files as far as that goes."""
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _end(record: Record, *, grace_s: float) -> tuple[set[Identity], set[Identity]]:
    """End the engine, then its keeper; return which of the engine's processes ended, and which are left."""
    engine, keeper = record.engine, record.keeper
    session = engine.pid if engine is not None and _is_ours(engine, record.mark) else None
    ended: set[Identity] = set()

    def members() -> set[Identity]:
        ended.update(_processes.family(record.mark, session=session))
        return ended - {keeper}

    shared: set[Path] = set()
    with contextlib.suppress(OSError):
        shared = _processes.shared_memory(members())
    left = _processes.end(members, grace_s=grace_s)
    remove_files(shared)
    if keeper is not None and keeper.pid != os.getpid() and _processes.marked(keeper.pid, record.mark):
        left |= _processes.end(lambda: {keeper}, grace_s=0.0, limit_s=_KEEPER_LIMIT_S)
    return ended - {keeper}, left


def _is_ours(engine: Identity, mark: str) -> bool:
    """Return whether the recorded process still has its id, and so its session's, to itself."""
    if _processes.alive(engine):
        return _processes.marked(engine.pid, mark)
    # Dead, and its parent has not asked how it ended.
    return _processes.held(engine)
