"""What ``doctor`` looks at on the machine itself: database, folders, disk, sockets, GPUs."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from subcortex.config import Config
from subcortex.errors import DaemonUnreachable, SubcortexError
from subcortex.hardware import Hardware, refuse_mig

Outcome = Literal["ok", "warn", "fail", "skip"]

#: What a Unix socket's address holds: 108 bytes with the final NUL.
MOST_SOCKET_PATH_BYTES = 107
#: The oldest SQLite with RETURNING, which the journal uses.
_OLDEST_SQLITE = (3, 35, 0)
_LOW_DISK_MIB, _NO_DISK_MIB = 2048, 200


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at.

    Args:
        subject: ``config``, ``disk``, or ``tier NAME: what``.
        outcome: ``fail`` means that thoughts will not work; ``warn`` that they may not for long.
        message: What was found, with the figure.
        todo: What to do about it; None when ok.
    """

    subject: str
    outcome: Outcome
    message: str
    todo: str | None = None


def machine_checks(hardware: Hardware) -> Iterator[Check]:
    """Look at what needs no configuration."""
    yield _sqlite()
    yield _gpus(hardware)


def config_checks(config: Config) -> Iterator[Check]:
    """Look at what the configuration points to, tiers aside."""
    yield _drives(config)
    yield _socket_path(config)
    yield _runtime_folder(config)
    yield _disk("disk (state)", config.database_path.parent)
    yield _disk("disk (runtime)", config.runtime_dir)
    yield _daemon(config)


def _sqlite() -> Check:
    found = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        return Check("sqlite", "fail", f"SQLite {found}, older than {oldest}", "Use a newer Python build.")
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    except sqlite3.OperationalError as error:
        return Check(
            "sqlite", "fail", f"SQLite {found} without FTS5 ({error})", "Use a Python whose SQLite has FTS5."
        )
    finally:
        connection.close()
    return Check("sqlite", "ok", f"SQLite {found} with FTS5")


def _gpus(hardware: Hardware) -> Check:
    if hardware.problem:
        return Check("gpus", "warn", hardware.problem, "See whether `nvidia-smi` works; reload the driver.")
    if not hardware.gpus:
        return Check("gpus", "ok", "no NVIDIA GPU: engines run on the CPU")
    cards = "; ".join(
        f"{gpu.index}: {gpu.name}, {gpu.memory_free_mib / 1024:.1f} of "
        f"{gpu.memory_total_mib / 1024:.1f} GiB free"
        for gpu in hardware.gpus
    )
    try:
        refuse_mig(hardware)
    except SubcortexError as error:
        return Check("gpus", "warn", error.message, error.hint)
    cuda = ".".join(map(str, hardware.cuda_version or ())) or "?"
    return Check("gpus", "ok", f"{cards}; driver {hardware.driver_version}, CUDA {cuda}")


def _drives(config: Config) -> Check:
    from subcortex.drives import KnownDrives, followed

    folder = config.drives_dir
    try:
        known = KnownDrives(config)
        drives = known.current()
        if known.problem:
            raise known.problem
    except SubcortexError as error:
        return Check("drives", "fail", error.message, error.hint)
    if not drives:
        return Check("drives", "warn", f"no drive in {folder}", "Set drives.dir, or write one TOML a drive.")
    theirs = f"{folder}, and in the Emergence state {state}" if (state := followed(config)) else str(folder)
    return Check("drives", "ok", f"{len(drives)} in {theirs}: {', '.join(sorted(drives))}")


def _socket_path(config: Config) -> Check:
    length = len(bytes(config.socket_path))
    if length > MOST_SOCKET_PATH_BYTES:
        return Check(
            "socket",
            "fail",
            f"{config.socket_path} has {length} bytes; a Unix socket's path holds {MOST_SOCKET_PATH_BYTES}",
            "Set daemon.runtime_dir to a shorter path.",
        )
    return Check("socket", "ok", f"{config.socket_path} ({length} of {MOST_SOCKET_PATH_BYTES} bytes)")


def _runtime_folder(config: Config) -> Check:
    import os
    import stat

    folder = config.runtime_dir
    if not folder.exists():
        return Check("runtime folder", "ok", f"{folder} will be made, private")
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return Check(
            "runtime folder",
            "fail",
            f"{folder} is not a folder of user {os.getuid()} (owner {found.st_uid})",
            "Remove it, or set daemon.runtime_dir to a folder of your own.",
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        return Check(
            "runtime folder", "warn", f"{folder} is open to others ({mode:o})", f"chmod 700 {folder}"
        )
    return Check("runtime folder", "ok", f"{folder} is private")


def _disk(subject: str, folder: Path) -> Check:
    import os

    there = folder
    while not there.exists():
        there = there.parent
    free_mib = shutil.disk_usage(there).free / 2**20
    message = f"{free_mib / 1024:.1f} GiB free at {there}"
    if not os.access(there, os.W_OK | os.X_OK):
        return Check(subject, "fail", f"{there} cannot be written", "Give this user the right, or move it.")
    if free_mib < _NO_DISK_MIB:
        return Check(subject, "fail", message, "Free some space; thoughts cannot be recorded without it.")
    if free_mib < _LOW_DISK_MIB:
        return Check(subject, "warn", message, "Free some space soon.")
    return Check(subject, "ok", message)


def _daemon(config: Config) -> Check:
    from subcortex.client import Client

    try:
        daemon = Client(config).status().daemon
    except DaemonUnreachable:
        return Check("daemon", "ok", "not up; the first thought or `subcortex up` starts it")
    except SubcortexError as error:
        return Check("daemon", "fail", error.message, error.hint)
    if daemon.journal != "ok":
        return Check("daemon", "warn", f"up, pid {daemon.pid}, journal {daemon.journal}", "Free disk space.")
    return Check("daemon", "ok", f"up, pid {daemon.pid}, version {daemon.version}")
