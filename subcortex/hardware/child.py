"""Asking a program something: it has a time, a size and no secrets, and leaves nobody behind. Effects."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ANSWER_BYTES = 2**20
_KEPT_STDERR_BYTES = 4096
_PIECE_BYTES = 65536
# Names of variables that hold secrets, and values that carry a password. Nothing that is asked needs one.
_SECRET_NAME = re.compile(
    r"key|token|secret|passw|passphrase|credential|auth|(^|_)(pass|pat)(_|$)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said.

    Args:
        stdout: All of it.
        stderr: The end of it.
        problem: What stood against it in words, None if it ended as it should.
    """

    stdout: str = ""
    stderr: str = ""
    problem: str | None = None


def ask(command: Sequence[str], *, env: Mapping[str, str], time_limit_s: float) -> Answer:
    """Return what a program says. Never raises; see ``problem``.

    It runs in a process group of its own, of which nothing is left when this returns. It is killed at the end
    of the time or of what an answer may weigh; once it has ended nobody it leaves behind is waited for.

    Args:
        command: The program, a path or a name, and its arguments.
        env: All of its variables. Those that look as if they held a secret are left out.
        time_limit_s: How long it may take.
    """
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=without_secrets(env),
            process_group=0,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Answer(problem=f"cannot be run: {why}")
    answer, said = bytearray(), bytearray()
    try:
        problem = _follow(child, answer, said, time_limit_s)
    finally:
        _end(child)
    stdout, stderr = (kept.decode("utf-8", "replace") for kept in (answer, said[-_KEPT_STDERR_BYTES:]))
    if problem is None and child.returncode != 0:
        problem = _last_words(stderr) or f"ended with {_ending(child.returncode)}"
    return Answer(stdout, stderr, problem)


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that look as if they held a secret."""
    return {
        name: value
        for name, value in env.items()
        if not _SECRET_NAME.search(name) and not _SECRET_VALUE.search(value)
    }


def last_object(answer: str) -> dict[str, Any] | None:
    """Return the last line that is a JSON object; programs log to stdout before it."""
    for line in reversed(answer.splitlines()):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _follow(child: subprocess.Popen[bytes], answer: bytearray, said: bytearray, limit_s: float) -> str | None:
    """Read both streams until the child has ended; return what stood against it in words."""
    assert child.stdout is not None
    assert child.stderr is not None
    until = time.monotonic() + limit_s
    ended = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ, answer)
            selector.register(child.stderr, selectors.EVENT_READ, said)
            # Not the end of the streams: a process that the child leaves behind may hold them open.
            selector.register(ended, selectors.EVENT_READ)
            running = True
            while running:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return f"no answer within {limit_s:g} s"
                for key, _ in selector.select(left_s):
                    if key.fd == ended:
                        running = False
                        continue
                    piece = os.read(key.fd, _PIECE_BYTES)
                    if not piece:
                        selector.unregister(key.fileobj)
                    key.data.extend(piece)
                if len(answer) > _ANSWER_BYTES:
                    return f"answered with more than {_ANSWER_BYTES} bytes"
                del said[:-_KEPT_STDERR_BYTES]
    finally:
        os.close(ended)
    _drain(child.stdout.fileno(), answer)
    _drain(child.stderr.fileno(), said)
    return f"answered with more than {_ANSWER_BYTES} bytes" if len(answer) > _ANSWER_BYTES else None


def _drain(stream: int, kept: bytearray) -> None:
    """Read what an ended child has left in a pipe, without waiting, and no more than a pipe can hold."""
    os.set_blocking(stream, False)
    with contextlib.suppress(BlockingIOError):
        for _ in range(_ANSWER_BYTES // _PIECE_BYTES + 1):
            piece = os.read(stream, _PIECE_BYTES)
            if not piece:
                return
            kept.extend(piece)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the group of a child, ended or not, and take note of its end."""
    # Not polled before: while the leader is a zombie at most, its group's number is nobody else's.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _last_words(said: str) -> str | None:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else None


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
