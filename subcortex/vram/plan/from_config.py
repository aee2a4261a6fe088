"""Tiers of a configuration as asks: what is written there is kept, what is left out the plan chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import ConfigError
from subcortex.models.shape import ModelShape
from subcortex.vram.plan.ask import Free, TierAsk
from subcortex.vram.setup import LlamaCppSetup, SplitMode, VllmSetup

#: Context that is planned for where neither the tier nor the model says one.
FALLBACK_CONTEXT_TOKENS = 8192
_SIZES = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "K": 1024, "M": 1024**2, "G": 1024**3}
_FP8_CACHES = ("fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc")


def ask_from(tier: LlamaCppTier | VllmTier, shape: ModelShape, rank: int = 0) -> TierAsk:
    """Return the ask of a tier.

    Args:
        tier: As configured; its ``flags`` count too.
        shape: Its model.
        rank: Its place from least to most capable.

    Raises:
        ConfigError: A flag that decides memory has no readable value.
    """
    flags = _flags(tier)
    if isinstance(tier, VllmTier):
        return _vllm(tier, shape, rank, flags)
    return _llamacpp(tier, shape, rank, flags)


def _vllm(tier: VllmTier, shape: ModelShape, rank: int, flags: _Flags) -> TierAsk:
    context = tier.context_tokens or flags.number("--max-model-len") or shape.max_context_tokens
    context = context or FALLBACK_CONTEXT_TOKENS
    pool = flags.number("--kv-cache-memory-bytes", "--kv-cache-memory")
    setup = VllmSetup(
        tensor_parallel_size=flags.number("--tensor-parallel-size", "-tp") or tier.tensor_parallel_size,
        pipeline_parallel_size=flags.number("--pipeline-parallel-size", "-pp") or tier.pipeline_parallel_size,
        context_tokens=context,
        max_batched_tokens=flags.number("--max-num-batched-tokens"),
        max_sequences=flags.number("--max-num-seqs"),
        block_size_tokens=flags.number("--block-size") or 16,
        kv_bytes_per_element=1.0 if flags.text("--kv-cache-dtype") in _FP8_CACHES else None,
        eager=flags.given("--enforce-eager"),
        sleep_mode=flags.given("--enable-sleep-mode"),
        expert_parallel=flags.given("--enable-expert-parallel"),
        custom_all_reduce=not flags.given("--disable-custom-all-reduce"),
        gpu_memory_utilization=flags.fraction("--gpu-memory-utilization") or tier.gpu_memory_utilization,
        kv_pool_bytes=pool,
    )
    free = {Free.POOL} if pool is None and setup.gpu_memory_utilization is None else set()
    if "tensor_parallel_size" not in tier.model_fields_set and setup.tensor_parallel_size == 1:
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
        sleepable=True,
        free=frozenset(free),
        model=tier.model,
        flags=tuple(tier.flags),
    )


def _llamacpp(tier: LlamaCppTier, shape: ModelShape, rank: int, flags: _Flags) -> TierAsk:
    context = tier.context_tokens or shape.max_context_tokens or FALLBACK_CONTEXT_TOKENS
    # Without a context of its own all slots share one cache of the model's length.
    shared = tier.context_tokens is None
    layers = flags.number("--n-gpu-layers", "-ngl")
    flash = flags.text("--flash-attn", "-fa")
    setup = LlamaCppSetup(
        context_tokens=context if shared else context * tier.parallel,
        parallel=tier.parallel,
        batch_tokens=flags.number("--batch-size", "-b") or 2048,
        micro_batch_tokens=flags.number("--ubatch-size", "-ub") or 512,
        gpu_layers=tier.gpu_layers if layers is None else layers,
        split_mode=cast(SplitMode, flags.text("--split-mode", "-sm") or tier.split_mode or "layer"),
        tensor_split=tuple(tier.tensor_split) if tier.tensor_split else None,
        main_gpu=flags.number("--main-gpu", "-mg") or 0,
        kv_type_k=flags.text("--cache-type-k", "-ctk") or "f16",
        kv_type_v=flags.text("--cache-type-v", "-ctv") or "f16",
        flash_attention=None if flash in (None, "auto") else flash not in ("off", "false", "0"),
        kv_unified=True if shared or flags.given("--kv-unified", "-kvu") else None,
        mmap=not flags.given("--no-mmap"),
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
        concurrency=tier.parallel,
        rank=rank,
        devices=devices,
        start=tier.start,
        free=frozenset() if tier.tensor_split else frozenset({Free.SPLIT}),
        model=tier.model,
        flags=tuple(tier.flags),
    )


class _Flags:
    """Flags of an engine, read by name: ``--name value`` and ``--name=value``."""

    def __init__(self, tier: str, values: Mapping[str, str | None]) -> None:
        self._tier = tier
        self._values = values

    def given(self, *names: str) -> bool:
        return any(name in self._values for name in names)

    def text(self, *names: str) -> str | None:
        return next((self._values[name] for name in names if name in self._values), None)

    def number(self, *names: str) -> int | None:
        text = self.text(*names)
        if text is None:
            return None
        factor = _SIZES.get(text[-1:] if not text[-1:].isdigit() else "")
        digits = text if text[-1:].isdigit() else text[:-1]
        try:
            return int(float(digits) * (factor or 0) + 0.5) if factor else int(text)
        except ValueError:
            raise self._unreadable(names[0], text, "a number") from None

    def fraction(self, name: str) -> float | None:
        text = self.text(name)
        try:
            return None if text is None else float(text)
        except ValueError:
            raise self._unreadable(name, text or "", "a share, e.g. 0.9") from None

    def _unreadable(self, name: str, text: str, wanted: str) -> ConfigError:
        return ConfigError(
            f"tier {self._tier!r}: {name} is {text!r}, which is not {wanted}",
            hint="Mend it in the tier's flags.",
            key="flags",
        )


def _flags(tier: LlamaCppTier | VllmTier) -> _Flags:
    words: Sequence[str] = tier.flags
    found: dict[str, str | None] = {}
    for place, word in enumerate(words):
        if not word.startswith("-") or is_number(word):
            continue
        name, equals, value = word.partition("=")
        after = words[place + 1] if place + 1 < len(words) else None
        if not equals and after is not None and (not after.startswith("-") or is_number(after)):
            value, equals = after, "="
        # vLLM reads underscores as dashes.
        found["--" + name[2:].replace("_", "-") if name.startswith("--") else name] = (
            value if equals else None
        )
    return _Flags(tier.name, found)


def is_number(word: str) -> bool:
    """Return whether a word that may begin with a dash is a number, not a flag."""
    return word.lstrip("-").replace(".", "", 1).isdigit()
