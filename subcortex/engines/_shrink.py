"""What a start that ran out of memory may ask less of: only what the config leaves open. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.engines._flags import last_named
from subcortex.errors import DoesNotFit, SubcortexError
from subcortex.types import BootFigures

#: Below these a tier is hardly of use, and memory is short by more than such steps give.
LEAST_CONTEXT_TOKENS, LEAST_BATCHED_TOKENS = 2048, 1024
_CONTEXT_STEP_TOKENS = 256
#: Of the context that vLLM says would just fit, since what is free differs a little at each start.
_OF_LARGEST_CONTEXT = 0.95
#: vLLM's own share of a card, where its log did not say it, and how much less leaves room for its graphs.
_USUAL_UTILISATION, _UTILISATION_STEP = 0.92, 0.07
#: A share that has to fall by more than this has no room for the weights, as a rule.
_LARGEST_FALL = 0.5


@dataclass(frozen=True, slots=True)
class Lowered:
    """What starts ask for in place of the engine's own choice; None where that stands."""

    context_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    max_batched_tokens: int | None = None
    max_sequences: int | None = None


def for_llamacpp(
    tier: LlamaCppTier, failure: SubcortexError | None, figures: BootFigures | None, now: Lowered
) -> tuple[Lowered, str] | None:
    """Return what to ask for next and how to say it; None if nothing is open or nothing helps."""
    pinned = last_named(tier.flags, "--ctx-size") or "-c" in tier.flags or "LLAMA_ARG_CTX_SIZE" in tier.env
    if not isinstance(failure, DoesNotFit) or tier.context_tokens is not None or pinned:
        return None
    # It says its context once the weights are there: before that they were what was too large.
    context = figures.context_tokens if figures else None
    if context is None:
        return None
    return _context(now, context, context // 2)


def for_vllm(
    tier: VllmTier, failure: SubcortexError | None, figures: BootFigures | None, now: Lowered
) -> tuple[Lowered, str] | None:
    """Return what to ask for next and how to say it; None if nothing is open or nothing helps."""
    if not isinstance(failure, DoesNotFit):
        return None
    said = failure.details
    if said.get("utilization") is not None:
        return _share(tier, now, said["utilization"], said["possible_utilization"])
    if said.get("context_tokens") is not None:
        return _vllm_context(tier, now, said)
    if figures is not None and figures.kv_tokens is not None:
        # The pool was there, and what came after it (the graphs, the sampler) had no room.
        share = now.gpu_memory_utilization or figures.gpu_memory_utilization or _USUAL_UTILISATION
        return _share(tier, now, share, round(share - _UTILISATION_STEP, 2))
    if figures is None or not any("weights" in device.components for device in figures.devices):
        return None
    return _batch(tier, figures, now)


def _share(tier: VllmTier, now: Lowered, was: float, possible: float) -> tuple[Lowered, str] | None:
    pinned = last_named(tier.flags, "--gpu-memory-utilization", "--kv-cache-memory-bytes")
    if tier.gpu_memory_utilization is not None or pinned or not was * (1 - _LARGEST_FALL) <= possible < was:
        return None
    return replace(now, gpu_memory_utilization=possible), f"gpu_memory_utilization {was:g} → {possible:g}"


def _vllm_context(tier: VllmTier, now: Lowered, said: dict[str, Any]) -> tuple[Lowered, str] | None:
    if tier.context_tokens is not None or last_named(tier.flags, "--max-model-len"):
        return None
    asked, largest = said["context_tokens"], said.get("largest_context_tokens")
    return _context(now, asked, int(largest * _OF_LARGEST_CONTEXT) if largest else asked // 2)


def _context(now: Lowered, was: int, possible: int) -> tuple[Lowered, str] | None:
    tokens = max(possible // _CONTEXT_STEP_TOKENS * _CONTEXT_STEP_TOKENS, LEAST_CONTEXT_TOKENS)
    if tokens >= was or possible < LEAST_CONTEXT_TOKENS // 2:
        return None
    return replace(now, context_tokens=tokens), f"context {was} → {tokens} tokens"


def _batch(tier: VllmTier, figures: BootFigures, now: Lowered) -> tuple[Lowered, str] | None:
    words = []
    batched = now.max_batched_tokens or figures.max_batched_tokens
    # Without chunks one step must hold the longest request.
    open_ = figures.chunked_prefill is not False and not last_named(tier.flags, "--max-num-batched-tokens")
    if batched is not None and batched // 2 >= LEAST_BATCHED_TOKENS and open_:
        now = replace(now, max_batched_tokens=batched // 2)
        words.append(f"tokens a step {batched} → {batched // 2}")
    if now.max_sequences is None and not last_named(tier.flags, "--max-num-seqs"):
        # More at once than the tier is given need no buffers.
        now = replace(now, max_sequences=tier.max_concurrent)
        words.append(f"requests a step → {tier.max_concurrent}")
    return (now, ", ".join(words)) if words else None
