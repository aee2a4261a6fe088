"""How an engine is to be run: the settings that decide its memory. Pure values.

``None`` means the engine's own default; the estimate then fills in what that engine would choose on the
card at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SplitMode = Literal["none", "layer", "row", "tensor"]

#: Most host memory that our llama.cpp keeps old prompts in, MiB (``engines/llamacpp.py`` sets it).
PROMPT_CACHE_MIB = 512.0


@dataclass(frozen=True, slots=True)
class VllmSetup:
    """A vLLM instance.

    Args:
        tensor_parallel_size, pipeline_parallel_size: Ranks; TP · PP GPUs in all, TP neighbours first.
        context_tokens: ``--max-model-len``; None: the model's own.
        max_batched_tokens: ``--max-num-batched-tokens``: tokens in one step.
        max_sequences: ``--max-num-seqs``: requests in one step.
        block_size_tokens: Tokens in a KV block.
        kv_bytes_per_element: 2 for bf16, 1 for an FP8 cache.
        eager: ``--enforce-eager``: no compilation and no CUDA graphs.
        sleep_mode: ``--enable-sleep-mode``: weights and KV in the allocator that can give them back.
        expert_parallel: ``--enable-expert-parallel``: whole experts shared out.
        custom_all_reduce: False under ``--disable-custom-all-reduce``.
        gpu_memory_utilization: Share of the card that sizes the pool, unless ``kv_pool_bytes`` does.
        kv_pool_bytes: ``--kv-cache-memory-bytes``, a GPU.
        version: vLLM's, e.g. ``0.26.0``; None if unknown.
    """

    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    context_tokens: int | None = None
    max_batched_tokens: int | None = None
    max_sequences: int | None = None
    block_size_tokens: int = 16
    kv_bytes_per_element: float | None = None
    eager: bool = False
    sleep_mode: bool = False
    expert_parallel: bool = False
    custom_all_reduce: bool = True
    gpu_memory_utilization: float | None = None
    kv_pool_bytes: int | None = None
    version: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs that it takes."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True)
class LlamaCppSetup:
    """A llama.cpp server.

    Args:
        context_tokens: ``--ctx-size``, shared by all slots; None: the model's own.
        parallel: ``--parallel``: slots.
        batch_tokens, micro_batch_tokens: ``--batch-size``, ``--ubatch-size``.
        gpu_layers: ``--n-gpu-layers``; None: all that fit. Counts the output layer as one more.
        split_mode: ``--split-mode``.
        tensor_split: ``--tensor-split``: the share of each GPU; None: by free memory.
        main_gpu: ``--main-gpu``.
        kv_type_k, kv_type_v: ``--cache-type-k`` and ``-v``, as ggml names types.
        flash_attention: ``--flash-attn``; None: the engine's choice (on where the backend can).
        kv_unified: One KV buffer for all slots; None: the engine's choice.
        mmap: Weights on the host stay in the page cache.
        prompt_cache_mib: ``--cache-ram``: most host memory for old prompts.
        version: Build of llama.cpp, None if unknown.
    """

    context_tokens: int | None = None
    parallel: int = 1
    batch_tokens: int = 2048
    micro_batch_tokens: int = 512
    gpu_layers: int | None = None
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] | None = None
    main_gpu: int = 0
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    flash_attention: bool | None = None
    kv_unified: bool | None = None
    mmap: bool = True
    prompt_cache_mib: float = PROMPT_CACHE_MIB
    version: str | None = None


Setup = VllmSetup | LlamaCppSetup
