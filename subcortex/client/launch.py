"""Starting a daemon that outlives its caller, and hearing from it how the start went."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from subcortex import paths
from subcortex.client.transport import Transport
from subcortex.config import Config
from subcortex.errors import ConfigError, DaemonRunning, DaemonUnreachable, from_wire

#: How often a lock that is held is tried again, seconds; each try that needs a process doubles it.
_LOOK_EVERY_S, _LONGEST_LOOK_S = 0.05, 0.5


def start_daemon(config: Config, *, within_s: float | None = None) -> int:
    """Start ``python -m subcortex.daemon`` detached and wait until its socket answers.

    While another daemon holds the lock and does not listen, since it is starting or stopping, it is waited
    for: by then it answers, or the lock is free. Of callers that come at once one starts a daemon, and the
    others wait for it: a start each would take the machine from the one that counts.

    Args:
        config: What to serve.
        within_s: How long the caller can wait at most; ``daemon.start_timeout_s`` holds in any case.

    Returns:
        The process id of the daemon that is up: the new one, or the one that was there first.

    Raises:
        SubcortexError: What the daemon said stopped it (its configuration, its database, …).
        DaemonUnreachable: It died or stayed silent for that long.
    """
    limit_s = config.daemon.start_timeout_s
    limit_s = limit_s if within_s is None else min(limit_s, within_s)
    end = time.monotonic() + limit_s
    holder, pause_s = "another program", _LOOK_EVERY_S
    with _turns(config) as is_ours:
        while True:
            if _listens(config.socket_path) and (known := _pid_of_daemon(config)):
                return known
            if is_ours():
                try:
                    return _start_once(config, end)
                except DaemonRunning as running:
                    pid = int(running.details.get("pid", 0))
                    if _listens(config.socket_path):
                        return pid
                    holder = f"process {pid}"
                    pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
            if time.monotonic() > end:
                raise DaemonUnreachable(
                    f"{holder} is the daemon, or starts it, and it does not listen after {limit_s:g} s",
                    hint=f"Its log is {config.log_dir / 'daemon.log'}; kill it if it is stuck.",
                    sent=False,
                    silent=True,
                )
            time.sleep(max(0.0, min(pause_s, end - time.monotonic())))


@contextmanager
def _turns(config: Config) -> Iterator[Callable[[], bool]]:
    """Give what tells whether it is the caller's turn to start a daemon, and keeps it so from then on."""
    path = paths.private_folder(config.runtime_dir) / "starting.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        # A disk or a table of files that is full: the daemon's own lock decides, as it does in any case.
        yield lambda: True
        return

    def is_ours() -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        yield is_ours
    finally:
        os.close(fd)


def _pid_of_daemon(config: Config) -> int | None:
    """Return the process that holds the daemon's lock, as it has written there."""
    with suppress(OSError, ValueError):
        return int((config.runtime_dir / "daemon.lock").read_text())
    return None


def _start_once(config: Config, end: float) -> int:
    """Start a daemon; it reports over a pipe, one JSON line: ``{"ready": pid}`` or ``{"error": …}``."""
    log = _log_file(config)
    read_end, write_end = os.pipe()
    command = [sys.executable, "-m", "subcortex.daemon", "--ready-fd", str(write_end)]
    if config.source:
        command += ["--config", str(config.source)]
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd=config.base_dir,
            )
    except OSError as error:
        os.close(read_end)
        raise ConfigError(
            f"the daemon cannot be started with its log at {log}: {error.strerror}",
            hint="Move away what is there, or set journal.database to a folder of your own.",
            file=str(log),
        ) from None
    finally:
        os.close(write_end)
    try:
        line = _first_line(read_end, max(0.1, end - time.monotonic()))
    finally:
        os.close(read_end)
    # Whoever started the daemon is its parent, and has to take note of its end, whenever that is.
    threading.Thread(target=child.wait, name="subcortex-daemon", daemon=True).start()
    if not line:
        raise DaemonUnreachable(
            f"the daemon (pid {child.pid}) has not said that it is ready in time"
            if line is None
            else f"the daemon exited with code {child.wait()} before it was ready",
            hint=f"Its log is {log}; `subcortex up --foreground` shows it as it happens.",
            log_tail=_tail(log),
            sent=False,
            silent=line is None,
        )
    answer = json.loads(line)
    if "error" in answer:
        raise from_wire(answer["error"])
    return int(answer["ready"])


def _listens(path: Path) -> bool:
    return Transport(path).reachable()


def _log_file(config: Config) -> Path:
    folder = paths.private_folder(config.log_dir)
    return folder / "daemon.log"


def _first_line(fd: int, timeout_s: float) -> bytes | None:
    """Return what the pipe brings up to a newline; empty if it closes first, None if the time is up."""
    end = time.monotonic() + timeout_s
    received = b""
    while b"\n" not in received:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            return b""
        received += piece
    return received.split(b"\n", 1)[0]


def _tail(log: Path, size_bytes: int = 2000) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - size_bytes))
        return file.read().decode("utf-8", "replace")
