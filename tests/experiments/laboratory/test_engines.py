"""Engines that experiments start: none is left behind, whenever somebody stops waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from subcortex.experiments.laboratory.engines import Served, WarmEngines
from tests.experiments.harness import config_for


class Reluctant:
    """An engine that does not end before it is killed."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.heard = asyncio.Event()

    async def stop(self, grace_s: float) -> None:
        self.told.append(grace_s)
        self.heard.set()
        if grace_s:
            await asyncio.Event().wait()


async def test_whoever_is_cancelled_while_an_engine_stops_has_it_killed(tmp_path: Path) -> None:
    config, engine = config_for(tmp_path), Reluctant()
    warm = WarmEngines(config)
    warm._warm["one"] = Served(cast("Any", engine), config.tiers[0], 1.0, None)
    cooling = asyncio.create_task(warm.cool())
    await engine.heard.wait()
    cooling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cooling
    assert engine.told[0] > 0
    assert engine.told[1:] == [0.0]
    assert warm._warm == {}
