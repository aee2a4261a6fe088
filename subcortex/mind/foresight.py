"""What a tier will take, foretold from its model's files, the machine, and what past starts have taught."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from subcortex import engines, hardware
from subcortex.config import Config, RemoteTier, Tier
from subcortex.hardware import Gpu, Hardware
from subcortex.journal import BootRecord, Reader
from subcortex.mind.boots import Machine
from subcortex.mind.experimenting.measured import measured_hardware
from subcortex.models.read import read_shape
from subcortex.vram import vllm
from subcortex.vram.learning.boots import Prediction, boot_from, plain_version
from subcortex.vram.learning.calibration import Calibration, calibrate
from subcortex.vram.ledger import GpuProcess
from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.plan.real import Estimates
from subcortex.vram.setup import LlamaCppSetup, VllmSetup


def foresight(config: Config) -> Foresight:
    """Return the foresight of this machine, which remembers what the configuration's journal has."""
    return Foresight(config, lambda: measured_hardware(config), lambda: recorded(config))


def this_machine() -> Machine:
    """Return this machine, its GPUs' processes included."""
    return Machine(hardware.detect, _gpu_processes)


class Foresight:
    """Foretells starts; called with a tier before each (``mind.boots.Predict``).

    Args:
        config: Where tiers' paths start from.
        look: Returns the machine as it is now.
        starts: Returns the starts on record, newest first.
    """

    def __init__(
        self, config: Config, look: Callable[[], Hardware], starts: Callable[[], Iterable[BootRecord]]
    ) -> None:
        self._config = config
        self._look = look
        self._starts = starts

    def __call__(self, tier: Tier) -> Prediction | None:
        """Return what the tier will take; reads files and asks NVML.

        None for one that runs elsewhere, or on a card in MIG mode, whose instances CUDA sees in its place.

        Raises:
            SubcortexError: The model's files cannot be read, or a setting makes no sense.
        """
        if isinstance(tier, RemoteTier):
            return None
        past = list(self._starts())
        path = self._config.resolve(tier.model)
        shape = read_shape(path if path.exists() else tier.model, name=tier.model)
        machine = self._look()
        ask = ask_from(tier, shape)
        # A flag may store the weights otherwise than the file does.
        shape, setup, gpus = ask.shape, ask.setup, _taken(machine.gpus, ask)
        if gpus is None or any(gpu.mig is not None for gpu in gpus):
            return None
        if isinstance(setup, VllmSetup):
            setup = vllm.resolved(setup, shape, gpus[0] if gpus else None)
        setup = replace(setup, version=last_version(past, tier.name))
        return Prediction(
            footprint=Estimates(machine, learned(past), mapped=False).footprint(shape, setup, gpus),
            raw=Estimates(machine, mapped=False).footprint(shape, setup, gpus),
            setup=setup,
            architecture=shape.architecture,
            gpu_indices=tuple(gpu.index for gpu in gpus),
            # What NVML calls used contains the driver's own reserve, which no program ever sees.
            used_before_mib=tuple(
                max(0.0, gpu.memory_used_mib - (gpu.memory_reserved_mib or 0.0)) for gpu in gpus
            ),
        )


def recorded(config: Config) -> list[BootRecord]:
    """Return the starts that the configuration's journal has, newest first; none without a journal."""
    if not config.database_path.exists():
        return []
    reader = Reader.open(config.database_path)
    try:
        return reader.boots()
    finally:
        reader.close()


def _gpu_processes() -> list[GpuProcess]:
    """Return who holds memory of which GPU, as the driver tells it."""
    return [
        GpuProcess(gpu.index, process.pid, process.memory_mib, process.name, engines.is_engines(process.pid))
        for gpu in hardware.detect().gpus
        for process in gpu.processes or ()
    ]


def _taken(gpus: Sequence[Gpu], ask: TierAsk) -> tuple[Gpu, ...] | None:
    """Return the GPUs that a tier will run on: those it names, or the first that it needs.

    None where they are not there; the engine will say so better.
    """
    by_index = {gpu.index: gpu for gpu in gpus}
    if ask.devices is not None and not by_index.keys() >= set(ask.devices):
        return None
    seen = tuple(gpus) if ask.devices is None else tuple(by_index[index] for index in ask.devices)
    if isinstance(ask.setup, LlamaCppSetup):
        if ask.setup.gpu_layers == 0:
            return ()
        return seen[ask.setup.main_gpu : ask.setup.main_gpu + 1] if ask.setup.split_mode == "none" else seen
    return seen[: ask.setup.gpus] if len(seen) >= ask.setup.gpus or not gpus else None


def learned(past: Iterable[BootRecord]) -> Calibration:
    """Return what starts on record teach."""
    return calibrate(filter(None, map(boot_from, past)))


def last_version(past: Iterable[BootRecord], tier: str) -> str | None:
    """Return the engine's version at the tier's latest start that told one, of starts newest first."""
    found = (start.engine_version for start in past if start.tier == tier and start.engine_version)
    return plain_version(next(found, None))
