"""The models that llama.cpp is asked about, as shapes and as GGUF headers over nothing."""

from __future__ import annotations

import re
from pathlib import Path

from subcortex.models.gguf_types import BY_NAME
from subcortex.models.mixtures import mixture_types
from subcortex.models.shape import (
    Attention,
    Experts,
    FullAttention,
    LatentAttention,
    Layer,
    ModelShape,
    Part,
    SlidingAttention,
    Split,
    Tensor,
)
from tests.models.synthetic import SHAPES, Shape, tensors_of, write_gguf_header

#: Every sixth layer of Gemma 3 sees everything.
_GEMMA_PERIOD = 6

MODELS: dict[str, tuple[str, Shape]] = {
    **SHAPES,
    "mistral-7b": ("llama", Shape(32, 4096, 14336, 32, 8, 128, 32768, 32768, rope_base=1e6)),
    "r1-distill-qwen-14b": ("qwen2", Shape(48, 5120, 13824, 40, 8, 128, 152064, 131072, rope_base=1e6)),
    "qwen2.5-32b": ("qwen2", Shape(64, 5120, 27648, 40, 8, 128, 152064, 131072, rope_base=1e6)),
}


def header(folder: Path, model: str, quantization: str) -> Path:
    """Write the model's header, once a folder."""
    path = folder / f"{model}.{quantization}.gguf"
    if not path.exists():
        architecture, shape = MODELS[model]
        write_gguf_header(path, architecture, shape=shape, quantization=quantization)
    return path


def model_shape(model: str, quantization: str) -> ModelShape:
    """Return the shape that a reader of the header would."""
    architecture, shape = MODELS[model]
    return shape_of(model, architecture, shape, quantization)


def shape_of(name: str, architecture: str, shape: Shape, quantization: str) -> ModelShape:
    """Return the planner's shape of a synthetic one."""
    stored = tensors_of(architecture, shape)
    types = mixture_types(quantization, stored)
    tensors = tuple(
        Tensor(
            tensor.name,
            tensor.elements,
            BY_NAME[types[tensor.name]].tensor_bytes(tensor.shape),
            Split.WHOLE,
            _part(tensor.name),
            layer=_layer(tensor.name),
            expert="_exps" in tensor.name,
        )
        for tensor in stored
    )
    layers = tuple(_layer_of(architecture, shape, index) for index in range(shape.layers))
    return ModelShape(
        name=name,
        architecture=architecture,
        source="gguf",
        hidden=shape.hidden,
        vocabulary=shape.vocab,
        layers=layers,
        tensors=tensors,
        tied=shape.tied,
        max_context_tokens=shape.context,
        exact=True,
    )


def _layer_of(architecture: str, shape: Shape, index: int) -> Layer:
    experts = None
    if shape.experts and index >= shape.leading_dense:
        wide = shape.expert_intermediate
        experts = Experts(shape.experts, shape.experts_used, wide, shape.shared_experts * wide)
    return Layer(
        (_attention(architecture, shape, index),), 0 if experts else shape.intermediate, experts, gated=True
    )


def _attention(architecture: str, shape: Shape, index: int) -> Attention:
    size = shape.head_dim
    if architecture == "deepseek2":
        nope = size - shape.rope_dim
        return LatentAttention(
            shape.heads, shape.kv_lora_rank, shape.rope_dim, nope, shape.value_dim, shape.q_lora_rank or None
        )
    if shape.sliding_window and (index + 1) % _GEMMA_PERIOD:
        return SlidingAttention(shape.heads, shape.kv_heads, size, size, shape.sliding_window)
    return FullAttention(shape.heads, shape.kv_heads, size, size)


def _layer(name: str) -> int | None:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else None


def _part(name: str) -> Part:
    if name.startswith("token_embd"):
        return Part.EMBEDDING
    if name.startswith("blk."):
        return Part.LAYER
    return Part.HEAD if name.startswith("output.") else Part.FINAL
