"""A first estimate of an engine's memory, per GPU: weights and KV by formula, the rest by constants.

Good enough to choose models for a new machine. Each constant leans to the large side, so that what is
said to fit does; none claims to be exact. All sizes are MiB.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 2**20

#: Share of a card that its driver, a display and rounding may take from what is sold.
RESERVED_SHARE = 0.03

#: vLLM, a process and GPU. Sources: its boot logs on H200 (v0.26, 8B and 70B): CUDA context 0.45 GiB, memory
#: outside torch up to 0.22 GiB, NCCL with the custom all-reduce 0.9 to 1.4 GiB at TP=2.
VLLM_CONTEXT_MIB = 460.0
VLLM_NON_TORCH_MIB = 240.0
VLLM_COMMUNICATION_MIB = 1200.0
#: Same logs: activations 1.1 to 1.2 GiB and graphs 1.0 to 1.5 GiB at vLLM's defaults (8192 batched tokens).
#: Both shrink with the batch; the small figures are for 2048 batched tokens and 16 sequences, and assumed.
VLLM_ACTIVATIONS_MIB, VLLM_GRAPHS_MIB = 1250.0, 1600.0
VLLM_SMALL_ACTIVATIONS_MIB, VLLM_SMALL_GRAPHS_MIB = 600.0, 600.0

#: llama.cpp, a process and GPU: CUDA context about 300 MiB, compute buffers 250 to 400 MiB at a micro-batch
#: of 512 (512 · vocabulary · 4 bytes of logits alone are 250 MiB at 128k).
LLAMACPP_GPU_MIB = 700.0
#: llama.cpp on the CPU: compute buffers and the process itself.
LLAMACPP_HOST_MIB = 400.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model decides its memory.

    Args:
        weights_mib: All weights together, as stored in memory.
        layers: Layers that keep a KV cache.
        kv_heads: Key/value heads a layer; with grouped queries fewer than the attention heads.
        head_dim: Elements a head.
    """

    weights_mib: float
    layers: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Need:
    """What one engine takes of one GPU (or of host memory), MiB."""

    weights_mib: float
    kv_mib: float
    overhead_mib: float

    @property
    def total_mib(self) -> float:
        """All of it together."""
        return self.weights_mib + self.kv_mib + self.overhead_mib


def weights_mib(parameters: float, bits: float) -> float:
    """Return parameters · bits / 8 as MiB. Quantised files also store scales: 4-bit is about 4.5 to 5."""
    return parameters * bits / 8 / _MIB


def kv_mib_per_token(shape: Shape, *, tensor_parallel_size: int = 1, bytes_per_element: float = 2.0) -> float:
    """Return the KV cache of one token on one GPU: 2 · layers · kv_heads / TP · head_dim · bytes.

    Key/value heads, not attention heads; where TP exceeds them, each rank keeps one (vLLM
    ``kv_cache_interface``).
    """
    heads = max(1.0, shape.kv_heads / tensor_parallel_size)
    return 2 * shape.layers * heads * shape.head_dim * bytes_per_element / _MIB


def vllm_need(
    shape: Shape, *, kv_tokens: int, tensor_parallel_size: int = 1, small_batches: bool = False
) -> Need:
    """Return what a vLLM instance takes of each of its GPUs with a pool of ``kv_tokens`` tokens.

    Args:
        small_batches: At most 2048 batched tokens and 16 sequences, instead of vLLM's defaults.
    """
    overhead = VLLM_CONTEXT_MIB + VLLM_NON_TORCH_MIB
    overhead += VLLM_SMALL_ACTIVATIONS_MIB if small_batches else VLLM_ACTIVATIONS_MIB
    overhead += VLLM_SMALL_GRAPHS_MIB if small_batches else VLLM_GRAPHS_MIB
    if tensor_parallel_size > 1:
        overhead += VLLM_COMMUNICATION_MIB
    kv = kv_tokens * kv_mib_per_token(shape, tensor_parallel_size=tensor_parallel_size)
    return Need(shape.weights_mib / tensor_parallel_size, kv, overhead)


def llamacpp_need(shape: Shape, *, kv_tokens: int, share: float = 1.0, on_gpu: bool = True) -> Need:
    """Return what llama.cpp takes of a GPU that holds ``share`` of the layers, or of host memory.

    A layer's KV lies where the layer lies; the buffers are needed whole on every GPU.
    """
    overhead = LLAMACPP_GPU_MIB if on_gpu else LLAMACPP_HOST_MIB
    return Need(shape.weights_mib * share, kv_tokens * kv_mib_per_token(shape) * share, overhead)


def usable_mib(total_mib: float, used_mib: float = 0.0) -> float:
    """Return what may be planned on a card: its total less what others use and the reserve."""
    return max(0.0, total_mib * (1 - RESERVED_SHARE) - used_mib)
