"""Idle memory and the cost of coming back: llama.cpp for real, sleep on vLLM's stand-in."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest

from subcortex import hardware
from subcortex.config import VllmTier
from subcortex.experiments.catalogue.idle_and_swap import experiment as idle_and_swap
from subcortex.experiments.catalogue.idle_and_swap import report as idle_report
from subcortex.experiments.catalogue.idle_and_swap.experiment import IdleAndSwap
from subcortex.experiments.experiment import Answer, Report
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.hardware import Hardware, with_gpus
from subcortex.types import Rest
from tests.conftest import ROOT
from tests.engines import sleepy_server
from tests.experiments.harness import MODELS, MemoryKeep, config_for, lab_for, scene_for

HELD_MIB = 200.0


def answer(report: Report, quantity: str) -> Answer:
    return next(one for one in report.answers if one.quantity == quantity)


async def run(folder: Path, *tiers: dict[str, Any], **lab: Any) -> tuple[Report, MemoryKeep]:
    scene = scene_for(config_for(folder, *tiers))
    inquiry = IdleAndSwap().inquiries(scene)[0]
    async with lab_for(scene, **lab) as (found, keep):
        return await IdleAndSwap().run(found, inquiry), keep


@pytest.fixture
def one_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_and_swap, "_QUICK_START_S", 0.0)


def llamacpp(folder: Path) -> dict[str, Any]:
    """Return a tier whose file nobody else has in use: its pages could not be dropped."""
    file = shutil.copy(MODELS / "fast" / "fast.gguf", folder / "fast.gguf")
    return {"name": "fast", "engine": "llama.cpp", "model": str(file), "threads": 1, "context_tokens": 1024}


def sleeper(folder: Path, *flags: str, **switches: Any) -> dict[str, Any]:
    program = sleepy_server.install(folder / "bin", hold_mib=HELD_MIB, **switches)
    return {
        "name": "deep",
        "engine": "vllm",
        "model": "owner/model",
        "executable": str(program),
        "sleep_mode": True,
        "start_timeout_s": 60,
        "flags": list(flags),
    }


async def test_llamacpp_holds_memory_while_idle_and_nothing_once_stopped(tmp_path: Path) -> None:
    report, keep = await run(tmp_path, llamacpp(tmp_path))
    idle = answer(report, "ram")
    assert idle.about == "fast"
    assert idle.value is not None
    # A Python with llama.cpp in it, a model of 1.8 MiB and its cache.
    assert 10 < idle.value < 500
    assert idle.details["stopped_mib"] == 0
    assert idle.n == len(keep.boots) == 4
    starts = [one for one in keep.kept if one.metric == "start"]
    assert [one.arm for one in starts] == ["cold", "warm", "warm", "warm"]
    assert [one.value for one in starts] == [boot["boot_s"] for boot in keep.boots]
    again = answer(report, "restart_time")
    assert again.n == 3
    assert again.details["cold_start_s"] == starts[0].value
    assert again.value == sorted(one.value for one in starts[1:])[1]
    # Whoever leaves has to stop and to start again; it cannot sleep.
    assert set(answer(report, "swap_time").details["ways"]) == {"stopped"}
    assert not [one for one in report.answers if one.quantity == "asleep_memory"]


async def test_a_run_goes_on_where_its_earlier_life_stopped(tmp_path: Path) -> None:
    earlier = [Reading("start", 9.0, "s", arm) for arm in ("cold", "warm", "warm")]
    report, keep = await run(tmp_path, llamacpp(tmp_path), earlier=earlier)
    assert len(keep.boots) == 1
    assert answer(report, "start_time").value == 9.0
    assert answer(report, "restart_time").n == 3


@pytest.mark.usefixtures("one_restart")
async def test_asleep_it_gives_back_what_it_held(tmp_path: Path) -> None:
    report, keep = await run(tmp_path, sleeper(tmp_path))
    first, second = (one for one in report.answers if one.quantity == "asleep_memory")
    details = report.answers[0].details
    for asleep in (first, second):
        assert asleep.value is not None
        assert details["idle_mib"] - asleep.value == pytest.approx(HELD_MIB, abs=10)
        assert asleep.n == idle_and_swap.REPEATS
    for level in "12":
        assert {f"sleep_{level}_s", f"wake_{level}_ttft_s"} <= details.keys()
        assert details[f"wake_{level}_s"] <= details[f"wake_{level}_ttft_s"]
    slept = [one.arm for one in keep.kept if one.metric == "sleep"]
    assert slept == ["sleep_1 first", "sleep_1", "sleep_1", "sleep_2", "sleep_2", "sleep_2"]
    sound = answer(report, "sound_wakes")
    assert (sound.outcome, sound.n) == ("passed", 6)
    assert set(answer(report, "swap_time").details["ways"]) == {
        "asleep at level 1",
        "asleep at level 2",
        "stopped",
    }


class Cards:
    """Two H200: of each the driver holds 616 MiB, and a folder's server half of its host memory."""

    def __init__(self, folder: Path, *, told: bool = True) -> None:
        self._control = str(folder / "bin" / "control.json")
        self.machine = with_gpus("2x H200 141GB")
        self._told = told

    def __call__(self) -> Hardware:
        held = 0.0
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._control == process.environ().get(sleepy_server.CONTROL):
                    held += process.memory_info().rss / 2**20
        cards = [one.model_copy(update={"memory_used_mib": 616 + held / 2}) for one in self.machine.gpus]
        return self.machine.model_copy(update={"gpus": tuple(cards) if self._told else ()})


async def on_two_cards(folder: Path, cards: Cards, monkeypatch: pytest.MonkeyPatch) -> Report:
    monkeypatch.setattr(hardware, "detect", cards)
    monkeypatch.setattr(idle_and_swap, "REPEATS", 1)
    tier = sleeper(folder) | {"tensor_parallel_size": 2, "sleep_mode": None}
    scene = Scene(config_for(folder, tier), cards.machine)
    inquiry = IdleAndSwap().inquiries(scene)[0]
    assert inquiry.needs.gpus == 2
    async with lab_for(scene) as (lab, _):
        return await IdleAndSwap().run(lab, inquiry)


@pytest.mark.usefixtures("one_restart")
async def test_on_cards_it_counts_what_came_on_top_of_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = await on_two_cards(tmp_path, Cards(tmp_path), monkeypatch)
    idle, asleep = answer(report, "vram"), answer(report, "asleep_memory")
    assert idle.value is not None
    assert asleep.value is not None
    assert HELD_MIB < idle.value < HELD_MIB + 200
    assert idle.value - asleep.value == pytest.approx(HELD_MIB, abs=20)
    assert idle.details["idle_mib_a_gpu"] == [pytest.approx(idle.value / 2, abs=10)] * 2
    assert idle.details["stopped_mib"] == pytest.approx(0.0, abs=1)
    assert "MiB a GPU" in idle.statement
    assert "of host memory" in asleep.statement


async def test_a_driver_that_says_nothing_is_no_card_that_holds_nothing(tmp_path: Path) -> None:
    tier = VllmTier(name="deep", model="owner/model")
    async with lab_for(scene_for(config_for(tmp_path))) as (lab, keep):
        round_ = idle_and_swap._Round(lab, tier, (30, 31))
        await round_._look("idle", None)
        await round_._look("stopped", None)
    assert keep.kept == []
    assert len([words for words in round_.noticed if "does not tell" in words]) == 1


@pytest.mark.usefixtures("one_restart")
async def test_made_up_weights_tell_what_level_2_keeps_and_that_nobody_wakes_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_and_swap, "REPEATS", 1)
    tier = sleeper(tmp_path, "--load-format", "dummy", fail_reload=True)
    report, keep = await run(tmp_path, tier)
    details = report.answers[0].details
    assert details["idle_mib"] - details["asleep_2_mib"] == pytest.approx(HELD_MIB, abs=10)
    assert "wake_2_s" not in details
    assert any("level 2" in words and "would not wake" in words for words in report.noticed)
    assert report.gaps
    # It comes after everything that an engine which does not wake would have spoilt.
    assert [one.metric for one in keep.kept][-4:] == ["sleep", "held", "stop", "held"]
    assert [one.arm for one in keep.kept if one.metric == "start"] == ["cold", "warm"]


@pytest.mark.usefixtures("one_restart")
async def test_a_wake_that_changes_the_model_is_told(tmp_path: Path) -> None:
    report, keep = await run(tmp_path, sleeper(tmp_path, corrupt_wake=True))
    sound = answer(report, "sound_wakes")
    assert sound.outcome == "failed"
    assert "token 1" in sound.statement
    # Nothing is measured of it any more in that life.
    assert len([one for one in keep.kept if one.metric == "wake"]) == len(keep.boots)


@pytest.mark.usefixtures("one_restart")
async def test_without_time_it_measures_what_matters_most(tmp_path: Path) -> None:
    report, keep = await run(tmp_path, sleeper(tmp_path), seconds=24.0)
    # A sleep may take more than a minute: it is not begun.
    assert {one.arm for one in keep.kept if one.metric == "held"} == {"idle", "stopped"}
    assert sum("time was over" in words for words in report.noticed) >= 1


def test_figures_of_two_h200_are_told_as_they_were_measured() -> None:
    row = json.loads((ROOT / "docs/evidence/fleet-2xh200/wakes/result.json").read_text())
    raw = [
        json.loads(line)
        for line in (ROOT / "docs/evidence/fleet-2xh200/wakes/raw.jsonl").read_text().splitlines()
    ]
    rested = [one for one in raw if one["what"] == "rested"]
    readings = [Reading("held", sum(one["counted_mib"]), "MiB", "sleep_1") for one in rested]
    booted = next(one for one in raw if one["what"] == "booted")
    readings.append(
        Reading("held", sum(booted["counted_mib"]), "MiB", "idle", facts={"gpus_mib": booted["counted_mib"]})
    )
    for place, one in enumerate(rested):
        readings.append(Reading("sleep", one["seconds"], "s", "sleep_1" if place else "sleep_1 first"))
    readings += [
        Reading("wake", one["facts"]["engine_s"], "s", "sleep_1") for one in raw if one["what"] == "woke"
    ]
    tier = VllmTier(name="deep", model="models/llama-3.1-70b", tensor_parallel_size=2)
    report = idle_report.report(readings, tier, on_gpus=True)
    details = report.answers[0].details
    assert report.answers[0].quantity == "vram"
    assert report.answers[0].about == "llama-3.1-70b"
    assert details["sleep_1_first_s"] == row["rest_s"]["max"] == 67.881
    assert details["sleep_1_s"] == pytest.approx(2.16, abs=0.05)
    assert details["wake_1_s"] == pytest.approx(row["engine_wake_s"]["p50"], abs=0.01)
    assert details["idle_mib_a_gpu"] == [92570.0, 92570.0]
    assert any(words.startswith("The first sleep") and "67.9 s, 31." in words for words in report.noticed)
    asleep = answer(report, "asleep_memory")
    assert asleep.value == 6532
    assert "3.5%" in asleep.statement


def expects(lab: Any, tier: VllmTier, *, slept: bool) -> idle_and_swap._Round:
    round_ = idle_and_swap._Round(lab, tier, ())
    round_.start_s, round_.slept = 110.0, slept
    return round_


async def test_the_time_left_goes_to_what_is_worth_most(tmp_path: Path) -> None:
    tier, scene = VllmTier(name="deep", model="owner/model"), scene_for(config_for(tmp_path))
    first = [Reading("sleep", 68.0, "s", "sleep_1 first"), Reading("wake", 3.0, "s", "sleep_1")]
    second = [Reading("sleep", 2.2, "s", "sleep_1"), Reading("wake", 3.0, "s", "sleep_1")]

    async def goes_on(seconds: float, earlier: list[Reading], rest: Rest, *, slept: bool = True) -> bool:
        async with lab_for(scene, seconds=seconds, earlier=earlier) as (lab, _):
            return expects(lab, tier, slept=slept)._another_cycle(rest)

    # A first sleep may take 70 s, the one after it a small part of that; level 2 copies nothing.
    assert not await goes_on(80, [], Rest.SLEEP_1, slept=False)
    assert await goes_on(90, [], Rest.SLEEP_1, slept=False)
    assert await goes_on(40, first, Rest.SLEEP_1)
    assert not await goes_on(30, first, Rest.SLEEP_1)
    assert not await goes_on(80, first + second, Rest.SLEEP_1, slept=False)
    assert await goes_on(30, first + second, Rest.SLEEP_2)
    # A third wake gives way to a warm start of 110 s that would else not be had.
    assert await goes_on(140, first, Rest.SLEEP_1)
    assert not await goes_on(140, first + second, Rest.SLEEP_1)
    assert await goes_on(200, first + second, Rest.SLEEP_1)
    assert await goes_on(100, first + second, Rest.SLEEP_1)


@pytest.mark.usefixtures("one_restart")
async def test_what_an_earlier_life_saw_is_told_without_a_start(tmp_path: Path) -> None:
    earlier = [
        Reading("start", 150.0, "s", "cold"),
        Reading("held", 90000.0, "MiB", "idle"),
        Reading("sleep", 68.0, "s", "sleep_1 first"),
    ]
    report, keep = await run(tmp_path, sleeper(tmp_path), seconds=0, earlier=earlier)
    assert (keep.boots, keep.kept) == ([], [])
    assert answer(report, "start_time").value == 150.0
    assert answer(report, "sleep_time").value == 68.0
