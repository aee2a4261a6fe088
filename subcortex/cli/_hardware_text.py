"""A machine as text for people. Pure; what is unknown is a dash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from subcortex.cli import _output
from subcortex.cli._output import table
from subcortex.hardware import (
    LINK_CODES,
    PEER_CODES,
    Gpu,
    GpuPair,
    Hardware,
    Host,
    Interpreter,
    link_between,
    matrix,
)

UNKNOWN = "–"
_NAME_COLUMNS = 60


def inert(text: str) -> str:
    """Return ``text`` on one line, with nothing in it that drives a terminal."""
    return _output.inert(text).replace("\n", " ")


def page(hardware: Hardware) -> Iterator[str]:
    """Return the lines of a machine: GPUs, their users, links, engines, host."""
    if hardware.assumed:
        yield "the GPUs are assumed, not measured"
    if hardware.problem:
        yield inert(hardware.problem)
    if not hardware.gpus:
        yield "no NVIDIA GPU"
    else:
        yield from _gpus(hardware)
        yield ""
        yield from _users(hardware.gpus)
    if len(hardware.gpus) > 1:
        yield ""
        yield from _links(hardware)
    for interpreter in hardware.interpreters:
        yield ""
        yield from _interpreter(interpreter)
    yield ""
    yield from _host(hardware)


def _gpus(hardware: Hardware) -> Iterator[str]:
    cuda = _dotted(hardware.cuda_version)
    yield inert(f"driver {_or_dash(hardware.driver_version)}, CUDA up to {cuda}")
    header = (
        "GPU",
        "name",
        "used/total MiB",
        "°C",
        "W",
        "SM MHz",
        "memory MHz",
        "PCIe",
        "CC",
        "bus",
        "display",
    )
    rows = [
        (
            str(gpu.index),
            gpu.name,
            f"{gpu.memory_used_mib:.0f}/{gpu.memory_total_mib:.0f}",
            _or_dash(gpu.temperature_c),
            f"{_whole(gpu.power_draw_w)}/{_whole(gpu.power_limit_w)}",
            f"{_or_dash(gpu.sm_clock_mhz)}/{_or_dash(gpu.sm_clock_max_mhz)}",
            f"{_or_dash(gpu.memory_clock_mhz)}/{_or_dash(gpu.memory_clock_max_mhz)}",
            _pcie(gpu),
            _dotted(gpu.compute_capability),
            _or_dash(gpu.pci_bus_id),
            _display(gpu),
        )
        for gpu in hardware.gpus
    ]
    yield from table(header, rows, right=(0, 2, 3, 4, 5, 6))
    yield from (inert(f"GPU {gpu.index} is {gpu.uuid}") for gpu in hardware.gpus if gpu.uuid)
    for gpu in hardware.gpus:
        yield from _instances(gpu)
        if gpu.unread:
            yield inert(f"GPU {gpu.index} has no usable answer for {', '.join(gpu.unread)}")


def _instances(gpu: Gpu) -> Iterator[str]:
    if gpu.mig is None:
        return
    yield f"GPU {gpu.index} is in MIG mode: CUDA sees its instances, not the card; nothing is planned on it"
    for instance in gpu.mig:
        size = f"{_whole(instance.memory_total_mib)} MiB"
        yield inert(f"  {_or_dash(instance.uuid)} is {_or_dash(instance.name)}, {size}")
    if not gpu.mig:
        yield "  it has no instance"


def _pcie(gpu: Gpu) -> str:
    now = f"{_or_dash(gpu.pcie_generation)} x{_or_dash(gpu.pcie_width)}"
    most = f"{_or_dash(gpu.pcie_generation_max)} x{_or_dash(gpu.pcie_width_max)}"
    both = (gpu.pcie_generation, gpu.pcie_width, gpu.pcie_generation_max, gpu.pcie_width_max)
    return UNKNOWN if both == (None,) * 4 else f"{now} of {most}"


def _display(gpu: Gpu) -> str:
    if gpu.display_active:
        return "active"
    if gpu.display_attached is None:
        return UNKNOWN
    return "attached" if gpu.display_attached else "none"


def _users(gpus: Sequence[Gpu]) -> Iterator[str]:
    """Say who uses the GPUs, and of which the driver does not tell."""
    rows = [
        (str(gpu.index), str(process.pid), _named(process.name), process.kind, _whole(process.memory_mib))
        for gpu in gpus
        for process in gpu.processes or ()
    ]
    if rows:
        yield from table(("GPU", "pid", "process", "for", "MiB"), rows, right=(0, 1, 4))
    hidden = [str(gpu.index) for gpu in gpus if gpu.processes is None]
    if hidden:
        yield f"who uses GPU {', '.join(hidden)}: {UNKNOWN}"
    elif not rows:
        yield "no process uses a GPU"


def _named(name: str | None) -> str:
    # The end of a path tells more than its beginning.
    shown = inert(name or UNKNOWN)
    return shown if len(shown) <= _NAME_COLUMNS else "…" + shown[1 - _NAME_COLUMNS :]


def _links(hardware: Hardware) -> Iterator[str]:
    names = [f"GPU{gpu.index}" for gpu in hardware.gpus]
    codes = [[_or_dash(code) for code in row] for row in matrix(hardware)]
    yield from table(("links", *names), [(name, *row) for name, row in zip(names, codes, strict=True)])
    seen = {"NV#" if code.startswith("NV") else code for row in codes for code in row}
    yield from (f"  {code}: {meaning}" for code, meaning in LINK_CODES.items() if code in seen)
    yield ""
    rows = [_link(hardware, a, b) for a, b in combinations([gpu.index for gpu in hardware.gpus], 2)]
    header = ("between", "GB/s each way", "from", "peer read", "write", "NVLink", "atomics")
    yield from table(header, rows, right=(1,))
    words = {word for row in rows for word in row[3:]}
    yield from (f"  {word}: {meaning}" for word, meaning in PEER_CODES.items() if word in words)


def _link(hardware: Hardware, a: int, b: int) -> tuple[str, ...]:
    link, pair = link_between(hardware, a, b), hardware.pair(a, b)
    source = "measured" if link.measured else f"{link.words}, nominal"
    peers = _peers(pair) if pair else (None,) * 4
    return f"{a} and {b}", f"{link.gb_per_s:.1f}", source, *map(_or_dash, peers)


def _peers(pair: GpuPair) -> tuple[str | None, ...]:
    return pair.peer_read, pair.peer_write, pair.peer_nvlink, pair.peer_atomics


def _interpreter(found: Interpreter) -> Iterator[str]:
    tiers = f" (tiers: {', '.join(found.tiers)})" if found.tiers else ""
    yield inert(f"{found.python}{tiers}")
    if found.problem:
        yield f"  problem: {inert(found.problem)}"
    if found.version is None:
        return
    versions = {
        "Python": found.version,
        "torch": found.torch,
        "CUDA": found.cuda,
        "NCCL": found.nccl,
        "vLLM": found.vllm,
        "flash-attn": found.flash_attn,
        "FlashInfer": found.flashinfer,
    }
    yield inert("  " + ", ".join(f"{name} {_or_dash(version)}" for name, version in versions.items()))
    available = {True: "yes", False: "no", None: UNKNOWN}[found.cuda_available]
    yield inert(f"  CUDA available: {available}; built for {' '.join(found.architectures) or UNKNOWN}")
    order, visible = _or_dash(found.device_order), _or_dash(found.visible_devices)
    yield inert(f"  CUDA_DEVICE_ORDER {order}, CUDA_VISIBLE_DEVICES {visible}")
    yield from (
        inert(f"  cuda:{device.index} is {device.name}, {_or_dash(device.uuid)}") for device in found.devices
    )


def _host(hardware: Hardware) -> Iterator[str]:
    host = hardware.host or Host()
    available, total = hardware.host_memory_available_mib, hardware.host_memory_total_mib
    swap = f"swap {_whole(host.swap_free_mib)} of {_whole(host.swap_total_mib)} MiB free"
    yield f"host: {available:.0f} of {total:.0f} MiB available, {swap}"
    quota = "" if host.cpu_quota is None else f", CPU time of {host.cpu_quota:g}"
    yield inert(
        f"cores: {_or_dash(host.cores_physical)} physical, {_or_dash(host.cores_logical)} logical, "
        f"{hardware.cores} usable ({_or_dash(host.affinity)}){quota}"
    )
    yield inert(
        f"CPU {_or_dash(host.cpu_model)}, {_or_dash(host.architecture)}, kernel {_or_dash(host.kernel)}"
    )
    for node in host.numa_nodes:
        gpus = [str(gpu.index) for gpu in hardware.gpus if gpu.numa_node == node.index]
        yield inert(
            f"NUMA node {node.index}: cores {node.cores}, {_whole(node.memory_free_mib)} of "
            f"{_whole(node.memory_total_mib)} MiB free, GPUs {', '.join(gpus) or UNKNOWN}"
        )


def _or_dash(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _whole(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def _dotted(version: tuple[int, int] | None) -> str:
    return UNKNOWN if version is None else ".".join(map(str, version))
