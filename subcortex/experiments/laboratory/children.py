"""Probes and tools as child processes: a time limit, a group of their own, nobody left behind. Effects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subcortex.errors import EngineFailed
from subcortex.hardware.child import without_secrets

_LINE_BYTES = 2**20
_KEPT_BYTES = 16 * 1024
_OUTPUT_BYTES = 64 * 2**20
_LAST_WORDS_S = 1.0


async def lines_of(
    command: Sequence[str], *, limit_s: float, env: Mapping[str, str] | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON objects that a program writes to stdout, a line each; other lines are its log.

    Whoever stops listening ends it.

    Raises:
        EngineFailed: It could not be run, ended with an error, or was not done in time.
    """
    async with _running(command, limit_s, env) as child:
        assert child.stdout is not None
        try:
            async with asyncio.timeout(limit_s):
                async for line in child.stdout:
                    with contextlib.suppress(ValueError, RecursionError):
                        found = json.loads(line)
                        if isinstance(found, dict):
                            yield found
                await child.wait()
        except TimeoutError:
            raise _failed(command, f"was not done within {limit_s:g} s", child) from None
        except ValueError:
            raise _failed(command, f"wrote a line of more than {_LINE_BYTES} bytes", child) from None
    if child.returncode:
        raise _failed(command, f"ended with {_ending(child.returncode)}", child)


@dataclass(frozen=True, slots=True)
class Output:
    """What a program wrote: all of stdout, and the end of stderr (16 KiB)."""

    stdout: str
    log: str


async def output_of(command: Sequence[str], *, limit_s: float, env: Mapping[str, str] | None = None) -> str:
    """Return all that a program writes to stdout.

    Raises:
        EngineFailed: As ``lines_of``; also where it writes more than 64 MiB.
    """
    return (await output_with_log(command, limit_s=limit_s, env=env)).stdout


async def output_with_log(
    command: Sequence[str], *, limit_s: float, env: Mapping[str, str] | None = None
) -> Output:
    """Return what a program writes, its log included.

    Raises:
        EngineFailed: As ``output_of``.
    """
    async with _running(command, limit_s, env) as child:
        assert child.stdout is not None
        kept = bytearray()
        try:
            async with asyncio.timeout(limit_s):
                while piece := await child.stdout.read(65536):
                    kept += piece
                    if len(kept) > _OUTPUT_BYTES:
                        raise _failed(command, f"wrote more than {_OUTPUT_BYTES} bytes", child)
                await child.wait()
        except TimeoutError:
            raise _failed(command, f"was not done within {limit_s:g} s", child) from None
        # Somebody whom it left behind may hold its stderr open.
        await asyncio.wait({child.reading}, timeout=_LAST_WORDS_S)
    if child.returncode:
        raise _failed(command, f"ended with {_ending(child.returncode)}", child)
    return Output(kept.decode("utf-8", "replace"), child.said.decode("utf-8", "replace"))


class _Child:
    """A running program, and the end of what it wrote to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stdout = process.stdout
        self.said = bytearray()
        self.reading = asyncio.create_task(self._read())

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    async def wait(self) -> None:
        await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while piece := await self.process.stderr.read(4096):
            self.said += piece
            del self.said[:-_KEPT_BYTES]


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str], limit_s: float, env: Mapping[str, str] | None
) -> AsyncIterator[_Child]:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=without_secrets({**os.environ, **(env or {})}),
            process_group=0,
            limit=_LINE_BYTES,
        )
    except OSError as error:
        raise EngineFailed(f"{command[0]} cannot be run: {error.strerror}") from error
    child = _Child(process)
    try:
        yield child
    finally:
        # Its group, ended or not: who leads it may be gone while a worker of its goes on.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        child.reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await child.reading


def _failed(command: Sequence[str], why: str, child: _Child) -> EngineFailed:
    said = child.said.decode("utf-8", "replace")
    return EngineFailed(
        f"{_name(command)} {why}",
        hint="The end of what it said is below; the command can be run by hand.",
        log_tail="\n".join(said.splitlines()[-30:]),
    )


def _name(command: Sequence[str]) -> str:
    """Return what a person would call the program: a script rather than its interpreter."""
    script = next((word for word in command if word.endswith(".py")), command[0])
    return Path(script).name


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
