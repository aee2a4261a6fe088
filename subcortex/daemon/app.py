"""The daemon's application, and its own routes: think, route, logs, stop."""

from __future__ import annotations

import asyncio
import json
import os

from aiohttp import web

from subcortex.daemon import experiment_routes, fleet_routes, openai_routes
from subcortex.daemon.keys import MIND, SERVICE, Service
from subcortex.daemon.replies import errors_as_json, read_json, refuse_browsers, validated
from subcortex.errors import InvalidRequest, SubcortexError
from subcortex.mind import Subcortex
from subcortex.types import Chunk, Notice, ThinkRequest


def build(mind: Subcortex, service: Service) -> web.Application:
    """Return the application; it serves the Unix socket and, if asked for, a loopback port."""
    app = web.Application(
        middlewares=[refuse_browsers, errors_as_json],
        client_max_size=int(mind.config.daemon.max_prompt_mib * 2**20),
    )
    app[MIND] = mind
    app[SERVICE] = service
    app.add_routes(
        [
            web.get("/health", _health),
            web.post("/v1/think", _think),
            web.post("/v1/route", _route),
            web.get("/v1/logs/{tier}", _logs),
            web.post("/v1/stop", _stop),
            *fleet_routes.ROUTES,
            *experiment_routes.ROUTES,
            *openai_routes.ROUTES,
        ]
    )
    return app


async def _think(request: web.Request) -> web.StreamResponse:
    asked = validated(ThinkRequest, await read_json(request))
    mind = request.app[MIND]
    if asked.stream:
        return await _think_streaming(request, mind, asked)
    thought = await mind.think(asked)
    return web.Response(body=thought.model_dump_json().encode(), content_type="application/json")


async def _think_streaming(request: web.Request, mind: Subcortex, asked: ThinkRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})

    async def emit(event: Chunk | Notice) -> None:
        if not response.prepared:
            await response.prepare(request)
        await response.write(_line(event))

    try:
        thought = await mind.think(asked, emit)
        last = b'{"thought":' + thought.model_dump_json().encode() + b"}\n"
    except SubcortexError as error:
        if not response.prepared:
            raise
        last = json.dumps({"error": error.to_wire()}).encode() + b"\n"
    if not response.prepared:
        await response.prepare(request)
    await response.write(last)
    await response.write_eof()
    return response


def _line(event: Chunk | Notice) -> bytes:
    if isinstance(event, Notice):
        return json.dumps({"notice": event.text}).encode() + b"\n"
    chunk = (
        {"text": event.text} if not event.reasoning else {"text": event.text, "reasoning": event.reasoning}
    )
    return json.dumps({"chunk": chunk}).encode() + b"\n"


async def _route(request: web.Request) -> web.Response:
    asked = validated(ThinkRequest, await read_json(request))
    return web.Response(
        body=request.app[MIND].route(asked).model_dump_json().encode(), content_type="application/json"
    )


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"ok": True, "pid": os.getpid()})


async def _logs(request: web.Request) -> web.Response:
    mind, tier = request.app[MIND], request.match_info["tier"]
    text = request.query.get("lines", "200")
    if not text.isdigit() or not 1 <= int(text) <= 100_000:
        raise InvalidRequest(f"lines={text!r}", hint="A whole number from 1 to 100000.", param="lines")
    try:
        tail = await asyncio.to_thread(mind.log_tail, tier, int(text))
    except KeyError:
        names = ", ".join(t.name for t in mind.config.tiers)
        raise InvalidRequest(f"there is no tier {tier!r}", hint=f"The config has: {names}.") from None
    return web.Response(text=tail)


async def _stop(request: web.Request) -> web.StreamResponse:
    """Stop the daemon; the answer ends when the engines are gone."""
    service = request.app[SERVICE]
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    await response.write(json.dumps({"stopping": os.getpid()}).encode() + b"\n")
    service.stop.set()
    await service.stopped.wait()
    await response.write(b'{"stopped": true}\n')
    await response.write_eof()
    return response
