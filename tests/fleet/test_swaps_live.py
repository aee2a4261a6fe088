"""Two tiers on one card, as real processes: a stand-in of vLLM's server that sleeps, and a card on paper.

The card is a fake, since this machine has none; engines, sockets, sleeps and wakes are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from subcortex import engines
from subcortex.config import parse
from subcortex.engines.protocol import GenerateRequest
from subcortex.errors import DoesNotFit, EngineFailed, Overloaded
from subcortex.fleet import HOST, Fleet, Member, Needs, Rules, Seen, Timing
from subcortex.types import Rest, TierState
from tests.engines import sleepy_server
from tests.engines.sleepy_server import switch

CARD_MIB, AWAKE_MIB, ASLEEP_MIB = 24_000.0, 20_000.0, 2_000.0
QUICK = Timing(look_every_s=0.05, room_poll_s=0.01, room_s=1.0)


@dataclass
class Card:
    """A GPU of 24 GB with what the fleet's own tiers hold of it, and what a foreign program does."""

    fleet: Fleet | None = None
    foreign_mib: float = 0.0
    needs_mib: dict[str, float] = field(default_factory=dict)
    most_held_mib: float = 0.0

    async def prepare(self) -> None:
        return None

    def needs(self, tier: str) -> Needs:
        awake = {0: self.needs_mib.get(tier, AWAKE_MIB), HOST: 100.0}
        return Needs(awake, {rest: {0: ASLEEP_MIB, HOST: 100.0} for rest in (Rest.SLEEP_1, Rest.SLEEP_2)})

    async def look(self) -> Seen:
        assert self.fleet is not None
        held = self.fleet.counted().get(0, 0.0)
        self.most_held_mib = max(self.most_held_mib, held)
        # Who is on the way in is counted already, and holds nothing yet.
        coming = sum(
            self.needs(tier).awake[0]
            for tier, state in self.fleet.states().items()
            if state in (TierState.STARTING, TierState.WAKING)
        )
        offered = CARD_MIB - self.foreign_mib
        free = offered - held + coming
        return Seen(
            {0: free}, {0: offered}, {0: self.foreign_mib}, {0: "blender (77)"} if self.foreign_mib else {}
        )

    async def before(self, tier: str) -> None:
        return None

    async def settled(self, tier: str, state: TierState, rest: Rest | None) -> None:
        return None


@dataclass
class Two:
    """A fleet of two tiers that cannot both be awake."""

    fleet: Fleet
    card: Card
    programs: dict[str, Path]
    told: list[tuple[str, str, dict[str, Any]]]

    async def think(self, tier: str, **more: Any) -> str:
        async with asyncio.timeout(30), self.fleet.lease(tier, **more) as lease:
            request = GenerateRequest([{"role": "user", "content": "say something"}], max_tokens=4)
            return "".join([delta.text async for delta in lease.engine.generate(request)])

    def kinds(self, tier: str) -> list[str]:
        return [kind for name, kind, _ in self.told if name == tier]

    def facts(self, tier: str, kind: str) -> dict[str, Any]:
        return next(facts for name, what, facts in reversed(self.told) if (name, what) == (tier, kind))


@asynccontextmanager
async def two(tmp_path: Path, rules: Rules | None = None, **tiers: dict[str, Any]) -> AsyncIterator[Two]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    programs = {
        name: sleepy_server.install(tmp_path / name, **tiers.get(name, {})) for name in ("fast", "deep")
    }
    rows = [
        {
            "name": name,
            "engine": "vllm",
            "model": str(model),
            "executable": str(program),
            "sleep_mode": True,
            "start": "lazy",
        }
        for name, program in programs.items()
    ]
    config = parse(
        {"daemon": {"runtime_dir": str(tmp_path / "run")}, "journal": {"database": "j.db"}, "tiers": rows},
        tmp_path / "config.toml",
    )
    members = [
        Member(tier.name, rank, engines.create(tier, config=config), False, 3, 4, 8, start_s=0.5)
        for rank, tier in enumerate(config.tiers)
    ]
    told: list[tuple[str, str, dict[str, Any]]] = []
    card = Card()
    fleet = Fleet(
        members,
        on_change=lambda tier, kind, facts: told.append((tier, kind, facts)),
        memory=card,
        rules=rules,
        timing=QUICK,
    )
    card.fleet = fleet
    for name in programs:
        # As measured of a large model: sleeping is worth it.
        fleet.swaps.left(name, Rest.SLEEP_1, 0.1, first=True)
        fleet.swaps.left(name, Rest.SLEEP_1, 0.1)
        fleet.swaps.came(name, Rest.SLEEP_1, 0.1)
    fleet.open()
    try:
        yield Two(fleet, card, programs, told)
    finally:
        await fleet.close()
        assert card.most_held_mib <= CARD_MIB


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_each_sleeps_for_the_other_and_wakes_as_it_was(tmp_path):
    async with two(tmp_path) as both:
        first = await both.think("deep")
        assert await both.think("fast")
        assert both.fleet.states() == {"fast": TierState.READY, "deep": TierState.ASLEEP}
        assert await both.think("deep") == first
        assert both.fleet.states() == {"fast": TierState.ASLEEP, "deep": TierState.READY}
        assert both.kinds("deep") == [
            *("starting", "ready", "draining", "sleeping", "asleep", "waking", "ready"),
        ]
        woke = both.facts("deep", "ready")
        assert (woke["was"], woke["rest"]) == ("waking", "sleep_1")
        assert 0 < woke["canary_s"] < woke["wake_s"]
        assert both.facts("deep", "draining")["why"] == "room for fast"
        assert both.card.most_held_mib > AWAKE_MIB, "the sleeper's rest was counted too"


async def test_one_that_wakes_up_wrong_is_started_anew(tmp_path):
    async with two(tmp_path) as both:
        right = await both.think("deep")
        await both.think("fast")
        switch(both.programs["deep"], corrupt_wake=True)
        waking = asyncio.create_task(both.think("deep"))
        await until(lambda: "backing_off" in both.kinds("deep"))
        assert "woke up wrong" in both.facts("deep", "backing_off")["error"]
        assert await waking == right
        assert both.kinds("deep")[-3:] == ["stopped", "starting", "ready"]


async def test_one_that_does_not_wake_is_started_anew(tmp_path):
    async with two(tmp_path) as both:
        await both.think("deep")
        await both.think("fast")
        switch(both.programs["deep"], oom_wake=True)
        assert await both.think("deep")
        assert both.kinds("deep")[-5:] == ["waking", "backing_off", "stopped", "starting", "ready"]


async def test_a_thought_at_work_is_not_cut_off_by_a_swap(tmp_path):
    async with two(tmp_path, fast={"token_s": 0.05}) as both:
        await both.think("fast")
        slow = asyncio.create_task(both.think("fast"))
        await until(lambda: both.fleet.status()[0].in_flight == 1)
        other = asyncio.create_task(both.think("deep"))
        assert await slow
        assert await other
        draining = [
            at for at, (name, kind, _) in enumerate(both.told) if (name, kind) == ("fast", "draining")
        ]
        starting = [
            at for at, (name, kind, _) in enumerate(both.told) if (name, kind) == ("deep", "starting")
        ]
        assert draining < starting


async def test_another_program_gets_the_card_and_gives_it_back(tmp_path):
    rules = Rules(yield_over_mib=3000.0, yield_back_s=0.1)
    async with two(tmp_path, rules) as both:
        await both.think("fast")
        both.card.foreign_mib = 3500.0
        await until(lambda: both.fleet.states()["fast"] is TierState.ASLEEP)
        assert "another program" in both.facts("fast", "draining")["why"]
        with pytest.raises(Overloaded, match="made way"):
            await both.think("fast", patient=False)
        waits = asyncio.create_task(both.think("fast"))
        await until(lambda: both.fleet.status()[0].queued == 1)
        assert "another program has taken GPU 0" in (both.fleet.status()[0].waits_for or "")
        both.card.foreign_mib = 0.0
        assert await waits
        assert both.fleet.states()["fast"] is TierState.READY


async def test_a_card_is_lent_by_word_and_taken_back(tmp_path):
    async with two(tmp_path) as both:
        await both.think("deep")
        both.fleet.make_way(None, [0])
        await until(lambda: both.fleet.states()["deep"] is TierState.ASLEEP)
        waits = asyncio.create_task(both.think("deep"))
        await until(lambda: both.fleet.status()[1].queued == 1)
        assert both.fleet.states()["deep"] is TierState.ASLEEP
        both.fleet.resume()
        assert await waits
        both.fleet.make_way(0.05, None)
        await until(lambda: both.fleet.states()["deep"] is TierState.ASLEEP)
        assert await both.think("deep"), "a loan ends by itself"


async def test_what_fits_nowhere_is_refused_with_its_figures(tmp_path):
    async with two(tmp_path) as both:
        both.card.needs_mib["deep"] = 30_000.0
        both.card.foreign_mib = 1000.0
        await until(lambda: both.fleet._grounds.seen.foreign.get(0) == 1000.0)
        with pytest.raises(DoesNotFit, match="29.3 GiB of GPU 0, and 22.5 GiB can be had") as refused:
            await both.think("deep")
        assert refused.value.details["short_mib"] == 7000
        assert "blender (77)" in (refused.value.hint or "")
        assert both.kinds("deep") == [], "nothing was started"


async def test_memory_that_does_not_show_is_waited_for_and_then_said(tmp_path):
    async with two(tmp_path) as both:
        await both.think("fast")
        # Somebody hidden holds what the plan takes for free: offered, but not there.
        both.card.look = hidden(both.card)  # type: ignore[method-assign]
        waits = asyncio.create_task(both.think("deep"))
        await until(lambda: "no_room" in both.kinds("deep"))
        assert both.facts("deep", "no_room")["device"] == "GPU 0"
        assert both.fleet.states()["deep"] is TierState.STOPPED
        del both.card.look
        assert await waits


def hidden(card: Card) -> Callable[[], Any]:
    async def look() -> Seen:
        seen = await Card.look(card)
        return Seen({0: 500.0}, seen.offered, seen.foreign, seen.holders)

    return look


async def test_what_stands_still_is_restarted(tmp_path):
    async with two(tmp_path, fast={"token_s": 0.01}) as both:
        await both.think("fast")
        switch(both.programs["fast"], stuck=True)
        stuck = asyncio.create_task(both.think("fast"))
        await until(lambda: "backing_off" in both.kinds("fast"))
        assert "moved no token" in both.facts("fast", "backing_off")["error"]
        switch(both.programs["fast"])
        with pytest.raises(EngineFailed, match="closed the connection"):
            await stuck
        assert await both.think("fast")
        assert both.kinds("fast").count("backing_off") == 1
