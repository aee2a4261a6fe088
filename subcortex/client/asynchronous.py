"""The same socket for asyncio, through aiohttp; imported only when ``athink`` or ``astream`` is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp

from subcortex.client.transport import encoded, error_from
from subcortex.errors import DaemonUnreachable
from subcortex.types import ThinkRequest

if TYPE_CHECKING:
    from subcortex.client.client import Client

_HEADERS = {"Content-Type": "application/json"}
_LONGEST_LINE = 2**26


@asynccontextmanager
async def response(client: Client, request: ThinkRequest) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a thought and give its response; leaving the block early aborts the thought.

    A session a call costs about 0.1 ms on a Unix socket and leaves nothing open behind a closed loop.
    """
    path = client.config.socket_path
    body = encoded(request)
    if client.config.daemon.autostart and not path.is_socket():
        await asyncio.to_thread(client._ensure_daemon)
    async with _session(path) as session:
        try:
            answer = await session.post("http://localhost/v1/think", data=body, headers=_HEADERS)
        except aiohttp.ClientConnectorError:
            if not client.config.daemon.autostart:
                raise _unreachable(str(path)) from None
            await asyncio.to_thread(client._ensure_daemon)
            answer = await session.post("http://localhost/v1/think", data=body, headers=_HEADERS)
        try:
            if answer.status >= 400:
                raise error_from(answer.status, await answer.read())
            yield answer
        except aiohttp.ClientError as error:
            raise client._transport.broken(error) from None
        finally:
            answer.close()


def _session(path: object) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=str(path)),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
        read_bufsize=_LONGEST_LINE,
    )


def _unreachable(path: str) -> DaemonUnreachable:
    return DaemonUnreachable(
        f"no daemon answers on {path}", hint="Start it with `subcortex up`, or set daemon.autostart = true."
    )
