"""Telling a reader of events as they happen, a line of JSON each."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from subcortex.daemon.keys import SERVICE
from subcortex.errors import SubcortexError


async def told(request: web.Request, lines: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Answer with ``lines`` as they come, while the daemon lives and the reader keeps up.

    Args:
        request: Who reads.
        lines: JSON without line ends; the last says what ended. A typed error that it raises is told as the
            last line in its stead.
    """
    service = request.app[SERVICE]
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    telling = asyncio.create_task(_tell(response, lines))
    service.listening.add(telling)
    try:
        await telling
    finally:
        telling.cancel()
        service.listening.discard(telling)
    return response


async def _tell(response: web.StreamResponse, lines: AsyncGenerator[bytes, None]) -> None:
    try:
        async with aclosing(lines):
            async for line in lines:
                await response.write(line + b"\n")
    except SubcortexError as error:
        await response.write(json.dumps({"error": error.to_wire()}).encode() + b"\n")
    await response.write_eof()
