"""What tiers need and what there is: predictions corrected by what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from subcortex.config import Config, parse
from subcortex.fleet import HOST
from subcortex.mind.memory import TierMemory, needs_of
from subcortex.types import DeviceLedger, ForeignProcess, Ledger, Rest, TierShare, TierState
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import Prediction

GPU_MIB = 24000.0


def config(**fleet: float) -> Config:
    tiers = [{"name": name, "engine": "vllm", "model": f"models/{name}"} for name in ("fast", "deep")]
    far = {"name": "far", "engine": "remote", "model": "m", "url": "http://127.0.0.1:1/v1"}
    return parse({"fleet": fleet, "tiers": [*tiers, far]}, Path("/nowhere/config.toml"))


def prediction() -> Prediction:
    need = DeviceNeed({Component.WEIGHTS: Amount(15000.0, 10.0), Component.KV: Amount(4000.0)})
    host = DeviceNeed({Component.WEIGHTS: Amount(3000.0)})
    footprint = Footprint((need,), host, asleep=(Amount(2000.0),), asleep_host=Amount(18000.0))
    return Prediction(footprint=footprint, gpu_indices=(1,))


def machine(gpu: float, *, fast: float | None = None, deep: float | None = None, **more: float) -> Ledger:
    shares = [
        TierShare(tier=name, taken_mib=mib)
        for name, mib in (("fast", fast), ("deep", deep))
        if mib is not None
    ]
    card = DeviceLedger(
        name="RTX 3090", gpu_index=1, total_mib=GPU_MIB, used_mib=gpu, tiers=shares, reserve_mib=128.0, **more
    )
    host = DeviceLedger(name="host memory", total_mib=64000.0, used_mib=10000.0, reserve_mib=2048.0)
    return Ledger(devices=[card, host])


def memory(*ledgers: Ledger, **fleet: float) -> TierMemory:
    waiting = list(ledgers)
    return TierMemory.of(config(**fleet), lambda tier: prediction(), lambda: waiting.pop(0))


async def test_what_is_foretold_is_what_is_needed_until_it_is_measured():
    known = memory()
    assert known.needs("deep").awake == {}
    await known.prepare()
    needs = known.needs("deep")
    assert needs.awake == {HOST: 3000.0, 1: 19000.0}
    assert needs.asleep == {Rest.SLEEP_1: {1: 2000.0, HOST: 18000.0}, Rest.SLEEP_2: {1: 2000.0, HOST: 3000.0}}
    assert needs.gpus == {1}
    assert known.needs("far").awake == {}, "what runs elsewhere needs nothing here"
    assert needs == needs_of(prediction())


async def test_a_model_that_nobody_can_foretell_needs_nothing_that_is_known():
    def broken(tier: object) -> Prediction:
        raise ValueError("no such architecture")

    known = TierMemory.of(config(), broken, Ledger)
    await known.prepare()
    assert known.needs("fast").awake == {}


async def test_a_look_tells_what_is_free_what_tiers_may_hold_and_who_else_is_there():
    known = memory(machine(9000.0, deep=6000.0, foreign_mib=2500.0))
    seen = await known.look()
    assert seen.free == {1: GPU_MIB - 9000.0 - 128.0, HOST: 64000.0 - 10000.0 - 2048.0}
    assert seen.offered[1] == GPU_MIB - 9000.0 - 128.0 + 6000.0
    assert seen.foreign[1] == 2500.0


async def test_a_limit_is_the_most_that_all_tiers_may_hold():
    known = memory(machine(100.0), gpu_limit_gib=10.0, host_limit_gib=4.0)
    seen = await known.look()
    assert seen.offered == {1: 10 * 1024.0, HOST: 4 * 1024.0}
    assert seen.free[1] > seen.offered[1]


async def test_the_largest_of_the_others_is_named():
    ledger = machine(9000.0)
    ledger.devices[0].foreign = [ForeignProcess(pid=77, name="blender", mib=8000.0)]
    assert (await memory(ledger).look()).holders == {1: "blender (77)"}


async def test_what_a_tier_was_seen_to_hold_counts_from_then_on():
    known = memory(machine(100.0), machine(19600.0, deep=19400.0))
    await known.prepare()
    await known.before("deep")
    await known.settled("deep", TierState.READY, None)
    assert known.needs("deep").awake == {HOST: 3000.0, 1: 19400.0}


async def test_where_the_driver_hides_processes_the_change_of_the_whole_card_tells():
    # Before, started, asleep, awake again: a look after one change is the look before the next.
    known = memory(machine(1100.0), machine(20000.0), machine(3300.0), machine(19900.0))
    await known.prepare()
    await known.before("deep")
    await known.settled("deep", TierState.READY, None)
    assert known.needs("deep").awake[1] == 18900.0
    await known.before("deep")
    await known.settled("deep", TierState.ASLEEP, Rest.SLEEP_1)
    assert known.needs("deep").asleep[Rest.SLEEP_1] == {1: 2200.0, HOST: 18000.0}
    await known.before("deep")
    await known.settled("deep", TierState.READY, Rest.SLEEP_1)
    assert known.needs("deep").awake[1] == 18800.0


@pytest.mark.parametrize("used_after", [1200.0, 23900.0])
async def test_a_change_far_from_what_is_expected_is_somebody_elses(used_after):
    known = memory(
        machine(100.0),
        machine(used_after),
    )
    await known.prepare()
    await known.before("deep")
    await known.settled("deep", TierState.READY, None)
    assert known.needs("deep").awake[1] == 19000.0
