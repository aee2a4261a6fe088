"""Wrappers, hybrids and odd families from configs as they are published, held against vLLM's own classes.

``families-0.26.0.json`` is what ``bench/vllm_oracle.py`` says of ``configs/``: bytes of the language model,
of its rotary tables and of towers on one rank, groups and pools. MiniMax-01, Qwen 1 and Phi-3 small are no
longer run by vLLM 0.26: their published counts stand here. The configs were written from knowledge of the
models.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.models.huggingface import from_config
from subcortex.models.shape import FullAttention, LatentAttention, ModelShape, Recurrence, Split
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.kv import layout
from subcortex.vram.vllm.weights import rank_bytes
from tests.vram.test_kv import check

_HERE = Path(__file__).parent
_ORACLE = json.loads((_HERE / "families-0.26.0.json").read_text())["models"]
#: Flags, scales of the embedding and the like.
_SMALL_BYTES_PER_LAYER = 128


def config_of(model: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((_HERE / "configs" / f"{model}.json").read_text())
    return config


def shape_of(model: str, **changes: Any) -> ModelShape:
    return from_config(config_of(model) | changes, model)


def language(shape: ModelShape) -> ModelShape:
    """The shape without its towers."""
    return replace(shape, tensors=tuple(t for t in shape.tensors if not t.name.startswith("vision_tower")))


@pytest.mark.parametrize("model", sorted(_ORACLE))
def test_each_rank_holds_the_language_model_that_vllms_own_classes_hold(model):
    shape = language(shape_of(model))
    for world, told in _ORACLE[model].items():
        held = rank_bytes(shape, VllmSetup(tensor_parallel_size=int(world[2])))
        expected = told["language_bytes"] + told["rotary_bytes"]
        assert held == pytest.approx(expected, abs=_SMALL_BYTES_PER_LAYER * len(shape.layers)), world


_TOWERS = [
    (model, world)
    for model, worlds in sorted(_ORACLE.items())
    for world, told in worlds.items()
    # Of DeepSeek-OCR's two towers vLLM divides one.
    if "tower_bytes" in told and (model, world) != ("deepseek-ocr", "tp2pp1")
]


@pytest.mark.parametrize(("model", "world"), _TOWERS)
def test_towers_are_within_the_tenth_that_the_note_names(model, world):
    shape, setup = shape_of(model), VllmSetup(tensor_parallel_size=int(world[2]))
    towers = rank_bytes(shape, setup) - rank_bytes(language(shape), setup)
    assert towers == pytest.approx(_ORACLE[model][world]["tower_bytes"], rel=0.1)
    assert "tower is estimated" in shape.notes[-1]


@pytest.mark.parametrize("model", sorted(_ORACLE))
def test_caches_are_those_of_vllms_own_code(model):
    shape = shape_of(model)
    for world, told in _ORACLE[model].items():
        check(layout(shape, VllmSetup(tensor_parallel_size=int(world[2]))), told, world)


#: Parameters as published with the models; of wrappers with their towers left out, which only vLLM's tell.
PARAMETERS = {
    "dbrx": 131_596_523_520,
    "gemma-3-4b-it": 4_300_079_472 - 839_632_608 // 2,
    "gemma-3-12b-it": 12_187_325_040 - 842_581_728 // 2,
    "gemma-3-27b-it": 27_432_406_640 - 846_120_672 // 2,
    # Vicuna 7B with 64 more tokens.
    "llava-1.5-7b": 6_738_415_616 + 2 * 64 * 4096,
    "minimax-text-01": 456_089_655_296,
    "phi-3-small-8k": 7_392_272_384,
    "qwen-7b": 7_721_324_544,
    "qwen2.5-omni-7b": 7_615_616_512,
    "qwen2.5-vl-7b": 7_615_616_512,
    "qwen2-vl-7b": 7_615_616_512,
    "qwen3-vl-8b": 8_190_735_360,
    "qwen3-vl-30b-a3b": 30_532_122_624,
}


@pytest.mark.parametrize("model", sorted(PARAMETERS))
def test_counts_the_published_parameters(model):
    assert language(shape_of(model)).parameters == PARAMETERS[model]


#: A wrapper and what its text part is → parameters of the published model that its class's defaults describe.
_WHOLE_CLASSES = {
    ("llava", "llama"): 6_738_415_616,
    ("llava", "mistral"): 7_241_732_096,
    ("llava_next", "mixtral"): 46_702_792_704,
    ("llava_next", "phi3"): 3_821_079_552,
    ("paligemma", "gemma"): 8_537_680_896,
    ("paligemma", "gemma2"): 2_614_341_888,
    ("aya_vision", "cohere2"): 34_980_831_232,
    ("qwen2_vl", "qwen2_vl_text"): 72_706_203_648,
    ("qwen2_5_vl", "qwen2_5_vl_text"): 72_706_203_648,
    ("qwen2_5_omni_thinker", "qwen2_5_omni_text"): 7_615_616_512,
}


@pytest.mark.parametrize(("wrapper", "kind"), sorted(_WHOLE_CLASSES))
def test_a_wrapper_leaves_out_what_its_text_class_says(wrapper, kind):
    shape = from_config({"model_type": wrapper, "text_config": {"model_type": kind}}, "m")
    assert shape.parameters == _WHOLE_CLASSES[wrapper, kind]
    assert "hidden_size" in shape.notes[0]
    assert shape.notes[0].endswith(f"taken from transformers' defaults for {kind}.")


@pytest.mark.parametrize(
    ("wrapper", "kind"), [("llava", "llama"), ("qwen2_vl", "qwen2_vl_text"), ("gemma3", "gemma3_text")]
)
def test_a_text_part_without_a_type_has_its_wrappers(wrapper, kind):
    said = from_config({"model_type": wrapper, "text_config": {"model_type": kind}}, "m")
    assert from_config({"model_type": wrapper, "text_config": {"use_cache": True}}, "m") == said


def test_what_a_wrapper_says_goes_before_defaults():
    text = {"model_type": "gemma3_text", "hidden_size": 1024, "sliding_window": None, "num_hidden_layers": 12}
    shape = from_config({"model_type": "gemma3", "text_config": text}, "m")
    assert (shape.hidden, len(shape.layers)) == (1024, 12)
    assert {type(kept) for kept in shape.attentions} == {FullAttention}
    assert "sliding_window," not in shape.notes[0]


@pytest.mark.parametrize("kind", ["gemma3_text", "llama", "mistral", "qwen2", "qwen3_5_text"])
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_bare_config_is_not_filled_in(kind, key):
    whole = {
        "model_type": kind, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 128, "vocab_size": 100,
    }  # fmt: skip
    assert "leaves out" not in "".join(from_config(whole, "m").notes)
    del whole[key]
    with pytest.raises(ConfigError, match=f"has no {key}"):
        from_config(whole, "m")


def test_of_an_omni_model_the_thinker_counts_with_both_its_towers_and_nothing_of_what_talks():
    whole = shape_of("qwen2.5-omni-7b")
    thinker = config_of("qwen2.5-omni-7b")["thinker_config"]
    silent = from_config({"model_type": "qwen2_5_omni", "thinker_config": thinker}, "m")
    assert whole.tensors == silent.tensors
    towers = {t.split: t.elements for t in whole.tensors if t.name.startswith("vision_tower")}
    # The vision tower is Qwen2.5-VL's of 676 million, the audio tower Whisper large's encoder of 637 million.
    assert towers[Split.SHARDED] == pytest.approx(676.6e6, rel=0.01)
    assert towers[Split.WHOLE] == pytest.approx(637e6, rel=0.02)
    deaf = {key: value for key, value in thinker.items() if key != "audio_config"}
    without = from_config({"model_type": "qwen2_5_omni", "thinker_config": deaf}, "m")
    assert whole.parameters - without.parameters == towers[Split.WHOLE]


def test_a_tower_that_says_nothing_is_named():
    wrapper = {
        "model_type": "llava",
        "text_config": {"model_type": "llama"},
        "vision_config": {"model_type": "new"},
    }
    assert from_config(wrapper, "m").notes[-1] == (
        "Its vision_config says too little to count it: its weights are a lower bound."
    )


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("qwen3.5-27b", {"recurrent": 48, "full": 16}),
        ("kimi-linear-48b-a3b", {"recurrent": 20, "latent": 7}),
        ("olmo-hybrid-7b", {"recurrent": 24, "full": 8}),
        ("minimax-text-01", {"recurrent": 70, "full": 10}),
        ("gemma-3n-e4b-text", {"sliding": 16, "full": 4}),
        ("gemma-4-e2b", {"sliding": 12, "full": 3}),
        ("gemma-4-31b", {"sliding": 50, "full": 10}),
        ("longcat-flash", {"latent": 56}),
    ],
)
def test_layers_keep_what_they_keep(model, kinds):
    kept = [one.kind for one in shape_of(model).attentions]
    assert {kind: kept.count(kind) for kind in set(kept)} == kinds


def test_states_of_linear_attention():
    assert shape_of("minimax-text-01").attentions[0] == Recurrence(
        64 * 128 * 128, 0, 2, 2, "lightning_attention", heads=64
    )
    assert shape_of("kimi-linear-48b-a3b").attentions[0] == Recurrence(
        32 * 128 * 128, 3 * 12288, 4, 2, "kimi_delta_attention", heads=32
    )
    assert shape_of("kimi-linear-48b-a3b").attentions[3] == LatentAttention(32, 512, 64, 128, 128)


def test_minimax_in_the_form_of_transformers_is_the_same():
    config = config_of("minimax-text-01")
    types = ["full_attention" if one else "linear_attention" for one in config.pop("attn_type_list")]
    same = from_config(config | {"model_type": "minimax", "layer_types": types}, "m")
    assert same.layers == shape_of("minimax-text-01").layers
    with pytest.raises(ConfigError, match="attn_type_list or layer_types"):
        from_config(config, "m")


def test_an_inner_width_for_each_layer_is_counted_for_each():
    config = config_of("gemma-3n-e2b-text")
    narrow = shape_of("gemma-3n-e2b-text", intermediate_size=[8192] * 29 + [4096])
    assert shape_of("gemma-3n-e2b-text").parameters - narrow.parameters == 3 * 2048 * 4096
    with pytest.raises(ConfigError, match="intermediate_size"):
        from_config(config | {"intermediate_size": [8192] * 29}, "m")
    with pytest.raises(ConfigError, match="intermediate_size"):
        from_config(config | {"intermediate_size": [8192] * 29 + [-1]}, "m")


def test_deepseek_without_latent_attention():
    config = config_of("deepseek-ocr")
    assert shape_of("deepseek-ocr").attentions == (FullAttention(10, 10, 128, 128),) * 12
    latent = {
        "use_mla": True,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
    }
    again = from_config(config | {"language_config": config["language_config"] | latent}, "m")
    assert {type(kept) for kept in again.attentions} == {LatentAttention}


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        ("dbrx", "ffn_config", None),
        ("dbrx", "attn_config", None),
        ("kimi-linear-48b-a3b", "linear_attn_config", None),
        ("kimi-linear-48b-a3b", "linear_attn_config", {"num_heads": 32, "head_dim": 128}),
        ("minimax-text-01", "attn_type_list", [2] * 80),
        ("minimax-text-01", "attn_type_list", [0] * 79),
        ("olmo-hybrid-7b", "layer_types", ["linear_attention"] * 31 + ["unheard_of"]),
        ("gemma-3n-e4b-text", "layer_types", ["full_attention"] * 34 + ["chunked_attention"]),
        ("gemma-3n-e4b-text", "num_kv_shared_layers", 35),
        ("gemma-3n-e4b-text", "num_kv_shared_layers", 32),
        ("deepseek-v4-flash", "model_type", "deepseek_v4"),
    ],
)
def test_what_would_give_a_wrong_figure_is_refused(model, key, value):
    with pytest.raises(ConfigError):
        shape_of(model, **{key: value})


_LLAMA = {
    "hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 32, "intermediate_size": 11008,
    "vocab_size": 32000,
}  # fmt: skip
_MIXED = ["linear_attention", "full_attention"] * 2


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("brand_new", {"layer_types": _MIXED}),
        ("qwen3", {"layer_types": _MIXED}),
        ("llama", {"layer_types": ["mamba"] * 4}),
        ("brand_new", {"attn_type_list": [0, 1, 0, 1]}),
        ("brand_new", {"linear_attn_config": {"kda_layers": [1]}}),
        ("brand_new", {"num_kv_shared_layers": 2}),
        ("brand_new", {"kv_lora_rank": 512, "layer_group_size": 8}),
    ],
)
def test_unknown_layers_are_full_attention_and_the_note_says_which_bound_that_is(kind, said):
    shape = from_config(_LLAMA | {"model_type": kind} | said, "m")
    assert not any(isinstance(kept, Recurrence) for kept in shape.attentions)
    assert any("is an upper bound" in note for note in shape.notes)


def test_an_index_that_is_not_counted_is_named():
    config = _LLAMA | {"model_type": "deepseek_v32", "kv_lora_rank": 512, "index_topk": 2048}
    assert any(
        "index over tokens" in note and "lower bounds" in note for note in from_config(config, "m").notes
    )


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_known_layers_need_no_note(kind):
    shape = from_config(_LLAMA | {"model_type": "llama", "layer_types": [kind] * 4}, "m")
    assert shape.notes == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_CONFIGS = sorted(path.stem for path in (_HERE / "configs").iterdir())


@given(st.sampled_from(_CONFIGS), st.data())
def test_whatever_stands_anywhere_in_a_config_gives_a_shape_or_a_config_error(model, data):
    config = config_of(model)
    for _ in range(data.draw(st.integers(1, 4))):
        inside = config
        while True:
            key = data.draw(st.sampled_from(sorted(inside)))
            if not (isinstance(inside[key], dict) and inside[key]) or not data.draw(st.integers(0, 5)):
                break
            inside = inside[key]
        if data.draw(st.booleans()):
            inside[key] = data.draw(_JSON)
        elif len(inside) > 1:
            del inside[key]
    try:
        shape = from_config(config, model)
    except ConfigError:
        return
    assert shape.weights_bytes > 0
    assert rank_bytes(shape, VllmSetup(tensor_parallel_size=2)) <= shape.weights_bytes * 1.1 + 1e6
