"""Starts on record: foretold before, measured after; and the ledger they make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from subcortex.cli._ps_view import ledger_lines
from subcortex.config import Config, Tier, parse
from subcortex.errors import DoesNotFit, SubcortexError
from subcortex.hardware import Gpu, GpuProcess, Hardware, Host
from subcortex.hardware.model import NumaNode
from subcortex.journal import BootRecord, Reader
from subcortex.mind import Subcortex
from subcortex.mind.boots import Machine
from subcortex.types import BootFigures, DeviceFigures, TierShare, TierState
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import Prediction, boot_from, setup_json
from subcortex.vram.learning.calibration import calibrate
from subcortex.vram.setup import VllmSetup
from tests.fakes import ScriptedEngine

CARDS = tuple(
    Gpu(index=n, name="NVIDIA H200", uuid=f"GPU-{n}", memory_total_mib=143771, memory_used_mib=n * 1000)
    for n in range(2)
)
SEEN = Hardware(gpus=CARDS, host_memory_total_mib=64000, host_memory_available_mib=60000, cores=8)
NEED = DeviceNeed({Component.WEIGHTS: Amount(7700.0), Component.ACTIVATIONS: Amount(700.0, 90.0)})
PREDICTION = Prediction(
    Footprint((NEED, NEED), host=DeviceNeed({Component.CONTEXT: Amount(3000.0, 500.0)})),
    setup=VllmSetup(tensor_parallel_size=2, version="0.26.0"),
    architecture="LlamaForCausalLM",
    gpu_indices=(1, 0),
    used_before_mib=(1000.0, 0.0),
)
RANK = DeviceFigures(device="GPU 0", components={"weights": 7720.96, "activations": 727.04})
FIGURES = BootFigures(
    engine="vllm", devices=[RANK, RANK.model_copy(update={"device": "GPU 1"})], kv_tokens=1024
)
FLAGS = ["--max-num-batched-tokens", "512"]


def config(folder: Path) -> Config:
    return parse(
        {
            "daemon": {"runtime_dir": str(folder / "run")},
            "journal": {"database": str(folder / "journal.db")},
            "tiers": [
                {
                    "name": "deep",
                    "engine": "vllm",
                    "model": "models/8b",
                    "tensor_parallel_size": 2,
                    "context_tokens": 8192,
                    "env": {"SECRET": "hunter2"},
                    "flags": [
                        "--api-key",
                        "hunter3",
                        "--hf-token=hunter4",
                        "--max-num-batched-tokens",
                        "512",
                    ],
                    "max_restarts": 0,
                }
            ],
        }
    )


@asynccontextmanager
async def mind_of(folder: Path, engine: ScriptedEngine, **options) -> AsyncGenerator[Subcortex, None]:
    options = {"machine": Machine(lambda: SEEN)} | options
    async with Subcortex.open(config(folder), create=lambda tier: engine, **options) as mind:
        yield mind


async def settled(mind: Subcortex) -> BootRecord:
    """Wait until the newest start on record has ended, and return it."""
    async with asyncio.timeout(5):
        while True:
            with Reader.open(mind.config.database_path) as reader:
                found = reader.boots(limit=1)
            if found and found[0].outcome is not None:
                return found[0]
            await asyncio.sleep(0.005)


async def test_a_prediction_is_kept_before_the_start_and_completed_after_it(tmp_path: Path) -> None:
    engine = ScriptedEngine("models/8b")
    engine.figures = FIGURES
    engine.may_start.clear()
    asked: list[str] = []

    def predict(tier: Tier) -> Prediction:
        asked.append(tier.name)
        return PREDICTION

    async with mind_of(tmp_path, engine, predict=predict) as mind:
        async with asyncio.timeout(5):
            while mind.fleet.status()[0].progress != "loading":
                await asyncio.sleep(0.001)
        with Reader.open(mind.config.database_path) as reader:
            (before,) = reader.boots()
        assert (before.outcome, before.measured) == (None, None)
        assert before.predicted == PREDICTION.to_json()
        engine.may_start.set()
        after = await settled(mind)
        with Reader.open(mind.config.database_path) as reader:
            machine = reader.hardware(after.hardware or "")
    assert set(asked) == {"deep"}
    assert (after.id, after.outcome, after.tier, after.engine) == (before.id, "ready", "deep", "scripted")
    assert (after.engine_version, after.architecture) == ("scripted 1", "LlamaForCausalLM")
    # The plan runs it on the second card first.
    assert after.gpus == [("NVIDIA H200", "GPU-1"), ("NVIDIA H200", "GPU-0")]
    assert (after.tensor_parallel_size, after.pipeline_parallel_size) == (2, 1)
    assert PREDICTION.setup is not None
    assert after.setup == setup_json(PREDICTION.setup)
    assert after.measured == FIGURES
    assert after.residuals is not None
    assert [(one["device"], one["component"], one["residual_mib"]) for one in after.residuals] == [
        ("GPU 0", "weights", 20.96),
        ("GPU 0", "activations", 27.04),
        ("GPU 1", "weights", 20.96),
        ("GPU 1", "activations", 27.04),
    ]
    assert machine is not None
    assert machine["gpus"][0]["name"] == "NVIDIA H200"
    assert "memory_used_mib" not in machine["gpus"][0]
    boot = boot_from(after)
    assert boot is not None
    learned = calibrate([boot]).corrected(
        PREDICTION.footprint, boot.key, model="models/8b", setup=after.setup
    )
    assert learned.devices[0].of(Component.ACTIVATIONS).mean_mib == pytest.approx(727.04, abs=1)


async def test_a_start_that_failed_is_kept_with_what_it_had_said(tmp_path: Path) -> None:
    refused = DoesNotFit("8b does not fit: 3.1 GiB short", needed_gib=20.0)
    engine = ScriptedEngine("models/8b", starts=[refused])
    engine.figures = FIGURES
    async with mind_of(tmp_path, engine, predict=lambda tier: PREDICTION) as mind:
        kept = await settled(mind)
    assert (kept.outcome, kept.measured) == ("failed", FIGURES)
    assert kept.error == ("does_not_fit", "8b does not fit: 3.1 GiB short")
    assert kept.residuals


@pytest.mark.parametrize("predict", [None, lambda tier: None, lambda tier: 1 / 0])
async def test_without_a_prediction_a_start_is_kept_all_the_same(tmp_path: Path, predict) -> None:
    engine = ScriptedEngine("models/8b")
    async with mind_of(tmp_path, engine, predict=predict) as mind:
        kept = await settled(mind)
        assert mind.fleet.state("deep") is TierState.READY
    assert (kept.outcome, kept.predicted, kept.residuals, kept.measured) == ("ready", None, None, None)
    assert kept.gpus == [("NVIDIA H200", "GPU-0"), ("NVIDIA H200", "GPU-1")]
    assert kept.setup is not None
    assert kept.setup["context_tokens"] == 8192
    assert kept.setup["flags"] == FLAGS
    assert "hunter" not in str(kept)


async def test_a_machine_that_cannot_be_looked_at_stops_no_engine(tmp_path: Path) -> None:
    def broken() -> Hardware:
        raise SubcortexError("no hardware today")

    engine = ScriptedEngine("models/8b")
    async with mind_of(tmp_path, engine, machine=Machine(broken)) as mind:
        async with asyncio.timeout(5):
            while mind.fleet.state("deep") is not TierState.READY:
                await asyncio.sleep(0.001)
        with Reader.open(mind.config.database_path) as reader:
            assert reader.boots() == []


async def test_a_restart_is_a_boot_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subcortex.fleet.machine._FIRST_DELAY_S", 0.001)
    engine = ScriptedEngine("models/8b")
    async with Subcortex.open(
        config(tmp_path).model_copy(
            update={"tiers": [config(tmp_path).tiers[0].model_copy(update={"max_restarts": 3})]}
        ),
        create=lambda tier: engine,
        machine=Machine(lambda: SEEN),
    ) as mind:
        first = await settled(mind)
        engine.die()
        async with asyncio.timeout(5):
            while engine.started < 2:
                await asyncio.sleep(0.001)
        second = await settled(mind)
        with Reader.open(mind.config.database_path) as reader:
            assert [boot.id for boot in reader.boots()] == [second.id, first.id]
    assert second.id != first.id
    assert first.error is None


async def test_a_machine_that_has_only_grown_warmer_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subcortex.fleet.machine._FIRST_DELAY_S", 0.001)
    looks = 0

    def look() -> Hardware:
        nonlocal looks
        looks += 1
        gpus = tuple(
            gpu.model_copy(
                update={
                    "memory_used_mib": 100.0 * looks,
                    "temperature_c": 30 + looks,
                    "power_draw_w": 70.0 + looks,
                    "sm_clock_mhz": 300 + looks,
                    "memory_clock_mhz": 400 + looks,
                    "pcie_generation": 1 + looks % 4,
                    "display_active": looks % 2 == 0,
                    "unread": ("temperature_c",) * (looks % 2),
                    "processes": (GpuProcess(pid=looks, name="diary"),),
                }
            )
            for gpu in CARDS
        )
        nodes = (NumaNode(index=0, cores="0-7", memory_total_mib=64000, memory_free_mib=1000.0 * looks),)
        host = Host(swap_total_mib=1000, swap_free_mib=looks, kernel="6.8", numa_nodes=nodes)
        now = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=looks)
        passing = {"gpus": gpus, "host": host, "taken_at": now, "host_memory_available_mib": 1000.0 * looks}
        return SEEN.model_copy(update=passing)

    engine = ScriptedEngine("models/8b")
    tiers = [config(tmp_path).tiers[0].model_copy(update={"max_restarts": 3})]
    async with Subcortex.open(
        config(tmp_path).model_copy(update={"tiers": tiers}),
        create=lambda tier: engine,
        machine=Machine(look),
    ) as mind:
        first = await settled(mind)
        engine.die()
        async with asyncio.timeout(5):
            while engine.started < 2:
                await asyncio.sleep(0.001)
        second = await settled(mind)
        with Reader.open(mind.config.database_path) as reader:
            machine = reader.hardware(first.hardware or "")
    assert looks >= 2
    assert (first.id != second.id, first.hardware) == (True, second.hardware)
    assert machine is not None
    assert "diary" not in str(machine)
    assert machine["host"]["numa_nodes"] == [{"index": 0, "cores": "0-7", "memory_total_mib": 64000}]
    assert (machine["host"]["kernel"], machine["gpus"][1]["memory_total_mib"]) == ("6.8", 143771)


async def test_the_ledger_holds_plans_against_cards(tmp_path: Path) -> None:
    engine = ScriptedEngine("models/8b")
    async with mind_of(tmp_path, engine, predict=lambda tier: PREDICTION) as mind:
        before = mind.ledger()
        await settled(mind)
        first, second, host = mind.ledger().devices
    assert [device.gpu_index for device in before.devices] == [0, 1, None]
    assert first.tiers == second.tiers == [TierShare(tier="deep", planned_mib=8400.0, taken_mib=0.0)]
    assert (first.used_mib, second.used_mib, second.unexplained_mib) == (0.0, 1000.0, 1000.0)
    assert host.tiers == [TierShare(tier="deep", planned_mib=3000.0, taken_mib=0.0)]
    assert host.foreign_mib == 4000.0


async def test_the_ledger_and_ps_keep_free_what_the_plan_does(tmp_path: Path) -> None:
    desktop = CARDS[1].model_copy(update={"display_active": True})
    machine = Machine(lambda: SEEN.model_copy(update={"gpus": (CARDS[0], desktop)}))
    async with mind_of(tmp_path, ScriptedEngine("models/8b"), machine=machine) as mind:
        found = mind.ledger()
    assert [device.reserve_mib for device in found.devices] == [128.0, 640.0, 2048.0]
    # Of the first card the driver takes 255 MiB and 0.25 %, of the second others take more than that.
    assert [round(device.plannable_mib, 1) for device in found.devices] == [
        143028.6,
        142131.0,
        57952.0,
    ]
    notes = [" ".join(line.split()) for line in ledger_lines(found) if "free" in line.split()]
    assert notes == [
        "GPU 0 NVIDIA H200 free 140.4 GiB of 140.4 GiB, 139.7 GiB to plan with, 128 MiB kept free",
        "free 139.4 GiB of 140.4 GiB, 138.8 GiB to plan with, 640 MiB kept free",
        "free 58.6 GiB of 62.5 GiB, 56.6 GiB to plan with, 2.0 GiB kept free",
    ]


async def test_a_driver_in_trouble_hides_no_tier(folder: Path) -> None:
    def trouble() -> Hardware:
        raise RuntimeError("NVML: unknown error")

    async with mind_of(folder, ScriptedEngine("models/8b"), machine=Machine(hardware=trouble)) as mind:
        assert mind.status()
        assert mind.ledger().devices == []
