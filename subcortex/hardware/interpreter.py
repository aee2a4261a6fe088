"""Asking an engine's own interpreter what it has of torch and CUDA, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subcortex.hardware.model import Interpreter

#: The script, which can be run by hand with any interpreter.
PROBE = Path(__file__).with_name("_torch_probe.py")
#: Importing torch from a cold disk takes a minute on small machines.
TIME_LIMIT_S = 120.0
_ANSWER_BYTES = 2**20
_KEPT_STDERR_BYTES = 4096
_PIECE_BYTES = 65536


def ask_interpreter(
    python: str,
    *,
    tiers: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> Interpreter:
    """Return what an interpreter says of torch, CUDA, NCCL and vLLM. Never raises; see ``problem``.

    The interpreter runs in a process group of its own, which is killed at the end of the time or of what an
    answer may weigh.

    Args:
        python: Path or name of the interpreter.
        tiers: To note in the answer.
        env: Variables that the engine is given, besides those of this process.
        time_limit_s: How long it may take, torch's import included.
    """
    asked = Interpreter(python=python, tiers=tuple(tiers))
    try:
        child = subprocess.Popen(
            [python, str(PROBE)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            process_group=0,
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        return _failed(asked, f"cannot be run: {why}")
    answer, said = bytearray(), bytearray()
    try:
        problem = _follow(child, answer, said, time.monotonic() + time_limit_s, time_limit_s)
    finally:
        _end(child)
    if problem:
        return _failed(asked, problem)
    facts = _last_object(bytes(answer))
    if child.returncode != 0:
        return _failed(asked, _last_words(said) or f"ended with {_ending(child.returncode)}")
    if facts is None:
        return _failed(asked, "answered with something else than the probe's JSON")
    try:
        return Interpreter.model_validate({**facts, "python": python, "tiers": tuple(tiers)})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _failed(asked, f"answered with something else than the probe's JSON: {where}: {first['msg']}")


def _follow(
    child: subprocess.Popen[bytes], answer: bytearray, said: bytearray, until: float, limit_s: float
) -> str | None:
    """Read both streams until the child has ended; return what stood against it in words."""
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, answer)
        selector.register(child.stderr, selectors.EVENT_READ, said)
        while selector.get_map():
            left = until - time.monotonic()
            if left <= 0:
                return f"no answer within {limit_s:g} s"
            for key, _ in selector.select(left):
                piece = os.read(key.fd, _PIECE_BYTES)
                if not piece:
                    selector.unregister(key.fileobj)
                key.data.extend(piece)
            if len(answer) > _ANSWER_BYTES:
                return f"answered with more than {_ANSWER_BYTES} bytes"
            del said[:-_KEPT_STDERR_BYTES]
    try:
        child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"no answer within {limit_s:g} s"
    return None


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the group of a child that has not ended, and take note of its end."""
    if child.returncode is None:
        # Not polled before: while the leader is a zombie at most, its group's number is nobody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def _failed(asked: Interpreter, problem: str) -> Interpreter:
    return asked.model_copy(update={"problem": problem})


def _last_object(answer: bytes) -> dict[str, Any] | None:
    """Return the last line that is a JSON object."""
    for line in reversed(answer.splitlines()):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _last_words(said: bytearray) -> str | None:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else None


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
