"""The weights that one vLLM rank holds: a shape's tensors, shared out as vLLM's layers do it. Pure.

Exact where the shape's tensors are: padding of the vocabulary, repeated key/value heads, whole experts under
expert parallelism, and the ends of a pipeline are counted, and by ``allocated_bytes`` what torch's allocator
rounds up. Not counted: what a kernel makes of quantised weights after loading.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate
from math import ceil

from subcortex.errors import InvalidRequest
from subcortex.models.shape import FullAttention, ModelShape, Part, SlidingAttention, Split, Tensor
from subcortex.vram.setup import VllmSetup

_MIB = 2**20
#: Torch's allocator, bytes: what blocks are multiples of; from which sizes on they are never split, and
#: are had from the driver one by one; and the least that is split off.
_BLOCK, _UNSPLIT, _SEGMENT, _LEAST_SPLIT = 2 * _MIB, 20 * _MIB, 10 * _MIB, _MIB
_TAIL = _MIB / 4
#: Tensors that vLLM holds as one with another.
_FUSED = {"self_attn.k_proj": "self_attn.q_proj"}
#: Rows that a vocabulary is padded to (vLLM ``vocab_parallel_embedding.py``).
VOCABULARY_PADDING = 64

_ENDS = frozenset({Part.EMBEDDING, Part.HEAD, Part.FINAL})
#: What every pipeline stage holds, used or not, because a class builds it without asking for its stage
#: (vLLM 0.26 ``model_executor/models``); other classes build each end where it belongs.
_EVERY_STAGE: dict[str, frozenset[Part]] = {
    **dict.fromkeys(
        (
            "CohereForCausalLM",
            "Cohere2ForCausalLM",
            "GemmaForCausalLM",
            "Gemma2ForCausalLM",
            "Gemma3ForCausalLM",
            "Gemma4ForCausalLM",
            "GptOssForCausalLM",
            "GraniteMoeForCausalLM",
            "GraniteMoeHybridForCausalLM",
            "GraniteMoeSharedForCausalLM",
            "InternLM2ForCausalLM",
            "JambaForCausalLM",
            "MiniCPMForCausalLM",
            "MiniCPM3ForCausalLM",
            "MixtralForCausalLM",
            "NemotronHForCausalLM",
            "Olmo3ForCausalLM",
            "OlmoeForCausalLM",
            "PhiForCausalLM",
            "PhiMoEForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3MoeForCausalLM",
            "StableLmForCausalLM",
        ),
        _ENDS,
    ),
    "Lfm2ForCausalLM": frozenset({Part.EMBEDDING}),
    "Lfm2MoeForCausalLM": frozenset({Part.EMBEDDING}),
    "Qwen3NextForCausalLM": frozenset({Part.EMBEDDING, Part.HEAD}),
    "Qwen3_5ForCausalLM": frozenset({Part.EMBEDDING}),
    "Qwen3_5MoeForCausalLM": frozenset({Part.EMBEDDING}),
}


def stages(layers: int, pipeline_parallel_size: int) -> tuple[range, ...]:
    """Return the layers of each pipeline stage as vLLM divides them.

    What is left over after an even division goes to the stages before the last one, from the back, one each
    (``get_pp_indices`` of vLLM ``distributed/utils.py``).

    Raises:
        InvalidRequest: There are fewer layers than stages, or no stage.
    """
    if not 1 <= pipeline_parallel_size <= max(1, layers):
        raise InvalidRequest(
            f"{layers} layers cannot be divided over {pipeline_parallel_size} pipeline stages",
            hint=f"Set pipeline_parallel_size to 1 to {max(1, layers)}.",
            param="pipeline_parallel_size",
        )
    each, over = divmod(layers, pipeline_parallel_size)
    last = pipeline_parallel_size - 1
    counts = [each + (last - over <= stage < last) for stage in range(pipeline_parallel_size)]
    ends = list(accumulate(counts))
    return tuple(range(end - count, end) for end, count in zip(ends, counts, strict=True))


def padded_vocabulary(rows: int) -> int:
    """Return the rows of an embedding as vLLM holds them on all ranks together."""
    return ceil(rows / VOCABULARY_PADDING) * VOCABULARY_PADDING


def kv_heads_per_rank(kv_heads: int, tensor_parallel_size: int) -> int:
    """Return the key/value heads of one rank: an equal share, at least one (vLLM ``linear.py``)."""
    return max(1, kv_heads // tensor_parallel_size)


def rank_bytes(shape: ModelShape, setup: VllmSetup, *, stage: int = 0, rank: int = 0) -> float:
    """Return the bytes of weights on one rank.

    Args:
        shape: The model.
        setup: How it is run.
        stage: Pipeline stage, from 0.
        rank: Tensor-parallel rank, from 0; it matters only where experts cannot be shared out evenly.

    Raises:
        InvalidRequest: The layers cannot be divided over the stages, or there is no such stage or rank.
    """
    return sum(held for _, held in _held(shape, setup, stage, rank))


def _held(shape: ModelShape, setup: VllmSetup, stage: int, rank: int) -> list[tuple[Tensor, float]]:
    """Return the tensors of a rank, each with its bytes there."""
    layers = stages(len(shape.layers), setup.pipeline_parallel_size)
    if not 0 <= stage < len(layers) or not 0 <= rank < setup.tensor_parallel_size:
        raise InvalidRequest(
            f"no rank {rank} of stage {stage} in TP {setup.tensor_parallel_size} x PP {len(layers)}",
            hint="Stages and ranks count from 0.",
        )
    everywhere = _EVERY_STAGE.get(shape.architecture, frozenset())
    return [
        (tensor, _share(tensor, shape, setup, rank))
        for tensor in shape.tensors
        if len(layers) == 1 or tensor.part in everywhere or _on_stage(tensor, shape, layers, stage)
    ]


def allocated_bytes(shape: ModelShape, setup: VllmSetup, *, stage: int = 0, rank: int = 0) -> float:
    """Return what torch counts for the weights of one rank: its bytes, each allocation rounded up.

    vLLM loads with ``max_split_size_mb:20``, so a block of 20 MiB or more is never shared out: it is as large
    as it was had from the driver, a multiple of 2 MiB. Below that, up to 1 MiB of a block is too little to
    split off. What vLLM holds as one tensor is one allocation: queries with keys and values, gate with up,
    and all experts' gates and ups in one, their downs in another. Blocks that rotary tables were made in are
    taken again, whole, by weights that are up to 20 MiB smaller. Arguments and errors as for ``rank_bytes``.
    """
    plain = 0.0
    blocks: dict[tuple[int | None, str], float] = defaultdict(float)
    free: list[float] = []
    repacks = shape.quantisation is not None and shape.quantisation.method == "mxfp4"
    for tensor, held in _held(shape, setup, stage, rank):
        if tensor.name.startswith("rotary"):
            # Angles, cosines and sines in float32 are each as large as the table, both together twice.
            free += [tensor.bytes] * 3 + [2 * tensor.bytes]
        padding = held * _repacked(tensor, setup) if repacks else 0.0
        plain += held + padding
        blocks[tensor.layer, _FUSED.get(tensor.name, tensor.name)] += held + padding
    parts: list[float] = []
    for (_, name), held in blocks.items():
        parts += [held * 2 / 3, held / 3] if name.endswith("experts") else [held]
    return plain + sum(_waste(part, free) for part in parts)


def _repacked(tensor: Tensor, setup: VllmSetup) -> float:
    """Return by what share repacking widens a tensor: MXFP4 experts' downs, from multiples of 64 to 128.

    Read off one model's boots (gpt-oss-20b, 84 MiB), not off vLLM's code.
    """
    if not (tensor.expert and tensor.units):
        return 0.0
    units = tensor.units if setup.expert_parallel else ceil(tensor.units / setup.tensor_parallel_size)
    return units % 2 / units / 3


def _waste(held: float, free: list[float]) -> float:
    """Return what an allocation takes beyond its bytes; a block of ``free`` that it takes is removed."""
    # Biases and scales are allocations of their own, too small to matter.
    over = 0.0 if held % _BLOCK < _TAIL else -held % _BLOCK
    if held < _UNSPLIT:
        return over if held >= _SEGMENT and over <= _LEAST_SPLIT else 0.0
    fitting = [block for block in free if held + over <= block < held + over + _UNSPLIT]
    if fitting:
        free.remove(min(fitting))
        return min(fitting) - held
    return over


def local_experts(experts: int, tensor_parallel_size: int, rank: int) -> int:
    """Return the experts of one rank under expert parallelism: the first ranks take what is over.

    vLLM ``fused_moe/expert_map_manager.py``; its expert-parallel group is the tensor-parallel one.
    """
    each, over = divmod(experts, tensor_parallel_size)
    return each + (rank < over)


def _on_stage(tensor: Tensor, shape: ModelShape, layers: tuple[range, ...], stage: int) -> bool:
    """Tell whether a stage holds the tensor; a tied head is an embedding of its own on the last stage."""
    first, last = stage == 0, stage == len(layers) - 1
    match tensor.part:
        case Part.EMBEDDING:
            return first or (last and shape.tied and tensor.split is Split.VOCABULARY)
        case Part.HEAD | Part.FINAL:
            return last
        case Part.LAYER:
            # A layer's tensor without a layer is shared by all layers, so every stage has it.
            return tensor.layer is None or tensor.layer in layers[stage]


def _share(tensor: Tensor, shape: ModelShape, setup: VllmSetup, rank: int) -> float:
    """Return the bytes of a tensor, all of its ``count``, on one rank of a stage that holds it."""
    size = setup.tensor_parallel_size
    if tensor.expert and setup.expert_parallel:
        return tensor.bytes * local_experts(tensor.count, size, rank)
    every = tensor.bytes * tensor.count
    match tensor.split:
        case Split.WHOLE:
            return every
        case Split.SHARDED:
            return every * ceil(tensor.units / size) / tensor.units if tensor.units else every / size
        case Split.VOCABULARY:
            rows = tensor.rows or shape.vocabulary
            return every * padded_vocabulary(rows) / rows / size
        case Split.KV_HEADS:
            heads = tensor.heads or _kv_heads(shape, tensor.layer)
            return every * kv_heads_per_rank(heads, size) / heads


def _kv_heads(shape: ModelShape, layer: int | None) -> int:
    """Return the key/value heads of a layer, of the first layer that has any if none is named."""
    layers = shape.layers if layer is None else shape.layers[layer : layer + 1]
    found = (
        kept.kv_heads
        for held in layers
        for kept in held.attention
        if isinstance(kept, FullAttention | SlidingAttention)
    )
    return next(found, 1)
