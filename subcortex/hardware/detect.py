"""Asking the machine: NVML for GPUs, the kernel for memory and cores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from subcortex.hardware.model import Gpu, Hardware

_MIB = 2**20
_CGROUP = Path("/sys/fs/cgroup")


def detect() -> Hardware:
    """Return what this machine has now; a machine without an NVIDIA driver has no GPUs."""
    total, available = _host_memory_mib()
    gpus, facts = _ask_nvml()
    return Hardware(
        gpus=gpus,
        host_memory_total_mib=total,
        host_memory_available_mib=available,
        cores=len(os.sched_getaffinity(0)),
        **facts,
    )


def _ask_nvml() -> tuple[tuple[Gpu, ...], dict[str, Any]]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        # No library or no driver is a machine without GPUs; anything else is a driver in trouble.
        absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return (), {} if error.value in absent else {"problem": f"NVML does not start: {error}"}
    try:
        count = pynvml.nvmlDeviceGetCount()
        gpus = tuple(_gpu(pynvml, index) for index in range(count))
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        driver = pynvml.nvmlSystemGetDriverVersion()
        return gpus, {"driver_version": driver, "cuda_version": (cuda // 1000, cuda % 1000 // 10)}
    except pynvml.NVMLError as error:
        return (), {"problem": f"NVML answered with an error: {error}"}
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        memory_total_mib=memory.total / _MIB,
        memory_used_mib=memory.used / _MIB,
        compute_capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
    )


def _host_memory_mib() -> tuple[float, float]:
    """Return total and available host memory in MiB: the machine's, or the cgroup's where it is less."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = memory.total / _MIB, memory.available / _MIB
    limit, current = _cgroup_mib("memory.max"), _cgroup_mib("memory.current")
    if limit is None or limit >= total:
        return total, available
    return limit, max(0.0, min(available, limit - (current or 0.0)))


def _cgroup_mib(name: str) -> float | None:
    try:
        text = (_CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) / _MIB if text.isdigit() else None
