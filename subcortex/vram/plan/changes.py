"""What may be changed of an ask so that it fits. Pure."""

from __future__ import annotations

from dataclasses import replace

from subcortex.vram.plan.ask import EVERYTHING, Free, TierAsk
from subcortex.vram.setup import LlamaCppSetup, VllmSetup

#: Small batches: tokens and sequences of one step of vLLM, tokens of a micro-batch of llama.cpp.
_FEW_TOKENS, _FEW_SEQUENCES, _FEW_MICRO_TOKENS = 2048, 16, 128


def any_layout(ask: TierAsk) -> TierAsk:
    """Return the ask on any GPUs, in any layout."""
    free = ask.free | (EVERYTHING - {Free.POOL})
    setup = ask.setup
    if isinstance(setup, LlamaCppSetup):
        mode = "layer" if setup.split_mode == "none" else setup.split_mode
        setup = replace(setup, split_mode=mode, tensor_split=None)
    # Host memory alone was a wish of its own; it is not turned into GPUs.
    devices = ask.devices if ask.devices == () else None
    return replace(ask, free=free, setup=setup, devices=devices)


def one_request(ask: TierAsk) -> TierAsk:
    """Return the ask with a pool of any size, on any GPUs."""
    ask = any_layout(ask)
    setup = ask.setup
    if isinstance(setup, LlamaCppSetup):
        setup = replace(setup, parallel=1, context_tokens=ask.context_tokens)
    else:
        setup = replace(setup, kv_pool_bytes=None, gpu_memory_utilization=None)
    return replace(ask, setup=setup, free=ask.free | {Free.POOL})


def small_batches(ask: TierAsk) -> TierAsk:
    """Return the ask with small batches, and a pool of any size on any GPUs."""
    ask = one_request(ask)
    setup = ask.setup
    if isinstance(setup, LlamaCppSetup):
        few = min(_FEW_MICRO_TOKENS, setup.micro_batch_tokens)
        return replace(ask, setup=replace(setup, micro_batch_tokens=few))
    tokens = min(_FEW_TOKENS, setup.max_batched_tokens or _FEW_TOKENS)
    sequences = min(_FEW_SEQUENCES, setup.max_sequences or _FEW_SEQUENCES)
    small = replace(setup, max_batched_tokens=tokens, max_sequences=sequences)
    return replace(ask, setup=small, concurrency=min(ask.concurrency, sequences))


def eager(ask: TierAsk) -> TierAsk:
    """Return the ask in small batches and, on vLLM, without CUDA graphs."""
    ask = small_batches(ask)
    return replace(ask, setup=replace(ask.setup, eager=True)) if isinstance(ask.setup, VllmSetup) else ask


def small_cache(ask: TierAsk) -> TierAsk:
    """Return the ask with a cache of 8 bits; the same where it has one."""
    setup = ask.setup
    if isinstance(setup, LlamaCppSetup):
        small = replace(setup, kv_type_k="q8_0", kv_type_v="q8_0", flash_attention=True)
        return replace(ask, setup=small) if setup.kv_type_k in ("f16", "bf16", "f32") else ask
    return replace(ask, setup=replace(setup, kv_bytes_per_element=1.0))
