"""Where batching saturates: the whole experiment on a real engine, and what its windows come to."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import pytest

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.experiments import catalogue
from subcortex.experiments.catalogue.saturation import experiment as saturation
from subcortex.experiments.catalogue.saturation.experiment import (
    ON_CPU,
    ON_GPUS,
    as_measured,
    limits_of,
    most_of,
    tokens_of,
)
from subcortex.experiments.catalogue.saturation.report import End, client_bound, report
from subcortex.experiments.laboratory.load import Window
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.saturation import Done, Inconclusive, Limits, Measured
from subcortex.experiments.statistics import Interval
from tests.experiments.harness import config_for, lab_for, scene_for

SMALL = replace(ON_CPU, tokens=24, alone_tokens=300, alone=3, window_s=0.1, least_window_s=0.1, most_s=4.0)


async def test_the_knee_of_a_real_engine_and_a_second_life_that_measures_nothing_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(saturation, "ON_CPU", SMALL)
    config = config_for(folder)
    scene = scene_for(config)
    experiment = catalogue.find("saturation")
    assert experiment.why_not(scene) is None
    inquiry = next(one for one in experiment.inquiries(scene) if one.subject == "fast")
    async with lab_for(scene) as (lab, keep):
        found = await experiment.run(lab, inquiry)
    answer = found.answers[0]
    assert (answer.quantity, answer.unit, answer.tier) == (inquiry.quantity, inquiry.unit, "fast")
    windows = [one for one in keep.kept if one.metric == "tok_s"]
    assert answer.n == len(windows)
    assert {one.unit for one in windows} == {"tokens/s"}
    sizes = {one.facts["concurrency"] for one in windows}
    assert {1, 2, 4, 8} <= sizes
    assert max(sizes) <= saturation.SLOTS
    # Tokens, not the machine: each window saw some, however slow it is.
    assert all(one.value * one.facts["seconds"] >= 1 for one in windows)
    if answer.outcome == "measured":
        assert answer.details["knee"] == answer.value
        assert answer.low is not None
        assert answer.value is not None
        assert answer.high is not None
        assert answer.low < answer.value < answer.high
        assert found.charts[0].marks[0][0] == answer.value
    else:
        assert "inconclusive" in answer.statement
    assert f"{len(windows)} windows" in answer.statement
    assert {point[0] for point in found.charts[0].lines[0].points} == sizes
    assert keep.boots[0]["settings"]["parallel"] == saturation.SLOTS
    assert "16 slots" in found.noticed[0]
    ttft, tpot = found.answers[-2:]
    assert (ttft.quantity, ttft.n, tpot.quantity, tpot.n) == ("ttft", 3, "tpot", 3)
    assert ttft.value is not None
    assert 0 < ttft.value < 30

    async with lab_for(scene, earlier=keep.kept) as (lab, again):
        assert await experiment.run(lab, inquiry) == found
    assert (again.kept, again.boots) == ([], [])
    # With no time left what there is is told, and nothing started, be it half of it.
    async with lab_for(scene, seconds=0, earlier=keep.kept[: len(keep.kept) // 2]) as (lab, again):
        half = await experiment.run(lab, inquiry)
    assert (again.kept, again.boots, half.answers[0].outcome) == ([], [], "inconclusive")


async def test_a_broken_off_run_goes_on_from_its_windows(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saturation, "ON_CPU", SMALL)
    scene = scene_for(config_for(folder))
    experiment = catalogue.find("saturation")
    inquiry = experiment.inquiries(scene)[0]
    async with lab_for(scene, seconds=11.0) as (lab, first):
        found = await experiment.run(lab, inquiry)
    assert found.answers[0].outcome == "inconclusive"
    assert "time was over" in found.answers[0].statement
    first_sizes = [one.facts["concurrency"] for one in first.kept if one.metric == "tok_s"]
    async with lab_for(scene, earlier=first.kept) as (lab, second):
        found = await experiment.run(lab, inquiry)
    sizes = [one.facts["concurrency"] for one in second.kept if one.metric == "tok_s"]
    # What was climbed is not climbed again: a rung has two windows, or one that is as long.
    rungs = [(size, len(list(windows))) for size, windows in groupby([*first_sizes, *sizes])][:4]
    assert [size for size, _ in rungs] == [1, 2, 4, 8]
    assert first_sizes
    assert all(number <= 2 for _, number in rungs)
    assert not any(one.metric == "tpot" for one in second.kept)


def reading(metric: str, value: float, **facts: object) -> Reading:
    return Reading(metric, value, "", facts=facts)


def windows(*sizes: tuple[int, float]) -> list[Reading]:
    return [
        reading("tok_s", speed * factor, concurrency=size, seconds=2.0)
        for size, speed in sizes
        for factor in (0.99, 1.0, 1.01)
    ]


class Waves:
    """A load on a pretended clock: tok/s grow up to 16 at once, and a wave is longer than was asked for."""

    def __init__(self, longer: float, left_s: float) -> None:
        self.left_s, self._longer, self._concurrency = left_s, longer, 0
        self._rng = Random(1)
        self.kept: list[int] = []

    async def keep(self, concurrency: int, *, most_s: float) -> None:
        assert most_s > 0
        self._concurrency = concurrency
        self.kept.append(concurrency)

    async def window(self, seconds: float, *, most_s: float) -> Window:
        lasts_s = min(most_s, seconds * self._longer)
        self.left_s -= lasts_s
        speed = 100.0 * min(self._concurrency, 16) * self._rng.lognormvariate(0, 0.01)
        return Window(self._concurrency, lasts_s, speed, (), whole=lasts_s == seconds * self._longer)

    async def climb(self) -> tuple[End, list[Measured]]:
        seen: list[Measured] = []
        load: Any = self
        end = await saturation.climb(
            load, LIMITS, seen, keep=lambda *_: None, seconds_left=lambda: self.left_s
        )
        return end, seen


LIMITS = Limits(max_concurrency=64, window_s=2.0, most_s=300.0)


@pytest.mark.parametrize("longer", [1.0, 1.7, 6.0])
async def test_of_longer_waves_fewer_windows_are_enough(longer: float):
    load = Waves(longer, 1000.0)
    end, seen = await load.climb()
    assert isinstance(end, Done)
    assert end.knee == pytest.approx(16, rel=0.1)
    # As many as fill the time that was asked for, and none once it is full: of a rung it is two windows.
    of = Counter(one.concurrency for one in seen)
    assert (of[1], of[2]) == (math.ceil(2 / longer),) * 2
    # Down and up again are four and seven of each size.
    assert of[24] == math.ceil(4 / longer) + math.ceil((7 - math.ceil(4 / longer) * longer) / longer)


async def test_time_that_is_over_leaves_what_whole_waves_say():
    whole, seen = await Waves(1.7, 1000.0).climb()
    assert isinstance(whole, Done)
    spent_s = sum(one.seconds for one in seen)
    load = Waves(1.7, 0.8 * spent_s)
    end, cut = await load.climb()
    assert end is None
    assert {one.seconds for one in cut} == {2.0 * 1.7}
    assert cut == seen[: len(cut)]
    assert load.left_s >= 0
    knows = saturation.known(cut, LIMITS)
    assert isinstance(knows, Done | Inconclusive)
    assert knows.interval.low < 16 < knows.interval.high
    # On the rungs it knows nothing yet.
    assert saturation.known(seen[:3], LIMITS) is None
    assert saturation.known([], LIMITS) is None


async def test_a_rest_of_a_step_that_time_is_too_short_for_ends_it():
    load = Waves(1.7, 12.4)
    async with asyncio.timeout(20):
        end, seen = await load.climb()
    assert (end, load.kept, [one.seconds for one in seen]) == (None, [1], [2.0 * 1.7])


TIER = LlamaCppTier(name="fast", model="models/some-8b.gguf", parallel=4)
END = Done(17.8, Interval(15.1, 21.0), 2520.0, Interval(2480.0, 2560.0))


def test_a_client_above_half_its_ceiling_measured_itself():
    seen = windows((1, 100.0), (8, 700.0), (64, 2600.0))
    measured = as_measured_at(TIER, 64)
    free = [*seen, reading("client ceiling", 6000.0)]
    assert client_bound(free) is None
    found = report(free, TIER, measured, END, most=64, tokens=256)
    assert found.answers[0].outcome == "measured"
    assert found.answers[0].details["knee_high"] == 21.0
    assert (found.answers[1].value, found.answers[1].unit) == (2520.0, "tokens/s")

    bound = [*seen, reading("client ceiling", 5000.0)]
    found = report(bound, TIER, measured, END, most=64, tokens=256)
    assert found.answers[0].outcome == "inconclusive"
    assert "inconclusive: the client" in found.answers[0].statement
    assert "knee" not in found.answers[0].details


def test_no_knee_is_below_one_request():
    seen = windows((1, 100.0), (2, 101.0), (4, 99.0))
    end = Done(0.74, Interval(0.5, 1.3), 96.0, Interval(94.0, 98.0))
    found = report(seen, TIER, as_measured_at(TIER, 16), end, most=16, tokens=64)
    answer = found.answers[0]
    assert (answer.value, answer.low, answer.high) == (1.0, 1.0, 1.3)
    assert answer.details["knee"] == 1.0
    assert "requests from 1 at once on (1 to 1.3)" in answer.statement
    assert found.charts[0].marks[0][0] == 1.0


def as_measured_at(tier: LlamaCppTier, slots: int) -> LlamaCppTier:
    return tier.model_copy(update={"parallel": slots})


def test_what_stands_out_is_said():
    seen = windows((1, 100.0), (8, 700.0), (32, 2600.0), (64, 2000.0))
    found = report(seen, TIER, as_measured_at(TIER, 64), END, most=64, tokens=256)
    assert any("64 slots" in one and "with 4" in one for one in found.noticed)
    assert any("Its 4 slots are fewer than the 17.8" in one for one in found.noticed)
    assert any("2600 tok/s at 32 at once, 2000 at 64" in one for one in found.noticed)
    assert found.gaps == ()
    grows = Inconclusive("throughput still grows at 64 at once, the most allowed", 80.0, Interval(70, 200))
    found = report(seen, TIER, as_measured_at(TIER, 64), grows, most=64, tokens=256)
    assert "more than 64 requests" in found.gaps[0]
    assert found.gaps[0].endswith("?")
    assert found.answers[0].outcome == "inconclusive"
    assert not found.charts[0].marks


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ([], 1024),
        (["--max-num-seqs", "64"], 64),
        (["--max-num-seqs=4096"], 1024),
        (["--max_num_seqs", "8"], 8),
    ],
)
def test_vllm_works_on_as_many_as_its_flags_say(flags: list[str], most: int):
    assert most_of(VllmTier(name="deep", model="x/y", flags=flags), ON_GPUS.most) == most


def test_requests_are_no_longer_than_the_context():
    tier = VllmTier(name="deep", model="x/y", context_tokens=200)
    assert tokens_of(tier, ON_GPUS) == 96
    assert tokens_of(tier.model_copy(update={"context_tokens": 8192}), ON_GPUS) == 128


def test_llamacpp_is_measured_with_more_slots_and_vllm_as_it_is(folder: Path):
    scene = scene_for(config_for(folder))
    found = as_measured(scene, TIER)
    assert isinstance(found, LlamaCppTier)
    assert (found.parallel, found.context_tokens) == (saturation.SLOTS, 64 + 160 + 8)
    assert found.max_concurrent >= saturation.SLOTS
    many = as_measured(scene, TIER.model_copy(update={"parallel": 40}))
    assert most_of(many, ON_CPU.most) == 40
    tier = VllmTier(name="deep", model="x/y")
    assert as_measured(scene, tier) is tier


def test_windows_are_as_long_as_the_time_allows():
    plenty = limits_of(ON_GPUS, 1024, left_s=900.0, spent_s=0.0)
    assert (plenty.window_s, plenty.most_s) == (2.0, 400.0)
    some = limits_of(ON_GPUS, 1024, left_s=150.0, spent_s=0.0)
    assert (some.window_s, some.most_s) == (1.5, 120.0)
    # Shorter than a step of the engine they would say nothing; what an earlier life measured counts.
    little = limits_of(ON_GPUS, 1024, left_s=30.0, spent_s=40.0)
    assert (little.window_s, little.most_s) == (1.0, 64.0)
    assert limits_of(ON_CPU, 256, left_s=-5.0, spent_s=0.0).most_s == 0.0


def test_a_pool_that_holds_fewer_than_the_knee_is_told():
    seen = [*windows((128, 3000.0), (256, 3900.0)), reading("kv_tokens", 104848.0)]
    far = Done(480.0, Interval(430.0, 520.0), 4000.0, Interval(3900.0, 4100.0))
    [said] = report(seen, TIER, TIER, far, most=1024, tokens=128).noticed[-1:]
    assert "holds 409 whole requests of 256 tokens" in said
    near = report(seen, TIER, TIER, END, most=1024, tokens=128).noticed
    assert not any("pool" in one for one in near)
