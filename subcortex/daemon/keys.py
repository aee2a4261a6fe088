"""What every route finds in the application: the mind, and the service around it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from aiohttp import web

from subcortex.mind import Subcortex


@dataclass(slots=True)
class Service:
    """The daemon's own life: when it began (wall clock; seconds on the mind's clock), and its end."""

    started_at: datetime
    began_s: float
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


MIND: web.AppKey[Subcortex] = web.AppKey("mind", Subcortex)
SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
