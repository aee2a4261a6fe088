"""The same traces on real processes: llama.cpp with both testbed models, of which one fits at a time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from _queue_rivals import Arrival, Outcome

from subcortex import config as configuration
from subcortex import engines
from subcortex.engines.protocol import GenerateRequest
from subcortex.fleet import HOST, Fleet, Member, Needs, Rules, Seen
from subcortex.fleet.machine import UP
from subcortex.fleet.scene import Scene
from subcortex.fleet.schedule import Schedule
from subcortex.types import Rest, TierState

_ROOT = Path(__file__).parent.parent
_CONFIG = """
[subcortex]
version = 1
[daemon]
runtime_dir = "run"
"""
_TIER = """
[[tiers]]
name = "{name}"
engine = "llama.cpp"
model = "{models}/{name}/{name}.gguf"
context_tokens = 1024
threads = 1
"""
_NEEDS_MIB, _ROOM_MIB = 100.0, 150.0


class OneFits:
    """Memory in which there is room for one of two: nothing else about it is pretended."""

    async def prepare(self) -> None:
        """Know it all already."""

    def needs(self, tier: str) -> Needs:
        """Return the same for each."""
        return Needs({HOST: _NEEDS_MIB})

    async def look(self) -> Seen:
        """See room for one."""
        return Seen({HOST: _NEEDS_MIB}, {HOST: _ROOM_MIB})

    async def before(self, tier: str) -> None:
        """Learn nothing."""

    async def settled(self, tier: str, state: TierState, rest: Rest | None) -> None:
        """Learn nothing."""


class Live:
    """Both models, for as many replays as are asked for."""

    def __init__(self, names: tuple[str, ...], max_wait_s: float) -> None:
        self.names, self.max_wait_s = names, max_wait_s

    @contextmanager
    def _config(self) -> Iterator[configuration.Config]:
        folder = Path(tempfile.mkdtemp(prefix="sub-"))
        try:
            models = _ROOT / "testbed" / "models"
            text = _CONFIG + "".join(_TIER.format(name=name, models=models) for name in self.names)
            (folder / "config.toml").write_text(text)
            yield configuration.load(folder / "config.toml", {})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def replay(
        self, decide: Callable[[Scene], Schedule], arrivals: list[Arrival], *, in_order: bool
    ) -> Outcome:
        """Have a trace's thoughts for real; ``in_order``: nobody enters before who came before him."""
        with self._config() as config, mock.patch("subcortex.fleet.fleet.schedule", decide):
            return asyncio.run(self._replay(config, arrivals, in_order))

    async def _replay(self, config: configuration.Config, arrivals: list[Arrival], in_order: bool) -> Outcome:
        made = {tier.name: engines.create(tier, config=config) for tier in config.tiers}
        told: list[tuple[str, str]] = []

        def note(tier: str, kind: str, facts: dict[str, Any]) -> None:
            told.append((tier, kind))
            up = [name for name, state in fleet.states().items() if state in UP]
            assert len(up) <= 1, "a rule that has both up compares nothing"

        fleet = Fleet(
            [
                Member(name, rank, engine, True, 3, 8, 10_000, 2.0)
                for rank, (name, engine) in enumerate(made.items())
            ],
            on_change=note,
            memory=OneFits(),
            rules=Rules(max_wait_s=self.max_wait_s),
        )
        fleet.open()
        try:
            # Every policy knows what its swaps cost, and begins with the first tier up.
            for name in (*self.names, self.names[0]):
                async with fleet.lease(name):
                    pass
            told.clear()
            waits_s, longest_s = await self._think(fleet, arrivals, in_order)
            swaps = sum(kind == TierState.READY for _, kind in told)
            costs = [fleet.swaps.swaps(name) for name in self.names]
            leave_s = max(cost.leave_s[Rest.STOP] for cost in costs)
            back_s = max(cost.back_s[Rest.STOP] for cost in costs)
            return Outcome(swaps, waits_s, leave_s + back_s, longest_s)
        finally:
            await fleet.close()

    async def _think(
        self, fleet: Fleet, arrivals: list[Arrival], in_order: bool
    ) -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        began_s, longest_s = loop.time(), 0.0
        entered = [asyncio.Event() for _ in arrivals]

        async def think(number: int, arrival: Arrival) -> float:
            nonlocal longest_s
            await asyncio.sleep(arrival.at_s - (loop.time() - began_s))
            came_s = loop.time()
            if in_order and number:
                await entered[number - 1].wait()
            async with fleet.lease(arrival.tier) as lease:
                entered[number].set()
                entered_s = loop.time()
                messages = [{"role": "user", "content": arrival.prompt}]
                async for _ in lease.engine.generate(GenerateRequest(messages, max_tokens=arrival.tokens)):
                    pass
                longest_s = max(longest_s, loop.time() - entered_s)
            return entered_s - came_s

        waits = await asyncio.gather(*(think(number, one) for number, one in enumerate(arrivals)))
        return list(waits), longest_s
