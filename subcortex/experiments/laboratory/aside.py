"""Arithmetic beside a load: in a process of its own, since a thread would hold up every answer that comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


@asynccontextmanager
async def aside(reckon: Callable[_P, _T]) -> AsyncIterator[Callable[_P, Awaitable[_T]]]:
    """Give a function of a module as one that is awaited, and reckoned elsewhere.

    What it is given and returns is pickled. The process is started by the first call and has gone soon after
    the end; nothing waits for it.
    """
    # Spawned: a fork would take this process's sockets along.
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    async def reckoned(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await asyncio.wrap_future(pool.submit(reckon, *args, **kwargs))

    try:
        yield reckoned
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
