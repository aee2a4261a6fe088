"""What a vLLM instance takes of each of its GPUs, and how large its KV pool becomes. Pure.

Weights and KV are counted exactly (``weights.py``, ``kv.py``); the rest is estimated (``overheads.py``)
for vLLM 0.26 and corrected by what boots on this machine have shown. Amounts are MiB a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from subcortex.hardware import Gpu
from subcortex.models.shape import ModelShape
from subcortex.vram.amount import Amount, total
from subcortex.vram.driver import offered_mib
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import BootKey, setup_json
from subcortex.vram.learning.calibration import Calibration
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm import overheads
from subcortex.vram.vllm.kv import KvLayout, layout, pipeline_tokens
from subcortex.vram.vllm.overheads import Rank
from subcortex.vram.vllm.weights import allocated_bytes, rank_bytes, stages

_MIB = 2**20
#: From this much memory on, vLLM takes larger batches by default (``engine/arg_utils.py``), A100 aside.
_LARGE_CARD_MIB = 70 * 1024
_LARGE_BATCH, _SMALL_BATCH = (8192, 1024), (2048, 256)
_DEFAULT_UTILIZATION = 0.9
#: Host memory of the API server with its engine core, and of each worker, MiB; 3 to 6 GiB with two workers.
_SERVER_MIB, _WORKER_MIB = 1800.0, 1300.0
#: ``VLLM_CPU_KVCACHE_SPACE`` is 4 GiB a rank where it is not set.
_CPU_POOL_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class RankEstimate:
    """One rank by the names that vLLM logs, MiB.

    Args:
        weights: "Model loading took".
        peak_activation: "peak activation".
        non_torch: What grows outside torch while profiling.
        released: What vLLM's "non-torch memory" is less than that under sleep mode, and its pool more.
        graphs: "Graph capturing finished … took".
        graphs_set_aside: Taken off the pool for graphs before they are captured.
        before: What is gone of the card before vLLM's first reading: context and communication.
        cached: Kept by torch after warm-up beyond the peak.
        pool: "Available KV cache memory".
    """

    weights: Amount
    peak_activation: Amount
    non_torch: Amount
    released: Amount
    graphs: Amount
    graphs_set_aside: Amount
    before: Amount
    cached: Amount
    pool: Amount

    @property
    def logged_non_torch(self) -> Amount:
        """What vLLM logs as "non-torch memory"."""
        return self.non_torch - self.released


def resolved(setup: VllmSetup, shape: ModelShape, gpu: Gpu | None) -> VllmSetup:
    """Return ``setup`` with vLLM's own defaults in place of None, as its server chooses them on that card."""
    large = gpu is not None and gpu.memory_total_mib >= _LARGE_CARD_MIB and "A100" not in gpu.name
    tokens, sequences = _LARGE_BATCH if large else _SMALL_BATCH
    context = setup.context_tokens or shape.max_context_tokens or tokens
    tokens = setup.max_batched_tokens or tokens
    kv_bytes = setup.kv_bytes_per_element or shape.dtype_bytes
    return replace(
        setup,
        context_tokens=context,
        max_batched_tokens=tokens,
        max_sequences=setup.max_sequences or min(sequences, tokens),
        kv_bytes_per_element=kv_bytes,
    )


def estimate(
    shape: ModelShape,
    setup: VllmSetup,
    gpus: Sequence[Gpu],
    *,
    calibration: Calibration | None = None,
    model: str | None = None,
) -> tuple[RankEstimate, ...]:
    """Return every rank, stage by stage and TP neighbours first, as vLLM counts them.

    Args:
        shape: The model.
        setup: How it is run; defaults are filled in for the first card.
        gpus: Its TP·PP cards, in vLLM's order.
        calibration: What boots have taught, None for the bare estimate.
        model: As boots of it are remembered.
    """
    setup = resolved(setup, shape, gpus[0] if gpus else None)
    corrected = _Corrected(calibration, setup, model)
    divided = stages(len(shape.layers), setup.pipeline_parallel_size)
    tp = setup.tensor_parallel_size
    alike: dict[tuple[int, str, float, float | None], RankEstimate] = {}
    # The same on every card of a stage.
    weights_mib: dict[int, float] = {}
    found = []
    for number, gpu in enumerate(gpus):
        stage = number // tp
        kind = (stage, gpu.name, gpu.memory_total_mib, gpu.memory_reserved_mib)
        if kind not in alike:
            if stage not in weights_mib:
                weights_mib[stage] = allocated_bytes(shape, setup, stage=stage) / _MIB
            alike[kind] = _rank(shape, setup, gpu, stage, divided[stage], weights_mib[stage], corrected)
        found.append(alike[kind])
    return tuple(found)


def _rank(
    shape: ModelShape,
    setup: VllmSetup,
    gpu: Gpu,
    stage: int,
    layers: range,
    weights_mib: float,
    corrected: _Corrected,
) -> RankEstimate:
    last = stage == setup.pipeline_parallel_size - 1
    rank = Rank(layers=len(layers), first=stage == 0, last=last, card=gpu.name)
    corrected = corrected.on(gpu)
    weights = corrected(Component.WEIGHTS, Amount(weights_mib, _weights_sigma(shape, weights_mib)))
    peak = corrected(Component.ACTIVATIONS, overheads.activations(shape, setup, rank))
    taken = corrected(Component.GRAPHS, overheads.graphs(shape, setup, rank))
    non_torch = overheads.non_torch(setup)
    released = overheads.released_in_loading(shape, setup)
    before = overheads.context(rank) + overheads.communication(shape, setup, rank)
    aside = overheads.graphs_set_aside(shape, taken)
    share = setup.gpu_memory_utilization or _DEFAULT_UTILIZATION
    pool = Amount(share * offered_mib(gpu)) - total((weights, peak, non_torch - released, aside))
    if setup.kv_pool_bytes is not None:
        pool = Amount(setup.kv_pool_bytes / _MIB)
    kept = overheads.cached(shape, setup, rank, peak)
    return RankEstimate(weights, peak, non_torch, released, taken, aside, before, kept, pool)


def _weights_sigma(shape: ModelShape, mean_mib: float) -> float:
    """Return the σ of weights: allocation rounds each tensor up, and quantised ones are repacked."""
    share = 0.0015 if shape.quantisation is None else 0.01
    return 4 + share * mean_mib


def footprint(
    shape: ModelShape,
    setup: VllmSetup,
    gpus: Sequence[Gpu],
    *,
    calibration: Calibration | None = None,
    model: str | None = None,
) -> Footprint:
    """Return what the instance takes of each GPU and of the host.

    The pool is ``setup.kv_pool_bytes``, or what ``gpu_memory_utilization`` (vLLM's 0.9 if None) leaves.

    Raises:
        InvalidRequest: The model's layers cannot be divided over the stages.
    """
    if not gpus:
        return Footprint((), host=_on_host(shape, setup))
    ranks = estimate(shape, setup, gpus, calibration=calibration, model=model)
    setup = resolved(setup, shape, gpus[0])
    corrected = _Corrected(calibration, setup, model)
    devices = tuple(_need(rank, setup, corrected.on(gpu)) for rank, gpu in zip(ranks, gpus, strict=True))
    weights = total(rank.weights for rank in ranks)
    return Footprint(
        devices,
        host=DeviceNeed({Component.CONTEXT: Amount(_SERVER_MIB + _WORKER_MIB * len(gpus), 600.0)}),
        asleep=tuple(asleep(rank) for rank in ranks) if setup.sleep_mode else None,
        asleep_host=weights if setup.sleep_mode else None,
    )


def _on_host(shape: ModelShape, setup: VllmSetup) -> DeviceNeed:
    """Return what vLLM's CPU build takes of host memory: each rank is a process with a share and a pool."""
    setup = resolved(setup, shape, None)
    ranks = range(setup.gpus)
    tp = setup.tensor_parallel_size
    weights = sum(rank_bytes(shape, setup, stage=rank // tp, rank=rank % tp) for rank in ranks) / _MIB
    pool_bytes = setup.kv_pool_bytes if setup.kv_pool_bytes is not None else _CPU_POOL_BYTES
    return DeviceNeed(
        {
            Component.WEIGHTS: Amount(weights, 4 + 0.01 * weights),
            Component.KV: Amount(pool_bytes / _MIB * len(ranks)),
            Component.CONTEXT: Amount(_SERVER_MIB + _WORKER_MIB * len(ranks), 800.0),
        }
    )


def _need(rank: RankEstimate, setup: VllmSetup, corrected: _Corrected) -> DeviceNeed:
    # What vLLM finds before its first reading is one figure; with one GPU none of it is communication.
    before = rank.before + rank.non_torch
    alone = setup.gpus == 1
    context = before if alone else Amount(before.mean_mib * 0.4, before.sigma_mib * 0.6)
    shared = Amount() if alone else Amount(before.mean_mib * 0.6, before.sigma_mib * 0.8)
    parts = {
        Component.WEIGHTS: rank.weights,
        Component.KV: Amount(max(0.0, rank.pool.mean_mib), rank.pool.sigma_mib),
        Component.ACTIVATIONS: rank.peak_activation,
        Component.GRAPHS: rank.graphs,
        Component.CONTEXT: corrected(Component.CONTEXT, context),
        Component.COMMUNICATION: corrected(Component.COMMUNICATION, shared),
        Component.CACHED: corrected(Component.CACHED, rank.cached),
    }
    return DeviceNeed({name: amount for name, amount in parts.items() if amount != Amount()})


def asleep(rank: RankEstimate) -> Amount:
    """Return what a rank keeps while asleep at level 1: context, communication, graphs and a remainder.

    The remainder was 0.2 to 1.1 GiB in five measured sleeps (docs/evidence/vram-h200).
    """
    return rank.before + rank.non_torch + rank.graphs + Amount(520.0, 330.0)


def kv_tokens(
    shape: ModelShape,
    setup: VllmSetup,
    gpus: Sequence[Gpu],
    *,
    calibration: Calibration | None = None,
    model: str | None = None,
) -> int:
    """Return the tokens that vLLM would log as "GPU KV cache size": the least over ranks and stages."""
    ranks = estimate(shape, setup, gpus, calibration=calibration, model=model)
    pool_bytes = int(max(0.0, min(rank.pool.mean_mib for rank in ranks)) * _MIB)
    return pool_tokens(shape, setup, gpus, pool_bytes)


def pool_tokens(shape: ModelShape, setup: VllmSetup, gpus: Sequence[Gpu], pool_bytes: int) -> int:
    """Return the tokens that vLLM would log for a pool of that size on each rank."""
    setup = resolved(setup, shape, gpus[0] if gpus else None)
    return pipeline_tokens(pools(shape, setup), pool_bytes, setup.context_tokens or 0)


def pools(shape: ModelShape, setup: VllmSetup) -> tuple[KvLayout, ...]:
    """Return how each pipeline stage keeps keys and values."""
    return tuple(layout(shape, setup, stage=stage) for stage in range(setup.pipeline_parallel_size))


@dataclass(frozen=True, slots=True)
class _Corrected:
    """An estimate as boots of its kind have corrected it; unchanged without any."""

    calibration: Calibration | None
    setup: VllmSetup
    model: str | None
    gpu_name: str | None = None

    def on(self, gpu: Gpu) -> _Corrected:
        return replace(self, gpu_name=gpu.name)

    def __call__(self, component: Component, predicted: Amount) -> Amount:
        if self.calibration is None:
            return predicted
        setup = self.setup
        key = BootKey(
            engine="vllm",
            version=setup.version,
            gpu_name=self.gpu_name,
            tensor_parallel_size=setup.tensor_parallel_size,
            pipeline_parallel_size=setup.pipeline_parallel_size,
        )
        return self.calibration.applied(component, predicted, key, model=self.model, setup=setup_json(setup))
