"""The whole loop on the boots of real shapes: foretold by the real estimate, corrected by those before."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from subcortex.config import Config, RemoteTier, VllmTier, parse
from subcortex.engines._vllm_memory import read_boot
from subcortex.hardware import Gpu, Hardware
from subcortex.journal import BootRecord
from subcortex.mind.foresight import Foresight
from subcortex.types import BootFigures
from subcortex.vram.footprint import Component
from subcortex.vram.learning.boots import boot_from, residuals, setup_json

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "docs" / "evidence" / "vram-h200"
CARDS = tuple(Gpu(index=i, name="NVIDIA H200", memory_total_mib=143771) for i in range(4))
MACHINE = Hardware(gpus=CARDS, host_memory_total_mib=500_000, host_memory_available_mib=490_000, cores=64)


def rows() -> list[tuple[dict[str, Any], BootFigures]]:
    """Return the boots in the order of their waves, each with the figures that its log carries."""
    found = []
    for file, waves in (("truth.json", ("1", "2")), ("heldout.json", ("3",))):
        for row in json.loads((EVIDENCE / file).read_text("utf-8"))["boots"]:
            for wave in waves:
                log = EVIDENCE / f"lines-{wave}" / f"{row['log']}.log"
                figures = read_boot(log.read_text("utf-8").splitlines()) if log.exists() else None
                if figures is not None and figures.kv_tokens == row["kv_tokens"]:
                    found.append((row, figures))
                    break
    return found


def tier_of(row: dict[str, Any]) -> VllmTier:
    flags = [*row.get("flags", []), *(["--enable-sleep-mode"] if row["sleep_mode"] else [])]
    return VllmTier(
        name="deep",
        engine="vllm",
        model=str(ROOT / "bench" / "shapes" / row["model"]),
        context_tokens=row.get("max_model_len", 8192),
        tensor_parallel_size=row["tp"],
        pipeline_parallel_size=row.get("pp", 1),
        gpu_memory_utilization=row["gpu_memory_utilization"],
        flags=flags,
    )


def config() -> Config:
    tier = {"name": "x", "engine": "llama.cpp", "model": "x.gguf"}
    return parse({"tiers": [tier]}, ROOT / "config.toml")


def recorded(number: int, tier: VllmTier, told: Any, figures: BootFigures) -> BootRecord:
    """Return the boot as the journal would have it."""
    return BootRecord(
        id=str(number),
        at=datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number),
        run_id="run",
        tier=tier.name,
        engine="vllm",
        engine_version=f"vllm {figures.version}",
        model=tier.model,
        architecture=told.architecture,
        gpus=[(CARDS[0].name, None)] * len(told.gpu_indices),
        tensor_parallel_size=tier.tensor_parallel_size,
        pipeline_parallel_size=tier.pipeline_parallel_size,
        setup=setup_json(told.setup),
        predicted=told.to_json(),
        outcome="ready",
        measured=figures,
    )


def test_past_boots_bring_the_next_prediction_nearer_and_keep_its_intervals_honest() -> None:
    past: list[BootRecord] = []
    before: list[float] = []
    after: list[float] = []
    inside: list[bool] = []
    foresight = Foresight(config(), lambda: MACHINE, lambda: reversed(past))
    for number, (row, figures) in enumerate(rows()):
        told = foresight(tier_of(row))
        assert told is not None
        assert told.raw is not None
        for learned, raw in zip(
            residuals(told.footprint, figures, told.used_before_mib),
            residuals(told.raw, figures, told.used_before_mib),
            strict=True,
        ):
            if number >= 8:
                after.append(abs(learned.residual_mib))
                before.append(abs(raw.residual_mib))
                inside.append(learned.inside(0.9, resolution_mib=10.24))
        past.append(recorded(number, tier_of(row), told, figures))
    assert len(past) >= 40
    assert len(after) > 100
    # The estimate was fitted to most of these boots, so those before teach little about other models.
    assert fmean(after) < 1.05 * fmean(before)
    assert sum(inside) / len(inside) >= 0.85


def test_a_model_booted_twice_is_foretold_as_it_was_measured() -> None:
    row, figures = next((row, found) for row, found in rows() if row["model"] == "phi-4")
    past: list[BootRecord] = []
    foresight = Foresight(config(), lambda: MACHINE, lambda: reversed(past))
    first = foresight(tier_of(row))
    assert first is not None
    assert first.footprint == first.raw
    past += [recorded(number, tier_of(row), foresight(tier_of(row)), figures) for number in (1, 2, 3)]
    learned = foresight(tier_of(row))
    assert learned is not None
    measured_mib = row["cuda_graph_gib"] * 1024
    graphs = [told.footprint.devices[0].of(Component.GRAPHS) for told in (first, learned)]
    assert abs(graphs[1].mean_mib - measured_mib) < 15 < abs(graphs[0].mean_mib - measured_mib)
    assert graphs[1].sigma_mib < graphs[0].sigma_mib / 3
    assert boot_from(past[0]) is not None


def test_a_tier_runs_on_the_gpus_it_names_or_the_first_it_needs() -> None:
    tier = tier_of({"model": "llama-3.1-8b", "tp": 2, "gpu_memory_utilization": 0.5, "sleep_mode": False})
    foresight = Foresight(config(), lambda: MACHINE, list)
    told = foresight(tier)
    named = foresight(tier.model_copy(update={"gpus": [3, 1]}))
    assert told is not None
    assert named is not None
    assert (told.gpu_indices, named.gpu_indices) == ((0, 1), (3, 1))


def test_the_drivers_own_reserve_is_no_foreign_memory() -> None:
    idle = CARDS[0].model_copy(update={"memory_used_mib": 615.0625, "memory_reserved_mib": 615.0})
    machine = MACHINE.model_copy(update={"gpus": (idle,)})
    row = {"model": "llama-3.1-8b", "tp": 1, "gpu_memory_utilization": 0.5, "sleep_mode": False}
    told = Foresight(config(), lambda: machine, list)(tier_of(row))
    assert told is not None
    assert told.used_before_mib == pytest.approx((0.0625,))


def test_nothing_is_foretold_of_what_runs_elsewhere() -> None:
    tier = RemoteTier(name="far", engine="remote", model="m", url="https://example.org/v1")
    assert Foresight(config(), lambda: MACHINE, list)(tier) is None


def test_flags_reach_the_estimate() -> None:
    flags = ["--max-num-seqs", "256"]
    row = {"model": "llama-3.1-8b", "tp": 1, "gpu_memory_utilization": 0.5, "sleep_mode": False}
    foresight = Foresight(config(), lambda: MACHINE, list)
    plain, fewer = foresight(tier_of(row)), foresight(tier_of(row | {"flags": flags}))
    assert plain is not None
    assert fewer is not None
    graphs = [told.footprint.devices[0].of(Component.GRAPHS).mean_mib for told in (plain, fewer)]
    assert graphs[1] < graphs[0]


@pytest.mark.parametrize(("split", "foretold"), [(None, True), ((), False)])
def test_nothing_is_foretold_of_a_card_in_mig_mode(split: tuple[()] | None, foretold: bool) -> None:
    machine = MACHINE.model_copy(update={"gpus": (CARDS[0].model_copy(update={"mig": split}), *CARDS[1:])})
    tier = tier_of(next(row for row, _ in rows() if row["tp"] == 1))
    assert (Foresight(config(), lambda: machine, list)(tier) is not None) is foretold
