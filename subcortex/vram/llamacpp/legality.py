"""What llama.cpp would refuse of a setup, or take for something else, each with its source file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite

from subcortex.models.gguf_types import BY_NAME
from subcortex.models.shape import LatentAttention, ModelShape, Recurrence
from subcortex.vram.setup import LlamaCppSetup
from subcortex.vram.vllm.legality import Problem

#: Cache types (``common/arg.cpp``), and those of them that split mode tensor takes (``llama-context.cpp``).
_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_WHOLE_TYPES = _CACHE_TYPES[:3]
#: Recurrent families that split mode tensor can take (``llama-arch.cpp``, llm_arch_supports_sm_tensor).
_TENSOR_FAMILIES = frozenset({"gated_delta_net"})


def split_problem(shares: Sequence[float]) -> str | None:
    """Return why shares of GPUs are none, None if they are."""
    listed = ", ".join(f"{share:g}" for share in shares)
    if not all(map(isfinite, shares)):
        return f"tensor_split {listed} has a share that is no number"
    if min(shares, default=0.0) < 0:
        return f"tensor_split {listed} has a share below nothing"
    if not any(shares):
        # llama.cpp would go by free memory then, which is what leaving it out is for
        return f"tensor_split {listed} gives no GPU anything"
    return None


def llamacpp_problems(shape: ModelShape, setup: LlamaCppSetup, gpu_count: int | None) -> Iterator[Problem]:
    """Yield everything that llama.cpp would refuse of the setup, the gravest first."""
    yield from _split(shape, setup, gpu_count)
    yield from _shares(setup, gpu_count)
    yield from _cache(setup)
    layers = len(shape.layers) + 1
    if setup.gpu_layers is not None and setup.gpu_layers < 0:
        # common/arg.cpp: what a negative number means has changed between builds
        what = f"gpu_layers {setup.gpu_layers} is not a number of layers"
        yield what, "gpu_layers", (0, layers)
    if setup.parallel < 1:
        yield f"{setup.parallel} slots serve nobody", "parallel", (1,)
    for key, tokens in (
        ("batch_tokens", setup.batch_tokens),
        ("micro_batch_tokens", setup.micro_batch_tokens),
    ):
        if tokens < 1:
            yield f"a batch of {tokens} tokens is none", key, (512,)
    yield from _context(shape, setup)


def repaired_llamacpp(shape: ModelShape, setup: LlamaCppSetup, gpu_count: int | None) -> LlamaCppSetup:
    """Return the nearest setup that llama.cpp would take; split modes give way to layers."""
    keys = {key for _, key, _ in llamacpp_problems(shape, setup, gpu_count)}
    types = _WHOLE_TYPES if setup.split_mode == "tensor" else _CACHE_TYPES
    parallel = max(1, setup.parallel)
    repaired = replace(
        setup,
        parallel=parallel,
        batch_tokens=setup.batch_tokens if setup.batch_tokens > 0 else 512,
        micro_batch_tokens=setup.micro_batch_tokens if setup.micro_batch_tokens > 0 else 512,
        gpu_layers=None if "gpu_layers" in keys else setup.gpu_layers,
        tensor_split=None if "tensor_split" in keys else setup.tensor_split,
        main_gpu=0 if "main_gpu" in keys else setup.main_gpu,
        split_mode="layer" if "split_mode" in keys else setup.split_mode,
        kv_type_k=setup.kv_type_k if setup.kv_type_k in types else "f16",
        kv_type_v=setup.kv_type_v if setup.kv_type_v in types else "f16",
        flash_attention=None if "flash_attention" in keys else setup.flash_attention,
    )
    if setup.context_tokens is not None and "context_tokens" in keys:
        trained = shape.max_context_tokens or setup.context_tokens
        each = max(1, min(setup.context_tokens // parallel, trained))
        repaired = replace(repaired, context_tokens=each * parallel)
    return repaired


def _split(shape: ModelShape, setup: LlamaCppSetup, gpu_count: int | None) -> Iterator[Problem]:
    families = {kept.family for kept in shape.attentions if isinstance(kept, Recurrence)}
    if setup.split_mode == "row" and families:
        # ggml-cuda.cu: split buffers hold nothing but matrices that are multiplied
        what = f"split mode row cannot hold the {_listed(families)} layers of {shape.name}"
        yield what, "split_mode", ("layer", "none")
    if setup.split_mode == "tensor" and (others := families - _TENSOR_FAMILIES):
        what = f"split mode tensor is not there for the {_listed(others)} layers of {shape.name}"
        yield what, "split_mode", ("layer", "none")
    latent = any(isinstance(kept, LatentAttention) for kept in shape.attentions)
    if setup.split_mode == "tensor" and latent:
        what = f"split mode tensor is not there for the latent attention of {shape.name}"
        yield what, "split_mode", ("layer", "none")
    if setup.split_mode == "tensor" and gpu_count == 0:
        # llama.cpp: at least one device
        yield "split mode tensor needs a GPU, there is none", "split_mode", ("layer", "none")


def _shares(setup: LlamaCppSetup, gpu_count: int | None) -> Iterator[Problem]:
    if setup.split_mode == "none":
        # llama.cpp, llama_model_load_from_file
        if setup.main_gpu < 0 or (gpu_count and setup.main_gpu >= gpu_count):
            count = "" if gpu_count is None else f", there are {gpu_count}"
            yield f"there is no GPU {setup.main_gpu}{count}", "main_gpu", tuple(range(gpu_count or 1))
        return
    shares = setup.tensor_split
    if shares is None:
        return
    if gpu_count and len(shares) > gpu_count:
        # common/arg.cpp
        what = f"tensor_split names {len(shares)} GPUs, there are {gpu_count}"
        yield what, "tensor_split", ((1.0,) * gpu_count,)
    elif problem := split_problem(shares):
        yield problem, "tensor_split", ((1.0,) * max(1, len(shares)),)


def _cache(setup: LlamaCppSetup) -> Iterator[Problem]:
    for key, kind in (("kv_type_k", setup.kv_type_k), ("kv_type_v", setup.kv_type_v)):
        if kind not in _CACHE_TYPES:
            yield f"llama.cpp has no cache of type {kind}", key, _CACHE_TYPES
        elif setup.split_mode == "tensor" and kind not in _WHOLE_TYPES:
            # llama-context.cpp
            yield f"split mode tensor takes no quantised cache, which {kind} is", key, _WHOLE_TYPES
    if setup.flash_attention is not False:
        return
    stored = BY_NAME.get(setup.kv_type_v.upper())
    if stored is not None and setup.kv_type_v in _CACHE_TYPES and stored.block_elements > 1:
        # llama-context.cpp
        what = f"a value cache of type {setup.kv_type_v} needs flash attention"
        yield what, "flash_attention", (True, None)
    if setup.split_mode == "tensor":
        yield "split mode tensor needs flash attention", "flash_attention", (True, None)


def _context(shape: ModelShape, setup: LlamaCppSetup) -> Iterator[Problem]:
    """``tools/server`` cuts a slot's context to the trained one, so that memory would be for nothing."""
    asked, trained, slots = setup.context_tokens, shape.max_context_tokens, max(1, setup.parallel)
    if asked is None:
        return
    if asked < 1:
        yield f"a context of {asked} tokens is none", "context_tokens", (max(1, trained),)
    elif trained and asked // slots > trained:
        what = f"a slot of {asked // slots} tokens is longer than the {trained} {shape.name} was trained for"
        yield what, "context_tokens", (trained * slots,)


def _listed(names: set[str]) -> str:
    return " and ".join(sorted(names))
