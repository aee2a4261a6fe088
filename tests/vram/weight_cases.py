"""Shapes made of the tensors that vLLM's own code holds on one card, for what several cards hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from subcortex.models.shape import FullAttention, Layer, ModelShape, Part, Split, Tensor
from tests.vram.kv_cases import oracle

_CONFIGS = Path(__file__).parents[2] / "bench" / "shapes"
#: How vLLM's layers divide what they hold, by the end of its name; the first that matches.
_SPLITS: tuple[tuple[str, Split], ...] = (
    (r"(embed_tokens|lm_head|wte)\.weight", Split.VOCABULARY),
    (r"norm\.(weight|bias)", Split.WHOLE),
    (r"layernorm\.(weight|bias)", Split.WHOLE),
    (r"(gate|router|mlp\.shared_expert_gate)\.(weight|bias|e_score_correction_bias)", Split.WHOLE),
    (r"(kv_a_proj_with_mqa|fused_qkv_a_proj)\.weight(_scale_inv)?", Split.WHOLE),
    (r"(o_proj|down_proj|c_proj)\.bias", Split.WHOLE),
    (
        r"(o_proj|down_proj|gate_up_proj|c_fc|c_proj|q_proj|q_b_proj|kv_b_proj)\.(weight|weight_scale_inv)",
        Split.SHARDED,
    ),
    (r"(gate_up_proj|c_fc)\.bias", Split.SHARDED),
    (r"(w13|w2)_weight(_scale_inv)?", Split.SHARDED),
    (r"qkv_proj\.(weight|bias|weight_scale_inv)", Split.KV_HEADS),
)


def config_of(name: str) -> dict[str, Any]:
    """Return a model's config."""
    found: dict[str, Any] = json.loads((_CONFIGS / name / "config.json").read_text())
    return found


def held_of(name: str) -> ModelShape | None:
    """Return the model as one card holds it, spread evenly over its layers; None if a tensor is unknown."""
    config, kinds = config_of(name), oracle()["models"][name]["tp1pp1"]["stages"][0]["kinds"]["parameter"]
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    kv_heads = config.get("num_key_value_heads") or heads
    tensors: list[Tensor] = []
    for kind, size in kinds.items():
        split = next((split for end, split in _SPLITS if re.search(rf"{end}$", kind)), None)
        if split is None:
            return None
        tensors += _spread(kind, size, split, (heads, kv_heads), layers, config["vocab_size"])
    dim = config.get("head_dim") or config["hidden_size"] // heads
    return ModelShape(
        name=name,
        architecture=config["architectures"][0],
        source="written",
        hidden=config["hidden_size"],
        vocabulary=config["vocab_size"],
        layers=(Layer((FullAttention(heads, kv_heads, dim, dim),)),) * layers,
        tensors=tuple(tensors),
        tied="lm_head.weight" not in kinds,
    )


def _spread(
    kind: str, size: int, split: Split, heads: tuple[int, int], layers: int, vocabulary: int
) -> list[Tensor]:
    if split is Split.VOCABULARY:
        padded = -(-vocabulary // 64) * 64
        part = Part.HEAD if kind.startswith("lm_head") else Part.EMBEDDING
        return [Tensor(kind, 0, size * vocabulary / padded, split, part, rows=vocabulary)]
    if ".layers." not in kind and ".h." not in kind:
        return [Tensor(kind, 0, size, split, Part.FINAL)]
    expert = "routed_experts" in kind
    if split is not Split.KV_HEADS:
        each = size / layers
        return [Tensor(kind, 0, each, split, layer=layer, expert=expert) for layer in range(layers)]
    queries, keys = heads
    one = size / layers / (queries + 2 * keys)
    return [
        Tensor(kind, 0, one * count, how, layer=layer)
        for layer in range(layers)
        for count, how in ((queries, Split.SHARDED), (2 * keys, split))
    ]
