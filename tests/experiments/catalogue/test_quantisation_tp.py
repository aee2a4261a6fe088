"""Which quantisations split over how many GPUs, against rules known otherwise; and what two boots come to."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.config import VllmTier
from subcortex.experiments.catalogue.quantisation_tp import experiment as quantisation_tp
from subcortex.experiments.catalogue.quantisation_tp import report as told
from subcortex.experiments.catalogue.quantisation_tp.experiment import QuantisationTp
from subcortex.experiments.catalogue.quantisation_tp.splits import (
    AS_IT_IS,
    WHILE_LOADING,
    Splits,
    examples,
    splits,
)
from subcortex.experiments.experiment import Answer, Report
from subcortex.experiments.scene import Scene
from subcortex.experiments.statistics import Sample
from subcortex.hardware import with_gpus
from subcortex.models.huggingface import from_config
from subcortex.models.read import read_shape
from tests.conftest import ROOT
from tests.experiments.harness import config_for, lab_for, scene_for

SHAPES = ROOT / "bench" / "shapes"
GROUPED = ("fp8 in blocks of 128", "AWQ in groups of 128", "GPTQ in groups of 128", "w4a16 in groups of 128")
TIER = VllmTier(name="fast", model="models/llama-3.1-8b")


def of(name: str) -> Splits:
    return splits(read_shape(SHAPES / name, name=name), name)


def llama(intermediate: int, heads: int = 32, kv_heads: int = 8) -> Splits:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": heads * 128,
        "intermediate_size": intermediate,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
    }
    return splits(from_config(config, "made-up"), "made-up")


def test_231_groups_of_128_can_be_served_by_one_gpu_alone() -> None:
    found = of("qwen2.5-72b")
    for form in GROUPED:
        assert found.legal[form] == (1,)
        assert "29568 columns are 231 " in found.refused[form]
    # Without groups, or in small ones (29568 = 16 · 8 · 231), the same width divides.
    for form in (AS_IT_IS, WHILE_LOADING, "int8", "NVFP4 in groups of 16"):
        assert found.legal[form] == (1, 2, 4, 8)
        assert form not in found.refused
    # Its maker widened the checkpoint to 29696 columns, which are 232 groups.
    assert of("qwen2.5-72b-gptq-int4").legal[AS_IT_IS] == (1, 2, 4, 8)


def test_a_mixtures_narrow_experts_decide() -> None:
    found = of("qwen3-30b-a3b")
    # 768 = 6 groups of 128: two GPUs have three each, four would have one and a half.
    assert all(found.legal[form] == (1, 2) for form in GROUPED)
    assert found.legal["int8"] == (1, 2, 4, 8)


def test_heads_that_do_not_divide_forbid_it_in_any_form() -> None:
    found = of("qwen2.5-7b")
    assert all(8 not in sizes for sizes in found.legal.values())
    assert "28 attention heads" in found.refused[AS_IT_IS]


def test_a_model_that_is_quantised_already_is_not_quantised_while_loading() -> None:
    assert WHILE_LOADING not in of("llama-3.1-8b-awq").legal


@given(groups=st.integers(1, 64), size=st.sampled_from([2, 4, 8]))
def test_whole_groups_for_each_rank_or_none_at_all(groups: int, size: int) -> None:
    found = llama(128 * groups)
    assert (size in found.legal["AWQ in groups of 128"]) == (groups % size == 0)
    assert 1 in found.legal["AWQ in groups of 128"]
    assert size in found.legal["int8"]


def test_the_examples_are_known_to_the_catalogue() -> None:
    assert [one.model for one in examples()] == [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-70B-Instruct",
        "Qwen/Qwen2.5-72B-Instruct",
        "Qwen/Qwen3-30B-A3B",
    ]


def samples(speed: float, plain_speed: float, *, spread: float = 0.01) -> dict[str, list[Sample]]:
    rng = random.Random(3)

    def row(fp8: float, plain: float, n: int) -> list[Sample]:
        return [
            Sample(value * (1 + rng.gauss(0, spread)), arm)
            for arm, value in (("fp8", fp8), ("plain", plain))
            for _ in range(n)
        ]

    return {
        "boot": [Sample(90.0, "fp8"), Sample(80.0, "plain")],
        "weights": [Sample(8700.0, "fp8"), Sample(15442.0, "plain")],
        "kv pool": [Sample(30000.0, "fp8"), Sample(24000.0, "plain")],
        "tpot": row(3.2, 4.9, 7),
        "window": row(speed, plain_speed, 5),
    }


def answer(report: Report, quantity: str, about: str = "llama-3.1-8b") -> Answer:
    return next(one for one in report.answers if (one.quantity, one.about) == (quantity, about))


def reported(found: dict[str, list[Sample]], refused: str | None = None, size: int = 2) -> Report:
    boot = told.Boot(size, refused, on_gpus=True, concurrency=16)
    return told.report(found, [of("llama-3.1-8b"), of("qwen2.5-72b")], TIER, boot)


def test_two_boots_are_compared_in_speed_and_memory() -> None:
    report = reported(samples(1500.0, 1000.0))
    legal = answer(report, "quantised_splits")
    assert legal.outcome == "passed"
    assert legal.statement == "8 of 8 forms of llama-3.1-8b can be split over 2 GPUs."
    assert report.answers[0].quantity == "speed_ratio"
    assert answer(report, "quantised_boot").outcome == "passed"
    speed = answer(report, "speed_ratio")
    assert speed.outcome == "different"
    assert speed.value == pytest.approx(1.5, rel=0.03)
    assert speed.low is not None
    assert speed.high is not None
    assert speed.low < 1.5 < speed.high
    assert answer(report, "tpot_ratio").value == pytest.approx(3.2 / 4.9, rel=0.03)
    memory = answer(report, "memory_ratio")
    assert (memory.value, memory.low, memory.n) == (8700 / 15442, None, 1)
    assert answer(report, "kv_cache_ratio").value == 30000 / 24000
    refused = answer(report, "quantised_splits", "qwen-2.5-72b")
    assert refused.outcome == "failed"
    assert "231 blocks of 128" in refused.statement
    assert any("52 of 64 splits are legal" in words for words in report.noticed)


def test_speeds_whose_intervals_meet_are_not_called_different() -> None:
    speed = answer(reported(samples(1010.0, 1000.0, spread=0.05)), "speed_ratio")
    assert speed.outcome == "inconclusive"


def test_one_boot_alone_is_measured_and_compared_with_nothing() -> None:
    found = {name: [one for one in row if one.arm == "fp8"] for name, row in samples(1500.0, 1.0).items()}
    report = reported(found)
    (ratio,) = (one for one in report.answers if one.quantity.endswith("ratio"))
    assert (ratio.outcome, ratio.value, ratio.gap_kind) == ("inconclusive", None, None)
    # Of another form of the model, so no figure of the tier's.
    told_of_fp8 = [answer(report, name, "llama-3.1-8b FP8") for name in ("tpot", "speed", "weights_size")]
    assert told_of_fp8[0].value == pytest.approx(3.2, rel=0.03)
    assert told_of_fp8[1].unit == "tokens/s"
    assert all(one.tier is None for one in told_of_fp8)


def test_a_refused_boot_is_an_answer_and_a_new_question() -> None:
    report = reported({}, refused="no kernel for it")
    boot = answer(report, "quantised_boot")
    assert boot.outcome == "failed"
    assert boot.statement.endswith("does not start at TP=2: no kernel for it.")
    assert len(report.gaps) == 1


def on_h200s(folder: Path, *tiers: dict[str, Any]) -> Scene:
    return Scene(config_for(folder, *tiers), with_gpus("2x H200 141GB"))


def test_it_boots_the_smallest_at_the_largest_size_that_is_legal(tmp_path: Path) -> None:
    tiers = [
        {"name": name, "engine": "vllm", "model": str(SHAPES / name), "flags": ["--load-format", "dummy"]}
        for name in ("llama-3.1-70b", "llama-3.1-8b")
    ]
    scene = on_h200s(tmp_path, *tiers)
    (inquiry,) = QuantisationTp().inquiries(scene)
    assert inquiry.subject == "llama-3.1-8b"
    assert inquiry.needs.gpus == 2
    tier = scene.config.tier("llama-3.1-8b")
    assert isinstance(tier, VllmTier)
    fp8, plain = (quantisation_tp._arm(scene, tier, arm, 2, 15316.0) for arm in quantisation_tp.ARMS)
    assert fp8.flags == [*plain.flags, "--quantization", "fp8"]
    assert fp8.model_dump(exclude={"flags"}) == plain.model_dump(exclude={"flags"})


async def test_what_cannot_be_started_leaves_the_table(tmp_path: Path) -> None:
    tier = {"name": "fast", "engine": "vllm", "model": str(SHAPES / "llama-3.1-8b"), "python": "/no/python"}
    scene = scene_for(config_for(tmp_path, tier))
    async with lab_for(scene) as (lab, keep):
        report = await QuantisationTp().run(lab, QuantisationTp().inquiries(scene)[0])
    assert answer(report, "quantised_boot").outcome == "failed"
    assert len(keep.boots) == 1
    # Its own model is one of the well-known four, and is told once.
    assert len([one for one in report.answers if one.quantity == "quantised_splits"]) == 4
