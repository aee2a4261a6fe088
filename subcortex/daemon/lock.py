"""One daemon a machine: a lock that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from subcortex.errors import DaemonRunning


@contextmanager
def hold(runtime_dir: Path) -> Iterator[None]:
    """Hold the lock of ``runtime_dir`` with our process id in it.

    Raises:
        DaemonRunning: Another process holds it; names its pid.
    """
    path = runtime_dir / "daemon.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode("ascii", "replace").strip() or "0"
            raise DaemonRunning(
                f"a daemon is up already: process {pid} holds {path}",
                hint="Use it, or stop it with `subcortex down`.",
                pid=int(pid) if pid.isdigit() else 0,
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(fd)
