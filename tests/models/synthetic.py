"""GGUF files of real models' shapes: true headers over a hole instead of weights, so they cost no disk.

llama.cpp loads them (all weights read as zero); with ``no_alloc`` not even that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from subcortex.models.gguf_types import BY_NAME, FILE_TYPES
from subcortex.models.mixtures import mixture_types
from subcortex.models.stored import StoredTensor

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "qwen3moe", "deepseek2")


@dataclass(frozen=True, slots=True)
class Shape:
    """The figures of a model's configuration, under short names; MoE and MLA fields are 0 where unused."""

    layers: int = 4
    hidden: int = 256
    intermediate: int = 512
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    vocab: int = 1024
    context: int = 4096
    tied: bool = False
    rope_base: float = 10000.0
    sliding_window: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_intermediate: int = 0
    shared_experts: int = 0
    leading_dense: int = 0
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    rope_dim: int = 0
    value_dim: int = 0


#: Shapes as published in each model's config.json.
SHAPES: dict[str, tuple[str, Shape]] = {
    "llama-3.1-8b": (
        "llama",
        Shape(32, 4096, 14336, 32, 8, 128, 128256, 131072, rope_base=500000.0),
    ),
    "llama-3.2-1b": (
        "llama",
        Shape(16, 2048, 8192, 32, 8, 64, 128256, 131072, tied=True, rope_base=500000.0),
    ),
    "llama-3.1-70b": ("llama", Shape(80, 8192, 28672, 64, 8, 128, 128256, 131072, rope_base=500000.0)),
    "mixtral-8x7b": (
        "llama",
        Shape(
            32, 4096, 14336, 32, 8, 128, 32000, 32768,
            rope_base=1e6, experts=8, experts_used=2, expert_intermediate=14336,
        ),
    ),
    "qwen2.5-7b": ("qwen2", Shape(28, 3584, 18944, 28, 4, 128, 152064, 32768, rope_base=1e6)),
    "qwen2.5-0.5b": ("qwen2", Shape(24, 896, 4864, 14, 2, 64, 151936, 32768, tied=True, rope_base=1e6)),
    "qwen3-8b": ("qwen3", Shape(36, 4096, 12288, 32, 8, 128, 151936, 40960, rope_base=1e6)),
    "qwen3-30b-a3b": (
        "qwen3moe",
        Shape(
            48, 2048, 6144, 32, 4, 128, 151936, 40960,
            rope_base=1e6, experts=128, experts_used=8, expert_intermediate=768,
        ),
    ),
    "gemma-3-4b": (
        "gemma3",
        Shape(34, 2560, 10240, 8, 4, 256, 262208, 131072, tied=True, rope_base=1e6, sliding_window=1024),
    ),
    "gemma-3-12b": (
        "gemma3",
        Shape(48, 3840, 15360, 16, 8, 256, 262208, 131072, tied=True, rope_base=1e6, sliding_window=1024),
    ),
    "deepseek-v2-lite": (
        "deepseek2",
        Shape(
            27, 2048, 10944, 16, 16, 192, 102400, 163840,
            experts=64, experts_used=6, expert_intermediate=1408, shared_experts=2, leading_dense=1,
            kv_lora_rank=512, rope_dim=64, value_dim=128,
        ),
    ),
    "deepseek-v3": (
        "deepseek2",
        Shape(
            61, 7168, 18432, 128, 128, 192, 129280, 163840,
            experts=256, experts_used=8, expert_intermediate=2048, shared_experts=1, leading_dense=3,
            q_lora_rank=1536, kv_lora_rank=512, rope_dim=64, value_dim=128,
        ),
    ),
}  # fmt: skip


def tensors_of(architecture: str, shape: Shape) -> tuple[StoredTensor, ...]:
    """All tensors of a model under GGUF's names, in F32, as convert_hf_to_gguf.py names and stacks them."""
    found: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (shape.vocab, shape.hidden),
        "output_norm.weight": (shape.hidden,),
    }
    if not shape.tied:
        found["output.weight"] = (shape.vocab, shape.hidden)
    if architecture == "llama" and shape.rope_base == 500000.0:
        found["rope_freqs.weight"] = (shape.head_dim // 2,)
    for layer in range(shape.layers):
        block = _attention(architecture, shape) | _feed_forward(architecture, shape, layer)
        found.update({f"blk.{layer}.{name}": size for name, size in block.items()})
    return tuple(
        StoredTensor(name, size, "F32", BY_NAME["F32"].tensor_bytes(size)) for name, size in found.items()
    )


def _attention(architecture: str, shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, queries = shape.hidden, shape.heads * shape.head_dim
    found: dict[str, tuple[int, ...]] = {"attn_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
    if architecture == "deepseek2":
        return found | _latent(shape)
    keys = shape.kv_heads * shape.head_dim
    found |= {
        "attn_q.weight": (queries, hidden),
        "attn_k.weight": (keys, hidden),
        "attn_v.weight": (keys, hidden),
        "attn_output.weight": (hidden, queries),
    }
    if architecture == "qwen2":
        found |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
    if architecture in ("qwen3", "qwen3moe", "gemma3"):
        found |= {"attn_q_norm.weight": (shape.head_dim,), "attn_k_norm.weight": (shape.head_dim,)}
    if architecture == "gemma3":
        found |= {"post_attention_norm.weight": (hidden,), "post_ffw_norm.weight": (hidden,)}
    return found


def _latent(shape: Shape) -> dict[str, tuple[int, ...]]:
    """DeepSeek's attention, its key and value up-projections apart as converters write them since 2025."""
    hidden, nope = shape.hidden, shape.head_dim - shape.rope_dim
    queries = shape.heads * shape.head_dim
    found: dict[str, tuple[int, ...]] = {
        "attn_kv_a_mqa.weight": (shape.kv_lora_rank + shape.rope_dim, hidden),
        "attn_kv_a_norm.weight": (shape.kv_lora_rank,),
        "attn_k_b.weight": (shape.heads, shape.kv_lora_rank, nope),
        "attn_v_b.weight": (shape.heads, shape.value_dim, shape.kv_lora_rank),
        "attn_output.weight": (hidden, shape.heads * shape.value_dim),
    }
    if not shape.q_lora_rank:
        return found | {"attn_q.weight": (queries, hidden)}
    return found | {
        "attn_q_a.weight": (shape.q_lora_rank, hidden),
        "attn_q_a_norm.weight": (shape.q_lora_rank,),
        "attn_q_b.weight": (queries, shape.q_lora_rank),
    }


def _feed_forward(architecture: str, shape: Shape, layer: int) -> dict[str, tuple[int, ...]]:
    hidden, wide = shape.hidden, shape.expert_intermediate
    if not shape.experts or layer < shape.leading_dense:
        return _gated("", hidden, shape.intermediate)
    found: dict[str, tuple[int, ...]] = {"ffn_gate_inp.weight": (shape.experts, hidden)}
    for name, size in _gated("_exps", hidden, wide).items():
        found[name] = (shape.experts, *size)
    if shape.shared_experts:
        found |= _gated("_shexp", hidden, wide * shape.shared_experts)
    if architecture == "deepseek2" and shape.q_lora_rank:
        found["exp_probs_b.bias"] = (shape.experts,)
    return found


def _gated(suffix: str, hidden: int, wide: int) -> dict[str, tuple[int, ...]]:
    return {
        f"ffn_gate{suffix}.weight": (wide, hidden),
        f"ffn_up{suffix}.weight": (wide, hidden),
        f"ffn_down{suffix}.weight": (hidden, wide),
    }


def write_gguf_header(
    path: Path,
    architecture: str,
    *,
    shape: Shape | None = None,
    quantization: str = "Q4_K_M",
    tokens: bool = False,
    **figures: Any,
) -> Path:
    """Write a GGUF of a model's shape with nothing in its tensors: a header, then a hole.

    Args:
        path: Where to write; sparse, a few MB at most on the disk.
        architecture: One of ``ARCHITECTURES``, or a key of ``SHAPES``, which brings its shape along.
        shape: The figures to begin with.
        quantization: Any mixture of ``subcortex.models.mixtures``.
        tokens: Write a vocabulary of byte-level BPE with merges, as large as a real one; without, the
            vocabulary is "none" and only its size is told.
        figures: Fields of ``Shape`` to change.
    """
    if architecture in SHAPES:
        architecture, shape = SHAPES[architecture]
    shape = replace(shape or Shape(), **figures)
    writer = gguf.GGUFWriter(path, architecture)
    _write_figures(writer, architecture, shape)
    writer.add_file_type(next(number for number, name in FILE_TYPES.items() if name == quantization))
    _write_vocabulary(writer, shape, tokens=tokens)
    tensors = tensors_of(architecture, shape)
    types = mixture_types(quantization, tensors)
    end = 0
    for tensor in tensors:
        kind = BY_NAME[types[tensor.name]]
        size = kind.tensor_bytes(tensor.shape)
        raw = gguf.GGMLQuantizationType(kind.id)
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=raw)
        end += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(start + end)
    return path


def _write_figures(writer: gguf.GGUFWriter, architecture: str, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(1 if shape.kv_lora_rank else shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.vocab)
    if shape.sliding_window:
        writer.add_sliding_window(shape.sliding_window)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
        writer.add_expert_feed_forward_length(shape.expert_intermediate)
    if architecture != "deepseek2":
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        writer.add_rope_dimension_count(shape.head_dim)
        return
    writer.add_key_length(shape.kv_lora_rank + shape.rope_dim)
    writer.add_value_length(shape.kv_lora_rank)
    writer.add_key_length_mla(shape.head_dim)
    writer.add_value_length_mla(shape.value_dim)
    writer.add_kv_lora_rank(shape.kv_lora_rank)
    if shape.q_lora_rank:
        writer.add_q_lora_rank(shape.q_lora_rank)
    writer.add_rope_dimension_count(shape.rope_dim)
    writer.add_leading_dense_block_count(shape.leading_dense)
    writer.add_expert_shared_count(shape.shared_experts)
    writer.add_expert_weights_scale(1.0)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def _write_vocabulary(writer: gguf.GGUFWriter, shape: Shape, *, tokens: bool) -> None:
    if not tokens:
        writer.add_tokenizer_model("none")
        return
    words = [chr(0x4E00 + i // 676) + chr(97 + i // 26 % 26) + chr(97 + i % 26) for i in range(shape.vocab)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * shape.vocab)
    writer.add_token_merges([f"{word[0]} {word[1:]}" for word in words])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
