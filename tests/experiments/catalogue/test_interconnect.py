"""Tensor parallelism's paths: arms, their order and what they come to, on engines that stand in for vLLM."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import DeadlineExceeded, DoesNotFit
from subcortex.experiments import catalogue
from subcortex.experiments.catalogue.interconnect import experiment as interconnect
from subcortex.experiments.catalogue.interconnect.experiment import ARMS, in_arm, long_tokens
from subcortex.experiments.catalogue.interconnect.report import engines_of, report
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.hardware import Gpu, Hardware
from tests.experiments.harness import MODELS, config_for, lab_for, scene_for

ARM_NAMES = [one.name for one in ARMS]
PASSES = [*ARM_NAMES, *reversed(ARM_NAMES)]
TIER = {"name": "deep", "engine": "vllm", "model": "owner/some-70b", "tensor_parallel_size": 2}


def two_cards(scene: Scene, number: int = 2) -> Scene:
    cards = tuple(
        Gpu(index=i, name="a card", uuid=f"GPU-{i}", memory_total_mib=143771.0) for i in range(number)
    )
    machine = Hardware(
        gpus=cards, host_memory_total_mib=5e5, host_memory_available_mib=5e5, cores=64, assumed=True
    )
    return replace(scene, hardware=machine)


@pytest.fixture
def scene(folder: Path) -> Scene:
    return two_cards(scene_for(config_for(folder, TIER | {"context_tokens": 256})))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small sizes, and llama.cpp for vLLM: another thread count an arm, so that arms share no engine."""
    for name, value in {
        "REPEATS": 2, "WINDOW_S": 0.03, "CROWD_WINDOW_S": 0.06, "CONCURRENCIES": (1, 2), "LOAD_TOKENS": 12,
        "MOST_BLOCKS": 1,
    }.items():  # fmt: skip
        monkeypatch.setattr(interconnect, name, value)
    served: list[str] = []
    real = Lab.engine

    @asynccontextmanager
    async def engine(lab: Lab, tier: VllmTier) -> AsyncIterator[Served]:
        name = next(name for name, one in zip(ARM_NAMES, ARMS, strict=True) if in_arm_of(tier, one))
        served.append(name)
        stand_in = LlamaCppTier(
            name=tier.name,
            model=str(MODELS / "fast" / "fast.gguf"),
            context_tokens=256,
            threads=1,
            env={"ARM": name},
        )
        async with real(lab, stand_in) as found:
            yield found

    monkeypatch.setattr(Lab, "engine", engine)
    return served


def in_arm_of(tier: VllmTier, arm: Any) -> bool:
    plain = VllmTier.model_validate(TIER | {"context_tokens": 256})
    return in_arm(plain, arm) == tier


async def test_a_block_goes_there_and_back_and_a_killed_one_goes_on_with_its_repeat(
    scene: Scene, started: list[str]
):
    experiment = catalogue.find("interconnect")
    [inquiry] = experiment.inquiries(scene)
    assert inquiry.after == {"peer_trust"}
    assert inquiry.needs.gpus == 2
    async with lab_for(scene) as (lab, keep):
        found = await experiment.run(lab, inquiry)
    assert started == [*ARM_NAMES, *reversed(ARM_NAMES)]
    assert len(keep.boots) == 5
    main = found.answers[0]
    assert (main.quantity, main.about, main.unit) == (inquiry.quantity, inquiry.about, inquiry.unit)
    assert main.n == 2
    assert "bounds PCIe from below" in main.statement
    assert "engines: 1 no peer path, 2 as found" in main.statement
    assert main.details["engines"] == {"as found": 2, "NCCL only": 2, "no peer path": 1}
    for arm in ARM_NAMES:
        figures = main.details["arms"][arm]
        assert set(figures) == {"ttft_short_s", "ttft_long_s", "tpot_s", "tok_s_1", "tok_s_2", "engines"}
        samples = sorted(one.value for one in keep.kept if one.metric == "tok_s_2" and one.arm == arm)
        assert len(samples) == 4
        assert figures["tok_s_2"] == pytest.approx((samples[1] + samples[2]) / 2)
        # It looks again where nothing came.
        for metric, least_s in (("tok_s_1", 0.03), ("tok_s_2", 0.06)):
            windows = [one for one in keep.kept if one.metric == metric and one.arm == arm]
            assert min(one.facts["seconds"] for one in windows) >= least_s
    lengths = {one.facts["prompt_tokens"] for one in keep.kept if one.metric == "ttft_long"}
    assert lengths == {256 - 64 - 8}

    async with lab_for(scene, earlier=keep.kept) as (lab, again):
        assert await experiment.run(lab, inquiry) == found
    assert again.boots == []

    # The second arm's first pass was broken off in the middle of its windows.
    cut = next(i for i, one in enumerate(keep.kept) if one.arm == ARM_NAMES[1] and one.metric == "tok_s_2")
    del started[:]
    async with lab_for(scene, earlier=keep.kept[:cut]) as (lab, again):
        await experiment.run(lab, inquiry)
    assert started == [ARM_NAMES[1], ARM_NAMES[2], ARM_NAMES[2], ARM_NAMES[1], ARM_NAMES[0]]
    metrics = [one.metric for one in again.kept if one.facts["place"] == 1]
    assert metrics == ["boot", "tok_s_2", "tok_s_2"]


async def test_an_arm_that_does_not_start_is_an_answer(
    scene: Scene, started: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interconnect, "REPEATS", 1)
    real = Lab.engine

    def engine(lab: Lab, tier: VllmTier) -> Any:
        if "NCCL_P2P_DISABLE" in tier.env:
            raise DoesNotFit("no room for NCCL's buffers: 312 MiB are short")
        return real(lab, tier)

    monkeypatch.setattr(Lab, "engine", engine)
    experiment = catalogue.find("interconnect")
    [inquiry] = experiment.inquiries(scene)
    async with lab_for(scene) as (lab, _):
        found = await experiment.run(lab, inquiry)
    [refused] = [one for one in found.answers if one.outcome == "failed"]
    assert "312 MiB" in refused.statement
    assert refused.gap_kind == "interconnect"
    assert any(one.about.endswith("NCCL only") for one in found.answers)


def test_it_says_what_it_costs_with_windows_that_hold_many_steps_of_a_crowd(scene: Scene):
    assert [interconnect.window_s(size) for size in (1, 16, 64)] == [2.0, 3.0, 3.0]
    [inquiry] = catalogue.find("interconnect").inquiries(scene)
    boots_s = 5 * 80.0
    # On two H200 a pass took 11 to 14 s beside its windows, and up to 10 s until the next engine began.
    assert 6 * (32.0 + 20.0) < 60 * inquiry.minutes - boots_s < 6 * (32.0 + 30.0)


def test_it_is_not_applicable_without_two_cards_or_a_split_tier(folder: Path):
    experiment = catalogue.find("interconnect")
    here = scene_for(config_for(folder, TIER))
    assert "it takes two GPUs" in str(experiment.why_not(two_cards(here, 1)))
    assert list(experiment.inquiries(two_cards(here, 1))) == []
    alone = scene_for(config_for(folder, TIER | {"tensor_parallel_size": 1}))
    assert "tensor_parallel_size" in str(experiment.why_not(two_cards(alone)))
    assert experiment.why_not(two_cards(here)) is None


def test_no_arm_but_the_first_reduces_by_anything_but_nccl():
    tier = VllmTier.model_validate(
        TIER
        | {"env": {"HF_HUB_OFFLINE": "1"}}
        | {"flags": ["--compilation-config", '{"mode": 3, "pass_config": {"fuse_norm_quant": true}}']}
    )
    assert in_arm(tier, ARMS[0]) is tier
    for arm in ARMS[1:]:
        found = in_arm(tier, arm)
        assert "--disable-custom-all-reduce" in found.flags
        assert found.env["HF_HUB_OFFLINE"] == "1"
        assert found.env["VLLM_ALLREDUCE_USE_SYMM_MEM"] == "0"
        # What a person has set for the compiler stays; the last one given counts.
        assert json.loads(found.flags[-1]) == {
            "mode": 3,
            "pass_config": {"fuse_norm_quant": True, "fuse_allreduce_rms": False},
        }
    assert "NCCL_P2P_DISABLE" not in in_arm(tier, ARMS[1]).env
    assert in_arm(tier, ARMS[2]).env["NCCL_P2P_DISABLE"] == "1"
    assert in_arm(tier, ARMS[2]).env["NCCL_NVLS_ENABLE"] == "0"
    assert long_tokens(tier) == 4000


def samples(factors: dict[str, float], *, noise: float, throttled: bool = False) -> list[Reading]:
    readings = []
    for place, arm in enumerate([*ARM_NAMES, *reversed(ARM_NAMES)]):
        for repeat in range(5):
            # The machine slows down by 2 % a pass, evenly: what goes there and back cancels it.
            value = 0.02 * factors[arm] * (1 + 0.02 * place) * (1 + noise * (repeat - 2))
            beside = {"throttled_for": "GPU 0: heat"} if throttled and arm != ARM_NAMES[0] else {}
            readings.append(Reading("tpot", value, "s", arm, repeat, readings=beside))
        readings.append(Reading("boot", 60.0, "s", arm))
    return readings


def answers(readings: list[Reading]) -> dict[str, Any]:
    tier = VllmTier.model_validate(TIER)
    found = report(readings, tier, {}, ARM_NAMES, concurrencies=(1, 16, 64), long_tokens=4000)
    return {one.about + " " + one.quantity: one for one in found.answers}


def test_drift_cancels_and_ratios_are_those_that_were_put_in():
    found = answers(samples({"as found": 1.0, "NCCL only": 1.0, "no peer path": 1.4}, noise=0.002))
    slower = next(one for name, one in found.items() if name.endswith("70b speed_ratio"))
    assert slower.outcome == "different"
    assert slower.value == pytest.approx(1.4, rel=0.001)
    assert slower.low <= 1.4 <= slower.high
    same = next(one for name, one in found.items() if "NCCL only" in name)
    assert same.outcome == "alike"
    assert same.value == pytest.approx(1.0, abs=0.001)


def test_what_was_throttled_is_in_no_ratio():
    readings = samples({"as found": 1.0, "NCCL only": 1.0, "no peer path": 1.4}, noise=0.0, throttled=True)
    found = answers(readings)
    main = next(one for name, one in found.items() if name.endswith("70b speed_ratio"))
    assert main.outcome == "inconclusive"
    assert main.value is None


def test_an_engine_that_was_warm_already_counts_as_one():
    told = [Reading("tpot", 0.02, "s", arm, facts={"round": 0, "place": i}) for i, arm in enumerate(PASSES)]
    # An older run kept the seconds of a start that it made itself, and none of the first, which was warm.
    boots = {1: 140.0, 2: 107.0, 4: 104.0, 5: 110.0}
    older = [Reading("boot", s, "s", PASSES[i], facts={"round": 0, "place": i}) for i, s in boots.items()]
    assert engines_of([*told, *older], ARM_NAMES) == {"as found": 2, "NCCL only": 2, "no peer path": 1}
    every = {0: 163.0, 3: 107.0, **boots}
    newer = [Reading("boot", s, "s", PASSES[i], facts={"round": 0, "place": i}) for i, s in every.items()]
    assert engines_of([*told, *newer], ARM_NAMES) == {"as found": 2, "NCCL only": 2, "no peer path": 1}


async def test_what_was_measured_is_told_when_time_is_over(scene: Scene, started: list[str]):
    experiment = catalogue.find("interconnect")
    [inquiry] = experiment.inquiries(scene)
    async with lab_for(scene, seconds=0) as (lab, keep):
        with pytest.raises(DeadlineExceeded, match="nothing was measured"):
            await experiment.run(lab, inquiry)
    assert (started, keep.boots) == ([], [])
    # The way there of a block: each arm once, so that drift is in every ratio.
    there = [
        Reading(metric, 0.02 * (1 + 0.5 * i) + 0.001 * n, "s", arm, n, facts={"round": 0, "place": i})
        for i, arm in enumerate(ARM_NAMES)
        for metric in ("tpot", "ttft_short", "ttft_long")
        for n in range(2)
    ]
    async with lab_for(scene, seconds=0, earlier=there) as (lab, _):
        found = await experiment.run(lab, inquiry)
    main = found.answers[0]
    assert (main.quantity, main.outcome, main.low) == ("speed_ratio", "inconclusive", None)
    assert main.value == pytest.approx(0.0405 / 0.0205)
    assert "drift is in it" in main.statement
    assert any("want of time: as found, NCCL only, no peer path" in one for one in found.noticed)
    assert {one.quantity for one in found.answers if one.outcome == "measured"} == {"ttft", "tpot"}
