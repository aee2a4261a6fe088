"""The buffers of a llama.cpp context in closed form: KV, recurrent state, compute, output. Pure.

KV and states are exact. A compute buffer is what ggml-alloc makes of the graph: tensors live while they are
needed, so its size is that of the worst moment of one layer, of the head, or of the inputs. The terms below
were read off llama.cpp's own reserve (b11549, `bench/llamacpp_accuracy.py`), which they meet to the byte for
the common dense models; what is left there is σ. Every term is float32 elements a token of the micro-batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from subcortex.errors import InvalidRequest
from subcortex.models.gguf_types import BY_NAME, GgmlType
from subcortex.models.shape import (
    Attention,
    LatentAttention,
    Layer,
    ModelShape,
    Recurrence,
    SlidingAttention,
)
from subcortex.vram.setup import LlamaCppSetup

#: Builds before this reserve a row of logits for every token of a micro-batch, later ones one a slot
#: (pull request 23861, merged about 1 June 2026; b9272 of 22 May had not). The number is an estimate.
OUTPUTS_LIMITED_SINCE = 9420
_BUILD = re.compile(r"(?:\bb|^|\d{4}\.\d{1,2}\.)(?P<build>\d{4,6})(?![\w.])")
_PAD = 256
_F32, _F16, _I64 = 4, 2, 8
#: Copies of every input when a batch runs through several GPUs as a pipeline (GGML_SCHED_MAX_COPIES).
PIPELINE_COPIES = 4
#: Hidden-sized tensors that outlive a layer's worst moment: residual, norm, and the way in from the host.
_RESIDENT, _RESIDENT_CPU = 4, 5
#: The same with four copies of what enters a device: on the first GPU, on later ones, and on the host.
_RESIDENT_FIRST, _RESIDENT_LATER, _RESIDENT_HOST = 16, 11, 10
#: The same beside what a GPU borrows of a layer on the host, in its feed-forward part and in its attention.
_BORROWED_FEED, _BORROWED_ATTENTION = 2, 5


@dataclass(frozen=True, slots=True)
class Run:
    """The sizes that a context settles on from what was asked.

    Args:
        context_tokens: KV cells of full attention, all streams together.
        streams: Separate KV buffers, one a slot unless unified.
        stream_tokens: Cells of one stream.
        step_tokens: Most tokens of a step, ``n_ubatch``.
        micro_batch: Tokens that a graph is reserved for: those, rounded up to the same number a slot.
        slots: Sequences at a time.
        outputs: Rows of logits in a step.
        flash_attention: No matrix of attention scores is made.
    """

    context_tokens: int
    streams: int
    stream_tokens: int
    step_tokens: int
    micro_batch: int
    slots: int
    outputs: int
    flash_attention: bool


def run_of(shape: ModelShape, setup: LlamaCppSetup) -> Run:
    """Return the sizes that llama.cpp settles on (``llama_context``'s constructor and ``sched_reserve``).

    Raises:
        InvalidRequest: No context is known, or a quantised value cache is asked for without flash attention.
    """
    slots = max(1, setup.parallel)
    unified = setup.context_tokens is None if setup.kv_unified is None else setup.kv_unified
    streams = 1 if unified else slots
    # Without a context each stream gets what the model was trained for.
    asked = setup.context_tokens or shape.max_context_tokens * streams
    if asked <= 0:
        raise InvalidRequest(
            f"how long a context {shape.name} has is not known",
            hint="Set context_tokens.",
            param="context_tokens",
        )
    flash = setup.flash_attention is not False
    if not flash and _cache_type(setup.kv_type_v).block_elements > 1:
        raise InvalidRequest(
            f"a value cache of type {setup.kv_type_v} needs flash attention",
            hint="Leave flash_attention on, or take f16 for kv_type_v.",
            param="kv_type_v",
        )
    padded = _pad(asked)
    stream = padded if streams == 1 else _pad(padded // streams)
    batch = min(asked, setup.batch_tokens)
    micro = min(setup.micro_batch_tokens or batch, batch)
    tokens = ceil(micro / slots) * slots
    build = build_number(setup.version)
    outputs = tokens if build is not None and build < OUTPUTS_LIMITED_SINCE else slots
    return Run(stream * streams, streams, stream, micro, tokens, slots, outputs, flash)


def build_number(version: str | None) -> int | None:
    """Return llama.cpp's build of a version such as ``b9272-1d7ab2b`` or ``xllamacpp 2026.10.11549``."""
    found = _BUILD.search(version or "")
    return int(found["build"]) if found else None


def cell_bytes(kind: str, elements: int) -> float:
    """Return the bytes of ``elements`` in a cache of ggml type ``kind``.

    Raises:
        InvalidRequest: ggml has no such type.
    """
    found = _cache_type(kind)
    return elements / found.block_elements * found.block_bytes


def _cache_type(kind: str) -> GgmlType:
    found = BY_NAME.get(kind.upper())
    if found is None:
        raise InvalidRequest(
            f"llama.cpp has no cache type {kind!r}",
            hint="Known: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl.",
            param="kv_type",
        )
    return found


def _pad(tokens: int) -> int:
    return ceil(tokens / _PAD) * _PAD


def window_cells(window: int, run: Run) -> int:
    """Return the cells of one stream of a windowed layer: the window, and one micro-batch that moves it."""
    sequences = run.slots if run.streams == 1 else 1
    return min(run.stream_tokens, _pad(window * sequences + run.step_tokens))


def kept_bytes(kept: Attention, setup: LlamaCppSetup, run: Run) -> float:
    """Return the bytes that one layer keeps of the past: its KV cells, or its recurrent state.

    Latent attention keeps the compressed vector alone, in the key's type. Recurrent states are float32, one
    a slot (``llama_memory_recurrent``).
    """
    if isinstance(kept, Recurrence):
        return run.slots * (kept.state_elements + kept.conv_elements) * _F32
    if isinstance(kept, LatentAttention):
        return run.context_tokens * cell_bytes(setup.kv_type_k, kept.kv_lora_rank + kept.rope_dim)
    cells = run.context_tokens
    if isinstance(kept, SlidingAttention):
        cells = window_cells(kept.window, run) * run.streams
    keys = cell_bytes(setup.kv_type_k, kept.kv_heads * kept.key_dim)
    return cells * (keys + cell_bytes(setup.kv_type_v, kept.kv_heads * kept.value_dim))


def layer_kept_bytes(layer: Layer, setup: LlamaCppSetup, run: Run) -> float:
    """Return the bytes of all that one layer keeps."""
    return sum(kept_bytes(kept, setup, run) for kept in layer.attention)


def layer_elements(layer: Layer, hidden: int, run: Run, *, last: bool = False) -> float:
    """Return the elements a token of a layer's worst moment, without what outlives it.

    The last layer's feed-forward part sees only the tokens whose logits are wanted.
    """
    feed = _feed_forward(layer, hidden)
    worst = [feed * run.outputs / run.micro_batch if last else feed]
    worst += [_attention(kept, hidden, run) for kept in layer.attention]
    return max(worst)


def _feed_forward(layer: Layer, hidden: int) -> float:
    # Gate, up and their product live together.
    dense = (3 if layer.gated else 2) * layer.intermediate
    if layer.experts is None:
        return dense
    wide = layer.experts.top_k * layer.experts.intermediate
    down = layer.experts.top_k * hidden
    # The down-projection takes the freed gate and up if it fits in there; narrow experts all find room
    # in freed hidden-sized blocks.
    routed = 3 * wide + (down if down > 2 * wide else 0)
    return max(dense, max(2 * wide, down) if wide < 2 * hidden else routed)


def _attention(kept: Attention, hidden: int, run: Run) -> float:
    if isinstance(kept, Recurrence):
        # Inner width and its convolution; a rough figure, see the σ.
        return 6.0 * hidden
    scores = _scores(kept, run)
    if isinstance(kept, LatentAttention):
        whole, latent = kept.nope_dim + 2 * kept.rope_dim, 2 * kept.kv_lora_rank + kept.rope_dim
        # Without flash attention the values are made contiguous first: half a float each.
        copied = 0.0 if run.flash_attention else run.context_tokens * kept.kv_lora_rank / 2 / run.micro_batch
        return kept.heads * (whole + latent) + scores + copied
    queries = kept.heads * kept.key_dim
    if run.flash_attention:
        return 2 * queries
    # As wide as the residual stream they need one block more; wider, two; narrower, a freed one will do.
    return queries * ((queries >= hidden) + (queries > hidden)) + scores


def _scores(kept: Attention, run: Run) -> float:
    if run.flash_attention or isinstance(kept, Recurrence):
        return 0.0
    return kept.heads * _cells(kept, run)


def _cells(kept: Attention, run: Run) -> int:
    return window_cells(kept.window, run) if isinstance(kept, SlidingAttention) else run.stream_tokens


def input_bytes(layers: Iterable[Layer], run: Run) -> float:
    """Return the bytes of one copy of the inputs of ``layers``: masks, and the places of new values.

    A mask is tokens × cells of one stream; there is one for full and one for windowed layers. Without flash
    attention it is float32, values are kept transposed, and each of them gets an index of 8 bytes.
    """
    kept = [part for layer in set(layers) for part in layer.attention if not isinstance(part, Recurrence)]
    cells = {_cells(part, run) if isinstance(part, SlidingAttention) else -1 for part in kept}
    widths = [run.stream_tokens if found < 0 else found for found in cells]
    masks = sum(widths) * (_F16 if run.flash_attention else _F32)
    places = 0
    if not run.flash_attention:
        values = [part.kv_heads * part.value_dim for part in kept if not isinstance(part, LatentAttention)]
        places = len(cells) * max(values, default=0) * _I64
    return run.micro_batch * (masks + places)


def head_elements(shape: ModelShape, run: Run) -> float:
    """Return the elements a token of the micro-batch that the logits take."""
    return run.outputs * shape.vocabulary / run.micro_batch


def head_compute_bytes(shape: ModelShape, run: Run, *, pipeline: bool) -> float:
    """Return the compute buffer of a GPU with the output layer alone: some rows of logits and of states."""
    copies = PIPELINE_COPIES if pipeline else 1
    return run.outputs * (shape.vocabulary + (copies + 2) * shape.hidden) * _F32


def gpu_compute_bytes(
    shape: ModelShape, run: Run, layers: Sequence[Layer], worst: float, *, pipeline: bool, first: bool
) -> float:
    """Return a GPU's compute buffer.

    Args:
        shape: The model.
        run: The context's sizes.
        layers: Those on this GPU.
        worst: The largest `layer_elements` (or `head_elements`) on this GPU.
        pipeline: The batch runs through several GPUs: four copies of every input.
        first: It is the GPU with the first layers.
    """
    resident = _RESIDENT if not pipeline else _RESIDENT_FIRST if first else _RESIDENT_LATER
    copies = PIPELINE_COPIES if pipeline else 1
    graph = (worst + resident * shape.hidden) * run.micro_batch * _F32
    return graph + copies * input_bytes(layers, run)


def borrowing_compute_bytes(
    shape: ModelShape, run: Run, layers: Sequence[Layer], *, matrix_bytes: float, kept_bytes: float
) -> float:
    """Return the compute buffer of the GPU that works on layers of the host, batch by batch.

    From 32 tokens on, ggml copies the host's weights to the first GPU, one matrix at a time, and the KV cells
    of a layer with them (``op_offload``). How the copies lie between the others is ggml-alloc's luck: see σ.

    Args:
        shape: The model.
        run: The context's sizes.
        layers: Those on the host.
        matrix_bytes: Their largest matrix; the experts of a layer are one.
        kept_bytes: The KV cells of one layer.
    """
    hidden, token = shape.hidden, run.micro_batch * _F32
    wide = max((_feed_forward(layer, hidden) for layer in layers), default=0.0)
    scores = max((_scores(kept, run) for layer in layers for kept in layer.attention), default=0.0)
    feed = matrix_bytes + (wide + _BORROWED_FEED * hidden) * token
    attention = kept_bytes + (scores + _BORROWED_ATTENTION * hidden) * token
    return max(feed, attention) + input_bytes(shape.layers, run)


def host_compute_bytes(shape: ModelShape, run: Run, worst: float, *, gpus: bool, pipeline: bool) -> float:
    """Return the host's compute buffer: all of the graph without GPUs, else its inputs and embeddings.

    Args:
        shape: The model.
        run: The context's sizes.
        worst: The largest `layer_elements` without GPUs; 0 with them, see `borrowing_compute_bytes`.
        gpus: There are GPUs at all.
        pipeline: As for a GPU.
    """
    resident = _RESIDENT_HOST if pipeline else _RESIDENT if gpus else _RESIDENT_CPU
    copies = PIPELINE_COPIES if pipeline else 1
    graph = (worst + resident * shape.hidden) * run.micro_batch * _F32
    return graph + copies * input_bytes(shape.layers, run)


def output_bytes(shape: ModelShape, run: Run) -> float:
    """Return the output buffer on the host: one row of logits a slot."""
    return run.outputs * shape.vocabulary * _F32
