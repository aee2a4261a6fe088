"""A split against no split, on real llama.cpp; and what other samples would have come to."""

from __future__ import annotations

import random
from math import exp, log
from typing import Any

import pytest

from subcortex.experiments.catalogue.common.fixed_text import BEGINNINGS as ALL
from subcortex.experiments.catalogue.split_answers import experiment as split_answers
from subcortex.experiments.catalogue.split_answers.experiment import SplitAnswers, arms_of
from subcortex.experiments.catalogue.split_answers.report import NEXT, SPLIT, places, report, wilson
from subcortex.experiments.experiment import Report
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.hardware.detect import host_alone
from subcortex.hardware.standin import with_gpus
from tests.experiments.harness import MODELS, config_for, lab_for, scene_for

BEGINNINGS = ALL[:10]


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(split_answers, "BEGINNINGS", BEGINNINGS)


async def test_threads_of_a_real_llamacpp_say_the_same(tmp_path):
    scene = scene_for(config_for(tmp_path))
    experiment = SplitAnswers()
    assert experiment.why_not(scene) is None
    inquiry = experiment.inquiries(scene)[0]
    assert (inquiry.subject, inquiry.about, inquiry.unit, inquiry.needs.gpus) == ("fast", "fast", "nats", 0)
    async with lab_for(scene) as (lab, keep):
        found = await experiment.run(lab, inquiry)

        arms = {(one.arm, one.facts["turn"]) for one in keep.kept if one.metric == NEXT}
        assert arms == {("1 thread", 0), ("1 thread", 1), ("2 threads", 0), ("2 threads", 1)}
        assert [boot["settings"]["threads"] for boot in keep.boots] == [1, 2]
        tops = [one.facts["top"] for one in keep.kept if one.metric == NEXT]
        assert len(tops) == 4 * len(BEGINNINGS)
        # Different beginnings have different successors, or nothing was asked.
        assert len({tuple(sorted(top)) for top in tops}) > len(BEGINNINGS) / 2
        assert all(10 < len(top) <= 21 and 0.05 < sum(map(exp, top.values())) < 1.001 for top in tops)

        divergence, same = found.answers
        # Threads share out rows: no sum is taken in another order.
        assert (divergence.outcome, divergence.n, divergence.tier) == ("alike", len(BEGINNINGS), "fast")
        assert divergence.value == pytest.approx(0, abs=1e-6)
        assert (same.value, same.n) == (100.0, 2 * len(BEGINNINGS))
        assert same.high == pytest.approx(100)
        kept = [one.value for one in keep.kept if one.metric == SPLIT]
        assert divergence.details["largest_nats"] == max(kept)

        # What was asked once is not asked again, not even of an engine.
        before = len(keep.kept), len(keep.boots)
        again = await experiment.run(lab, inquiry)
        assert again.answers == found.answers
        assert (len(keep.kept), len(keep.boots)) == before


async def test_an_interrupted_run_asks_only_for_the_rest(tmp_path):
    scene = scene_for(config_for(tmp_path))
    inquiry = SplitAnswers().inquiries(scene)[0]
    async with lab_for(scene) as (lab, keep):
        whole = await SplitAnswers().run(lab, inquiry)
        kept = [one for one in keep.kept if one.metric == NEXT]
    async with lab_for(scene, earlier=kept[:25]) as (lab, keep):
        rest = await SplitAnswers().run(lab, inquiry)
        assert sum(one.metric == NEXT for one in keep.kept) == 4 * len(BEGINNINGS) - 25
        assert [boot["settings"]["threads"] for boot in keep.boots] == [2]
    assert rest.answers[0].outcome == whole.answers[0].outcome == "alike"


async def test_an_arm_that_does_not_boot_is_an_answer(tmp_path):
    model = tmp_path / "cut.gguf"
    model.write_bytes((MODELS / "fast" / "fast.gguf").read_bytes()[:100_000])
    tier = {"name": "cut", "engine": "llama.cpp", "model": str(model), "context_tokens": 256}
    scene = scene_for(config_for(tmp_path, tier))
    async with lab_for(scene) as (lab, keep):
        found = await SplitAnswers().run(lab, SplitAnswers().inquiries(scene)[0])
    assert [answer.outcome for answer in found.answers] == ["failed"]
    assert "1 thread" in found.answers[0].statement
    assert "1 thread" in found.noticed[0]
    assert "error" in keep.boots[0]


VLLM: dict[str, Any] = {
    "name": "v",
    "engine": "vllm",
    "model": str(MODELS / "fast"),
    "gpu_memory_utilization": 0.5,
}
CUDA: dict[str, Any] = {"name": "c", "engine": "llama.cpp", "model": str(MODELS / "fast" / "fast.gguf")}
CUDA |= {"executable": "/bin/true", "tensor_split": [8, 3]}


def arms(scene: Scene, tier: Any) -> Any:
    return arms_of(scene, tier)


def test_arms_go_by_engine_and_machine(tmp_path):
    config = config_for(tmp_path, VLLM, CUDA)
    vllm, cuda = config.tiers
    on_cpu = Scene(config, host_alone())
    found = arms(on_cpu, vllm)
    assert [one.name for one in found] == ["TP=1", "TP=2"]
    assert [one.tier.tensor_parallel_size for one in found] == [1, 2]
    assert [one.tier.env["VLLM_CPU_OMP_THREADS_BIND"] for one in found] == ["0", "0|1"]
    assert [one.tier.threads for one in arms(on_cpu, cuda)] == [1, 2]

    on_cards = Scene(config, with_gpus("2x RTX 3090"))
    assert [one.tier.env for one in arms(on_cards, vllm)] == [{}, {}]
    whole, split = arms(on_cards, cuda)
    assert (whole.tier.split_mode, whole.tier.gpus, whole.tier.tensor_split) == ("none", [0], None)
    assert (split.tier.split_mode, split.tier.gpus) == ("layer", [0, 1])
    needs = {one.subject: one.needs.gpus for one in SplitAnswers().inquiries(on_cards)}
    assert needs == {"v": 2, "c": 2}

    one_card = Scene(config, with_gpus("RTX 3090"))
    assert arms(one_card, vllm) is None
    one_core = Scene(config, host_alone().model_copy(update={"cores": 1}))
    assert "two cores" in (SplitAnswers().why_not(one_core) or "")
    assert SplitAnswers().inquiries(one_core) == []


def test_what_does_not_fit_on_one_card_is_not_asked(tmp_path):
    tiny = with_gpus("2x RTX 3090")
    cards = tuple(gpu.model_copy(update={"memory_total_mib": 1.0}) for gpu in tiny.gpus)
    scene = Scene(config_for(tmp_path, VLLM), tiny.model_copy(update={"gpus": cards}))
    assert "fits on one GPU" in (SplitAnswers().why_not(scene) or "")


def sampled(arm: str, turn: int, prompt: int, **shares: float) -> Reading:
    top = {token: log(share) for token, share in shares.items()}
    return Reading(NEXT, max(top.values()), "nats", arm, prompt, facts={"turn": turn, "top": top})


def drawn(prompts: int, shift: float, jitter: float, seed: int = 0) -> list[Reading]:
    """Return samples of two arms; b's first token has ``shift`` more, give or take ``jitter`` a turn."""
    dice = random.Random(seed)
    found = []
    for prompt in range(prompts):
        base = dice.uniform(0.3, 0.7)
        for arm in "ab":
            for turn in (0, 1):
                share = base + dice.uniform(-jitter, jitter) + (shift if arm == "b" else 0.0)
                found.append(sampled(arm, turn, prompt, x=share, y=1 - share))
    return found


def reported(readings: list[Reading]) -> Report:
    return report(places(readings, "a", "b"), a="a", b="b", model="m", tier="t")


def test_a_split_that_moves_every_distribution_is_different():
    found: Any = reported(drawn(24, shift=0.05, jitter=0.001)).answers[0]
    assert found.outcome == "different"
    assert 0 < found.low <= found.value <= found.high
    # By hand: 0.05 more of about half is 2 × 0.05² nats.
    assert found.details["median_nats"] == pytest.approx(0.005, rel=0.3)
    assert found.details["floor_median_nats"] < 1e-5


def test_noise_alone_is_never_called_different():
    outcomes = [reported(drawn(24, 0.0, 0.02, seed)).answers[0].outcome for seed in range(40)]
    assert outcomes.count("different") <= 3
    assert outcomes.count("alike") > 20


def test_two_places_settle_nothing():
    found = reported(drawn(2, shift=0.02, jitter=0.02)).answers[0]
    assert found.outcome == "inconclusive"


def test_another_likeliest_token_is_counted_and_raises_a_question():
    readings = []
    for prompt in range(8):
        flipped = prompt < 2
        for turn in (0, 1):
            readings.append(sampled("a", turn, prompt, x=0.52, y=0.48))
            share = 0.45 if flipped else 0.50001
            readings.append(sampled("b", turn, prompt, x=share, y=1 - share))
    found = reported(readings)
    same: Any = found.answers[1]
    assert same.value == 75.0
    assert same.low < 75.0 < same.high
    assert "12 of 16" in same.statement
    assert found.answers[0].details["same_top_floor"] == 1.0
    assert found.gaps[0].endswith("?")


def test_a_beginning_that_one_arm_lacks_is_left_out():
    readings = drawn(5, 0.0, 0.01)
    assert [one.prompt for one in places(readings[:-1], "a", "b")] == [0, 1, 2, 3]


def test_wilsons_interval_is_the_published_one():
    # 0.95 level, 8 of 10 (Newcombe 1998: 0.4902 to 0.9433).
    found = wilson(8, 10, 0.95)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=5e-4)
    assert wilson(10, 10).high == pytest.approx(1.0)
    assert wilson(0, 10).low == pytest.approx(0.0)
