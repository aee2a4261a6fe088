"""What every route finds in the application: the mind, and the service around it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from aiohttp import web

from subcortex.mind import Subcortex
from subcortex.types import Yielded


@dataclass(slots=True)
class Service:
    """The daemon's own life: when it began (wall clock; seconds on the mind's clock), and its end.

    Args:
        yielded: What was asked to be left to other programs, those that are over included.
        listening: The tasks that tell of events as they happen.
    """

    started_at: datetime
    began_s: float
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    yielded: list[Yielded] = field(default_factory=list)
    listening: set[asyncio.Task[None]] = field(default_factory=set)

    def yields(self, now: datetime) -> list[Yielded]:
        """Return what is still left to others at ``now``."""
        self.yielded = [given for given in self.yielded if given.until is None or given.until > now]
        return self.yielded


MIND: web.AppKey[Subcortex] = web.AppKey("mind", Subcortex)
SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
