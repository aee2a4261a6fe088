"""Running the command line: in this process, as a process of its own, and on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from subcortex.cli import cli

COMMAND = (sys.executable, "-m", "subcortex.cli")


def invoke(*arguments: object, **options) -> Result:
    """Run a command in this process; stdout, stderr and the exit code come apart."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], **options)


def run(*arguments: object, env: dict[str, str] | None = None, stdin: bytes = b"", cwd: Path | None = None):
    """Run a command as a process, without a terminal; returns text streams and the exit code."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def run_on_terminal(*arguments: object, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command with a terminal of its own; returns the exit code and all that it was sent."""
    pid, terminal = pty.fork()
    if pid == 0:
        full = {"TERM": "xterm", **os.environ, **(env or {})}
        os.execvpe(COMMAND[0], [*COMMAND, *map(str, arguments)], full)
    received = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        received += piece
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), received.decode()
