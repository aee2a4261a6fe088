"""What CUDA offers of a card: its memory as NVML says, less what the driver keeps for itself. Pure; MiB."""

from __future__ import annotations

from subcortex.hardware import Gpu

#: A constant and a share through two cards: a 3090 (24576 MiB) offers 24259, an H200 (143771 MiB) 143155.
_CONSTANT_MIB, _SHARE = 255.0, 0.0025


def driver_mib(gpu: Gpu) -> float:
    """Return the driver's share of a card: what it says, or what such cards were seen to withhold."""
    if gpu.memory_reserved_mib is not None:
        return gpu.memory_reserved_mib
    return _CONSTANT_MIB + _SHARE * gpu.memory_total_mib


def offered_mib(gpu: Gpu) -> float:
    """Return what CUDA, torch and vLLM call the card's total."""
    return gpu.memory_total_mib - driver_mib(gpu)
