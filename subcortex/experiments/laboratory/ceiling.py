"""What the client itself can take: its load against a server that streams without work. Effects."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from subcortex.errors import EngineFailed
from subcortex.experiments.laboratory.load import Endpoint, Load

_SERVER = Path(__file__).with_name("_null_server.py")
_READY_LIMIT_S = 30.0
_WINDOWS, _WINDOW_S = 3, 0.3
#: Above this share of its ceiling the client is part of what is measured.
FREE_SHARE = 0.5


async def ceiling(concurrency: int, *, prompt_tokens: int = 256, max_tokens: int = 256) -> float:
    """Return the tokens a second that a load of so many requests takes from a server without work.

    Both share the machine, as client and engine do; where the server is the slower of the two, it is a lower
    bound of what the client can take.

    Raises:
        EngineFailed: The server did not start, or a request failed.
    """
    async with (
        _null_server() as endpoint,
        Load.on(endpoint, prompt_tokens=prompt_tokens, max_tokens=max_tokens) as load,
    ):
        await load.keep(concurrency)
        return median([(await load.window(_WINDOW_S)).tok_s for _ in range(_WINDOWS)])


@asynccontextmanager
async def _null_server() -> AsyncIterator[Endpoint]:
    # A Unix socket's path has 107 bytes at most: nowhere deep.
    folder = Path(tempfile.mkdtemp(prefix="sub-null-"))
    child = None
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(_SERVER),
            str(folder / "s"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        try:
            async with asyncio.timeout(_READY_LIMIT_S):
                ready = await child.stdout.readline()
        except TimeoutError:
            ready = b""
        if not ready:
            raise EngineFailed("the server that the client is measured against did not start")
        yield Endpoint(folder / "s", "null", tuple(range(100, 400)))
    finally:
        if child is not None:
            if child.returncode is None:
                child.kill()
            await child.wait()
        shutil.rmtree(folder, ignore_errors=True)
