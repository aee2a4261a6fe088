"""Shapes from config.json, held against published counts and against what vLLM's own classes hold."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.models.huggingface import from_config
from subcortex.models.shape import (
    Doubt,
    FullAttention,
    LatentAttention,
    ModelShape,
    Recurrence,
    SlidingAttention,
    Split,
)
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.weights import rank_bytes

_ROOT = Path(__file__).parents[2]
_SHAPES = _ROOT / "bench" / "shapes"
_ORACLE = json.loads((_ROOT / "tests/vram/oracle/vllm-0.26.0.json").read_text())["models"]
#: Four float32 scales a layer of attention, and the like.
_SMALL_BYTES_PER_LAYER = 128
#: What is known to differ: zero points that vLLM keeps or drops by TP size, groups cut in two by TP.
_DIFFERS = {"llama-3.1-8b-gptq-act-order": 0.0013, "qwen2.5-14b-gptq-int8": 0.0002}

#: As published with the models (``numel`` of all their tensors, tied ones once, without MTP layers).
PARAMETERS = {
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_419_200,
    "falcon-h1-7b": 7_585_513_568,
    "gemma-2-9b": 9_241_705_984,
    "gemma-3-1b": 999_885_952,
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-70b-awq": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-8b-fp8": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.1": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "olmoe-1b-7b": 6_919_161_856,
    "phi-3-mini": 3_821_079_552,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-next-80b-a3b": 79_674_391_296,
    "starcoder2-7b": 7_173_923_840,
    "zamba2-7b": 7_356_749_648,
}


def config_of(model: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((_SHAPES / model / "config.json").read_text())
    return config


def shape_of(model: str, **changes: Any) -> ModelShape:
    return from_config(config_of(model) | changes, model)


@pytest.mark.parametrize("model", sorted(PARAMETERS))
def test_counts_the_published_parameters(model):
    assert shape_of(model).parameters == PARAMETERS[model]


#: Older and other families: their configs' own figures, and the count of transformers' classes for them.
_OTHERS: dict[str, tuple[dict[str, Any], int]] = {
    "gpt2": (
        {"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024},
        124_439_808,
    ),
    "opt": (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072}
        | {
            "vocab_size": 50272,
            "max_position_embeddings": 2048,
            "word_embed_proj_dim": 768,
            "enable_bias": True,
        },
        125_239_296,
    ),
    "gpt_neox": (
        {"hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64, "intermediate_size": 24576}
        | {"vocab_size": 50432},
        20_554_567_680,
    ),
    "falcon": (
        {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "num_kv_heads": 71}
        | {"vocab_size": 65024, "parallel_attn": True, "multi_query": True, "bias": False},
        6_921_720_704,
    ),
    "gptj": (
        {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "vocab_size": 50400},
        6_050_882_784,
    ),
    "phi": (
        {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "intermediate_size": 8192}
        | {"vocab_size": 51200},
        1_418_270_720,
    ),
    "mpt": (
        {"d_model": 2048, "n_layers": 24, "n_heads": 16, "expansion_ratio": 4, "vocab_size": 50368},
        1_311_213_568,
    ),
    "gemma": (
        {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 24576}
        | {"vocab_size": 256000, "num_key_value_heads": 16},
        8_537_680_896,
    ),
    "stablelm": (
        {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 6912}
        | {"vocab_size": 50304},
        2_795_443_200,
    ),
    "seed_oss": (
        {"hidden_size": 4096, "num_hidden_layers": 64, "num_attention_heads": 80, "intermediate_size": 27648}
        | {"vocab_size": 155136, "num_key_value_heads": 8, "head_dim": 128},
        28_921_040_896,
    ),
}


@pytest.mark.parametrize("kind", sorted(_OTHERS))
def test_counts_the_parameters_of_other_families(kind):
    figures, published = _OTHERS[kind]
    shape = from_config({"model_type": kind} | figures, kind)
    assert shape.parameters == published
    assert shape.notes == ()


def _held(stage: dict[str, Any]) -> int:
    settled = stage.get("settled", {})
    told = settled if "parameter_bytes" in settled else stage
    return int(told["parameter_bytes"] + told["buffer_bytes"])


@pytest.mark.parametrize("model", sorted(_ORACLE))
def test_each_rank_holds_what_vllms_own_classes_hold(model):
    shape = shape_of(model)
    for world, told in _ORACLE[model].items():
        if "refused" in told:
            continue
        held = rank_bytes(shape, VllmSetup(tensor_parallel_size=int(world[2])))
        allowed = _SMALL_BYTES_PER_LAYER * len(shape.layers) + _DIFFERS.get(model, 0) * held
        assert held == pytest.approx(_held(told["stages"][0]), abs=allowed), world


def test_the_h200_boots_took_little_more():
    """Beside weights the figure has what the allocator rounds up: 2 MiB an allocation at most."""
    truth = json.loads((_ROOT / "docs/evidence/vram-h200/truth.json").read_text())["boots"]
    off = {}
    for boot in truth:
        setup = VllmSetup(tensor_parallel_size=boot["tp"], pipeline_parallel_size=boot.get("pp", 1))
        held_gib = rank_bytes(shape_of(boot["model"]), setup) / 2**30
        off[boot["model"], boot["tp"]] = boot["weights_gib"] / held_gib - 1
    assert all(-0.002 < each < 0.02 for each in off.values()), off
    assert sorted(off.values())[len(off) // 2] < 0.003


def test_stages_of_a_pipeline_hold_what_vllms_own_classes_hold():
    variants = json.loads((_ROOT / "tests/vram/oracle/variants-0.26.0.json").read_text())["variants"]
    checked = 0
    for model, worlds in variants["pipeline"]["models"].items():
        shape = shape_of(model)
        for world, told in worlds.items():
            setup = VllmSetup(tensor_parallel_size=int(world[2]), pipeline_parallel_size=int(world[5]))
            for number, stage in enumerate(told.get("stages", ())):
                held = rank_bytes(shape, setup, stage=number)
                allowed = _SMALL_BYTES_PER_LAYER * len(shape.layers)
                assert held == pytest.approx(_held(stage), abs=allowed), (model, world, number)
                checked += 1
    assert checked > 4


def test_windows_follow_vllm():
    def windows(model: str, **changes: Any) -> list[int]:
        kept = shape_of(model, **changes).attentions
        return [one.window if isinstance(one, SlidingAttention) else 0 for one in kept]

    assert set(windows("mistral-7b-v0.1")) == {4096}
    assert set(windows("mistral-7b-v0.1", sliding_window=None)) == {0}
    assert set(windows("qwen2.5-7b")) == {0}
    assert windows("qwen2.5-7b", use_sliding_window=True, max_window_layers=20) == [0] * 20 + [131072] * 8
    assert windows("gemma-2-9b")[:4] == [4096, 0, 4096, 0]
    assert windows("gemma-3-1b")[:7] == [512] * 5 + [0, 512]
    assert windows("gpt-oss-20b")[:4] == [128, 0, 128, 0]
    assert windows("command-r7b")[:5] == [4096, 4096, 4096, 0, 4096]
    assert windows(
        "llama-3.1-8b", sliding_window=512, layer_types=["full_attention"] * 31 + ["sliding_attention"]
    )[30:] == [0, 512]
    chunked = shape_of("llama-4-scout-text").attentions
    assert [isinstance(one, SlidingAttention) and one.chunked for one in chunked[:4]] == [True] * 3 + [False]


def test_attention_of_each_kind():
    assert shape_of("llama-3.1-8b").attentions[0] == FullAttention(32, 8, 128, 128)
    assert shape_of("deepseek-v3").attentions[0] == LatentAttention(128, 512, 64, 128, 128, 1536)
    hybrid = shape_of("falcon-h1-7b").layers[0].attention
    assert [type(one) for one in hybrid] == [FullAttention, Recurrence]
    kinds = [one.kind for one in shape_of("qwen3-next-80b-a3b").attentions]
    assert kinds[:4] == ["recurrent"] * 3 + ["full"]
    assert kinds.count("full") == 12


def test_experts_stand_where_the_config_puts_them():
    deepseek = shape_of("deepseek-v3").layers
    assert [bool(layer.experts) for layer in deepseek[:4]] == [False, False, False, True]
    assert deepseek[3].experts is not None
    assert deepseek[3].experts.shared_intermediate == 2048
    jamba = shape_of("jamba-mini-1.5").layers
    assert [bool(layer.experts) for layer in jamba[:4]] == [False, True, False, True]
    stepped = shape_of("qwen3-30b-a3b", decoder_sparse_step=2, mlp_only_layers=[1]).layers
    assert [bool(layer.experts) for layer in stepped[:4]] == [False, False, False, True]


def test_a_tied_head_is_held_once_and_on_both_ends_of_a_pipeline():
    tied = shape_of("llama-3.2-1b")
    embedding = 2 * 128256 * 2048
    whole = rank_bytes(tied, VllmSetup())
    first, last = (rank_bytes(tied, VllmSetup(pipeline_parallel_size=2), stage=stage) for stage in (0, 1))
    table = next(t.bytes for t in tied.tensors if t.name == "rotary.cos_sin")
    assert first + last == whole + embedding + table


def test_mxfp4_experts_are_padded_a_rank():
    experts = [t for t in shape_of("gpt-oss-20b").tensors if t.expert and t.split is Split.SHARDED]
    assert {t.units for t in experts} == {45}


def test_expert_parallelism_shares_out_whole_experts():
    shape = shape_of("qwen3-30b-a3b")
    divided = rank_bytes(shape, VllmSetup(tensor_parallel_size=4))
    assert rank_bytes(shape, VllmSetup(tensor_parallel_size=4, expert_parallel=True)) == divided


def test_what_is_unknown_counts_as_a_llama_and_says_so():
    config = config_of("llama-3.1-8b") | {"model_type": "brand_new", "architectures": ["BrandNew"]}
    shape = from_config(config, "new")
    assert shape.parameters == PARAMETERS["llama-3.1-8b"]
    assert "brand_new are not known here" in shape.notes[0]
    assert shape.doubts == Doubt.UNFAMILIAR
    assert not shape.not_loaded


def test_a_multimodal_config_counts_its_language_model_and_estimates_its_tower():
    text = config_of("gemma-3-12b-text")
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
        "vision_config": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "patch_size": 14,
        },
    }
    shape = from_config(config, "gemma")
    alone = from_config(text, "gemma")
    # SigLIP So400m has 417 million.
    assert shape.parameters - alone.parameters == pytest.approx(417e6, rel=0.03)
    assert "tower is estimated" in shape.notes[-1]


_BAD: tuple[tuple[str, Any], ...] = (
    ("hidden_size", "4096"),
    ("hidden_size", -1),
    ("hidden_size", True),
    ("num_hidden_layers", 10**18),
    ("num_hidden_layers", 0),
    ("num_hidden_layers", 32.5),
    ("num_attention_heads", float("nan")),
    ("num_key_value_heads", 3),
    ("vocab_size", float("inf")),
    ("vocab_size", [1]),
    ("max_position_embeddings", "long"),
    ("tie_word_embeddings", "yes"),
    ("rope_scaling", 3),
    ("rope_scaling", {"type": "yarn", "factor": -2}),
    ("quantization_config", []),
    ("quantization_config", {"quant_method": "awq", "bits": "four"}),
    ("quantization_config", {"quant_method": "fp8", "weight_block_size": [0, 128]}),
    ("text_config", "none"),
    ("layer_types", ["full_attention"]),
)


@pytest.mark.parametrize(("key", "value"), _BAD)
def test_an_impossible_value_is_named(key, value):
    config = config_of("mistral-7b-v0.1") | {key: value}
    with pytest.raises(ConfigError) as refused:
        from_config(config, "m", file="some/config.json")
    assert "some/config.json" in refused.value.message
    assert key in refused.value.message


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_missing_key_is_named(key):
    config = config_of("llama-3.1-8b")
    del config[key]
    with pytest.raises(ConfigError, match=f"has no {key}"):
        from_config(config, "m")


def test_no_object_at_the_top():
    with pytest.raises(ConfigError, match="list"):
        from_config([], "m")  # type: ignore[arg-type]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_MODELS = sorted(path.name for path in _SHAPES.iterdir() if (path / "config.json").exists())


@given(st.sampled_from(_MODELS), st.data())
def test_whatever_stands_in_a_config_gives_a_shape_or_a_config_error(model, data):
    config = copy.deepcopy(config_of(model))
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=4)):
        config[key] = data.draw(_JSON)
    try:
        shape = from_config(config, model)
    except ConfigError:
        return
    assert shape.weights_bytes > 0
    assert rank_bytes(shape, VllmSetup(tensor_parallel_size=2)) <= shape.weights_bytes * 1.1 + 1e6
