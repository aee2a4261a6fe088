"""Blocks, tokens and requests of a pool against vLLM's own answers and what it logged on H200 cards."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.models.huggingface import from_config
from subcortex.models.shape import (
    Attention,
    FullAttention,
    LatentAttention,
    ModelShape,
    Quantisation,
    Recurrence,
    SlidingAttention,
)
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.kv import (
    KvLayout,
    concurrency_table,
    in_flight_tokens,
    layout,
    pipeline_pool_bytes,
    pipeline_tokens,
)
from tests.vram.kv_cases import GIB, flat, models, moe, oracle, shape_of, worlds
from tests.vram.weight_cases import config_of

#: Of half a unit in the last place that vLLM's log prints.
_ROUNDING = 0.005 * GIB


def dense(layers: int, kv_heads: int, dim: int = 128) -> ModelShape:
    return shape_of("dense", [FullAttention(kv_heads * 4, kv_heads, dim, dim)] * layers)


def parts(said: dict[str, Any]) -> list[tuple[int, int]]:
    return sorted(
        (n, group["spec"]["page_size_bytes"]) for group in said["groups"] for n in group["layers_of_each"]
    )


def setup_of(said: dict[str, Any], **more: Any) -> VllmSetup:
    fp8 = said["settings"].get("kv_cache_dtype", "auto").startswith("fp8")
    return VllmSetup(kv_bytes_per_element=1.0 if fp8 else None, **more)


@pytest.mark.parametrize(
    ("shape", "tp", "pool_gib", "tokens"),
    [
        (dense(32, 8), 1, 18.62, 152_512),
        (dense(32, 8), 2, 75.57, 1_238_048),
        (dense(80, 8), 2, 19.77, 129_552),
        (dense(28, 8), 1, 79.8, 747_088),
        (flat("gemma-3-12b-text"), 1, 49.96, 136_202),
        (flat("gemma-3-12b-text"), 2, 46.72, 254_726),
        (flat("deepseek-v2-lite"), 1, 39.3, 1_356_608),
        (flat("mistral-7b-v0.1"), 1, 41.3, 337_692),
        (flat("gpt-oss-20b"), 1, 42.94, 937_172),
        (flat("falcon-h1-7b"), 1, 38.99, 692_809),
        (flat("mixtral-8x7b"), 1, 22.25, 182_272),
        (flat("qwen2.5-7b"), 1, 26.34, 493_200),
    ],
)
def test_tokens_are_those_that_vllm_logged_on_h200(
    shape: ModelShape, tp: int, pool_gib: float, tokens: int
) -> None:
    held = layout(shape, VllmSetup(tensor_parallel_size=tp))

    assert held.tokens(pool_gib * GIB - _ROUNDING) <= tokens <= held.tokens(pool_gib * GIB + _ROUNDING)
    assert held.tokens(held.pool_bytes(tokens)) == tokens
    assert abs(held.pool_bytes(tokens) - pool_gib * GIB) <= _ROUNDING + held.block_bytes


@pytest.mark.parametrize("name", models())
def test_layouts_are_those_of_vllms_own_code(name: str) -> None:
    for world, said in worlds(name).items():
        held = layout(flat(name), setup_of(said, tensor_parallel_size=int(world[2:].split("pp")[0])))
        check(held, said, world)


@pytest.mark.parametrize("name", oracle("variants-0.26.0")["variants"]["fp8_cache"]["models"])
def test_layouts_of_an_fp8_cache_are_those_of_vllms_own_code(name: str) -> None:
    said = worlds(name, oracle("variants-0.26.0")["variants"]["fp8_cache"])["tp1pp1"]

    check(layout(flat(name), setup_of(said)), said, "fp8")


def check(held: KvLayout, said: dict[str, Any], world: str) -> None:
    """Compare a layout with the recorded groups, and with pools at each length and budget."""
    assert sorted((group.layers, group.spec.page_bytes) for group in held.groups) == parts(said), world
    for text, recorded in said["pools"].items():
        length = int(text)
        assert held.request_bytes(length) == recorded["request_bytes"], (world, length)
        for gib in (4, 20, 64):
            expected, pool = recorded[f"{gib}"], gib * GIB
            if isinstance(expected, dict):
                assert held.longest_tokens(pool, length) == expected["longest"], (world, length, gib)
            else:
                found = [held.blocks(pool), held.tokens(pool, length), round(held.requests(pool, length), 4)]
                assert found == expected, (world, length, gib)


FULL = FullAttention(32, 8, 128, 128)


def gemma(layers: int, period: int, window: int, kv_heads: int, dim: int) -> ModelShape:
    sliding = SlidingAttention(kv_heads, kv_heads, dim, dim, window)
    full = FullAttention(kv_heads, kv_heads, dim, dim)
    return shape_of("gemma", [full if n % period == period - 1 else sliding for n in range(layers)])


@pytest.mark.parametrize(
    ("name", "world", "shape"),
    [
        ("gemma-2-9b", "tp1pp2", gemma(42, 2, 4096, 8, 256)),
        ("gemma-2-9b", "tp1pp4", gemma(42, 2, 4096, 8, 256)),
        ("gemma-3-27b-text", "tp2pp2", gemma(62, 6, 1024, 16, 128)),
        ("gemma-3-27b-text", "tp1pp4", gemma(62, 6, 1024, 16, 128)),
        ("gemma-3-1b", "tp2pp2", gemma(26, 6, 512, 1, 256)),
        ("llama-3.1-70b", "tp2pp2", dense(80, 8)),
        ("mistral-7b-v0.1", "tp2pp2", flat("mistral-7b-v0.1")),
        ("deepseek-v2-lite", "tp1pp4", moe(flat("deepseek-v2-lite"), "DeepseekV2ForCausalLM")),
        ("deepseek-v3", "tp1pp2", moe(flat("deepseek-v3"), "DeepseekV3ForCausalLM")),
        ("qwen3-235b-a22b", "tp1pp4", moe(flat("qwen3-235b-a22b"), "Qwen3MoeForCausalLM")),
    ],
)
def test_pipelines_are_those_of_vllms_own_code(name: str, world: str, shape: ModelShape) -> None:
    variants = oracle("variants-0.26.0")["variants"]
    said = worlds(name, variants["pipeline_4" if world.endswith("pp4") else "pipeline"])[world]
    tp, pp = (int(size) for size in world[2:].split("pp"))
    setup = VllmSetup(tensor_parallel_size=tp, pipeline_parallel_size=pp)
    held = [layout(shape, setup, stage=stage) for stage in range(pp)]

    assert in_flight_tokens(shape, setup) == said["settings"].get("max_in_flight_tokens", 16384)
    assert [[group.layers for group in stage.groups] for stage in held] == [
        [layers[stage] for group in said["groups"] for layers in group["layers_of_each"]]
        for stage in range(pp)
    ]
    for text, recorded in said["pools"].items():
        length = int(text)
        assert [stage.request_bytes(length) for stage in held] == recorded["request_bytes"]
        for gib in (4, 20, 64):
            if isinstance(recorded[f"{gib}"], dict):
                longest = min(stage.longest_tokens(gib * GIB, length) for stage in held)
                assert longest == recorded[f"{gib}"]["longest"]
            else:
                blocks = min(stage.blocks(gib * GIB) for stage in held)
                assert [blocks, pipeline_tokens(held, gib * GIB, length)] == recorded[f"{gib}"][:2]


@pytest.mark.parametrize("variant", ["pipeline", "pipeline_4"])
def test_pipelines_of_models_read_from_their_config_are_those_of_vllms_own_code(variant: str) -> None:
    recorded = oracle("variants-0.26.0")["variants"][variant]
    for name in recorded["models"]:
        shape = from_config(config_of(name), name)
        for world, said in worlds(name, recorded).items():
            tp, pp = (int(size) for size in world[2:].split("pp"))
            held = [layout(shape, VllmSetup(tp, pp), stage=stage) for stage in range(pp)]
            for text, pools in said["pools"].items():
                assert [stage.request_bytes(int(text)) for stage in held] == pools["request_bytes"], (
                    name,
                    world,
                )


def test_the_smallest_stage_decides_and_its_pool_is_enough() -> None:
    setup = VllmSetup(pipeline_parallel_size=4)
    held = [layout(dense(30, 8), setup, stage=stage) for stage in range(4)]
    pool = pipeline_pool_bytes(held, 100_000)

    assert [stage.groups[0].layers for stage in held] == [7, 8, 8, 7]
    assert pool == max(stage.pool_bytes(100_000) for stage in held)
    assert pipeline_tokens(held, pool) == 100_000
    assert pipeline_tokens(held, [pool, pool, pool - 1, pool]) == 99_984


def test_layers_of_unlike_width_share_one_group() -> None:
    narrow, wide = FullAttention(8, 2, 64, 64), FullAttention(8, 8, 64, 64)
    held = layout(shape_of("elastic", [narrow, wide, wide]), VllmSetup())

    assert [group.layers for group in held.groups] == [3]
    assert held.block_bytes == 16 * 2 * 64 * 2 * (2 + 8 + 8)
    assert held.growth_bytes_per_token == held.bytes_per_token == held.block_bytes / 16


def test_smaller_pages_get_longer_blocks_or_are_padded() -> None:
    sliding = SlidingAttention(8, 8, 64, 64, 512)
    longer = layout(shape_of("twice", [FullAttention(8, 4, 64, 64), sliding]), VllmSetup())
    padded = layout(shape_of("odd", [FullAttention(8, 3, 64, 64), sliding]), VllmSetup())

    assert [(g.spec.page_bytes, g.spec.block_tokens) for g in longer.groups] == [(32768, 32), (32768, 16)]
    assert [(g.spec.page_bytes, g.spec.block_tokens) for g in padded.groups] == [(32768, 16), (32768, 16)]


def test_a_state_limits_the_sequences_and_nothing_else_does() -> None:
    held = layout(flat("falcon-h1-7b"), VllmSetup())

    assert held.max_sequences(38.99 * GIB) == 592  # as vLLM said when it refused 1024
    assert layout(dense(32, 8), VllmSetup()).max_sequences(GIB) is None


def test_a_checkpoint_may_ask_for_a_cache_of_fewer_bits() -> None:
    quantised = shape_of("nvfp4", [FULL], quantisation=Quantisation("modelopt_fp4", 4, 16, kv_bits=8))

    assert layout(quantised, VllmSetup()).page_bytes == 32768
    assert layout(quantised, VllmSetup(kv_bytes_per_element=2)).page_bytes == 65536


def test_a_model_that_keeps_nothing_needs_no_pool() -> None:
    held = layout(shape_of("none", []), VllmSetup())

    assert (held.tokens(GIB), held.pool_bytes(1000), held.request_bytes(1000)) == (0, 0, 0)
    assert held.requests(0, 1000) == float("inf")
    assert held.longest_tokens(0) == 8192


def test_the_tokens_of_an_unknown_context_are_not_made_up() -> None:
    held = layout(shape_of("unknown", [FULL], max_context_tokens=0), VllmSetup())

    assert held.tokens(GIB, 1600) == 262_144
    with pytest.raises(InvalidRequest, match="how long a request may be"):
        held.tokens(GIB)


def test_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no stage 2 of 2"):
        layout(dense(4, 8), VllmSetup(pipeline_parallel_size=2), stage=2)


def test_the_table_says_what_a_pool_holds_of_each_length() -> None:
    held = layout(dense(32, 8), VllmSetup())

    assert concurrency_table(held, 20 * GIB, (8192, 32768)) == ((8192, 20.0), (32768, 5.0))


SIZES = st.sampled_from([64, 96, 128])
KV = st.sampled_from([1, 2, 4, 8, 16])
STATE = st.builds(
    Recurrence,
    st.integers(1, 64).map(lambda n: n * 4096),
    st.integers(1, 8).map(lambda n: n * 1024),
    st.sampled_from([2.0, 4.0]),
    st.just(2.0),
    st.just("mamba2"),
    st.just(16),
    st.sampled_from([1, 16]),
    st.just(128),
)
KEPT: st.SearchStrategy[Attention] = st.one_of(
    st.builds(lambda k, d: FullAttention(16, k, d, d), KV, SIZES),
    st.builds(lambda k, d, w: SlidingAttention(16, k, d, d, w), KV, SIZES, st.integers(1, 9000)),
    st.just(LatentAttention(16, 512, 64, 128, 128)),
    STATE,
)
SHAPES = st.lists(KEPT, min_size=1, max_size=3).flatmap(
    lambda kinds: st.lists(st.sampled_from(kinds), min_size=1, max_size=24).map(
        lambda kept: shape_of("any", kept)
    )
)
LENGTHS = st.integers(1, 70_000)
POOLS = st.integers(0, 1 << 34)


@settings(max_examples=150)
@given(SHAPES, st.sampled_from([1, 2, 4, 8, 16]), LENGTHS, LENGTHS, POOLS, POOLS)
def test_more_never_gives_less(
    shape: ModelShape, tp: int, one: int, other: int, small: int, large: int
) -> None:
    held = layout(shape, VllmSetup(tensor_parallel_size=tp))
    (one, other), (small, large) = sorted((one, other)), sorted((small, large))

    assert held.tokens(small, one) <= held.tokens(large, one)
    assert held.request_bytes(one) <= held.request_bytes(other)
    assert held.requests(large, one) >= held.requests(large, other)
    enough = held.pool_bytes(held.tokens(large, one), one)
    assert enough <= large
    assert held.tokens(enough, one) == held.tokens(large, one)
    assert held.pool_bytes(one, other) <= held.request_bytes(other)


@settings(max_examples=100)
@given(SHAPES, LENGTHS)
def test_more_ranks_never_take_more_each(shape: ModelShape, length: int) -> None:
    # The state of one rank may be rounded up to whole blocks of a rank's smaller tokens: one block over.
    fewer, more = (layout(shape, VllmSetup(tensor_parallel_size=tp)) for tp in (1, 2))
    attention_alone = not any(isinstance(kept, Recurrence) for kept in shape.attentions)

    if attention_alone:
        assert more.request_bytes(length) <= fewer.request_bytes(length)
    assert more.page_bytes <= fewer.page_bytes


@settings(max_examples=150)
@given(SHAPES, st.sampled_from([1, 2, 4]), st.integers(1, 4))
def test_pages_are_equal_and_every_layer_has_one(shape: ModelShape, tp: int, pp: int) -> None:
    pp = min(pp, len(shape.layers))
    setup = VllmSetup(tensor_parallel_size=tp, pipeline_parallel_size=pp)
    held = [layout(shape, setup, stage=stage) for stage in range(pp)]

    assert sum(group.layers for stage in held for group in stage.groups) == len(shape.attentions)
    for stage in held:
        if len(stage.groups) > 1:
            assert {group.spec.page_bytes for group in stage.groups} == {stage.page_bytes}
            assert stage.block_bytes == stage.page_bytes * max(group.layers for group in stage.groups)
