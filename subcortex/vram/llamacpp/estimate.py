"""What llama.cpp takes of each device, by component, and a split that fits. Pure; MiB.

Weights, KV and output are exact where the shape was read from a file's header; compute buffers are closed
forms with what they missed as σ; the CUDA context and the pool of temporaries, which llama.cpp's log does not
name, have a wide σ until boots have taught better. Devices are the GPUs in the order given: llama.cpp counts
as CUDA does, so give CUDA the same order (``CUDA_DEVICE_ORDER=PCI_BUS_ID``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from subcortex.errors import DoesNotFit
from subcortex.hardware import Gpu
from subcortex.models.shape import ModelShape
from subcortex.vram.footprint import Component, Footprint
from subcortex.vram.llamacpp.buffers import Run, run_of
from subcortex.vram.llamacpp.devices import Model, needs, private_bytes, summed, weights_bytes
from subcortex.vram.llamacpp.layers import HOST, Placement, place
from subcortex.vram.setup import LlamaCppSetup

_MIB = 2**20
#: Of more GPUs not every move of a layer is tried, but so many, to so many GPUs.
_MANY_GPUS, _MOST_MOVES, _TAKERS = 8, 12, 4


def footprint(
    shape: ModelShape,
    setup: LlamaCppSetup,
    gpus: Sequence[Gpu],
    *,
    probability: float = 0.95,
) -> Footprint:
    """Return what llama.cpp takes of each of ``gpus`` and of the host.

    On the host, ``weights`` are those in memory of its own: repacked, or all of them without mmap. Pages of a
    mapped file are the system's to drop and not counted; see `mapped_mib`.

    Args:
        shape: The model, best from a GGUF header.
        setup: How it is to run. ``gpu_layers`` None: as many as fit at ``probability``.
        gpus: The GPUs that it sees, in CUDA's order; none for the CPU alone.
        probability: Of fitting, where layers are to be chosen.

    Raises:
        InvalidRequest: The setup contradicts itself, the model or the GPUs.
    """
    placed = placement(shape, setup, gpus, probability=probability)
    return needs(summed(shape), setup, run_of(shape, setup), placed)


def placement(
    shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu], *, probability: float = 0.95
) -> Placement:
    """Return where each layer goes; without ``gpu_layers``, as many to GPUs as fit at ``probability``.

    Raises:
        InvalidRequest: As `place` does.
    """
    layers = setup.gpu_layers
    if layers is None and gpus:
        layers = max_gpu_layers(shape, setup, gpus, probability=probability)
    return place(shape, setup, [gpu.memory_free_mib for gpu in gpus], gpu_layers=layers)


def mapped_mib(shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu]) -> float:
    """Return the MiB of weights on the host that stay pages of the mapped file; 0 without mmap.

    The system may drop and read them again; a layer that is computed on the host wants them resident.
    """
    if not setup.mmap:
        return 0.0
    model, placed = summed(shape), placement(shape, setup, gpus)
    return (weights_bytes(model, setup, placed)[HOST] - private_bytes(model, setup, placed)) / _MIB


def max_gpu_layers(
    shape: ModelShape,
    setup: LlamaCppSetup,
    gpus: Sequence[Gpu],
    *,
    probability: float = 0.95,
    margin_mib: float = 0.0,
) -> int:
    """Return the most layers, the output counted as one, that fit in what the GPUs have free; 0 if none.

    llama.cpp's own fitting keeps 1024 MiB of each GPU free: give that as ``margin_mib`` to think like it.

    Raises:
        InvalidRequest: As `place` does.
    """
    free = [gpu.memory_free_mib - margin_mib for gpu in gpus]
    offered = [gpu.memory_free_mib for gpu in gpus]
    model, run = summed(shape), run_of(shape, setup)
    for layers in range(len(shape.layers) + 1, 0, -1):
        placed = place(shape, setup, offered, gpu_layers=layers)
        if min(_shares_free(model, setup, run, placed, free, probability)) >= 0:
            return layers
    return 0


def best_split(
    shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu], *, probability: float = 0.95
) -> tuple[int, ...]:
    """Return the layers of each GPU, the output counted as one, that leave the fullest GPU emptiest.

    Whole numbers of layers, ready for ``--tensor-split``: llama.cpp's rounding gives exactly these. From the
    split by free memory, single layers move as long as the least share that stays free grows, or, where it
    cannot, the next least; whether it is above nothing is not asked. Of more than eight GPUs a few layers
    move, each from the fullest GPU to one of the emptiest.

    Args:
        shape: The model.
        setup: Its own ``tensor_split`` is not looked at; ``gpu_layers`` None: all.
        gpus: At least one with memory free, in CUDA's order.
        probability: That each GPU is measured at.

    Raises:
        InvalidRequest: No GPU has memory free.
    """
    setup = replace(setup, split_mode="layer", tensor_split=None)
    free = [gpu.memory_free_mib for gpu in gpus]
    model, run = summed(shape), run_of(shape, setup)

    def room(counts: tuple[int, ...]) -> list[float]:
        split, placed = _split(shape, setup, counts)
        return _shares_free(model, split, run, placed, free, probability)

    many = len(gpus) > _MANY_GPUS
    best = place(shape, setup, free).counts
    best_room = room(best)
    for _ in range(_MOST_MOVES) if many else count():
        others = _neighbours(best, *(_ends(best_room) if many else ()))
        found, counts = max(((sorted(room(one)), one) for one in others), default=(sorted(best_room), best))
        if found <= sorted(best_room):
            break
        best, best_room = counts, room(counts)
    return best


def tensor_split_for(
    shape: ModelShape, gpus: Sequence[Gpu], setup: LlamaCppSetup, *, probability: float = 0.95
) -> tuple[int, ...]:
    """Return proportions for ``--tensor-split`` that fit; see `best_split`.

    Raises:
        DoesNotFit: No split fits; says how much is short, of what and on which GPU.
        InvalidRequest: No GPU has memory free.
    """
    counts = best_split(shape, setup, gpus, probability=probability)
    split, placed = _split(shape, replace(setup, split_mode="layer"), counts)
    needed = needs(summed(shape), split, run_of(shape, split), placed).devices
    short = [
        need.total.at(probability) - gpu.memory_free_mib if count else 0.0
        for need, gpu, count in zip(needed, gpus, counts, strict=True)
    ]
    worst = max(range(len(gpus)), key=short.__getitem__)
    if short[worst] <= 0:
        return counts
    gpu, need = gpus[worst], needed[worst]
    largest = max(need.components, key=lambda component: need.of(component).mean_mib)
    raise DoesNotFit(
        f"{shape.name} does not fit: GPU {gpu.index} ({gpu.name}) has {gpu.memory_free_mib / 1024:.2f} GiB "
        f"free and needs {need.total.at(probability) / 1024:.2f}, {short[worst] / 1024:.2f} more, "
        f"most of it for {largest}",
        hint="Lower context_tokens or parallel, take a smaller quantisation or kv type, or lower gpu_layers.",
        gpu=gpu.index,
        short_gib=round(short[worst] / 1024, 3),
        component=str(largest),
    )


def _split(
    shape: ModelShape, setup: LlamaCppSetup, counts: tuple[int, ...]
) -> tuple[LlamaCppSetup, Placement]:
    split = replace(setup, tensor_split=tuple(map(float, counts)), gpu_layers=sum(counts))
    return split, place(shape, split, [1.0] * len(counts))


def _ends(shares_free: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return the fullest GPU, and the emptiest."""
    order = sorted(range(len(shares_free)), key=shares_free.__getitem__)
    return order[:1], order[-_TAKERS:]


def _neighbours(
    counts: tuple[int, ...], givers: Sequence[int] | None = None, takers: Sequence[int] | None = None
) -> list[tuple[int, ...]]:
    """Return the splits that the move of one layer to another GPU makes, between all if none are named."""
    found = []
    everyone = range(len(counts))
    for giver in everyone if givers is None else givers:
        had = counts[giver]
        for taker in everyone if takers is None else takers:
            if had and giver != taker:
                moved = list(counts)
                moved[giver] -= 1
                moved[taker] += 1
                found.append(tuple(moved))
    return found


def _shares_free(
    model: Model,
    setup: LlamaCppSetup,
    run: Run,
    placed: Placement,
    free: Sequence[float],
    probability: float,
) -> list[float]:
    """Return the share of each GPU that stays free; below 0 where one overflows.

    A GPU without work counts as free: nothing is gained by giving it some for its own sake.
    """
    return [
        (mib - need.total.at(probability)) / max(mib, 1.0) if need.of(Component.ACTIVATIONS).mean_mib else 1.0
        for need, mib in zip(needs(model, setup, run, placed).devices, free, strict=True)
    ]
