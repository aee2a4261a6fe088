"""What llama.cpp takes of each device once its layers are placed, by component. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from subcortex.models.shape import LatentAttention, ModelShape, Part, Recurrence, Tensor
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.llamacpp import buffers
from subcortex.vram.llamacpp.buffers import OUTPUTS_LIMITED_SINCE, Run, build_number
from subcortex.vram.llamacpp.layers import HOST, Placement
from subcortex.vram.setup import LlamaCppSetup

_MIB = 2**20
#: CUDA's context and the kernels and libraries a process loads, on every GPU that it sees. llama.cpp counts
#: it as "unaccounted", with the pool of temporaries: 451 to 456 MiB on RTX 4090s (its pull request 15860).
CUDA_CONTEXT = Amount(400.0, 90.0)
#: The process itself: code, metadata, graphs. Measured: 90 MiB resident with a model of 2 MB (xllamacpp).
PROCESS = Amount(100.0, 30.0)
#: Host bytes a token of the vocabulary: its text, score, merges and their tables. Assumed.
_VOCABULARY_BYTES = 400.0
#: σ of a compute buffer, as a share of it: where the form was proved against llama.cpp's own reserve, and
#: where it was not (rows or tensors split over GPUs, recurrent layers, weights borrowed from the host, builds
#: before `OUTPUTS_LIMITED_SINCE`). `bench/llamacpp_accuracy.py` says how often the truth falls within.
_PROVED_SHARE, _GUESSED_SHARE = 0.03, 0.2
_LEAST_SIGMA_MIB = 2.0
#: Bits a weight of the types that the CPU backend repacks (Q4_0, Q4_K, IQ4_NL).
_REPACKED_BITS = 4.5
#: Weights of fewer elements stay whole where matrices are cut.
_CUT_ELEMENTS = 2**20


@dataclass(frozen=True, slots=True)
class _Weights:
    """Bytes of a layer, of the output layer, or of the embedding.

    Args:
        matrices: Those that ``row`` and ``tensor`` mode cut.
        others: The rest: norms, biases, routers.
        largest: The largest tensor; the experts of a layer are one.
        repacked: Those that the CPU backend would repack.
    """

    matrices: float
    others: float
    largest: float
    repacked: float

    @property
    def all(self) -> float:
        return self.matrices + self.others


@dataclass(frozen=True, slots=True)
class Model:
    """A shape's weights summed up as llama.cpp places them."""

    shape: ModelShape
    layers: tuple[_Weights, ...]
    output: _Weights
    embedding: _Weights


#: The models that were summed last: a plan asks for the same few again and again.
_summed: deque[Model] = deque(maxlen=4)


def summed(shape: ModelShape) -> Model:
    """Sum a shape's tensors once, so that many placements can be tried."""
    # By identity, since to compare shapes takes as long as to sum one.
    for known in tuple(_summed):
        if known.shape is shape:
            return known
    found = _sums(shape)
    _summed.append(found)
    return found


def _sums(shape: ModelShape) -> Model:
    layers: list[list[Tensor]] = [[] for _ in shape.layers]
    output: list[Tensor] = []
    embedding: list[Tensor] = []
    for tensor in shape.tensors:
        if tensor.part is Part.LAYER and tensor.layer is not None:
            layers[tensor.layer].append(tensor)
        elif tensor.part is Part.EMBEDDING:
            embedding.append(tensor)
        else:
            output.append(tensor)
    return Model(shape, tuple(map(_weights, layers)), _weights(output), _weights(embedding))


def _weights(tensors: Iterable[Tensor]) -> _Weights:
    matrices = others = largest = repacked = 0.0
    for tensor in tensors:
        size = tensor.bytes * tensor.count
        largest = max(largest, size)
        if tensor.elements * tensor.count >= _CUT_ELEMENTS:
            matrices += size
        else:
            others += size
        if abs(8 * tensor.bytes / max(1, tensor.elements) - _REPACKED_BITS) < 0.01:
            repacked += size
    return _Weights(matrices, others, largest, repacked)


def needs(model: Model, setup: LlamaCppSetup, run: Run, placed: Placement) -> Footprint:
    """Return what each GPU and the host need with the layers where ``placed`` says."""
    shape = model.shape
    weights, kv = weights_bytes(model, setup, placed), kept_bytes(shape, setup, run, placed)
    compute = compute_bytes(model, setup, run, placed)
    estimated = 0.0 if shape.exact else 0.01
    devices = []
    for gpu in range(placed.gpus):
        mib = weights[gpu] / _MIB
        devices.append(
            _need(
                {
                    Component.WEIGHTS: Amount(mib, estimated * mib),
                    Component.KV: _kept(shape, kv[gpu]),
                    Component.ACTIVATIONS: _uncertain(shape, setup, placed, compute[gpu]),
                    Component.CONTEXT: CUDA_CONTEXT + _pool(shape, setup, run, placed, gpu),
                }
            )
        )
    private = private_bytes(model, setup, placed) / _MIB
    vocabulary = shape.vocabulary * _VOCABULARY_BYTES / _MIB
    host = {
        Component.WEIGHTS: Amount(private, (0.05 if setup.mmap else estimated) * private),
        Component.KV: _kept(shape, kv[HOST]),
        Component.ACTIVATIONS: _uncertain(shape, setup, placed, compute[HOST])
        + Amount(buffers.output_bytes(shape, run) / _MIB),
        Component.CONTEXT: PROCESS
        + Amount(vocabulary, vocabulary / 3)
        + Amount(setup.prompt_cache_mib / 2, setup.prompt_cache_mib / 4),
    }
    return Footprint(tuple(devices), _need(host))


def _need(components: dict[Component, Amount]) -> DeviceNeed:
    return DeviceNeed({name: part for name, part in components.items() if part.mean_mib > 0})


def _kept(shape: ModelShape, size: float) -> Amount:
    recurrent = any(isinstance(kept, Recurrence) for kept in shape.attentions)
    return Amount(size / _MIB, (0.1 if recurrent else 0.0) * size / _MIB)


def _cut_shares(setup: LlamaCppSetup, placed: Placement) -> list[float] | None:
    """Return each GPU's share of every matrix in ``row`` and ``tensor`` mode, None in the others."""
    if setup.split_mode not in ("row", "tensor") or placed.gpus < 2:
        return None
    if setup.tensor_split:
        given = [*setup.tensor_split, *([0.0] * placed.gpus)][: placed.gpus]
        return [share / sum(given) for share in given]
    if setup.split_mode == "tensor":
        return [1 / placed.gpus] * placed.gpus
    return [count / max(1, sum(placed.counts)) for count in placed.counts]


def weights_bytes(model: Model, setup: LlamaCppSetup, placed: Placement) -> dict[int, float]:
    """Return the bytes of weights by GPU, and under `HOST` those of the host, mapped or not.

    The embedding stays on the host; a tied head is a second copy of it on the output's GPU.
    """
    shares = _cut_shares(setup, placed)
    found = dict.fromkeys((HOST, *range(placed.gpus)), 0.0)
    found[HOST] = model.embedding.all
    parts = [*zip(model.layers, placed.layers, strict=True), (model.output, placed.output)]
    if model.shape.tied and placed.output != HOST:
        parts.append((model.embedding, placed.output))
    for part, where in parts:
        if where == HOST or shares is None:
            found[where] += part.all
            continue
        for gpu, share in enumerate(shares):
            found[gpu] += part.matrices * share + (part.others if setup.split_mode == "tensor" else 0.0)
        if setup.split_mode == "row":
            found[where] += part.others
    return found


def private_bytes(model: Model, setup: LlamaCppSetup, placed: Placement) -> float:
    """Return the bytes of weights that the host holds in memory of its own.

    With mmap that is what the CPU backend repacks, and it repacks without any GPU alone: with one, the GPU's
    pinned memory comes first in llama.cpp's order of preference.
    """
    if not setup.mmap:
        return weights_bytes(model, setup, placed)[HOST]
    if placed.gpus:
        return 0.0
    return model.output.repacked + sum(layer.repacked for layer in model.layers)


def kept_bytes(shape: ModelShape, setup: LlamaCppSetup, run: Run, placed: Placement) -> dict[int, float]:
    """Return the bytes of KV cells and recurrent states by GPU, and under `HOST` those of the host."""
    found = dict.fromkeys((HOST, *range(placed.gpus)), 0.0)
    shares = _cut_shares(setup, placed) if setup.split_mode == "tensor" else None
    for layer, where in zip(shape.layers, placed.layers, strict=True):
        size = buffers.layer_kept_bytes(layer, setup, run)
        if where == HOST or shares is None:
            found[where] += size
            continue
        for gpu, share in enumerate(shares):
            found[gpu] += size * share
    return found


def compute_bytes(model: Model, setup: LlamaCppSetup, run: Run, placed: Placement) -> dict[int, float]:
    """Return the bytes of the compute buffers by GPU, and under `HOST` that of the host."""
    shape = model.shape
    used = [gpu for gpu, count in enumerate(placed.counts) if count]
    # Layers on several GPUs, none on the host: a batch runs through them as a pipeline.
    pipeline = len(used) > 1 and placed.all_on_gpus and setup.split_mode == "layer"
    found = dict.fromkeys(range(placed.gpus), 0.0)
    for gpu in used:
        if gpu not in placed.layers:
            found[gpu] = buffers.head_compute_bytes(shape, run, pipeline=pipeline)
            continue
        held = [layer for layer, where in zip(shape.layers, placed.layers, strict=True) if where == gpu]
        worst, first = _worst(shape, run, placed, gpu), gpu == used[0]
        found[gpu] = buffers.gpu_compute_bytes(shape, run, held, worst, pipeline=pipeline, first=first)
    if placed.gpus and placed.on_host:
        found[0] = max(found[0], _borrowing(model, setup, run, placed))
    worst = 0.0 if placed.gpus else _worst(shape, run, placed, HOST)
    found[HOST] = buffers.host_compute_bytes(shape, run, worst, gpus=bool(placed.gpus), pipeline=pipeline)
    return found


def _worst(shape: ModelShape, run: Run, placed: Placement, where: int) -> float:
    # Layers alike are looked at once.
    final = len(shape.layers) - 1
    held = {(layer, n == final) for n, layer in enumerate(shape.layers) if placed.layers[n] == where}
    moments = [buffers.layer_elements(layer, shape.hidden, run, last=last) for layer, last in held]
    if placed.output == where:
        moments.append(buffers.head_elements(shape, run))
    return max(moments, default=0.0)


def _borrowing(model: Model, setup: LlamaCppSetup, run: Run, placed: Placement) -> float:
    on_host = [index for index, where in enumerate(placed.layers) if where == HOST]
    layers = {model.shape.layers[index] for index in on_host}
    return buffers.borrowing_compute_bytes(
        model.shape,
        run,
        tuple(layers),
        matrix_bytes=max((model.layers[index].largest for index in on_host), default=0.0),
        kept_bytes=max((buffers.layer_kept_bytes(layer, setup, run) for layer in layers), default=0.0),
    )


def _uncertain(shape: ModelShape, setup: LlamaCppSetup, placed: Placement, size: float) -> Amount:
    if size <= 0:
        return Amount()
    build = build_number(setup.version)
    guessed = (
        _cut_shares(setup, placed) is not None
        or (build is not None and build < OUTPUTS_LIMITED_SINCE)
        or (placed.gpus > 0 and placed.on_host > 0)
        or any(isinstance(kept, Recurrence) for kept in shape.attentions)
    )
    mib = size / _MIB
    return Amount(mib, max(_LEAST_SIGMA_MIB, (_GUESSED_SHARE if guessed else _PROVED_SHARE) * mib))


def _pool(shape: ModelShape, setup: LlamaCppSetup, run: Run, placed: Placement, gpu: int) -> Amount:
    """Return CUDA's pool of temporaries, which no log names: a formula alone, so σ is half of it.

    Quantised matrices take their input as q8_1 (36 bytes a 32 elements); flash attention over a quantised
    cache first makes one layer's keys and values f16 (newer builds count that as compute buffer).
    """
    if not placed.counts[gpu]:
        return Amount()
    widest = max((max(layer.intermediate, shape.hidden) for layer in shape.layers), default=shape.hidden)
    size = run.micro_batch * widest * 36 / 32
    if run.flash_attention and setup.kv_type_k.lower() not in ("f16", "bf16"):
        per_cell = [
            kept.kv_heads * (kept.key_dim + kept.value_dim)
            for kept in shape.attentions
            if not isinstance(kept, Recurrence | LatentAttention)
        ]
        size += run.context_tokens * max(per_cell, default=0) * 2
    mib = size / _MIB
    return Amount(mib, sqrt((mib / 2) ** 2 + 10.0**2))
