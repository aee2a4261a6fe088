"""The machine around the GPUs, as the kernel tells it. What it does not tell is None."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from subcortex.hardware.model import Host, NumaNode

_MIB = 2**20
_CGROUP = Path("/sys/fs/cgroup")
_NODES = Path("/sys/devices/system/node")
_CPUINFO = Path("/proc/cpuinfo")


def memory_mib(cgroup: Path = _CGROUP) -> tuple[float, float]:
    """Return total and available host memory in MiB: the machine's, or the container's where it is less."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = memory.total / _MIB, memory.available / _MIB
    limit, current = _cgroup_mib(cgroup / "memory.max"), _cgroup_mib(cgroup / "memory.current")
    if limit is None or limit >= total:
        return total, available
    return limit, max(0.0, min(available, limit - (current or 0.0)))


def allowed_cores() -> set[int]:
    """Return the cores this process may use."""
    return os.sched_getaffinity(0)


def read(*, cgroup: Path = _CGROUP, nodes: Path = _NODES, cpuinfo: Path = _CPUINFO) -> Host:
    """Return the rest of what is known of the host; the paths are the kernel's, but for tests."""
    import psutil

    swap = psutil.swap_memory()
    return Host(
        swap_total_mib=swap.total / _MIB,
        swap_free_mib=swap.free / _MIB,
        cores_physical=psutil.cpu_count(logical=False),
        cores_logical=psutil.cpu_count(logical=True),
        affinity=as_list(allowed_cores()),
        cpu_quota=_cpu_quota(cgroup / "cpu.max"),
        cpu_model=_cpu_model(cpuinfo),
        kernel=platform.release() or None,
        architecture=platform.machine() or None,
        numa_nodes=numa_nodes(nodes),
    )


def as_list(numbers: Iterable[int]) -> str:
    """Return numbers as the kernel lists cores: ``{0, 1, 2, 8}`` is ``0-2,8``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{first}-{last}" if first != last else str(first) for first, last in runs)


def numa_nodes(folder: Path = _NODES) -> tuple[NumaNode, ...]:
    """Return the NUMA nodes in the kernel's folder of them; empty without one."""
    found = []
    for node in folder.glob("node*"):
        cores = _text(node / "cpulist")
        if cores is None or not node.name[4:].isdecimal():
            continue
        memory = dict(re.findall(r"(MemTotal|MemFree):\s*(\d+) kB", _text(node / "meminfo") or ""))
        found.append(
            NumaNode(
                index=int(node.name[4:]),
                cores=cores.strip(),
                memory_total_mib=int(memory["MemTotal"]) / 1024 if "MemTotal" in memory else None,
                memory_free_mib=int(memory["MemFree"]) / 1024 if "MemFree" in memory else None,
            )
        )
    return tuple(sorted(found, key=lambda node: node.index))


def _cgroup_mib(file: Path) -> float | None:
    text = (_text(file) or "").strip()
    return int(text) / _MIB if text.isdecimal() else None


def _cpu_quota(file: Path) -> float | None:
    """Return the cores' worth of CPU time in ``cpu.max``: quota and period in µs, or ``max``."""
    found = re.match(r"(\d+) (\d+)", _text(file) or "")
    return int(found[1]) / int(found[2]) if found and int(found[1]) and int(found[2]) else None


def _cpu_model(file: Path) -> str | None:
    # ARM's has no such line; the machine's architecture has to do there.
    found = re.search(r"^model name\s*:\s*(.+)$", _text(file) or "", re.MULTILINE)
    return found[1].strip() if found else None


def _text(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return None
