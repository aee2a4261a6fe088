"""Any OpenAI-compatible server elsewhere: nothing to start, only to be reached."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp

from subcortex.config import Config, RemoteTier
from subcortex.engines._refusals import refusal
from subcortex.engines.protocol import Canary, Delta, GenerateRequest, ProcessInfo, Progress
from subcortex.engines.wire import Wire, connect_words
from subcortex.errors import ConfigError, EngineFailed
from subcortex.types import BootFigures, Rest

_NAMES_SHOWN = 8


class RemoteEngine:
    """A tier behind a URL. It has no process, no log, and never exits."""

    kind = "remote"

    def __init__(self, tier: RemoteTier, config: Config) -> None:
        del config  # every engine is made alike
        self.model = tier.model
        self._tier = tier
        self._url = tier.url.rstrip("/")
        self._wire: Wire | None = None
        self._version: str | None = None

    @property
    def version(self) -> str | None:
        """What the server says of itself at ``/version``, if it does."""
        return self._version

    @property
    def process(self) -> ProcessInfo | None:
        """None: the process is elsewhere."""
        return None

    async def start(self, progress: Progress) -> None:
        """Check that the server answers, takes the key and has the model.

        Raises:
            ConfigError: The key's variable is unset, the key is refused, the model is not served.
            EngineFailed: The server cannot be reached or answers with an error.
        """
        progress.report(f"asking {self._url}")
        await self.stop()
        self._wire = Wire(
            self._url,
            model=self._tier.model,
            api_key=self._key(),
            api_key_env=self._tier.api_key_env,
            timeout_s=self._tier.request_timeout_s,
        )
        try:
            status, body = await self._wire.get(f"{self._url}/models")
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise EngineFailed(
                f"{self._url} cannot be reached: {_why(error)}",
                hint="Check url of the tier, and that the server runs and is reachable from here.",
            ) from error
        # Some servers list no models; whether they have this one shows at the first thought.
        if status not in (200, 404, 405, 501):
            raise refusal(status, body, model=self.model, api_key_env=self._tier.api_key_env)
        served = _served(body) if status == 200 else []
        if served and self.model not in served:
            names = ", ".join(served[:_NAMES_SHOWN]) + (" …" if len(served) > _NAMES_SHOWN else "")
            raise ConfigError(
                f"tier {self._tier.name!r}: {self._url} does not serve {self.model!r}",
                hint=f"It serves: {names}.",
                key="model",
                served=served[:100],
            )
        self._version = await self._asked_version()
        progress.report("ready")

    async def adopt(self, progress: Progress) -> bool:
        """See ``Engine.adopt``."""
        del progress
        return False

    @property
    def rests(self) -> frozenset[Rest]:
        """See ``Engine.rests``."""
        return frozenset({Rest.STOP})

    async def sleep(self, rest: Rest) -> None:
        """See ``Engine.sleep``."""
        raise EngineFailed(f"{self.kind} serving {self.model} knows no {rest}")

    async def wake(self) -> None:
        """See ``Engine.wake``."""
        raise EngineFailed(f"{self.kind} serving {self.model} does not sleep")

    async def canary(self) -> Canary | None:
        """See ``Engine.canary``."""
        return None

    async def beat(self) -> int | None:
        """See ``Engine.beat``."""
        return None

    def shrink(self) -> str | None:
        """See ``Engine.shrink``."""
        return None

    def boot_figures(self) -> BootFigures | None:
        """None: its memory is not ours to know."""
        return None

    async def stop(self, grace_s: float = 10.0) -> None:
        """Close the connections; the server itself is not ours."""
        del grace_s
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await wire.close()

    async def exited(self) -> str:
        """Never return: a server elsewhere has no death that can be seen from here."""
        await asyncio.Event().wait()
        raise AssertionError("an event that nobody sets was set")

    async def healthy(self) -> bool:
        """Return whether the list of models is answered, even with a refusal, within 5 seconds."""
        if self._wire is None:
            return False
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
            status, _ = await self._wire.get(f"{self._url}/models")
            return status < 500
        return False

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; see ``Engine.generate``."""
        if self._wire is None:
            raise EngineFailed(f"the connection to {self._url} is not open")
        return self._wire.generate(request)

    def log_tail(self, lines: int = 20) -> str:
        """Return nothing: the log is elsewhere."""
        del lines
        return ""

    def _key(self) -> str | None:
        name = self._tier.api_key_env
        if name is None:
            return None
        key = os.environ.get(name, "").strip()
        if not key:
            raise ConfigError(
                f"tier {self._tier.name!r}: the variable {name} is not set where the daemon runs",
                hint=f"export {name}=… and restart the daemon (`subcortex down`), or drop api_key_env.",
                key="api_key_env",
            )
        return key

    async def _asked_version(self) -> str | None:
        assert self._wire is not None
        # vLLM tells beside its API; others answer something else or nothing.
        with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):
            status, body = await self._wire.get(f"{self._url.removesuffix('/v1')}/version")
            if status == 200 and isinstance(body, dict) and isinstance(body.get("version"), str):
                return f"remote {body['version'][:40]}"
        return None


def _served(body: Any) -> list[str]:
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list):
        return []
    return [str(row["id"]) for row in rows if isinstance(row, dict) and row.get("id")]


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return connect_words(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
