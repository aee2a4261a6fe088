"""A sweep of threads on real llama.cpp; and splits over two cards as tools would have told of them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from subcortex.errors import EngineFailed
from subcortex.experiments.catalogue.split_modes import run as split_run
from subcortex.experiments.catalogue.split_modes import thread_sweep
from subcortex.experiments.catalogue.split_modes.arms import (
    NO_SPLIT,
    hopeless,
    last_words,
    memory_by_gpu,
    shares_of,
    split_arms,
)
from subcortex.experiments.catalogue.split_modes.experiment import SplitModes, configured
from subcortex.experiments.catalogue.split_modes.report import kl_outcome
from subcortex.experiments.catalogue.split_modes.thread_report import (
    BATCH,
    GENERATION,
    PROMPT,
    arm_of,
    best_threads,
    contenders,
    thread_counts,
    thread_report,
)
from subcortex.experiments.catalogue.split_modes.thread_sweep import speeds_of
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.hardware.detect import host_alone
from subcortex.hardware.standin import with_gpus
from tests.experiments.harness import config_for, lab_for, scene_for

RECORDED = Path(__file__).parents[1] / "laboratory" / "recorded"


async def test_threads_of_a_real_llamacpp_are_swept(tmp_path, monkeypatch):
    small = {"BLOCKS_MOST": 3, "VISIT": 1, "PROMPT_TOKENS": 16, "GENERATED_TOKENS": 4, "_BATCH_BLOCKS": 2}
    for name, value in small.items():
        monkeypatch.setattr(thread_sweep, name, value)
    scene = scene_for(config_for(tmp_path))
    experiment = SplitModes()
    assert experiment.why_not(scene) is None
    inquiry = experiment.inquiries(scene)[0]
    assert (inquiry.subject, inquiry.quantity, inquiry.about) == ("fast", "threads", "fast")
    async with lab_for(scene) as (lab, keep):
        found = await experiment.run(lab, inquiry)
        again = await experiment.run(lab, inquiry)
    counts = thread_counts(scene.hardware.cores)
    best, speed, batch = found.answers
    assert best.value in counts
    assert best.low is not None
    assert best.low <= best.value <= (best.high or 0)
    assert best.n == 3
    assert best.details["configured_threads"] == 1
    generated = [one for one in keep.kept if one.metric == GENERATION]
    assert {one.arm for one in generated} == {arm_of(n) for n in counts}
    # There and back again within a block, every other block from the other end.
    starts = [one.arm for one in generated if one.block < 2][:: 2 * len(counts)]
    assert starts == [arm_of(counts[0]), arm_of(counts[-1])]
    assert {boot["settings"]["threads"] for boot in keep.boots} >= set(counts)
    assert speed.value is not None
    assert min(one.value for one in generated) <= speed.value <= max(one.value for one in generated)
    assert batch.quantity == "concurrency_gain"
    assert {one.facts["sequences"] for one in keep.kept if one.metric == BATCH} == {1, 2, 4}
    # All of it was in the lab already.
    assert again.answers == found.answers


def samples(
    speeds: dict[int, float], *, blocks: int = 4, noise: float = 0.005, seed: int = 0
) -> list[Reading]:
    dice = random.Random(seed)
    return [
        Reading(metric, speed * dice.uniform(1 - noise, 1 + noise), "tokens/s", arm_of(n), block)
        for metric in (GENERATION, PROMPT)
        for block in range(blocks)
        for n, speed in speeds.items()
        for _ in range(4)
    ]


def test_a_better_number_of_threads_becomes_a_suggestion():
    readings = samples({1: 10.0, 2: 19.0, 4: 30.0})
    found = thread_report(readings, [1, 2, 4], now=2, model="m", tier="t", how="tool").answers[0]
    assert (found.value, found.low, found.high, found.outcome) == (4.0, 4.0, 4.0, "different")
    assert found.details["better"] == {"threads": 4}
    assert "1.58" in found.statement


def test_of_numbers_alike_the_fewest_threads_are_best_and_nothing_is_suggested():
    readings = samples({1: 10.0, 2: 20.0, 4: 20.1})
    best, equal = best_threads(readings, [1, 2, 4])
    assert (best, equal) == (2, [2, 4])
    found = thread_report(readings, [1, 2, 4], now=4, model="m", tier="t", how="tool").answers[0]
    assert (found.value, found.outcome) == (2.0, "alike")
    assert "better" not in found.details


def test_noise_wider_than_the_difference_is_inconclusive():
    readings = samples({1: 10.0, 2: 10.6}, blocks=3, noise=0.2)
    found = thread_report(readings, [1, 2], now=1, model="m", tier="t", how="tool").answers[0]
    assert found.outcome == "inconclusive"
    assert (found.low, found.high) == (1.0, 2.0)
    assert "better" not in found.details


def test_what_is_far_behind_is_left_but_not_the_runner_up_nor_the_configured():
    readings = samples({1: 4.0, 2: 8.0, 4: 100.0, 8: 30.0}, blocks=1)
    assert contenders(readings, [1, 2, 4, 8], now=1) == [1, 4, 8]
    assert contenders(readings, [1, 2, 4, 8], now=4) == [4, 8]


def test_thread_counts_are_powers_of_two_and_all_cores():
    assert thread_counts(1) == [1]
    assert thread_counts(2) == [1, 2]
    assert thread_counts(12) == [1, 2, 4, 8, 12]


def test_an_engines_timings_are_those_of_the_tokens_after_the_first():
    told = {"timings": {"prompt_n": 64, "prompt_ms": 32.0, "predicted_n": 16, "predicted_ms": 30.0}}
    assert speeds_of(told) == pytest.approx((2000.0, 500.0))
    wrongs: list[Any] = [{}, {"timings": {}}, {"timings": told["timings"] | {"predicted_n": 3}}, None]
    for wrong in wrongs:
        with pytest.raises(EngineFailed):
            speeds_of(wrong)
    with pytest.raises(EngineFailed):
        speeds_of({"timings": told["timings"] | {"prompt_ms": 0}})


CARDS = with_gpus("2x RTX 3090")
#: Stands in for a build with CUDA: refuses rows as such a build does, and tells of the others.
TOOL = """\
#!{python}
import json, os, sys
words = sys.argv[1:]
mode = words[words.index("-sm") + 1]
shares = words[words.index("-ts") + 1] if "-ts" in words else ""
with open({log!r}, "a") as stream:
    told = [sys.argv[0].rsplit("/", 1)[-1], words, os.environ.get("CUDA_VISIBLE_DEVICES")]
    stream.write(json.dumps(told) + "\\n")
if mode == "row":
    sys.stderr.write("llama_model_load: error: device CUDA0 does not support split buffers\\n")
    sys.stderr.write("llama_bench: error: failed to load model\\n")
    sys.exit(1)
if sys.argv[0].endswith("llama-perplexity"):
    if "--kl-divergence" in words:
        text = open({recorded!r} + "/llama-perplexity.txt").read()
        apart = "0.004000 ±   0.000500" if mode == "tensor" else "0.000001 ±   0.000001"
        sys.stdout.write(text.replace("0.000001 ±   0.000001", apart))
        sys.stderr.write(open({recorded!r} + "/llama-perplexity.log").read())
    else:
        open(words[words.index("--kl-divergence-base") + 1], "wb").write(b"0" * 100000)
    sys.exit(0)
speed = dict(none=100.0, layer=98.0, tensor=150.0)[mode]
row = json.loads(open({recorded!r} + "/llama-bench.jsonl").readline())
for prompt, generated in ((512, 0), (0, 64)):
    speeds = [speed * (10 if prompt else 1) * (1 + 0.001 * n) for n in range(3)]
    ns = [(prompt + generated) / one * 1e9 for one in speeds]
    told = dict(n_prompt=prompt, n_gen=generated, samples_ts=speeds, samples_ns=ns, backends="{backend}")
    print(json.dumps(row | told))
"""


def tools(folder: Path, backend: str = "CUDA") -> tuple[dict[str, Path], Path]:
    log = folder / "called.jsonl"
    text = TOOL.replace("{python}", sys.executable).replace("{log!r}", repr(str(log)))
    text = text.replace("{recorded!r}", repr(str(RECORDED))).replace("{backend}", backend)
    found = {}
    for name in ("llama-bench", "llama-perplexity"):
        found[name] = folder / name
        found[name].write_text(text)
        found[name].chmod(0o755)
    return found, log


async def test_a_refused_mode_is_a_result_and_the_others_are_measured(tmp_path):
    named, log = tools(tmp_path)
    scene = Scene(config_for(tmp_path), CARDS, tools=named)
    inquiry = SplitModes().inquiries(scene)[0]
    assert (inquiry.quantity, inquiry.unit, inquiry.needs.gpus) == ("speed_ratio", "x", 2)
    async with lab_for(scene) as (lab, keep):
        found = await SplitModes().run(lab, inquiry)
        called = log.read_text()
        assert (await SplitModes().run(lab, inquiry)).answers == found.answers
        assert log.read_text() == called
    by_about = {answer.about: answer for answer in found.answers if answer.quantity == "speed_ratio"}
    assert found.answers[0].about == "fast"
    assert by_about["fast"].value == pytest.approx(0.98)
    assert by_about["fast, tensor 8,3"].value == pytest.approx(1.5)
    assert by_about["fast, tensor 8,3"].outcome == "different"
    assert by_about["fast, layer 8,3 reversed"].n == 3
    assert "fast, layer even reversed" not in by_about
    row = by_about["fast, row 8,3"]
    assert row.outcome == "failed"
    assert "does not support split buffers" in row.statement
    # It is told once.
    assert not any("split buffers" in one for one in found.noticed)
    assert any("split mode row" in gap for gap in found.gaps)
    # With the cards the other way round it is not asked again.
    calls = [json.loads(line) for line in called.splitlines()]
    rows = [words for _, words, _ in calls if "row" in words]
    assert [words[words.index("-ts") + 1] for words in rows] == ["8/3", "1/1"]
    seen = {devices for _, words, devices in calls if "layer" in words}
    assert seen == {"0,1", "1,0"}
    assert {devices for _, words, devices in calls if "none" in words} == {"0"}
    apart = {answer.about: answer.outcome for answer in found.answers if answer.quantity == "divergence"}
    assert apart["fast, layer 8,3"] == "alike"
    assert apart["fast, tensor 8,3"] == "different"
    best = found.answers[-1]
    assert (best.quantity, best.outcome, best.details["better"]) == (
        "speed_change", "different", {"split_mode": "tensor", "tensor_split": [8.0, 3.0]},
    )  # fmt: skip
    # Broken off after its first pass, and no time left: what there is is told, and nothing is started.
    first = [one for one in keep.kept if one.block == 0]
    async with lab_for(scene, seconds=0.0, earlier=first) as (lab, again):
        cut = await SplitModes().run(lab, inquiry)
    assert (again.commands, log.read_text()) == ([], called)
    assert (cut.answers[0].about, cut.answers[0].outcome, cut.answers[0].n) == ("fast", "inconclusive", 1)
    assert {one.about: one.outcome for one in cut.answers if one.quantity == "divergence"} == apart
    assert "in pass 2: layer even reversed" not in cut.noticed[0]
    assert cut.noticed[0].startswith("Not measured for want of time: in pass 2: ")
    kept = [one.value for one in keep.kept if one.metric == GENERATION and one.arm == NO_SPLIT]
    assert kept == pytest.approx([100.0, 100.1, 100.2] * 3)
    arms = found.answers[0].details["arms"]
    assert arms[NO_SPLIT]["generation_tokens_per_s"] == pytest.approx(100.1)
    assert arms["tensor 8,3"]["divergence_nats"] == 0.004


async def test_what_time_does_not_allow_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(split_run, "_ARM_GUESS_S", 1.0)
    named, _ = tools(tmp_path)
    scene = Scene(config_for(tmp_path), CARDS, tools=named)
    async with lab_for(scene, seconds=0.0) as (lab, keep):
        found = await SplitModes().run(lab, SplitModes().inquiries(scene)[0])
    assert keep.commands == []
    assert found.answers[0].outcome == "inconclusive"
    assert "want of time" in found.noticed[0]
    assert "layer 8,3" in found.noticed[0]


async def test_a_build_without_cuda_is_no_answer(tmp_path):
    named, _ = tools(tmp_path, backend="CPU")
    scene = Scene(config_for(tmp_path), CARDS, tools=named)
    async with lab_for(scene) as (lab, _):
        with pytest.raises(EngineFailed, match="without CUDA"):
            await SplitModes().run(lab, SplitModes().inquiries(scene)[0])


def test_arms_come_in_the_order_of_their_worth():
    arms = split_arms((0, 1), (8, 3))
    assert len(arms) == 13
    assert [one.name for one in arms[:5]] == [NO_SPLIT, "layer 8,3", "row 8,3", "tensor 8,3", "layer even"]
    assert arms[-1].name == "tensor even reversed"
    assert arms[1].arguments("/") == ["-ngl", "99", "-sm", "layer", "-ts", "8/3"]
    assert arms[1].arguments(",")[-1] == "8,3"
    assert arms[0].arguments("/") == ["-ngl", "99", "-sm", "none"]
    assert arms[7].environment(CARDS)["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert hopeless(arms[8], ["row 8,3"])
    assert not hopeless(arms[7], ["row 8,3"])
    assert not hopeless(arms[2], ["row 8,3"])


def test_cards_of_unequal_memory_are_split_by_it():
    assert shares_of(CARDS, (0, 1)) == (8, 3)
    assert shares_of(with_gpus("RTX 3090 + GTX 1060 6GB"), (0, 1)) == (24, 6)


def test_the_configured_arm_is_what_llamacpp_would_do(tmp_path):
    arms = split_arms((0, 1), (8, 3))

    def named(**keys: Any) -> str:
        tier = {"name": "a", "engine": "llama.cpp", "model": "a.gguf"} | keys
        found: Any = config_for(tmp_path, tier).tiers[0]
        return configured(found, arms).name

    assert named() == "layer even"
    assert named(tensor_split=[8, 3]) == "layer 8,3"
    assert named(split_mode="row", tensor_split=[1, 1]) == "row even"
    assert named(split_mode="none") == named(gpus=[1]) == NO_SPLIT


def test_the_last_words_of_a_log_are_those_that_tell():
    said = last_words((RECORDED / "llama-bench-refused.log").read_text())
    assert "LLAMA_SPLIT_MODE_TENSOR needs" in said
    assert said.endswith("failed to load model 'fast.gguf'")
    assert last_words("") == ""
    assert last_words("a\nb") == "a / b"
    assert last_words("error: '/root/g/models/x.gguf' of 3/4 at http://a/b/c") == (
        "error: 'x.gguf' of 3/4 at http://a/b/c"
    )


def test_memory_is_what_came_on_top():
    assert memory_by_gpu({0: 500.0, 1: 400.0}, {1: 3400.0, 0: 490.0}) == {0: 0.0, 1: 3000.0}


def test_divergence_is_held_against_its_floor():
    def told(nats: float, error: float) -> Reading:
        return Reading("divergence", nats, "nats", facts={"error": error})

    floor = told(2e-6, 1e-6)
    assert kl_outcome(told(3e-6, 1e-6), floor) == "alike"
    assert kl_outcome(told(4e-3, 5e-4), floor) == "different"
    assert kl_outcome(told(4e-3, 4e-3), floor) == "inconclusive"
    assert kl_outcome(told(4e-3, 5e-4), None) == "measured"


def test_it_says_why_it_cannot(tmp_path):
    config = config_for(tmp_path)
    one_core = host_alone().model_copy(update={"cores": 1})
    assert "two cores" in (SplitModes().why_not(Scene(config, one_core)) or "")
    no_tools = CARDS.model_copy(update={"cores": 1})
    assert "llama-bench" in (SplitModes().why_not(Scene(config, no_tools)) or "")
    assert SplitModes().inquiries(Scene(config, no_tools)) == []
