"""Which device llama.cpp puts each layer on. Pure.

The rule is that of ``llama_model::load_tensors``: of ``n`` layers and the output, the last ``gpu_layers``
go to GPUs; the first of them is at 0, the last at 1, and a layer belongs to the first GPU whose share, added
up, lies above its place. It is done in 32-bit floats there, so it is here: a tight split depends on it.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from subcortex.errors import InvalidRequest
from subcortex.models.shape import ModelShape
from subcortex.vram.setup import LlamaCppSetup

#: The place of a layer that no GPU holds.
HOST = -1


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each layer lies.

    Args:
        layers: For each layer the index of its GPU among those used, `HOST` for the host's memory.
        output: The same for the output layer (final norm and head).
        gpus: How many GPUs there are.
    """

    layers: tuple[int, ...]
    output: int
    gpus: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Return the layers of each GPU, the output counted as one: what ``--tensor-split`` can say."""
        counted = Counter([*self.layers, self.output])
        return tuple(counted[gpu] for gpu in range(self.gpus))

    @property
    def on_host(self) -> int:
        """Return how many layers, without the output, the host holds."""
        return self.layers.count(HOST)

    @property
    def all_on_gpus(self) -> bool:
        """Every layer and the output lie on GPUs."""
        return HOST not in self.layers and self.output != HOST


def place(
    shape: ModelShape, setup: LlamaCppSetup, free_mib: Sequence[float], *, gpu_layers: int | None = None
) -> Placement:
    """Return where llama.cpp puts each layer.

    Args:
        shape: The model.
        setup: Its ``split_mode``, ``tensor_split`` and ``main_gpu`` count.
        free_mib: Free memory of each GPU: the default proportions.
        gpu_layers: Instead of the setup's; None in both: all.

    Raises:
        InvalidRequest: The split names more GPUs than there are, or gives nothing to any, or there is no
            such main GPU.
    """
    count, gpus = len(shape.layers), len(free_mib)
    wanted = setup.gpu_layers if gpu_layers is None else gpu_layers
    active = min(count + 1 if wanted is None or wanted < 0 else wanted, count + 1)
    if not gpus or not active:
        return Placement((HOST,) * count, HOST, gpus)
    first = count + 1 - active
    if setup.split_mode == "none":
        if not 0 <= setup.main_gpu < gpus:
            raise InvalidRequest(
                f"there is no GPU {setup.main_gpu}: the setup has {gpus}",
                hint="Lower main_gpu.",
                param="main_gpu",
            )
        places = [setup.main_gpu] * active
    else:
        bounds = _bounds(setup.tensor_split, free_mib)
        places = [bisect_right(bounds, _float32((il - first) / active)) for il in range(first, count + 1)]
    places = [HOST] * first + [min(found, gpus - 1) for found in places]
    return Placement(tuple(places[:count]), places[count], gpus)


def layers_by_device(shape: ModelShape, setup: LlamaCppSetup, free_mib: Sequence[float]) -> tuple[int, ...]:
    """Return how many layers each GPU gets, the output layer counted as one; see `place`."""
    return place(shape, setup, free_mib).counts


def _bounds(split: tuple[float, ...] | None, free_mib: Sequence[float]) -> list[float]:
    gpus = len(free_mib)
    if split is not None and len(split) > gpus:
        raise InvalidRequest(
            f"the split names {len(split)} GPUs, there are {gpus}",
            hint="Give one share a GPU.",
            param="tensor_split",
        )
    shares = [*(split or ()), *([0.0] * (gpus - len(split or ())))]
    if not any(shares):
        # Without proportions, llama.cpp goes by the free bytes.
        shares = [mib * 2**20 for mib in free_mib]
    total = _float32(sum(shares))
    if min(shares) < 0 or total <= 0:
        raise InvalidRequest(
            f"a split of {', '.join(f'{share:g}' for share in shares)} leaves no GPU anything",
            hint="Give shares that are not negative, and one above 0.",
            param="tensor_split",
        )
    added = accumulate(shares, lambda so_far, share: _float32(so_far + share))
    return [_float32(bound / total) for bound in added]


def _float32(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
