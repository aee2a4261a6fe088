"""What of each device may be planned: its total, less what others use, less a reserve. Pure; MiB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import erfc, sqrt

from subcortex.hardware import Gpu, Hardware
from subcortex.vram.driver import driver_mib

#: Number of the host among devices.
HOST = -1

#: Kept free of every card: fragments, and what a library takes late.
MARGIN_MIB = 128.0
#: Kept free of a card with a display, whose windows come and go. Assumed.
DISPLAY_MIB = 512.0
#: Kept free of host memory for everything else on the machine.
HOST_MIB = 2048.0


@dataclass(frozen=True, slots=True)
class Budget:
    """What of one device may be planned, MiB.

    Args:
        device: The GPU's index, ``HOST`` for host memory.
        used_mib: By others, the driver's share included.
        reserve_mib: Kept free.
        mib: What may be planned.
    """

    device: int
    name: str
    total_mib: float
    used_mib: float
    reserve_mib: float
    mib: float = field(init=False)

    def __post_init__(self) -> None:
        # Reckoned once: a plan asks for it tens of thousands of times.
        object.__setattr__(self, "mib", max(0.0, self.total_mib - self.used_mib - self.reserve_mib))


def gpu_budget(gpu: Gpu, own_mib: float = 0.0) -> Budget:
    """Return the budget of one GPU.

    Args:
        gpu: As read.
        own_mib: How much of what is used is ours and will be planned anew.
    """
    # NVML counts the driver's share as used on some drivers: it is the least that does, not a sum with it.
    used = max(driver_mib(gpu), gpu.memory_used_mib - own_mib)
    display = gpu.display_attached or gpu.display_active
    reserve = MARGIN_MIB + (DISPLAY_MIB if display else 0.0)
    return Budget(gpu.index, gpu.name, gpu.memory_total_mib, min(used, gpu.memory_total_mib), reserve)


def host_budget(hardware: Hardware, own_mib: float = 0.0) -> Budget:
    """Return the budget of host memory."""
    used = hardware.host_memory_total_mib - hardware.host_memory_available_mib - own_mib
    return Budget(HOST, "host memory", hardware.host_memory_total_mib, max(0.0, used), HOST_MIB)


def budgets(hardware: Hardware, own_mib: Mapping[int, float] | None = None) -> dict[int, Budget]:
    """Return the budget of every device, host memory last."""
    own = own_mib or {}
    found = {gpu.index: gpu_budget(gpu, own.get(gpu.index, 0.0)) for gpu in hardware.gpus}
    return {**found, HOST: host_budget(hardware, own.get(HOST, 0.0))}


#: Device → mean and variance of what is taken of it, MiB and MiB².
Load = Mapping[int, tuple[float, float]]


def fitting(load: Load, limits: Mapping[int, Budget]) -> float:
    """Return the probability that every device stays within its budget.

    The devices' probabilities are multiplied. What is uncertain of one engine is uncertain alike on all of
    its GPUs, and for normal variables that are positively correlated the product is a lower bound
    (Slepian's inequality).
    """
    probability = 1.0
    for device, (mean, variance) in load.items():
        probability *= below(mean, variance, limits[device].mib)
    return probability


def below(mean: float, variance: float, limit: float) -> float:
    """Return the probability that a normal variable is at most ``limit``."""
    if variance <= 0:
        return 1.0 if mean <= limit + 1e-9 else 0.0
    return 0.5 * erfc((mean - limit) / sqrt(2 * variance))
