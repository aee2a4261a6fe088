"""Starting a daemon that outlives its caller, and hearing from it how the start went."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from subcortex import paths
from subcortex.config import Config
from subcortex.errors import DaemonRunning, DaemonUnreachable, from_wire


def start_daemon(config: Config) -> int:
    """Start ``python -m subcortex.daemon`` detached and wait until its socket answers.

    The child reports over a pipe: one JSON line, ``{"ready": pid}`` or ``{"error": …}``.

    Returns:
        The process id of the daemon that is up: the new one, or the one that was there first.

    Raises:
        SubcortexError: What the daemon said stopped it (its configuration, its database, …).
        DaemonUnreachable: It died or stayed silent for ``daemon.start_timeout_s`` seconds.
    """
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
    finally:
        os.close(write_end)
    try:
        line = _first_line(read_end, config.daemon.start_timeout_s)
    finally:
        os.close(read_end)
    # Whoever started the daemon is its parent, and has to take note of its end, whenever that is.
    threading.Thread(target=child.wait, name="subcortex-daemon", daemon=True).start()
    if not line:
        raise DaemonUnreachable(
            f"the daemon (pid {child.pid}) said nothing for {config.daemon.start_timeout_s:g} s"
            if line is None
            else f"the daemon exited with code {child.wait()} before it was ready",
            hint=f"Its log is {log}; `subcortex up --foreground` shows it as it happens.",
            log_tail=_tail(log),
        )
    answer = json.loads(line)
    if "error" not in answer:
        return int(answer["ready"])
    error = from_wire(answer["error"])
    if isinstance(error, DaemonRunning):
        return int(error.details.get("pid", 0))
    raise error


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
