"""Routes about the tiers: how they stand, what becomes of them, and making way for other programs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from aiohttp import web

from subcortex.daemon.keys import MIND, SERVICE, Service
from subcortex.daemon.replies import read_json, validated
from subcortex.daemon.telling import told
from subcortex.errors import InvalidRequest
from subcortex.mind import Subcortex
from subcortex.types import DaemonInfo, Status, Yielded, YieldRequest
from subcortex.version import version


async def _status(request: web.Request) -> web.Response:
    return await _how_things_stand(request)


async def _yield(request: web.Request) -> web.Response:
    """Leave GPUs to other programs; the tiers there go to rest behind the answer."""
    mind, service = request.app[MIND], request.app[SERVICE]
    asked = validated(YieldRequest, await read_json(request))
    gpus = None if asked.gpus is None else sorted(set(asked.gpus))
    if gpus is not None:
        await _check(mind, gpus)
    mind.yield_gpus(asked.for_s, gpus)
    now = mind.clock.now()
    until = None if asked.for_s is None else now + timedelta(seconds=asked.for_s)
    service.yielded = [*service.yields(now), Yielded(gpus=gpus, until=until)]
    return await _how_things_stand(request)


async def _resume(request: web.Request) -> web.Response:
    request.app[SERVICE].yielded.clear()
    request.app[MIND].resume()
    return await _how_things_stand(request)


async def _events(request: web.Request) -> web.StreamResponse:
    return await told(request, _lines(request.app[MIND]))


async def _lines(mind: Subcortex) -> AsyncGenerator[bytes, None]:
    """Yield how the tiers stand, what becomes of them, and that the daemon stops."""
    async with aclosing(mind.events()) as events:
        async for event in events:
            yield event.model_dump_json(exclude_none=True).encode()
    yield json.dumps({"end": "the daemon stops"}).encode()


ROUTES = [
    web.get("/v1/status", _status),
    web.get("/v1/events", _events),
    web.post("/v1/yield", _yield),
    web.delete("/v1/yield", _resume),
]


async def _check(mind: Subcortex, gpus: list[int]) -> None:
    """Refuse GPUs that this machine has not; a driver in trouble names none, and is believed in nothing."""
    devices = (await asyncio.to_thread(mind.ledger)).devices
    there = [device.gpu_index for device in devices if device.gpu_index is not None]
    missing = [index for index in gpus if index not in there]
    if devices and missing:
        known = f"This machine has: {', '.join(map(str, there))}." if there else "This machine has none."
        raise InvalidRequest(f"there is no GPU {missing[0]}", hint=known, param="gpus")


async def _how_things_stand(request: web.Request) -> web.Response:
    mind, service = request.app[MIND], request.app[SERVICE]
    tiers, ledger = await asyncio.gather(asyncio.to_thread(mind.status), asyncio.to_thread(mind.ledger))
    status = Status(daemon=_daemon(mind, service), tiers=tiers, ledger=ledger)
    return web.Response(body=status.model_dump_json().encode(), content_type="application/json")


def _daemon(mind: Subcortex, service: Service) -> DaemonInfo:
    return DaemonInfo(
        pid=os.getpid(),
        version=version(),
        started_at=service.started_at,
        uptime_s=mind.clock.monotonic_s() - service.began_s,
        socket=str(mind.config.socket_path),
        tcp=mind.config.daemon.tcp,
        config=str(mind.config.source) if mind.config.source else None,
        database=str(mind.config.database_path),
        journal=str(mind.journal.health),
        idle_stop_s=mind.config.daemon.idle_stop_s,
        yielded=service.yields(mind.clock.now()),
    )
