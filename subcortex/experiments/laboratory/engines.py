"""Engines that experiments start: each setting once, kept warm until its room is needed. Effects."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from subcortex import engines
from subcortex.config import Config, RemoteTier, Tier
from subcortex.engines._local import LocalEngine
from subcortex.engines.protocol import Engine, Progress
from subcortex.errors import SubcortexError
from subcortex.experiments.laboratory.record import Keep
from subcortex.types import BootFigures

Say = Callable[[str], None]


@dataclass(slots=True)
class Served:
    """A model being served for an experiment.

    Args:
        engine: Started and healthy.
        tier: As it was asked for.
        boot_s: From start to ready.
        figures: What its log said of memory.
        fresh: Whether it was started for this loan, rather than taken warm.
    """

    engine: Engine
    tier: Tier
    boot_s: float
    figures: BootFigures | None
    fresh: bool = True

    @property
    def name(self) -> str:
        """What requests call the model."""
        return _name(self.tier)

    @property
    def socket(self) -> Path:
        """The Unix socket that it serves on."""
        assert isinstance(self.engine, LocalEngine)
        return self.engine.socket


class WarmEngines:
    """The engines of one worker. One task uses it at a time."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._warm: dict[str, Served] = {}
        self._lent: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: Config) -> AsyncIterator[WarmEngines]:
        """Give the engines of one worker; all are stopped at the end, whatever came."""
        found = cls(_apart(config))
        try:
            yield found
        finally:
            await asyncio.shield(asyncio.ensure_future(found._stop(list(found._warm), grace_s=0.0)))

    @asynccontextmanager
    async def lent(self, tier: Tier, keep: Keep, say: Say) -> AsyncIterator[Served]:
        """Lend the engine of a tier for as long as the block runs; see ``Lab.engine``."""
        assert not isinstance(tier, RemoteTier), "a remote tier is nobody's to start"
        key = _settings(tier)
        served = self._warm.get(key)
        if served is not None and await served.engine.healthy():
            served.fresh = False
        else:
            # What others keep warm would be in the way, and at the least share the machine's time.
            await self._stop([one for one in self._warm if one not in self._lent], grace_s=5.0)
            served = await self._started(key, tier, keep, say)
        self._lent.add(key)
        try:
            yield served
        finally:
            self._lent.discard(key)

    async def cool(self) -> None:
        """Stop every engine that is not lent."""
        await self._stop([one for one in self._warm if one not in self._lent], grace_s=5.0)

    async def _started(self, key: str, tier: Tier, keep: Keep, say: Say) -> Served:
        # Its log and its folder are told apart from those of the tier that thoughts go to.
        engine = engines.create(tier.model_copy(update={"name": _name(tier)}), config=self._config)
        progress = Progress()
        progress.listeners.append(lambda text: say(f"{tier.name}: {text}"))
        began_s = time.monotonic()
        settings = {"engine": tier.engine, **tier.model_dump(mode="json", exclude_defaults=True)}
        facts = {"tier": tier.name, "settings": settings}
        try:
            await engine.start(progress)
        except SubcortexError as error:
            keep.boot({**facts, "error": error.to_wire(), "figures": _dumped(engine)})
            await _killed(engine)
            raise
        except BaseException:
            await _killed(engine)
            raise
        boot_s = time.monotonic() - began_s
        served = self._warm[key] = Served(engine, tier, boot_s, engine.boot_figures())
        keep.boot({**facts, "boot_s": boot_s, "version": engine.version, "figures": _dumped(engine)})
        return served

    async def _stop(self, keys: list[str], *, grace_s: float) -> None:
        for key in keys:
            served = self._warm.pop(key)
            try:
                await served.engine.stop(grace_s=grace_s)
            except asyncio.CancelledError:
                # A run whose time is over is cancelled too, and the next one wants the memory.
                await _killed(served.engine)
                raise


async def _killed(engine: Engine) -> None:
    """End an engine at once, and wait for it though cancelled meanwhile."""
    await asyncio.shield(asyncio.ensure_future(engine.stop(grace_s=0.0)))


def _apart(config: Config) -> Config:
    """Return the configuration with folders of its own, so that no tier's engine is taken for another's."""
    runtime_dir = config.runtime_dir / "lab"
    daemon = config.daemon.model_copy(update={"runtime_dir": runtime_dir})
    # What an experiment started is worth nothing without it.
    fleet = config.fleet.model_copy(update={"adopt_s": 0.0})
    return config.model_copy(update={"daemon": daemon, "fleet": fleet})


def _name(tier: Tier) -> str:
    return f"lab-{tier.name}"


def _settings(tier: Tier) -> str:
    return json.dumps(tier.model_dump(mode="json", exclude={"start", "nominal_ttft_s", "nominal_tpot_s"}))


def _dumped(engine: Engine) -> dict[str, object] | None:
    figures = engine.boot_figures()
    return None if figures is None else figures.model_dump(mode="json", exclude_defaults=True)
