"""What vLLM 0.26 would refuse of a setup, rule by rule, each with the vLLM file that has it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from subcortex.hardware import Gpu
from subcortex.models.shape import (
    Attention,
    FullAttention,
    LatentAttention,
    Layer,
    ModelShape,
    Quantisation,
    Recurrence,
    SlidingAttention,
)
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.kv_groups import KERNEL_BLOCK_TOKENS
from subcortex.vram.vllm.weights import kv_heads_per_rank, padded_vocabulary, stages

#: What is wrong, the setting, and its nearest legal values.
Problem = tuple[str, str, tuple[object, ...]]

#: Least compute capability of a card that vLLM serves: Turing. Its builds for CUDA 12.8 and newer have no
#: kernels for older ones (``CMakeLists.txt``), and its FP8 and AWQ ask for as much
#: (``layers/quantization``, get_min_capability).
LEAST_CAPABILITY = (7, 5)

#: Architectures whose classes do not implement ``SupportsPP`` (vLLM ``model_executor/models``).
_WITHOUT_PIPELINE = frozenset(
    {"Gemma3nForCausalLM", "Mamba2ForCausalLM", "OuroForCausalLM", "Zamba2ForCausalLM"}
)
#: How far to look for legal sizes where the number of GPUs is not known.
_USUAL_GPUS = 8
#: Methods whose groups vLLM pads or does not check against tensor parallelism.
_PADDED_METHODS = frozenset({"mxfp4", "gguf", "bitsandbytes"})


def runs_on(gpu: Gpu) -> bool:
    """Return whether vLLM serves a card; one whose compute capability is not known is taken to be new."""
    return gpu.compute_capability is None or gpu.compute_capability >= LEAST_CAPABILITY


def tensor_parallel_problems(shape: ModelShape, size: int, *, expert_parallel: bool = False) -> list[str]:
    """Return why the model cannot be split over ``size`` ranks, a sentence each; none if it can.

    Args:
        shape: The model.
        size: Tensor-parallel ranks.
        expert_parallel: Experts are shared out whole, so their width does not matter.
    """
    if size < 1:
        return [f"tensor_parallel_size {size} is not a number of ranks"]
    if size == 1:
        return []
    known = _seen(shape)
    key = size, expert_parallel
    if key not in known.problems:
        known.problems[key] = _tensor_parallel_problems(shape, known, size, expert_parallel=expert_parallel)
    return known.problems[key]


@dataclass(slots=True)
class _Seen:
    """What many questions about one shape share; to compare its layers is what takes the time."""

    shape: ModelShape
    attentions: tuple[Attention, ...]
    layers: tuple[Layer, ...]
    problems: dict[tuple[int, bool], list[str]] = field(default_factory=dict)
    idle: dict[int, bool] = field(default_factory=dict)


#: The shapes asked about last, told apart by identity.
_last_seen: deque[_Seen] = deque(maxlen=8)


def _seen(shape: ModelShape) -> _Seen:
    for known in tuple(_last_seen):
        if known.shape is shape:
            return known
    found = _Seen(shape, tuple(dict.fromkeys(shape.attentions)), tuple(dict.fromkeys(shape.layers)))
    _last_seen.append(found)
    return found


def _tensor_parallel_problems(
    shape: ModelShape, known: _Seen, size: int, *, expert_parallel: bool
) -> list[str]:
    found = [
        *(text for kept in known.attentions for text in _attention(kept, size)),
        *_vocabulary(shape, size),
    ]
    for name, width in _widths(known, expert_parallel=expert_parallel):
        if width % size:
            found.append(f"the {name}'s {width} columns do not divide by tensor_parallel_size {size}")
        elif shape.quantisation:
            found += _quantised_input(name, width, shape.quantisation, size)
            found += _quantised_output(name, width, shape.quantisation, size)
    if shape.quantisation:
        found += _quantised_attention(known, shape.quantisation, size)
    return list(dict.fromkeys(found))


def legal_sizes(shape: ModelShape, most: int, *, expert_parallel: bool = False) -> tuple[int, ...]:
    """Return the tensor-parallel sizes up to ``most`` that the model can be split over."""
    sizes = range(1, most + 1)
    return tuple(s for s in sizes if not tensor_parallel_problems(shape, s, expert_parallel=expert_parallel))


def legal_depths(shape: ModelShape, most: int) -> tuple[int, ...]:
    """Return the pipeline sizes up to ``most`` that the model can be cut into."""
    if shape.architecture in _WITHOUT_PIPELINE:
        return (1,)
    depths = range(1, min(most, max(1, len(shape.layers))) + 1)
    known = _seen(shape)
    for depth in depths:
        if depth not in known.idle:
            known.idle[depth] = _idle_stage(shape, depth)
    return tuple(depth for depth in depths if not known.idle[depth])


def vllm_problems(shape: ModelShape, setup: VllmSetup, gpu_count: int | None) -> Iterator[Problem]:
    """Yield everything that vLLM would refuse of the setup, the gravest first."""
    if shape.not_loaded:
        # models/quantisation.py has vLLM's rules of what it loads
        yield shape.not_loaded.rstrip("."), "quantization", ()
    yield from _parallel(shape, setup, gpu_count)
    # config/model.py, _get_and_verify_max_len
    context, trained = setup.context_tokens, shape.max_context_tokens
    if context is not None and trained and context > trained:
        what = f"a context of {context} tokens is longer than the {trained} that {shape.name} was trained for"
        yield what, "context_tokens", (trained,)
    if context is not None and context < 1:
        yield f"a context of {context} tokens is none", "context_tokens", (max(1, trained),)
    # config/scheduler.py
    batched, sequences = setup.max_batched_tokens, setup.max_sequences
    if batched is not None and sequences is not None and batched < sequences:
        what = f"a step of {batched} tokens cannot serve {sequences} sequences, each of which takes one"
        yield what, "max_batched_tokens", (sequences,)
    # flash_attn.py and its fellows: multiples of 16
    if setup.block_size_tokens < 1 or setup.block_size_tokens % KERNEL_BLOCK_TOKENS:
        what = f"blocks of {setup.block_size_tokens} tokens are not a multiple of {KERNEL_BLOCK_TOKENS}"
        yield what, "block_size_tokens", (_block(setup.block_size_tokens),)
    share = setup.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        what = f"a gpu_memory_utilization of {share:g} is no share of a card"
        yield what, "gpu_memory_utilization", (0.9,)


def repaired_vllm(shape: ModelShape, setup: VllmSetup, gpu_count: int | None) -> VllmSetup | None:
    """Return the nearest setup that vLLM would take, None if there is none (no GPU, weights that it refuses).

    The split over GPUs gives way first, to smaller sizes; other settings go to their nearest legal value.
    """
    if (gpu_count is not None and gpu_count < 1) or shape.not_loaded:
        return None
    experts = setup.expert_parallel and shape.is_moe
    wanted = max(1, setup.tensor_parallel_size)
    most = wanted if gpu_count is None else min(wanted, gpu_count)
    size = legal_sizes(shape, most, expert_parallel=experts)[-1]
    depth = max(1, setup.pipeline_parallel_size)
    depth = depth if gpu_count is None else min(depth, gpu_count // size)
    trained, context, batched = shape.max_context_tokens, setup.context_tokens, setup.max_batched_tokens
    if context is not None:
        context = max(1, min(context, trained or context))
    if batched is not None:
        batched = max(batched, setup.max_sequences or 0)
    share = setup.gpu_memory_utilization
    return replace(
        setup,
        tensor_parallel_size=size,
        pipeline_parallel_size=legal_depths(shape, depth)[-1],
        expert_parallel=experts,
        context_tokens=context,
        max_batched_tokens=batched,
        block_size_tokens=_block(setup.block_size_tokens),
        gpu_memory_utilization=share if share is None or 0 < share <= 1 else 0.9,
    )


def _block(tokens: int) -> int:
    return max(KERNEL_BLOCK_TOKENS, tokens // KERNEL_BLOCK_TOKENS * KERNEL_BLOCK_TOKENS)


def _parallel(shape: ModelShape, setup: VllmSetup, gpu_count: int | None) -> Iterator[Problem]:
    size, depth = setup.tensor_parallel_size, setup.pipeline_parallel_size
    experts = setup.expert_parallel and shape.is_moe
    for what in tensor_parallel_problems(shape, size, expert_parallel=experts):
        yield what, "tensor_parallel_size", _sizes(shape, setup, gpu_count)
    if setup.expert_parallel and not shape.is_moe:
        # config/model.py, _verify_with_expert_parallelism
        yield f"{shape.name} has no experts to share out", "expert_parallel", (False,)
    depths = legal_depths(shape, max(1, depth, gpu_count or _USUAL_GPUS))
    if depth not in depths:
        yield _depth_problem(shape, depth), "pipeline_parallel_size", depths
    if gpu_count is not None and size * depth > gpu_count:
        what = (
            f"tensor_parallel_size {size} times pipeline_parallel_size {depth} takes {size * depth} GPUs, "
            f"there are {gpu_count}"
        )
        if depth > 1 and 0 < size <= gpu_count:
            yield what, "pipeline_parallel_size", tuple(d for d in depths if d * size <= gpu_count)
        else:
            fitting = (s for s in _sizes(shape, setup, gpu_count) if s * max(1, depth) <= gpu_count)
            yield what, "tensor_parallel_size", tuple(fitting)


def _sizes(shape: ModelShape, setup: VllmSetup, gpu_count: int | None) -> tuple[int, ...]:
    experts = setup.expert_parallel and shape.is_moe
    most = max(setup.tensor_parallel_size, gpu_count or _USUAL_GPUS)
    return legal_sizes(shape, most, expert_parallel=experts)


def _depth_problem(shape: ModelShape, depth: int) -> str:
    if depth < 1:
        return f"pipeline_parallel_size {depth} is not a number of stages"
    if shape.architecture in _WITHOUT_PIPELINE:
        # config/model.py, verify_with_parallel_config
        return f"vLLM has no pipeline parallelism for {shape.architecture}"
    if depth > len(shape.layers):
        return f"{len(shape.layers)} layers cannot be divided over {depth} pipeline stages"
    return f"with {depth} pipeline stages one has no layer that keeps anything of the past"


def _idle_stage(shape: ModelShape, depth: int) -> bool:
    """Tell whether a stage has no layer with a cache, which ``kv_cache_utils.py`` does not allow."""
    keeps = [bool(layer.attention) for layer in shape.layers]
    return any(keeps) and not all(any(keeps[i] for i in stage) for stage in stages(len(keeps), depth))


def _attention(kept: Attention, size: int) -> Iterator[str]:
    match kept:
        case Recurrence():
            # mamba_mixer2.py; the delta nets' layers divide both kinds of heads
            if kept.heads % size:
                yield f"{kept.heads} recurrent heads do not divide by tensor_parallel_size {size}"
            repeated = kept.groups == 1 and kept.family == "mamba2"
            if kept.groups % size and not repeated:
                yield f"{kept.groups} groups of recurrent heads do not divide by tensor_parallel_size {size}"
        case FullAttention() | SlidingAttention() | LatentAttention():
            # config/model.py, verify_with_parallel_config
            if kept.heads % size:
                yield f"{kept.heads} attention heads do not divide by tensor_parallel_size {size}"
            elif not isinstance(kept, LatentAttention) and kept.kv_heads % size and size % kept.kv_heads:
                # linear.py, QKVParallelLinear: shared out, or repeated evenly
                yield f"{kept.kv_heads} key/value heads cannot be shared out over tensor_parallel_size {size}"


def _vocabulary(shape: ModelShape, size: int) -> Iterator[str]:
    """``vocab_parallel_embedding.py`` pads to 64 rows alone: only sizes that are no power of two can fail."""
    rows = padded_vocabulary(shape.vocabulary)
    if rows % size:
        yield f"a vocabulary padded to {rows} rows does not divide by tensor_parallel_size {size}"


def _widths(known: _Seen, *, expert_parallel: bool) -> list[tuple[str, int]]:
    """Return the inner widths that tensor parallelism cuts (``linear.py``, ``fused_moe/config.py``)."""
    found: list[tuple[str, int]] = []
    for layer in known.layers:
        found.append(("feed-forward part", layer.intermediate))
        if layer.experts:
            found.append(("shared expert", layer.experts.shared_intermediate))
            if not expert_parallel:
                found.append(("expert", layer.experts.intermediate))
    return [(name, width) for name, width in dict.fromkeys(found) if width]


def _quantised_input(name: str, width: int, quantisation: Quantisation, size: int) -> Iterator[str]:
    """Rows that a rank has of a down- or output projection must be whole groups and blocks.

    Groups: ``distributed/utils.py`` (verify_group_size_divides_partition), ``marlin_utils.py``,
    ``auto_awq.py``; GPTQ on Hopper (``machete.py``) is built with a group cut in two between ranks, whose
    scales then belong to neither. Blocks: ``fp8_utils.py`` (validate_fp8_block_shape), for experts
    ``fp8.py``.
    """
    group = quantisation.group_size
    if group > 0 and quantisation.method not in _PADDED_METHODS and width % (group * size):
        yield (
            f"the {name}'s {width} columns are {width / group:g} groups of {group}, which do not divide by "
            f"tensor_parallel_size {size}"
        )
    if quantisation.block and width % (quantisation.block[1] * size):
        yield _blocks(name, width, quantisation.block[1], size)


def _quantised_output(name: str, width: int, quantisation: Quantisation, size: int) -> Iterator[str]:
    """Columns that a rank has of an up- or query projection must be whole blocks (``fp8_utils.py``)."""
    if quantisation.block and width % (quantisation.block[0] * size):
        yield _blocks(name, width, quantisation.block[0], size)


def _blocks(name: str, width: int, block: int, size: int) -> str:
    return (
        f"the {name}'s {width} columns are {width / block:g} blocks of {block}, which do not divide by "
        f"tensor_parallel_size {size}"
    )


def _quantised_attention(known: _Seen, quantisation: Quantisation, size: int) -> Iterator[str]:
    for kept in known.attentions:
        if isinstance(kept, Recurrence) or kept.heads % size:
            continue
        yield from _quantised_input("attention output", kept.heads * kept.value_dim, quantisation, size)
        for name, width in _projections(kept, size).items():
            yield from _quantised_output(name, width, quantisation, size)


def _projections(kept: FullAttention | SlidingAttention | LatentAttention, size: int) -> dict[str, int]:
    """Return the widths of the projections into attention, repeated key/value heads included."""
    if isinstance(kept, LatentAttention):
        return {
            "query projection": kept.heads * (kept.nope_dim + kept.rope_dim),
            "key/value projection": kept.heads * (kept.nope_dim + kept.value_dim),
        }
    repeated = kv_heads_per_rank(kept.kv_heads, size) * size
    return {
        "query projection": kept.heads * kept.key_dim,
        "key projection": repeated * kept.key_dim,
        "value projection": repeated * kept.value_dim,
    }
