"""Machines, models and estimates that anyone can check by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from subcortex.hardware import Gpu, Hardware
from subcortex.models.shape import FullAttention, Layer, ModelShape, Part, Quantisation, Split, Tensor
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.variants import Variant
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup

MIB = 2**20


def machine(*gib: float, used_mib: float = 0.0, host_gib: float = 256) -> Hardware:
    """Return a machine with cards of those sizes."""
    gpus = tuple(
        Gpu(index=i, name=f"{size:g} GiB card", memory_total_mib=size * 1024, memory_used_mib=used_mib)
        for i, size in enumerate(gib)
    )
    host = host_gib * 1024
    return Hardware(gpus=gpus, host_memory_total_mib=host, host_memory_available_mib=host, cores=16)


def toy(gib: float, *, layers: int = 8, kv_heads: int = 8, heads: int = 32, name: str = "toy") -> ModelShape:
    """Return a dense model whose weights are ``gib`` in 16 bits, all of them in layers."""
    elements = int(gib * 2**30 / 2 / layers)
    tensors = tuple(
        Tensor("mlp", elements, elements * 2.0, Split.SHARDED, Part.LAYER, layer) for layer in range(layers)
    )
    attention = FullAttention(heads=heads, kv_heads=kv_heads, key_dim=128, value_dim=128)
    return ModelShape(
        name=name,
        architecture="Toy",
        source="written",
        hidden=4096,
        vocabulary=32000,
        layers=tuple(Layer((attention,), intermediate=11008) for _ in range(layers)),
        tensors=tensors,
        max_context_tokens=131072,
        exact=True,
    )


@dataclass(frozen=True)
class Pool:
    """Every token takes the same."""

    bytes_per_token: float

    def request_bytes(self, length: int, /) -> float:
        return self.bytes_per_token * length

    def requests(self, pool_bytes: float, length: int, /) -> float:
        return pool_bytes / (self.bytes_per_token * length)

    def tokens(self, pool_bytes: float, context_tokens: int, /) -> int:
        return int(pool_bytes / self.bytes_per_token)


@dataclass(frozen=True)
class Refused:
    what: str
    key: str = "tensor_parallel_size"


@dataclass(frozen=True)
class Simple:
    """Weights and KV divided evenly; 1 ± 0.1 GiB of overhead a GPU; asleep, 1 GiB stays."""

    overhead: Amount = field(default_factory=lambda: Amount(1024.0, 100.0))
    host: Amount = field(default_factory=lambda: Amount(256.0, 16.0))

    def footprint(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Footprint:
        weights = shape.weights_bytes / MIB
        if isinstance(setup, LlamaCppSetup):
            return self._llamacpp(shape, setup, gpus, weights)
        count = max(1, len(gpus))
        assert setup.kv_pool_bytes is not None
        need = DeviceNeed(
            {
                Component.WEIGHTS: Amount(weights / count, 0.005 * weights / count),
                Component.KV: Amount(setup.kv_pool_bytes / MIB),
                Component.CONTEXT: self.overhead,
            }
        )
        if not gpus:
            return Footprint((), need)
        asleep = (Amount(1024.0, 50.0),) * count
        host = DeviceNeed({Component.CONTEXT: self.host})
        return Footprint((need,) * count, host, asleep, Amount(weights, 10.0))

    def _llamacpp(
        self, shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu], weights: float
    ) -> Footprint:
        kv = (setup.context_tokens or 0) * kv_bytes(shape, 1) / MIB
        on_gpus = min(setup.gpu_layers or 0, len(shape.layers)) / len(shape.layers) if gpus else 0.0
        split = setup.tensor_split or (1.0,) * len(gpus)
        devices = tuple(
            DeviceNeed(
                {
                    Component.WEIGHTS: Amount(weights * on_gpus * share / sum(split)),
                    Component.KV: Amount(kv * on_gpus * share / sum(split)),
                    Component.CONTEXT: self.overhead,
                }
            )
            for share in split[: len(gpus)]
        )
        host = {
            Component.WEIGHTS: Amount(weights * (1 - on_gpus)),
            Component.KV: Amount(kv * (1 - on_gpus)),
            Component.CONTEXT: self.host,
        }
        return Footprint(devices, DeviceNeed({k: v for k, v in host.items() if v.mean_mib > 0}))

    def pools(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Sequence[Pool]:
        if isinstance(setup, LlamaCppSetup):
            return [Pool(kv_bytes(shape, 1))]
        stages = setup.pipeline_parallel_size
        size = kv_bytes(shape, setup.tensor_parallel_size) * ceil(len(shape.layers) / stages)
        return [Pool(size / len(shape.layers))] * stages

    def refusals(self, shape: ModelShape, setup: Setup, gpu_count: int) -> Sequence[Refused]:
        if isinstance(setup, VllmSetup) and shape.heads % setup.tensor_parallel_size:
            return [Refused(f"{shape.heads} heads do not divide by {setup.tensor_parallel_size}")]
        return []

    def split(self, shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu]) -> tuple[float, ...]:
        left = [max(0.0, gpu.memory_free_mib - 1024) for gpu in gpus]
        return tuple(left) if sum(left) else (1.0,) * len(gpus)

    def requantised(self, shape: ModelShape, method: str) -> ModelShape:
        bits = {"fp8": 8.0, "awq": 4.25, "Q8_0": 8.5, "Q4_K_M": 4.9}[method]
        tensors = tuple(replace(t, bytes=t.elements * bits / 8) for t in shape.tensors)
        return replace(shape, tensors=tensors, quantisation=Quantisation(method, bits))

    def quantised(self, ask: TierAsk) -> list[Variant]:
        methods = ("fp8", "awq") if ask.engine == "vllm" else ("Q8_0", "Q4_K_M")
        return [
            Variant(f"{ask.shape.name} in {method}", self.requantised(ask.shape, method), loss)
            for method, loss in zip(methods, (0.05, 0.2), strict=True)
        ]

    def smaller(self, ask: TierAsk) -> list[Variant]:
        gib = ask.shape.weights_bytes / 2**30
        return [Variant(f"toy-{size}", toy(size), 0.5 + 1 / size / 2) for size in (13, 7, 1) if size < gib]


def kv_bytes(shape: ModelShape, tp: int) -> float:
    """Return the bytes of one token on one rank."""
    return sum(
        2 * max(1, kept.kv_heads // tp) * 128 * 2
        for kept in shape.attentions
        if isinstance(kept, FullAttention)
    )


def ask(name: str, gib: float, *, engine: str = "vllm", **kwargs) -> TierAsk:
    """Return an ask for a toy of that size."""
    setup: Setup = VllmSetup() if engine == "vllm" else LlamaCppSetup()
    values = {"context_tokens": 8192, "sleepable": engine == "vllm", **kwargs}
    return TierAsk(name, toy(gib, name=f"toy-{gib:g}"), setup, **values)
