"""Asking the machine: NVML for GPUs, the kernel for memory and cores."""

from __future__ import annotations

from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from subcortex.hardware import _nvml, host
from subcortex.hardware.model import Hardware


def detect(nvml: ModuleType | Any | None = None) -> Hardware:
    """Return what this machine has now; a machine without an NVIDIA driver has no GPUs.

    Args:
        nvml: What answers as ``pynvml`` does; pynvml itself if not given.
    """
    if nvml is None:
        import pynvml

        nvml = pynvml
    found = _nvml.ask(nvml)
    return host_alone().model_copy(
        update={
            "gpus": found.gpus,
            "links": found.links,
            "driver_version": found.driver_version,
            "cuda_version": found.cuda_version,
            "problem": found.problem,
        }
    )


def host_alone() -> Hardware:
    """Return this machine without its GPUs, which are not asked."""
    total_mib, available_mib = host.memory_mib()
    return Hardware(
        host_memory_total_mib=total_mib,
        host_memory_available_mib=available_mib,
        cores=len(host.allowed_cores()),
        host=host.read(),
        taken_at=datetime.now(UTC),
    )
