"""Tiers of a configuration as asks: what is written there is kept, what is left out the plan chooses."""

from __future__ import annotations

from typing import cast

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import ConfigError
from subcortex.models.shape import ModelShape
from subcortex.vram.llamacpp.legality import split_problem
from subcortex.vram.plan._given import FP8_CACHES, LLAMACPP_NAMES, VLLM_NAMES, Given
from subcortex.vram.plan.ask import Free, TierAsk
from subcortex.vram.plan.forms import on_the_fly
from subcortex.vram.setup import PROMPT_CACHE_MIB, LlamaCppSetup, SplitMode, VllmSetup

#: Context that is planned for where neither the tier nor the model says one.
FALLBACK_CONTEXT_TOKENS = 8192
_SPLIT_MODES = ("none", "layer", "row", "tensor")


def ask_from(tier: LlamaCppTier | VllmTier, shape: ModelShape, rank: int = 0) -> TierAsk:
    """Return the ask of a tier.

    Args:
        tier: As configured; its ``flags`` count too.
        shape: Its model.
        rank: Its place from least to most capable.

    Raises:
        ConfigError: A flag that decides memory has no readable value.
    """
    if isinstance(tier, VllmTier):
        return _vllm(tier, shape, rank, Given(tier.name, tier.flags, VLLM_NAMES))
    return _llamacpp(tier, shape, rank, Given(tier.name, tier.flags, LLAMACPP_NAMES))


def _vllm(tier: VllmTier, shape: ModelShape, rank: int, flags: Given) -> TierAsk:
    context = _vllm_context(tier, shape, flags)
    # vLLM takes a pool of nothing for none given.
    pool = flags.size("--kv-cache-memory-bytes", least=0) or None
    method = flags.text("--quantization")
    if shape.quantisation is None and method is not None and method.startswith("fp8"):
        shape = on_the_fly(shape)
    setup = VllmSetup(
        tensor_parallel_size=flags.whole("--tensor-parallel-size", least=1) or tier.tensor_parallel_size,
        pipeline_parallel_size=flags.whole("--pipeline-parallel-size", least=1)
        or tier.pipeline_parallel_size,
        context_tokens=context,
        max_batched_tokens=flags.size("--max-num-batched-tokens", least=1),
        max_sequences=flags.whole("--max-num-seqs", least=1),
        block_size_tokens=flags.whole("--block-size", least=1) or 16,
        kv_bytes_per_element=1.0 if flags.text("--kv-cache-dtype") in FP8_CACHES else None,
        eager=flags.switch("--enforce-eager"),
        sleep_mode=tier.sleep_mode or flags.switch("--enable-sleep-mode"),
        expert_parallel=flags.switch("--enable-expert-parallel"),
        custom_all_reduce=not flags.switch("--disable-custom-all-reduce"),
        gpu_memory_utilization=flags.share("--gpu-memory-utilization") or tier.gpu_memory_utilization,
        kv_pool_bytes=pool,
    )
    free = {Free.POOL} if pool is None and setup.gpu_memory_utilization is None else set()
    said = "tensor_parallel_size" in tier.model_fields_set or flags.has("--tensor-parallel-size")
    if not said:
        free.add(Free.TENSOR_PARALLEL)
    return TierAsk(
        name=tier.name,
        shape=shape,
        setup=setup,
        context_tokens=context,
        concurrency=min(tier.max_concurrent, setup.max_sequences or tier.max_concurrent),
        rank=rank,
        devices=None if tier.gpus is None else tuple(tier.gpus),
        start=tier.start,
        sleepable=tier.sleep_mode is not False,
        free=frozenset(free),
        model=tier.model,
        flags=tuple(tier.flags),
    )


def _vllm_context(tier: VllmTier, shape: ModelShape, flags: Given) -> int:
    """Return the longest request; a flag comes after the tier's own and so counts."""
    own = shape.max_context_tokens or FALLBACK_CONTEXT_TOKENS
    if not flags.has("--max-model-len"):
        return tier.context_tokens or own
    if str(flags.text("--max-model-len")).strip().lower() in ("auto", "-1"):
        # vLLM would go down from there to what fits; so does a person, with what the plan offers.
        return own
    return flags.size("--max-model-len", least=1) or own


def _llamacpp(tier: LlamaCppTier, shape: ModelShape, rank: int, flags: Given) -> TierAsk:
    slots = flags.whole("--parallel", least=1) or tier.parallel
    # Without a context of its own all slots share one cache of the model's length.
    shared = flags.switch("--kv-unified", otherwise=tier.context_tokens is None)
    whole = flags.whole("--ctx-size", least=0)
    if whole is None:
        whole = (tier.context_tokens or 0) * tier.parallel
    if whole == 0:
        whole = (shape.max_context_tokens or FALLBACK_CONTEXT_TOKENS) * (1 if shared else slots)
    context = whole if shared else max(1, whole // slots)
    batch = flags.whole("--batch-size", least=1) or 2048
    micro = flags.whole("--ubatch-size", least=0)
    split = _split(tier, flags)
    setup = LlamaCppSetup(
        context_tokens=whole,
        parallel=slots,
        batch_tokens=batch,
        # 0 is llama.cpp's word for as many as a batch has.
        micro_batch_tokens=512 if micro is None else micro or batch,
        gpu_layers=_layers(tier, shape, flags),
        split_mode=cast(SplitMode, flags.text("--split-mode", _SPLIT_MODES) or tier.split_mode or "layer"),
        tensor_split=split,
        main_gpu=flags.whole("--main-gpu", least=0) or 0,
        kv_type_k=flags.text("--cache-type-k") or "f16",
        kv_type_v=flags.text("--cache-type-v") or "f16",
        flash_attention=flags.on_or_off("--flash-attn"),
        kv_unified=True if shared else None,
        mmap=flags.switch("--mmap", otherwise=True),
        prompt_cache_mib=_prompt_cache(flags),
    )
    # The embedded llama.cpp has no CUDA; a binary may.
    devices: tuple[int, ...] | None = () if tier.executable is None else None
    if tier.executable is not None and tier.gpus is not None:
        devices = tuple(tier.gpus)
    return TierAsk(
        name=tier.name,
        shape=shape,
        setup=setup,
        context_tokens=context,
        concurrency=slots,
        rank=rank,
        devices=devices,
        start=tier.start,
        free=frozenset() if split else frozenset({Free.SPLIT}),
        model=tier.model,
        flags=tuple(tier.flags),
    )


def _layers(tier: LlamaCppTier, shape: ModelShape, flags: Given) -> int | None:
    """Return the layers on GPUs, None for as many as fit."""
    words = {"auto": None, "all": len(shape.layers) + 1}
    text = flags.text("--n-gpu-layers")
    if text in words:
        return words[text]
    found = flags.whole("--n-gpu-layers", least=0)
    return tier.gpu_layers if found is None else found


def _split(tier: LlamaCppTier, flags: Given) -> tuple[float, ...] | None:
    shares = flags.shares("--tensor-split")
    key = "flags" if shares else "tensor_split"
    shares = shares or (tuple(tier.tensor_split) if tier.tensor_split else None)
    if shares is not None and (problem := split_problem(shares)):
        hint = "Give shares that are not negative, and one above 0; or none, to share by free memory."
        raise ConfigError(f"tier {tier.name!r}: {problem}", hint=hint, key=key)
    return shares


def _prompt_cache(flags: Given) -> float:
    """Return the MiB that old prompts may take of host memory."""
    mib = flags.whole("--cache-ram", least=-1)
    if mib == -1:
        raise flags.wrong("--cache-ram", "a limit: no plan can promise memory without one")
    return PROMPT_CACHE_MIB if mib is None else float(mib)
