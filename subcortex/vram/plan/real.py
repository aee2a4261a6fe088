"""The estimates of this project as the plan asks for them, and what other forms of a model there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

from subcortex.errors import SubcortexError
from subcortex.hardware import Gpu, Hardware
from subcortex.hardware.cards import card_for
from subcortex.hardware.links import Link, slowest_link
from subcortex.models.shape import ModelShape, Part
from subcortex.vram import legality, llamacpp, vllm
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, Footprint
from subcortex.vram.learning.boots import BootKey, setup_json
from subcortex.vram.learning.calibration import Calibration
from subcortex.vram.plan import forms
from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.estimator import Illegal, KvPool
from subcortex.vram.plan.variants import Variant
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup

_PAGES_IN_RESERVE_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class LlamaCppPool:
    """llama.cpp's cache as the plan sees it: every slot has the same length."""

    def request_bytes(self, length: int, /) -> float:
        """Return nothing: what slots take is part of the footprint."""
        return 0.0

    def requests(self, pool_bytes: float, length: int, /) -> float:
        """Return one; slots are counted, not sized."""
        return 1.0

    def tokens(self, pool_bytes: float, context_tokens: int, /) -> int:
        """Return the length of a slot."""
        return context_tokens


class Estimates:
    """What this project knows of engines, as an :class:`Estimator`.

    Args:
        hardware: The machine, for its links and host memory.
        calibration: What boots have taught; None for none.
        mapped: Count the pages of mapped weights that are computed on the host: a plan wants them resident,
            while what a start is compared with counts an engine's own memory alone.
    """

    def __init__(
        self, hardware: Hardware, calibration: Calibration | None = None, *, mapped: bool = True
    ) -> None:
        self._hardware = hardware
        self._calibration = calibration
        self._mapped = mapped

    def footprint(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Footprint:
        """Return what an engine takes of each GPU and of the host, corrected by boots of its kind.

        Boots of the same model are known by the shape's name.
        """
        calibration = self._calibration
        if isinstance(setup, VllmSetup) and gpus:
            return vllm.footprint(shape, setup, gpus, calibration=calibration, model=shape.name)
        if isinstance(setup, VllmSetup):
            found = vllm.footprint(shape, setup, ())
        else:
            found = llamacpp.footprint(shape, setup, gpus)
        if calibration is not None:
            key = _key(setup, gpus)
            found = calibration.corrected(found, key, model=shape.name, setup=setup_json(setup))
        if isinstance(setup, LlamaCppSetup) and self._mapped:
            # The first GiB of pages lives in what the host's budget keeps free for the page cache.
            pages = Amount(max(0.0, llamacpp.mapped_mib(shape, setup, gpus) - _PAGES_IN_RESERVE_MIB))
            weights = found.host.of(Component.WEIGHTS) + pages
            found = replace(found, host=found.host.but(Component.WEIGHTS, weights))
        return found

    def pools(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Sequence[KvPool]:
        """Return how each pipeline stage keeps keys and values."""
        if isinstance(setup, LlamaCppSetup):
            return [LlamaCppPool()]
        return vllm.pools(shape, vllm.resolved(setup, shape, gpus[0] if gpus else None))

    def refusals(self, shape: ModelShape, setup: Setup, gpu_count: int) -> Sequence[Illegal]:
        """Return why the engine would not take a setup."""
        # Without any GPU the ranks are processes on the host.
        on_host = isinstance(setup, VllmSetup) and gpu_count == 0 and not self._hardware.gpus
        return legality.refusals(shape, setup, gpu_count=None if on_host else gpu_count)

    def split(self, shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu]) -> tuple[float, ...]:
        """Return whole layers for each GPU; where not even all cards together have the room, shares of it."""
        free = [gpu.memory_free_mib for gpu in gpus]
        if shape.weights_bytes / 2**20 * _on_gpus(shape, setup) < sum(free):
            try:
                return tuple(map(float, llamacpp.tensor_split_for(shape, gpus, setup)))
            except SubcortexError:
                # Nothing fits; the plan finds that out by itself, and says how much is short.
                pass
        return tuple(max(1.0, round(mib)) for mib in free)

    def quantised(self, ask: TierAsk) -> Sequence[Variant]:
        """Return quantisations of a model, the best first."""
        return forms.quantised(ask, on_gpus=self._on_gpus(ask))

    def smaller(self, ask: TierAsk) -> Sequence[Variant]:
        """Return smaller models of its family, the largest first."""
        return forms.smaller(ask, on_gpus=self._on_gpus(ask))

    def _on_gpus(self, ask: TierAsk) -> bool:
        return bool(self._hardware.gpus) and ask.devices != ()

    def link_between(self, gpus: Sequence[Gpu]) -> Link | None:
        """Return the slowest link between GPUs, None for one alone."""
        return slowest_link(self._hardware, [gpu.index for gpu in gpus])

    def link_gb_per_s(self, hardware: Hardware, gpus: Sequence[int]) -> float:
        """Return the GB/s of the slowest link between GPUs."""
        link = slowest_link(hardware, gpus)
        return link.gb_per_s if link else inf

    def bandwidth_gb_per_s(self, gpu: Gpu) -> float | None:
        """Return a card's memory bandwidth, None for a card that the table lacks."""
        card = card_for(gpu.name, gpu.memory_total_mib)
        return card.memory_gb_per_s if card else None


def _on_gpus(shape: ModelShape, setup: LlamaCppSetup) -> float:
    """Return about which share of the weights is on GPUs, never too much: the embedding stays on the host."""
    layers = len(shape.layers) + 1
    embedding = sum(t.bytes * t.count for t in shape.tensors if t.part is Part.EMBEDDING)
    whole = 1 - embedding / max(1.0, shape.weights_bytes)
    return whole * 0.9 * min(1.0, (setup.gpu_layers or layers) / layers)


def _key(setup: Setup, gpus: Sequence[Gpu]) -> BootKey:
    """Return what boots of a setup outside vLLM's GPUs are remembered by."""
    ranks = setup.tensor_parallel_size if isinstance(setup, VllmSetup) else max(1, len(gpus))
    return BootKey(
        engine="vllm" if isinstance(setup, VllmSetup) else "llama.cpp",
        version=setup.version,
        gpu_name=" + ".join(dict.fromkeys(gpu.name for gpu in gpus)) or None,
        tensor_parallel_size=ranks,
        pipeline_parallel_size=setup.pipeline_parallel_size if isinstance(setup, VllmSetup) else 1,
    )
