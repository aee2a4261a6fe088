"""The estimate of a vLLM rank against what vLLM measured of itself on H200, and its rules."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.hardware import Gpu
from subcortex.models.read import read_shape
from subcortex.models.shape import ModelShape
from subcortex.vram import vllm
from subcortex.vram.amount import Amount, total
from subcortex.vram.footprint import Component
from subcortex.vram.setup import VllmSetup

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "bench" / "shapes"
EVIDENCE = ROOT / "docs" / "evidence" / "vram-h200"
H200 = Gpu(index=0, name="NVIDIA H200", memory_total_mib=143771)
RTX_3090 = Gpu(index=0, name="RTX 3090", memory_total_mib=24576)
FLAGS = {"--max-num-batched-tokens": "max_batched_tokens", "--max-num-seqs": "max_sequences"}


def boots(file: str) -> list[dict[str, Any]]:
    return list(json.loads((EVIDENCE / file).read_text("utf-8"))["boots"])


def setup_of(boot: dict[str, Any]) -> VllmSetup:
    flags = boot.get("flags", [])
    sizes: dict[str, Any] = {FLAGS[name]: int(value) for name, value in pairwise(flags) if name in FLAGS}
    return VllmSetup(
        tensor_parallel_size=boot["tp"],
        pipeline_parallel_size=boot.get("pp", 1),
        context_tokens=boot.get("max_model_len", 8192),
        gpu_memory_utilization=boot["gpu_memory_utilization"],
        eager="--enforce-eager" in flags,
        sleep_mode=boot["sleep_mode"],
        **sizes,
    )


def named(boot: dict[str, Any]) -> str:
    return str(boot["log"])


def shape(model: str) -> ModelShape:
    return read_shape(SHAPES / model)


@pytest.mark.parametrize("boot", [*boots("truth.json"), *boots("heldout.json")], ids=named)
def test_weights_and_pool_are_within_what_the_issue_asks(boot: dict[str, Any]) -> None:
    setup, model = setup_of(boot), shape(boot["model"])
    gpus = [H200] * setup.gpus
    rank = vllm.estimate(model, setup, gpus)[0]

    assert boot["weights_gib"] == pytest.approx(rank.weights.mean_mib / 1024, rel=0.005)
    assert boot["kv_tokens"] == pytest.approx(vllm.kv_tokens(model, setup, gpus), rel=0.03)
    pool_bytes = int(boot["available_kv_gib"] * 2**30)
    assert boot["kv_tokens"] == pytest.approx(vllm.pool_tokens(model, setup, gpus, pool_bytes), rel=0.005)


@pytest.mark.parametrize("boot", [*boots("truth.json"), *boots("heldout.json")], ids=named)
def test_what_is_beside_weights_and_kv_is_within_400_mib(boot: dict[str, Any]) -> None:
    rank = vllm.estimate(shape(boot["model"]), setup_of(boot), [H200] * setup_of(boot).gpus)[0]
    pairs = [
        (boot["peak_activation_gib"], rank.peak_activation),
        (boot["non_torch_gib"], rank.logged_non_torch),
        (139.80 - boot["free_at_start_gib"], rank.before),
    ]
    if "cuda_graph_gib" in boot:
        pairs.append((boot["cuda_graph_gib"], rank.graphs))
    measured = sum(gib for gib, _ in pairs) * 1024
    assert measured == pytest.approx(total(amount for _, amount in pairs).mean_mib, abs=400)


def test_nine_of_ten_intervals_hold_on_boots_that_nothing_was_fitted_to() -> None:
    inside = []
    for boot in boots("heldout.json"):
        rank = vllm.estimate(shape(boot["model"]), setup_of(boot), [H200] * setup_of(boot).gpus)[0]
        for key, amount in (
            ("weights_gib", rank.weights),
            ("peak_activation_gib", rank.peak_activation),
            ("cuda_graph_gib", rank.graphs),
            ("non_torch_gib", rank.logged_non_torch),
            ("available_kv_gib", rank.pool),
        ):
            if key in boot:
                low, high = amount.interval(0.9)
                inside.append(low - 5 <= boot[key] * 1024 <= high + 5)
    assert len(inside) >= 45
    assert sum(inside) / len(inside) >= 0.85


def test_defaults_are_those_of_the_card() -> None:
    model = shape("llama-3.1-8b")
    large, small = vllm.resolved(VllmSetup(), model, H200), vllm.resolved(VllmSetup(), model, RTX_3090)
    assert (large.max_batched_tokens, large.max_sequences, large.context_tokens) == (8192, 1024, 131072)
    assert (small.max_batched_tokens, small.max_sequences, small.context_tokens) == (2048, 256, 131072)
    asked = VllmSetup(max_batched_tokens=512, max_sequences=16, context_tokens=4096)
    kept = vllm.resolved(asked, model, H200)
    assert (kept.max_batched_tokens, kept.max_sequences, kept.context_tokens) == (512, 16, 4096)


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite", "gemma-3-12b-text"])
def test_components_add_up_and_a_pinned_pool_is_taken_as_it_is(model: str) -> None:
    setup = VllmSetup(tensor_parallel_size=2, context_tokens=8192, kv_pool_bytes=3 * 2**30, sleep_mode=True)
    found = vllm.footprint(shape(model), setup, [H200, H200])
    assert len(found.devices) == 2
    for device in found.devices:
        assert device.of(Component.KV).mean_mib == 3 * 1024
        parts = [amount.mean_mib for amount in device.components.values()]
        assert sum(parts) == pytest.approx(device.total.mean_mib)
        assert all(part >= 0 for part in parts)
    assert found.asleep is not None
    assert all(
        kept.mean_mib < device.total.mean_mib
        for kept, device in zip(found.asleep, found.devices, strict=True)
    )


def test_eager_mode_takes_no_graphs_and_no_less_than_a_step() -> None:
    model = shape("llama-3.1-8b")
    eager = vllm.estimate(model, VllmSetup(eager=True, context_tokens=8192), [H200])[0]
    compiled = vllm.estimate(model, VllmSetup(context_tokens=8192), [H200])[0]
    assert Amount() == eager.graphs
    assert 0 < eager.peak_activation.mean_mib < compiled.peak_activation.mean_mib


def test_a_machine_without_cards_counts_in_host_memory() -> None:
    found = vllm.footprint(shape("llama-3.1-8b"), VllmSetup(kv_pool_bytes=2**30, tensor_parallel_size=2), [])
    assert found.devices == ()
    assert found.host.of(Component.KV).mean_mib == 2 * 1024
    assert found.host.of(Component.WEIGHTS).mean_mib == pytest.approx(14.96 * 1024, rel=0.01)


class TestRules:
    @given(tokens=st.integers(256, 32768), sequences=st.integers(1, 1024), more=st.integers(1, 4096))
    def test_larger_batches_never_take_less(self, tokens: int, sequences: int, more: int) -> None:
        model = shape("qwen3-30b-a3b")
        few = VllmSetup(max_batched_tokens=tokens, max_sequences=sequences, context_tokens=4096)
        many = replace(few, max_batched_tokens=tokens + more, max_sequences=sequences + more)
        assert (
            vllm.estimate(model, few, [H200])[0].peak_activation.mean_mib
            <= vllm.estimate(model, many, [H200])[0].peak_activation.mean_mib
        )

    @given(share=st.floats(0.1, 0.9), more=st.floats(0.0, 0.1))
    def test_more_utilisation_never_gives_fewer_tokens(self, share: float, more: float) -> None:
        model = shape("gemma-3-12b-text")
        less = VllmSetup(gpu_memory_utilization=share, context_tokens=8192)
        assert vllm.kv_tokens(model, less, [H200]) <= vllm.kv_tokens(
            model, replace(less, gpu_memory_utilization=share + more), [H200]
        )

    @given(model=st.sampled_from(["llama-3.1-8b", "phi-4", "mixtral-8x7b", "gemma-2-9b", "deepseek-v2-lite"]))
    def test_splitting_never_makes_a_rank_heavier(self, model: str) -> None:
        one = vllm.estimate(shape(model), VllmSetup(context_tokens=4096), [H200])[0]
        two = vllm.estimate(shape(model), VllmSetup(tensor_parallel_size=2, context_tokens=4096), [H200] * 2)[
            0
        ]
        assert two.weights.mean_mib < one.weights.mean_mib
