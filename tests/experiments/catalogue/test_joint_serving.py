"""Two models at once: for real on the testbed, and what phases there and back come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subcortex.experiments import catalogue
from subcortex.experiments.catalogue.joint_serving import experiment as joint_serving
from subcortex.experiments.catalogue.joint_serving.report import Tenant, percentile, report, whole_blocks
from subcortex.experiments.laboratory.record import Reading
from tests.experiments.harness import MODELS, config_for, lab_for, scene_for

DEEP, FAST = Tenant("deep", "some-70b"), Tenant("fast", "some-8b")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BLOCKS": 2, "CPU_PHASE_S": 0.1, "FEWEST": 1, "TOKENS": 16}.items():
        monkeypatch.setattr(joint_serving, name, value)


async def test_two_models_at_once_and_a_second_life_that_takes_whole_blocks_only(folder: Path):
    scene = scene_for(config_for(folder))
    experiment = catalogue.find("joint_serving")
    [inquiry] = experiment.inquiries(scene)
    assert inquiry.subject == "deep"
    async with lab_for(scene) as (lab, keep):
        found = await experiment.run(lab, inquiry)
    assert [one["tier"] for one in keep.boots] == ["deep", "fast"]
    phases = [one for one in keep.kept if one.metric == "tpot_p50" and one.block == 0]
    order = [(one.arm, one.facts["tier"]) for one in phases]
    both = {("joint", "deep"), ("joint", "fast")}
    assert order[:2] == [("solo", "deep"), ("solo", "fast")]
    assert set(order[2:4]) == set(order[4:6]) == both
    assert order[6:] == [("solo", "fast"), ("solo", "deep")]
    for one in phases:
        assert len(one.facts["tpots_s"]) == one.facts["answers"] >= 1
        assert min(one.facts["tpots_s"]) - 1e-6 <= one.value <= max(one.facts["tpots_s"]) + 1e-6
        assert one.facts["tok_s"] > 0
    main, back = found.answers[0], found.answers[2]
    assert (main.quantity, main.about, main.unit) == (inquiry.quantity, inquiry.about, inquiry.unit)
    assert (main.tier, back.tier) == ("deep", "fast")
    assert main.n == 2
    # Four slots of 1024 tokens each.
    assert main.details["kv_tokens"] == back.details["kv_tokens"] == 4096
    assert any("4096 tokens" in one for one in found.noticed)

    # Killed within the second block: that one is left, and another is done whole.
    cut = max(i for i, one in enumerate(keep.kept) if one.block == 1)
    async with lab_for(scene, earlier=keep.kept[: cut - 3]) as (lab, again):
        found = await experiment.run(lab, inquiry)
    assert {one.block for one in again.kept if one.metric == "tpot_p50"} == {2}
    assert found.answers[0].n == 2


async def test_a_second_that_does_not_fit_is_the_answer(folder: Path):
    broken = {"name": "fast", "engine": "llama.cpp", "model": str(folder / "missing.gguf")}
    deep = {"name": "deep", "engine": "llama.cpp", "model": str(MODELS / "deep" / "deep.gguf"), "threads": 1}
    scene = scene_for(config_for(folder, broken, deep | {"context_tokens": 256}))
    experiment = catalogue.find("joint_serving")
    [inquiry] = experiment.inquiries(scene)
    async with lab_for(scene) as (lab, keep):
        found = await experiment.run(lab, inquiry)
    [answer] = found.answers
    assert answer.outcome == "failed"
    assert "missing.gguf" in answer.statement
    assert answer.details["kv_tokens"] == 1024
    assert found.gaps[0].endswith("?")
    assert "error" in keep.boots[1]


async def test_out_of_time_in_its_first_block_it_tells_what_was_measured_and_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    scene = scene_for(config_for(folder))
    experiment = catalogue.find("joint_serving")
    [inquiry] = experiment.inquiries(scene)
    async with lab_for(scene) as (lab, keep):
        last = lab.sample

        def sample(metric: str, *values: Any, **facts: Any) -> Reading:
            if metric == "tpot_p95" and facts["arm"] == "joint":
                lab._seconds = 0.0
            return last(metric, *values, **facts)

        monkeypatch.setattr(lab, "sample", sample)
        found = await experiment.run(lab, inquiry)
    told = {(one.arm, one.facts["tier"]) for one in keep.kept if one.metric == "tpot_p50"}
    assert told == {("solo", "deep"), ("solo", "fast"), ("joint", "deep"), ("joint", "fast")}
    first = found.answers[0]
    assert (first.quantity, first.outcome, first.value) == (inquiry.quantity, "inconclusive", None)
    assert "time was over before a block was whole" in first.statement
    assert "1 block broken off, of 1" in found.noticed[0]
    assert {one.about for one in found.answers if one.quantity == "tpot"} == {"deep", "fast"}

    # Asked again with nothing left it starts no engine and says the same.
    async with lab_for(scene, seconds=0.0, earlier=keep.kept) as (lab, again):
        assert await experiment.run(lab, inquiry) == found
    assert not again.boots
    assert not again.kept


def test_one_tier_alone_has_nobody_to_serve_beside(folder: Path):
    scene = scene_for(config_for(folder, {"name": "a", "engine": "llama.cpp", "model": "a.gguf"}))
    experiment = catalogue.find("joint_serving")
    assert "two tiers" in str(experiment.why_not(scene))
    assert list(experiment.inquiries(scene)) == []


def phases(*, factor: float, blocks: int) -> list[Reading]:
    """A machine that grows slower by 1 % a phase, and a joint phase that takes ``factor`` times as long."""
    found = [Reading("kv_tokens", 50_000.0, "tokens", facts={"tier": "deep"})]
    place = 0
    there = [("solo", ["deep"]), ("solo", ["fast"]), ("joint", ["deep", "fast"])]
    for block in range(blocks):
        for arm, busy in [*there, *reversed(there)]:
            for tier in busy:
                base = (0.02 if tier == "deep" else 0.008) * (factor if arm == "joint" else 1.0)
                value = base * (1 + 0.01 * place)
                facts = {"tier": tier, "tok_s": 1 / value}
                found.append(Reading("tpot_p50", value, "s", arm, block, facts=facts))
                found.append(Reading("tpot_p95", 1.5 * value, "s", arm, block, facts={"tier": tier}))
            place += 1
    return found


def test_the_loss_that_was_put_in_is_found_for_each_of_both():
    readings = phases(factor=1.3, blocks=5)
    assert whole_blocks(readings, ["deep", "fast"]) == [0, 1, 2, 3, 4]
    assert whole_blocks(readings[:-1], ["deep", "fast"]) == [0, 1, 2, 3]
    found = report(readings, [DEEP, FAST], concurrency=4)
    assert [one.about for one in found.answers[:4]] == ["some-70b beside some-8b"] * 2 + [
        "some-8b beside some-70b"
    ] * 2
    for one in found.answers[:4]:
        assert one.outcome == "different"
        assert one.value == pytest.approx(1.3, rel=1e-6)
    alone = {one.about: one for one in found.answers[4:]}
    # With four at once it is nobody's nominal figure.
    assert alone["some-70b"].details["concurrency"] == 4
    assert alone["some-70b"].value == pytest.approx(0.02 * 1.145, rel=1e-6)
    assert found.charts[0].categories[0] == "some-70b p50"


def test_no_loss_is_alike():
    found = report(phases(factor=1.0, blocks=5), [DEEP, FAST])
    assert {one.outcome for one in found.answers[:4]} == {"alike"}


def test_percentiles_lie_between_samples():
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.95) == pytest.approx(3.85)
    assert percentile([7.0], 0.95) == 7.0
