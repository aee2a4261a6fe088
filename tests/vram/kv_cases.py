"""vLLM's own answers about KV caches, and shapes that keep what its layers keep on one card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from subcortex.models.shape import (
    Attention,
    Experts,
    FullAttention,
    LatentAttention,
    Layer,
    ModelShape,
    Recurrence,
    SlidingAttention,
)

GIB = 2**30
_ORACLE = Path(__file__).parent / "oracle"
_BYTES = {"bfloat16": 2, "float32": 4, "fp8": 1, "fp8_e4m3": 1, "uint8": 1, "float8_e4m3fn": 1}
#: Groups of Mamba 2's heads, as the models' configs have them: a cache's spec does not say.
GROUPS = {
    "falcon-h1-7b": 1,
    "granite-4.0-h-tiny": 1,
    "mamba-codestral-7b": 8,
    "nemotron-h-8b": 8,
    "zamba2-7b": 2,
}


@cache
def oracle(name: str = "vllm-0.26.0") -> Any:
    """Return a recorded file."""
    return json.loads((_ORACLE / f"{name}.json").read_text())


def worlds(name: str, recorded: Any | None = None) -> dict[str, Any]:
    """Return what is recorded of one model, by world, refusals left out."""
    models = (recorded or oracle())["models"]
    return {world: said for world, said in models[name].items() if "groups" in said}


def kept_of(spec: dict[str, Any], name: str, heads: int = 0) -> Attention:
    """Return the attention that vLLM on one card gives such a spec."""
    match spec["class"]:
        case "MambaSpec":
            shapes, sizes = spec["shapes"], [_BYTES[dtype] for dtype in spec["dtypes"]]
            states = prod(shapes[1]) if len(shapes) > 1 else 0
            groups = GROUPS.get(name, 0)
            each = 2 * shapes[1][2] * shapes[0][0] if groups else 0
            return Recurrence(states, prod(shapes[0]), sizes[-1], sizes[0], "mamba2", 0, groups, each)
        case "MLAAttentionSpec":
            return LatentAttention(heads, spec["head_size"] - 64, 64, 128, 128)
        case "FullAttentionSpec":
            size = spec["head_size"]
            return FullAttention(heads, spec["num_kv_heads"], size, spec.get("head_size_v", size))
        case _:
            size, chunk = spec["head_size"], spec.get("attention_chunk_size", 0)
            window = chunk or spec["sliding_window"]
            return SlidingAttention(heads, spec["num_kv_heads"], size, size, window, chunked=bool(chunk))


def shape_of(name: str, attention: Sequence[Attention], **more: Any) -> ModelShape:
    """Return a model of nothing but what its layers keep."""
    layers = tuple(Layer((kept,)) for kept in attention)
    usual: dict[str, Any] = {"hidden": 1, "vocabulary": 1, "tensors": (), "max_context_tokens": 8192}
    return ModelShape(
        **{"name": name, "architecture": name, "source": "written", "layers": layers} | usual | more
    )


def flat(name: str) -> ModelShape:
    """Return the recorded model with its layers one kind after the other, as groups name them."""
    groups = worlds(name)["tp1pp1"]["groups"]
    kept = [
        one
        for group in groups
        for one in [kept_of(group["spec"], name)] * sum(group["layers_of_each"])
        if sum(group["layers_of_each"])
    ]
    return shape_of(name, kept)


def moe(shape: ModelShape, architecture: str) -> ModelShape:
    """Return the shape as a mixture of that architecture."""
    layers = tuple(replace(layer, experts=Experts(8, 2, 1)) for layer in shape.layers)
    return replace(shape, layers=layers, architecture=architecture)


def models() -> list[str]:
    """Return the recorded models that vLLM builds."""
    return [name for name in oracle()["models"] if worlds(name)]
