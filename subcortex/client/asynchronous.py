"""The same socket for asyncio, through aiohttp; imported only when ``athink`` or ``astream`` is used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from subcortex.client.sending import as_deadline, encoded, never_begun, patience_s, with_less_time
from subcortex.client.transport import Transport, error_from
from subcortex.errors import DaemonUnreachable, SubcortexError
from subcortex.types import ThinkRequest

_HEADERS = {"Content-Type": "application/json"}
_LONGEST_LINE = 2**26


@asynccontextmanager
async def response(
    transport: Transport, request: ThinkRequest, start: Callable[[], None] | None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send a thought and give its response; leaving the block early aborts the thought.

    A session a call costs about 0.1 ms on a Unix socket and leaves nothing open behind a closed loop.

    Args:
        transport: Names the socket, and the errors.
        request: The thought.
        start: Starts a daemon if none takes it; None to raise instead. Blocks, so it runs in a thread.
    """
    began_s = time.monotonic()
    async with _session(transport, patience_s(request)) as session:
        try:
            try:
                answer = await _post(session, transport, request)
            except SubcortexError as error:
                if start is None or not never_begun(error):
                    raise
                try:
                    await asyncio.to_thread(start)
                except DaemonUnreachable as unreachable:
                    raise as_deadline(unreachable, request) from None
                again = with_less_time(request, time.monotonic() - began_s)
                answer = await _post(session, transport, again)
            try:
                yield answer
            finally:
                answer.close()
        except TimeoutError as error:
            raise as_deadline(transport.broken(error), request) from None
        except aiohttp.ClientError as error:
            raise transport.broken(error) from None


async def _post(
    session: aiohttp.ClientSession, transport: Transport, request: ThinkRequest
) -> aiohttp.ClientResponse:
    try:
        answer = await session.post("http://localhost/v1/think", data=encoded(request), headers=_HEADERS)
    except aiohttp.ClientConnectorError as error:
        raise transport.unreachable(error.os_error) from None
    if answer.status >= 400:
        raise error_from(answer.status, await answer.read())
    return answer


def _session(transport: Transport, timeout_s: float | None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path=str(transport.socket_path)),
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=10.0),
        read_bufsize=_LONGEST_LINE,
    )
