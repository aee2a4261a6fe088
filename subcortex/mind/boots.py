"""Every start of an engine on record: predicted before, measured after; and who holds the memory now."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from subcortex import hardware
from subcortex.clock import Clock
from subcortex.config import Config, LlamaCppTier, RemoteTier, Tier, VllmTier
from subcortex.engines.protocol import Engine
from subcortex.errors import SubcortexError
from subcortex.fleet import Tree
from subcortex.hardware import Gpu, Hardware
from subcortex.journal import BootEnd, BootStart, Failure, Journal
from subcortex.types import BootFigures, DeviceFigures, Ledger, TierState, new_thought_id
from subcortex.vram.learning.boots import Prediction, residuals, setup_json
from subcortex.vram.ledger import GpuProcess, Holding, HostMemory, ledger, planned_by_gpu

#: What a tier is expected to take on the machine as it is, before anything starts; None if nobody can tell.
#: Called in a thread, since it reads the model's files.
Predict = Callable[[Tier], Prediction | None]

_SECRET = re.compile(r"key|token(?!s|ize)|secret|password", re.IGNORECASE)
#: Of a machine's description, what changes by the minute. The names of other programs are among it.
_PASSING: Any = {
    "gpus": {
        "__all__": {
            *("memory_used_mib", "processes", "sm_clock_mhz", "memory_clock_mhz", "temperature_c"),
            *("power_draw_w", "pcie_generation", "display_active", "unread"),
        }
    },
    "host": {"swap_free_mib": True, "numa_nodes": {"__all__": {"memory_free_mib"}}},
    "host_memory_available_mib": True,
    "problem": True,
    "taken_at": True,
}
#: Of a tier's configuration, what may decide its memory.
_SETTINGS = {
    *("engine", "context_tokens", "gpus", "flags", "parallel", "gpu_layers", "split_mode", "tensor_split"),
    *("tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """How this machine is looked at; both are called in a thread.

    Args:
        hardware: What it has and what is free.
        gpu_processes: Who holds memory of its GPUs.
    """

    hardware: Callable[[], Hardware] = hardware.detect
    gpu_processes: Callable[[], Sequence[GpuProcess]] = tuple


@dataclass(slots=True)
class _Begun:
    """A start that is under way, or the last one."""

    boot_id: str
    prediction: Prediction | None
    gpus: tuple[Gpu, ...]


class BootBook:
    """Keeps the record of starts; the fleet tells it of each (``BootWatch``).

    Args:
        predict: Foretells what a tier takes; None if nobody does.
        trees: The engines' processes by tier.
    """

    def __init__(
        self,
        config: Config,
        engines: Mapping[str, Engine],
        journal: Journal,
        clock: Clock,
        *,
        trees: Callable[[], Mapping[str, Tree]],
        predict: Predict | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._tiers = {tier.name: tier for tier in config.tiers}
        self._engines = engines
        self._journal = journal
        self._clock = clock
        self._trees = trees
        self._predict = predict
        self._machine = machine or Machine()
        self._begun: dict[str, _Begun] = {}
        self._log = structlog.get_logger("boots")

    async def began(self, tier: str) -> None:
        """Predict what a tier will take, and write it down before it starts."""
        settings, engine = self._tiers[tier], self._engines[tier]
        self._begun.pop(tier, None)
        if isinstance(settings, RemoteTier):
            return
        seen, prediction = await asyncio.to_thread(self._foreseen, settings)
        gpus = _visible(seen, settings, prediction)
        setup = setup_json(prediction.setup) if prediction and prediction.setup else None
        digest = self._journal.save_hardware(seen.model_dump(mode="json", exclude=_PASSING))
        start = BootStart(
            id=new_thought_id(),
            at=self._clock.now(),
            tier=tier,
            engine=engine.kind,
            model=engine.model,
            architecture=prediction.architecture if prediction else None,
            gpus=[(gpu.name, gpu.uuid) for gpu in gpus],
            tensor_parallel_size=_ranks(settings, gpus),
            pipeline_parallel_size=settings.pipeline_parallel_size if isinstance(settings, VllmTier) else 1,
            setup=setup or _settings(settings),
            predicted=prediction.to_json() if prediction else None,
            hardware=digest,
        )
        await self._journal.boot_began(start)
        self._begun[tier] = _Begun(start.id, prediction, gpus)

    async def ended(self, tier: str, error: SubcortexError | None) -> None:
        """Write down how a start ended, with what the engine said and what its processes hold."""
        begun = self._begun.get(tier)
        if begun is None:
            return
        engine = self._engines[tier]
        figures = engine.boot_figures()
        if error is None:
            figures = await asyncio.to_thread(self._weighed, tier, figures, begun)
        found = None
        if figures is not None and begun.prediction is not None:
            raw = begun.prediction.raw or begun.prediction.footprint
            compared = residuals(raw, figures, begun.prediction.used_before_mib)
            found = [residual.to_json() for residual in compared]
        self._journal.boot_ended(
            BootEnd(
                id=begun.boot_id,
                outcome="ready" if error is None else "failed",
                engine_version=engine.version,
                measured=figures,
                residuals=found,
                error=Failure(error.code, error.message) if error else None,
            )
        )

    def ledger(self, states: Mapping[str, TierState]) -> Ledger:
        """Return who holds the memory of this machine now; blocks for some milliseconds."""
        seen, trees = self._machine.hardware(), self._trees()
        processes = self._machine.gpu_processes() if seen.gpus else ()
        host = HostMemory(seen.host_memory_total_mib, seen.host_memory_available_mib)
        holdings = [self._holding(tier, trees.get(tier), states[tier]) for tier in self._tiers]
        return ledger(seen.gpus, processes, holdings, host)

    def _holding(self, tier: str, tree: Tree | None, state: TierState) -> Holding:
        begun = self._begun.get(tier)
        prediction = begun.prediction if begun else None
        pids = tree.pids if tree else frozenset[int]()
        resident_mib = tree.resident_mib if tree else None
        if begun is None or prediction is None:
            return Holding(tier, pids, resident_mib=resident_mib)
        asleep = state is TierState.ASLEEP
        host = prediction.footprint.host.total
        if asleep and prediction.footprint.asleep_host is not None:
            host = prediction.footprint.asleep_host
        indices = prediction.gpu_indices
        planned = planned_by_gpu(prediction.footprint, indices, asleep=asleep)
        return Holding(tier, pids, planned, host.mean_mib, resident_mib)

    def _foreseen(self, tier: Tier) -> tuple[Hardware, Prediction | None]:
        seen = self._machine.hardware()
        if self._predict is None:
            return seen, None
        try:
            return seen, self._predict(tier)
        except Exception as error:
            # An estimate that cannot be made stops no engine.
            self._log.warning("no prediction", tier=tier.name, error=str(error))
            return seen, None

    def _weighed(self, tier: str, figures: BootFigures | None, begun: _Begun) -> BootFigures | None:
        """Return the figures with what the driver and the kernel count for the tier's processes."""
        tree = self._trees().get(tier)
        if tree is None:
            return figures
        figures = figures or BootFigures(engine=self._engines[tier].kind)
        host = figures.host or DeviceFigures(device="host")
        devices = figures.devices
        rows = [row for row in self._machine.gpu_processes() if row.pid in tree.pids] if devices else []
        if rows and len(devices) <= len(begun.gpus):
            devices = [
                device.model_copy(update={"taken_mib": _held(rows, gpu.index)})
                for device, gpu in zip(devices, begun.gpus, strict=False)
            ]
        return figures.model_copy(
            update={
                "host": host.model_copy(update={"taken_mib": tree.resident_mib}),
                "devices": devices,
            }
        )


def _visible(seen: Hardware, tier: LlamaCppTier | VllmTier, prediction: Prediction | None) -> tuple[Gpu, ...]:
    """Return the GPUs that a tier runs on, in its order."""
    by_index = {gpu.index: gpu for gpu in seen.gpus}
    wanted = prediction.gpu_indices if prediction is not None else tier.gpus
    if wanted is None:
        ranks = (
            tier.tensor_parallel_size * tier.pipeline_parallel_size if isinstance(tier, VllmTier) else None
        )
        return seen.gpus[:ranks]
    return tuple(by_index[index] for index in wanted if index in by_index)


def _settings(tier: LlamaCppTier | VllmTier) -> dict[str, Any]:
    """Return what of a tier's configuration may decide its memory; keys that a flag carries are left out."""
    shown = tier.model_dump(mode="json", include=_SETTINGS, exclude_none=True)
    kept, hidden = [], False
    for flag in tier.flags:
        value_of_secret = hidden and not flag.startswith("-")
        secret = _SECRET.search(flag) is not None
        if not secret and not value_of_secret:
            kept.append(flag)
        hidden = secret and "=" not in flag
    return {**shown, "flags": kept}


def _ranks(tier: LlamaCppTier | VllmTier, gpus: tuple[Gpu, ...]) -> int:
    return tier.tensor_parallel_size if isinstance(tier, VllmTier) else max(1, len(gpus))


def _held(rows: Sequence[GpuProcess], gpu_index: int) -> float | None:
    found: list[Any] = [row.mib for row in rows if row.gpu_index == gpu_index]
    return sum(found) if found and None not in found else None
