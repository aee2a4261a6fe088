"""The language model inside a multimodal config. Pure.

A wrapper's file leaves out of its text part what equals the class's default, so those figures are needed
to read it: they are facts of transformers' configuration classes. A language model's own file is not
filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from subcortex.models._config import Config

#: Where multimodal configs keep the language model. Of Qwen's omni models vLLM loads the thinker alone.
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")
_DEEPEST = 2

#: What the text part of a wrapper is, if neither says: by the wrapper's ``model_type``.
_TEXT_KINDS = {
    "aya_vision": "cohere2",
    "deepseek_vl_v2": "deepseek_v2",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "idefics3": "llama",
    "internvl": "qwen2",
    "llama4": "llama4_text",
    "llava": "llama",
    "llava_next": "llama",
    "llava_next_video": "llama",
    "llava_onevision": "qwen2",
    "mistral3": "mistral",
    "paligemma": "gemma",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_audio": "qwen2",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "smolvlm": "llama",
    "ultravox": "llama",
    "video_llava": "llama",
    "vipllava": "llama",
}

_ORDER = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def _sizes(*figures: int, **more: Any) -> dict[str, Any]:
    return dict(zip(_ORDER, figures, strict=True)) | more


_QWEN2_VL = _sizes(152064, 8192, 29568, 80, 64, num_key_value_heads=8, max_position_embeddings=32768)
_QWEN3_5 = {
    "num_attention_heads": 16, "head_dim": 256, "max_position_embeddings": 32768, "vocab_size": 248320,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32,
}  # fmt: skip

#: Defaults of transformers 5 by ``model_type``; a key that a class leaves open (None) is not here.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "cohere2": _sizes(
        256000, 8192, 22528, 40, 64, num_key_value_heads=64, max_position_embeddings=8192, sliding_window=4096
    ),
    "gemma": _sizes(
        256000, 3072, 24576, 28, 16, num_key_value_heads=16, head_dim=256, max_position_embeddings=8192
    ),
    "gemma2": _sizes(
        256000, 2304, 9216, 26, 8, num_key_value_heads=4, head_dim=256, max_position_embeddings=8192,
        sliding_window=4096,
    ),
    "gemma3_text": _sizes(
        262208, 2304, 9216, 26, 8, num_key_value_heads=4, head_dim=256, max_position_embeddings=131072,
        sliding_window=4096, sliding_window_pattern=6,
    ),
    "gemma3n_text": _sizes(
        262400, 2048, 16384, 35, 8, num_key_value_heads=2, head_dim=256, max_position_embeddings=32768,
        sliding_window=512, num_kv_shared_layers=15,
    ),
    "gemma4_text": _sizes(
        262144, 2304, 9216, 30, 8, num_key_value_heads=4, head_dim=256, max_position_embeddings=131072,
        sliding_window=512, hidden_size_per_layer_input=256,
    ),
    "llama": _sizes(32000, 4096, 11008, 32, 32, max_position_embeddings=2048),
    "llama4_text": _sizes(
        202048, 5120, 8192, 48, 40, num_key_value_heads=8, head_dim=128, max_position_embeddings=131072,
        intermediate_size_mlp=16384, num_local_experts=16, attention_chunk_size=8192,
    ),
    "mistral": _sizes(
        32000, 4096, 14336, 32, 32, num_key_value_heads=8, max_position_embeddings=131072, sliding_window=4096
    ),
    "mixtral": _sizes(
        32000, 4096, 14336, 32, 32, num_key_value_heads=8, max_position_embeddings=131072,
        num_local_experts=8, num_experts_per_tok=2,
    ),
    "phi3": _sizes(32064, 3072, 8192, 32, 32, max_position_embeddings=4096),
    "qwen2": _sizes(151936, 4096, 22016, 32, 32, num_key_value_heads=32, max_position_embeddings=32768),
    "qwen2_vl_text": _QWEN2_VL,
    "qwen2_5_vl_text": _QWEN2_VL,
    "qwen2_5_omni_text": _sizes(
        152064, 3584, 18944, 28, 28, num_key_value_heads=4, max_position_embeddings=32768
    ),
    "qwen3": _sizes(
        151936, 4096, 22016, 32, 32, num_key_value_heads=32, head_dim=128, max_position_embeddings=32768
    ),
    "qwen3_moe": _sizes(
        151936, 2048, 6144, 24, 32, num_key_value_heads=4, max_position_embeddings=32768,
        moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
    ),
    "qwen3_vl_text": _sizes(
        151936, 4096, 22016, 32, 32, num_key_value_heads=32, head_dim=128, max_position_embeddings=128000
    ),
    "qwen3_vl_moe_text": _sizes(
        151936, 2048, 5632, 24, 16, num_key_value_heads=16, max_position_embeddings=128000,
        moe_intermediate_size=1408, num_experts=60, num_experts_per_tok=4,
    ),
    "qwen3_5_text": _QWEN3_5 | {
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32, "num_key_value_heads": 4,
    },
    "qwen3_5_moe_text": _QWEN3_5 | {
        "hidden_size": 2048, "num_hidden_layers": 40, "num_key_value_heads": 2, "num_experts": 256,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts_per_tok": 8,
    },
}  # fmt: skip
#: Names under which files hold the same figure.
_SAME = (("num_experts", "num_local_experts"), ("sliding_window_pattern", "_sliding_window_pattern"))
#: A window of either name, and the layers that have it, may stand in the file already.
_LOCAL_BASE = {"gemma3_text": 10000.0, "gemma3n_text": 10000.0}


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A file's language model.

    Args:
        text: Its object, whole; the file itself if that is the language model's.
        around: The objects that it lies in, the file first; the file alone if nothing lies in it.
        notes: What was filled in.
    """

    text: Config
    around: tuple[Config, ...]
    notes: tuple[str, ...] = ()


def unwrapped(file: Config) -> Wrapped:
    """Return the language model of a config.json, with its class's defaults where it is a wrapper's part.

    Raises:
        ConfigError: What should be an object is none.
    """
    around, text = [file], file
    for _ in range(_DEEPEST):
        inner = next((found for key in _TEXT if (found := text.inside(key))), None)
        if inner is None:
            break
        around.append(text := inner)
    if text is file:
        return Wrapped(file, (file,))
    return _filled(text, tuple(around[:-1]))


def _filled(text: Config, around: tuple[Config, ...]) -> Wrapped:
    outer = next((said for one in reversed(around) if (said := one.text("model_type"))), "")
    kind = text.text("model_type") or _TEXT_KINDS.get(outer, outer)
    there = set(text.values)
    for names in _SAME:
        there |= set(names) if there & set(names) else set()
    absent = {key: value for key, value in _DEFAULTS.get(kind, {}).items() if key not in there}
    if not absent:
        return Wrapped(text.with_values({"model_type": kind}), around)
    note = f"Its config leaves out {', '.join(sorted(absent))}: taken from transformers' defaults for {kind}."
    if kind in _LOCAL_BASE and not there & {"rope_parameters", "rope_local_base_freq"}:
        absent["rope_local_base_freq"] = _LOCAL_BASE[kind]
    return Wrapped(text.with_values({"model_type": kind, **absent}), around, (note,))
