"""A tier on certain GPUs, and what it takes of them in each state. Each estimate is made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import floor

from subcortex.hardware import Gpu, Hardware
from subcortex.models.shape import Part
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, Footprint
from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.budget import HOST, Budget, Load, budgets
from subcortex.vram.plan.estimator import Estimator, KvPool
from subcortex.vram.plan.work import ESTIMATE, LOOK, MANY_GPUS, SPLIT, Work
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup
from subcortex.vram.vllm.legality import LEAST_CAPABILITY, runs_on

_MIB = 2**20


class Mode(StrEnum):
    """What a tier's engine is doing while it holds memory, or none."""

    AWAKE = "awake"
    ASLEEP = "asleep"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Seat:
    """A tier on GPUs.

    Args:
        ask: Of whom.
        gpus: Indices, in the order of the engine's ranks or devices; none for host memory alone.
        setup: With what was chosen for these GPUs; the pool aside.
    """

    ask: TierAsk
    gpus: tuple[int, ...]
    setup: Setup


class Book:
    """The machine and the estimates, each made once."""

    def __init__(
        self,
        hardware: Hardware,
        estimator: Estimator,
        probability: float,
        own_mib: Mapping[int, float] | None = None,
        work: Work | None = None,
    ) -> None:
        self.hardware = hardware
        self.estimator = estimator
        self.probability = probability
        #: What all searches together do, and may.
        self.work = work or Work.on(len(hardware.gpus))
        #: What a tier takes of all GPUs together at least, by name and setup.
        self.least_mib: dict[tuple[str, Setup], float] = {}
        self.limits: dict[int, Budget] = budgets(hardware, own_mib)
        self.gpus: dict[int, Gpu] = {gpu.index: gpu for gpu in hardware.gpus}
        #: On how many GPUs a tier is of use, by name; GB/s of the link between two of them.
        self.useful: dict[str, frozenset[int]] = {}
        self.links: dict[tuple[int, int], float] = {}
        #: GPUs that vLLM serves.
        self._new = {gpu.index for gpu in hardware.gpus if runs_on(gpu)}
        self._kinds = {gpu.index: self._kind(gpu) for gpu in hardware.gpus}
        self._makes = {gpu.index: _make(gpu) for gpu in hardware.gpus}
        self._footprints: dict[tuple[object, ...], Footprint] = {}
        self._pools: dict[tuple[object, ...], Sequence[KvPool]] = {}
        self._refused: dict[tuple[object, ...], str | None] = {}
        self._weights: dict[int, float] = {}
        self._layers: dict[int, float] = {}
        self._splits: dict[tuple[object, ...], tuple[float, ...]] = {}
        self._loads: dict[tuple[object, ...], Load] = {}
        #: Of a seat whose pool grows: its load with room for one request, and how many pools a device holds.
        self._pooled: dict[tuple[object, ...], tuple[Load, Mapping[int, int]]] = {}
        self._seats: dict[tuple[object, ...], Seat] = {}
        self._request_bytes: dict[int, float] = {}
        # Caches are keyed by identity, so what they are keyed by must live as long.
        self._kept: dict[int, object] = {}

    def _kind(self, gpu: Gpu) -> tuple[object, ...]:
        limit = self.limits[gpu.index]
        return (gpu.name, gpu.memory_total_mib, limit.mib, gpu.memory_used_mib, gpu.compute_capability)

    def kind(self, gpu: int) -> tuple[object, ...]:
        """Return what two GPUs share that are alike for a plan."""
        return self._kinds[gpu]

    def _id(self, thing: object) -> int:
        self._kept[id(thing)] = thing
        return id(thing)

    def allowed(self, ask: TierAsk) -> list[int]:
        """Return the GPUs that a tier may use and its engine serves, in the order of its ranks."""
        named = sorted(self.gpus) if ask.devices is None else ask.devices
        serves = self._new if isinstance(ask.setup, VllmSetup) else self.gpus
        return [gpu for gpu in named if gpu in serves]

    def too_old(self, ask: TierAsk) -> str | None:
        """Return which of the GPUs that a tier may use its engine does not serve; None if it serves all."""
        if not isinstance(ask.setup, VllmSetup):
            return None
        named = self.gpus if ask.devices is None else ask.devices
        old = [self.gpus[gpu] for gpu in sorted(named) if gpu in self.gpus and gpu not in self._new]
        if not old:
            return None
        have = ", ".join(
            f"GPU {gpu.index} ({gpu.name}) has {'.'.join(map(str, gpu.compute_capability or ()))}"
            for gpu in old
        )
        return f"vLLM wants compute capability {'.'.join(map(str, LEAST_CAPABILITY))}, and {have}"

    def pools(self, seat: Seat, setup: Setup) -> Sequence[KvPool]:
        """Return how each stage keeps keys and values."""
        setup = _without_pool(setup)
        key = (self._id(seat.ask.shape), setup, tuple(self._makes[gpu] for gpu in seat.gpus[:1]))
        if key not in self._pools:
            self.work.did(ESTIMATE * (setup.pipeline_parallel_size if isinstance(setup, VllmSetup) else 1))
            gpus = [self.gpus[gpu] for gpu in seat.gpus]
            self._pools[key] = self.estimator.pools(seat.ask.shape, setup, gpus)
        return self._pools[key]

    def weights_mib(self, ask: TierAsk) -> float:
        """Return the weights of a tier on one device."""
        key = self._id(ask.shape)
        if key not in self._weights:
            self._weights[key] = ask.shape.weights_bytes / _MIB
        return self._weights[key]

    def layers_mib(self, ask: TierAsk) -> float:
        """Return the weights of a tier that llama.cpp puts on GPUs: all but the embedding."""
        key = self._id(ask.shape)
        if key not in self._layers:
            beside = sum(t.bytes * t.count for t in ask.shape.tensors if t.part is Part.EMBEDDING)
            self._layers[key] = self.weights_mib(ask) - beside / _MIB
        return self._layers[key]

    def refusal(self, ask: TierAsk, setup: Setup, gpu_count: int) -> str | None:
        """Return why the engine would not take a setup, None if it would."""
        key = (self._id(ask.shape), setup, gpu_count)
        if key not in self._refused:
            found = self.estimator.refusals(ask.shape, setup, gpu_count)
            self._refused[key] = found[0].what if found else None
        return self._refused[key]

    def request_bytes(self, seat: Seat) -> float:
        """Return the bytes of one request of full length on the rank that needs most."""
        key = self._id(seat)
        if key not in self._request_bytes:
            pools = self.pools(seat, seat.setup)
            self._request_bytes[key] = max(
                (pool.request_bytes(seat.ask.context_tokens) for pool in pools), default=0.0
            )
        return self._request_bytes[key]

    def at(self, seat: Seat, requests: float) -> Setup:
        """Return the setup that holds so many requests of full length."""
        setup, ask = seat.setup, seat.ask
        if not ask.grows:
            return setup
        if isinstance(setup, LlamaCppSetup):
            slots = max(1, floor(requests + 1e-9))
            return replace(setup, parallel=slots, context_tokens=slots * ask.context_tokens)
        return replace(setup, kv_pool_bytes=_whole_mib(self.request_bytes(seat), requests))

    def footprint(self, seat: Seat, requests: float) -> Footprint:
        """Return what a seat takes with room for so many requests."""
        setup = self.at(seat, requests)
        if isinstance(setup, VllmSetup) and seat.ask.grows:
            # The pool is the one thing that grows, and it is what it is told to be.
            base = self._made(seat, replace(setup, kv_pool_bytes=_whole_mib(self.request_bytes(seat), 1.0)))
            pool = Amount((setup.kv_pool_bytes or 0) / _MIB)
            if not seat.gpus:
                # On the CPU every rank is a process with a pool of its own in the same memory.
                return replace(base, host=base.host.but(Component.KV, pool.times(setup.gpus)))
            return replace(base, devices=tuple(need.but(Component.KV, pool) for need in base.devices))
        return self._made(seat, setup)

    def _made(self, seat: Seat, setup: Setup) -> Footprint:
        key = (self._id(seat.ask.shape), setup, self._cards_of(seat, setup))
        if key not in self._footprints:
            stages = setup.pipeline_parallel_size if isinstance(setup, VllmSetup) else 1
            self.work.did(ESTIMATE * stages)
            gpus = [self.gpus[gpu] for gpu in seat.gpus]
            self._footprints[key] = self.estimator.footprint(seat.ask.shape, setup, gpus)
        return self._footprints[key]

    def _cards_of(self, seat: Seat, setup: Setup) -> tuple[object, ...]:
        """Return what an estimate depends on of a seat's GPUs: their make, and where layers go by it, use."""
        by_use = isinstance(setup, LlamaCppSetup) and (setup.gpu_layers is None or not setup.tensor_split)
        kinds = self._kinds if by_use and len(seat.gpus) > 1 else self._makes
        return tuple(kinds[gpu] for gpu in seat.gpus)

    def load(self, seat: Seat, mode: Mode, requests: float) -> Load:
        """Return what a seat takes of each device in a mode."""
        if mode is Mode.STOPPED:
            return {}
        self.work.did(LOOK * max(1, len(seat.gpus)))
        if isinstance(seat.setup, VllmSetup) and seat.ask.grows and requests != 1.0:
            return self._grown(seat, seat.setup.gpus, mode, requests)
        key = (self._id(seat), mode, requests)
        if key not in self._loads:
            made = self.footprint(seat, requests)
            taken = [need.total for need in made.devices]
            host = made.host.total
            if mode is Mode.ASLEEP:
                taken = list(made.asleep or taken)
                host = host + (made.asleep_host or Amount())
            load = {
                gpu: (amount.mean_mib, amount.sigma_mib**2)
                for gpu, amount in zip(seat.gpus, taken, strict=True)
            }
            load[HOST] = (host.mean_mib, host.sigma_mib**2)
            self._loads[key] = load
        return self._loads[key]

    def _grown(self, seat: Seat, ranks: int, mode: Mode, requests: float) -> Load:
        """Return a vLLM seat's load with a larger pool: as ``footprint`` has it, without making one anew."""
        key = (self._id(seat), mode)
        if key not in self._pooled:
            # Asleep, the pool is given back. On the CPU every rank has one in the same memory.
            kept = not (mode is Mode.ASLEEP and seat.gpus and self.footprint(seat, 1.0).asleep)
            held = (dict.fromkeys(seat.gpus, 1) or {HOST: ranks}) if kept else {}
            self._pooled[key] = self.load(seat, mode, 1.0), held
        load, pools = self._pooled[key]
        if not pools:
            return load
        one_bytes = self.request_bytes(seat)
        more_mib = (_whole_mib(one_bytes, requests) - _whole_mib(one_bytes, 1.0)) / _MIB
        return {
            device: (mean + more_mib * pools.get(device, 0), variance)
            for device, (mean, variance) in load.items()
        }

    def seat(self, ask: TierAsk, gpus: tuple[int, ...], setup: Setup) -> Seat:
        """Return the seat, the same object each time."""
        return self._seats.setdefault((ask.name, gpus, setup), Seat(ask, gpus, setup))

    def spread(
        self, ask: TierAsk, gpus: tuple[int, ...], setup: Setup, left_mib: Sequence[float] | None = None
    ) -> Seat:
        """Return the seat with llama.cpp's layers split by what the GPUs have left, or by their budgets."""
        if isinstance(setup, LlamaCppSetup) and len(gpus) == 1:
            setup = replace(setup, main_gpu=0)
        elif isinstance(setup, LlamaCppSetup) and gpus and setup.tensor_split is None:
            left = [self.limits[gpu].mib for gpu in gpus] if left_mib is None else left_mib
            setup = replace(setup, tensor_split=self.split(ask, setup, gpus, left))
        return self.seat(ask, gpus, setup)

    def split(
        self, ask: TierAsk, setup: LlamaCppSetup, gpus: Sequence[int], left_mib: Sequence[float]
    ) -> tuple[float, ...]:
        """Return the shares of GPUs that have so much left."""
        key = (self._id(ask.shape), setup, tuple(gpus), tuple(left_mib))
        if key not in self._splits:
            # Layers are moved between every two GPUs; of many GPUs between few.
            self.work.did(SPLIT * len(gpus) * (2 if len(gpus) > MANY_GPUS else len(gpus)))
            cards = [
                self.gpus[gpu].model_copy(
                    update={"memory_used_mib": max(0.0, self.gpus[gpu].memory_total_mib - left)}
                )
                for gpu, left in zip(gpus, left_mib, strict=True)
            ]
            self._splits[key] = self.estimator.split(ask.shape, setup, cards)
        return self._splits[key]

    def can_sleep(self, seat: Seat) -> bool:
        """Return whether the engine can be put to sleep on these GPUs."""
        return seat.ask.sleepable and bool(seat.gpus) and self.footprint(seat, 1.0).asleep is not None

    def held_requests(self, seat: Seat, requests: float) -> float:
        """Return how many requests of full length a seat holds at once."""
        return self.requests_of(seat, requests, seat.ask.context_tokens)

    def requests_of(self, seat: Seat, requests: float, length: int) -> float:
        """Return how many requests of ``length`` tokens a seat with room for ``requests`` holds."""
        setup = self.at(seat, requests)
        if isinstance(setup, LlamaCppSetup):
            whole = setup.context_tokens or seat.ask.context_tokens
            return min(float(setup.parallel), float(whole // length)) if length else 0.0
        return min(
            (
                pool.requests(size, length)
                for pool, size in zip(self.pools(seat, setup), self._pool_bytes(seat, setup), strict=True)
            ),
            default=0.0,
        )

    def tokens(self, seat: Seat, requests: float) -> int:
        """Return the tokens that a seat's pool holds, the least of its ranks."""
        setup = self.at(seat, requests)
        if isinstance(setup, LlamaCppSetup):
            return setup.context_tokens or seat.ask.context_tokens
        sizes = self._pool_bytes(seat, setup)
        return min(
            (
                pool.tokens(size, seat.ask.context_tokens)
                for pool, size in zip(self.pools(seat, setup), sizes, strict=True)
            ),
            default=0,
        )

    def _pool_bytes(self, seat: Seat, setup: VllmSetup) -> list[float]:
        stages = setup.pipeline_parallel_size
        if setup.kv_pool_bytes is not None:
            return [float(setup.kv_pool_bytes)] * stages
        made = self.footprint(seat, 1.0)
        devices = made.devices or (made.host,)
        # What is left over for the pool is as uncertain as the rest; take what is there in all likelihood.
        sure = [need.of(Component.KV).at(1 - self.probability) * _MIB for need in devices]
        ranks = max(1, len(sure) // stages)
        return [max(0.0, min(sure[i * ranks : (i + 1) * ranks])) for i in range(stages)]


def _make(gpu: Gpu) -> tuple[object, ...]:
    """Return what cards share for which an engine takes as much, whoever else is on them."""
    return gpu.name, gpu.memory_total_mib, gpu.memory_reserved_mib, gpu.compute_capability


def _without_pool(setup: Setup) -> Setup:
    if isinstance(setup, VllmSetup):
        return replace(setup, kv_pool_bytes=None)
    return setup


def _whole_mib(request_bytes: float, requests: float) -> int:
    """Return the pool for so many requests: whole MiB, rounded down, but never below one request."""
    wanted = int(request_bytes * requests) // _MIB * _MIB
    least = -(-int(request_bytes + 0.999999) // _MIB) * _MIB
    return max(wanted, least)
