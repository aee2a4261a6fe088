"""Reading GPUs through NVML. Any single reading may be missing on some card; then it is None."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from subcortex.hardware import _readings as readings
from subcortex.hardware._readings import NONSENSE, Sheet
from subcortex.hardware.cards import card_for
from subcortex.hardware.model import (
    MOST_GPUS,
    MOST_INSTANCES,
    MOST_PROCESSES,
    Gpu,
    GpuPair,
    GpuProcess,
    MigInstance,
)

_PCI_DEVICES = Path("/sys/bus/pci/devices")

# NVML's own numbers, which never change. They are written out as the binding's are not all right (the index
# of reading between peers is a tuple there) and older bindings lack some.
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_TEMPERATURE_GPU = 0
_FIELD_NVLINK_MB_PER_S = 90
_MEMORY_V2 = 0x02000028
_GPU_IS_LOST = 15
_MIG_ON = 1
_REMOTE_GPU, _REMOTE_SWITCH, _REMOTE_UNKNOWN = 0, 2, 255
_MOST_NVLINKS = 36
_PEER_READ, _PEER_WRITE, _PEER_NVLINK, _PEER_ATOMICS = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Found:
    """What NVML told: GPUs, what lies between them, the driver, and what went wrong."""

    gpus: tuple[Gpu, ...] = ()
    links: tuple[GpuPair, ...] = ()
    driver_version: str | None = None
    cuda_version: tuple[int, int] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _NvLinks:
    """The active NVLinks of one GPU.

    Args:
        links: Their numbers.
        to_gpus: PCI bus id of the other end, once for each link that leads to a device that tells it.
        to_switch: How many lead to a switch.
        unknown: How many lead to what cannot be told, as in some virtual machines.
    """

    links: tuple[int, ...] = ()
    to_gpus: tuple[str, ...] = ()
    to_switch: int = 0
    unknown: int = 0


def ask(nvml: ModuleType | Any) -> Found:
    """Return all that NVML tells.

    Args:
        nvml: The module ``pynvml``, or what answers as it does.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        # No library or no driver is a machine without GPUs; anything else is a driver in trouble.
        absent = (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return Found(problem=None if error.value in absent else f"NVML does not start: {error}")
    try:
        return _Reader(nvml).all()
    except nvml.NVMLError as error:
        return Found(problem=f"NVML answered with an error: {error}")
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


class _Reader:
    """NVML, with None for whatever it does not answer."""

    def __init__(self, nvml: ModuleType | Any) -> None:
        self._nvml = nvml

    def read(self, function: str, *arguments: Any) -> Any:
        """Return a function's answer, None where there is none.

        Raises:
            NVMLError: The GPU has fallen off the bus.
        """
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._nvml.NVMLError as error:
            if error.value == _GPU_IS_LOST:
                raise
            return None
        except NONSENSE:
            # An older library or binding lacks functions or arguments; a name may be no UTF-8.
            return None

    def all(self) -> Found:
        problems: list[str] = []
        read = list(self._gpus(problems))
        gpus = [gpu for gpu, _, _ in read]
        cuda_version = self._cuda_version(problems)
        return Found(
            gpus=tuple(gpus),
            links=tuple(self._pairs(read, problems)),
            driver_version=readings.or_none(readings.text, self.read("nvmlSystemGetDriverVersion")),
            cuda_version=cuda_version,
            problem=readings.text("; ".join(problems)),
        )

    def _gpus(self, problems: list[str]) -> Iterator[_Read]:
        count = self._nvml.nvmlDeviceGetCount()
        if not isinstance(count, int) or count < 0:
            problems.append(f"NVML counts {count!r} GPUs")
            return
        if count > MOST_GPUS:
            problems.append(f"{count} GPUs, of which the first {MOST_GPUS} are read")
        for index in range(min(count, MOST_GPUS)):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                nvlinks = self._nvlinks(handle)
                yield self._gpu(index, handle, nvlinks), handle, nvlinks or _NvLinks()
            except self._nvml.NVMLError as error:
                problems.append(f"GPU {index} does not answer: {error}")
            except NONSENSE as error:
                problems.append(f"GPU {index} answers nonsense: {error}")

    def _cuda_version(self, problems: list[str]) -> tuple[int, int] | None:
        value = self.read("nvmlSystemGetCudaDriverVersion_v2")
        try:
            return readings.cuda(value)
        except NONSENSE:
            problems.append(f"NVML answers nonsense for the version of CUDA: {value!r}")
            return None

    def _gpu(self, index: int, handle: Any, nvlinks: _NvLinks | None) -> Gpu:
        sheet = Sheet()

        def told(field: str, convert: Any, function: str, *arguments: Any) -> Any:
            return sheet.put(field, lambda: convert(self.read(function, handle, *arguments)))

        sheet.facts["index"] = index
        name = sheet.facts["name"] = told("name", readings.text, "nvmlDeviceGetName") or "unknown GPU"
        told("uuid", readings.text, "nvmlDeviceGetUUID")
        mig = sheet.put("mig", lambda: self._instances(handle))
        self._memory(sheet, handle, name, mig)
        told("compute_capability", readings.version, "nvmlDeviceGetCudaComputeCapability")
        sheet.put("processes", lambda: self._processes(sheet, handle))
        for kind, clock in (("sm", _CLOCK_SM), ("memory", _CLOCK_MEMORY)):
            told(f"{kind}_clock_mhz", readings.whole, "nvmlDeviceGetClockInfo", clock)
            told(f"{kind}_clock_max_mhz", readings.whole, "nvmlDeviceGetMaxClockInfo", clock)
        told("temperature_c", readings.whole, "nvmlDeviceGetTemperature", _TEMPERATURE_GPU)
        told("power_draw_w", readings.watts, "nvmlDeviceGetPowerUsage")
        told("power_limit_w", readings.watts, "nvmlDeviceGetEnforcedPowerLimit")
        bus_id = told("pci_bus_id", readings.bus_id, "nvmlDeviceGetPciInfo")
        sheet.facts["numa_node"] = _numa_node(bus_id)
        told("pcie_generation", readings.whole, "nvmlDeviceGetCurrPcieLinkGeneration")
        told("pcie_generation_max", readings.whole, "nvmlDeviceGetMaxPcieLinkGeneration")
        told("pcie_width", readings.whole, "nvmlDeviceGetCurrPcieLinkWidth")
        told("pcie_width_max", readings.whole, "nvmlDeviceGetMaxPcieLinkWidth")
        if nvlinks is not None:
            sheet.facts["nvlinks"] = len(nvlinks.links)
            for first in nvlinks.links[:1]:
                told("nvlink_version", readings.nvlink_version, "nvmlDeviceGetNvLinkVersion", first)
                told(
                    "nvlink_mb_per_s", readings.mb_per_s, "nvmlDeviceGetFieldValues", [_FIELD_NVLINK_MB_PER_S]
                )
        active = told("display_active", readings.flag, "nvmlDeviceGetDisplayActive")
        mode = told("display_attached", readings.flag, "nvmlDeviceGetDisplayMode")
        sheet.facts["display_attached"] = readings.attached(name, mode, active)
        return sheet.gpu()

    def _memory(self, sheet: Sheet, handle: Any, name: str, mig: tuple[MigInstance, ...] | None) -> None:
        """Note total, used and the driver's share; raises NVMLError where nothing tells the total."""
        detailed = self.read("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2)
        sheet.put(
            "memory_reserved_mib", lambda: None if detailed is None else readings.mib(detailed.reserved)
        )
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        except self._nvml.NVMLError as error:
            card = card_for(name)
            # In MIG mode the card as a whole is told to the administrator alone.
            known = mig is not None or error.value == self._nvml.NVML_ERROR_NOT_SUPPORTED
            instances_mib = sum(instance.memory_total_mib or 0.0 for instance in mig or ())
            total_mib = card.reported_mib if card else instances_mib
            if error.value == _GPU_IS_LOST or not known or not total_mib:
                raise
            sheet.facts.update(memory_total_mib=total_mib, memory_used_mib=0.0)
            sheet.unread |= {"memory_total_mib", "memory_used_mib"}
            return
        sheet.put("memory_total_mib", lambda: readings.mib(memory.total))
        sheet.put("memory_used_mib", lambda: readings.mib(memory.used))

    def _instances(self, handle: Any) -> tuple[MigInstance, ...] | None:
        """Return the instances of a card in MIG mode, None of any other."""
        mode = self.read("nvmlDeviceGetMigMode", handle)
        if mode is None or mode[0] != _MIG_ON:
            return None
        most: int | None = readings.or_none(
            readings.whole, self.read("nvmlDeviceGetMaxMigDeviceCount", handle)
        )
        found = []
        for place in range(max(0, min(most or 0, MOST_INSTANCES))):
            # Places without an instance answer "not found".
            instance = self.read("nvmlDeviceGetMigDeviceHandleByIndex", handle, place)
            if instance is not None:
                memory = self.read("nvmlDeviceGetMemoryInfo", instance)
                found.append(
                    MigInstance(
                        uuid=readings.or_none(readings.text, self.read("nvmlDeviceGetUUID", instance)),
                        name=readings.or_none(readings.text, self.read("nvmlDeviceGetName", instance)),
                        memory_total_mib=readings.or_none(lambda seen: readings.mib(seen.total), memory),
                    )
                )
        return tuple(found)

    def _processes(self, sheet: Sheet, handle: Any) -> tuple[GpuProcess, ...] | None:
        compute = self.read("nvmlDeviceGetComputeRunningProcesses", handle)
        graphics = self.read("nvmlDeviceGetGraphicsRunningProcesses", handle)
        if compute is None and graphics is None:
            return None
        found: dict[int, GpuProcess] = {}
        kinds: tuple[tuple[Literal["compute", "graphics"], Iterable[Any]], ...] = (
            ("compute", compute or ()),
            ("graphics", graphics or ()),
        )
        for kind, processes in kinds:
            for process in processes:
                try:
                    self._add_process(found, kind, process)
                except NONSENSE:
                    sheet.unread.add("processes")
        if len(found) > MOST_PROCESSES:
            sheet.unread.add("processes")
        return tuple(sorted(found.values(), key=lambda process: process.pid)[:MOST_PROCESSES])

    def _add_process(
        self, found: dict[int, GpuProcess], kind: Literal["compute", "graphics"], process: Any
    ) -> None:
        """Note a process; one whose memory makes no sense is noted without it, and raises all the same."""
        pid = int(process.pid)
        known = found.get(pid)
        noted = GpuProcess(
            pid=pid,
            name=known.name if known else self._process_name(pid),
            memory_mib=known.memory_mib if known else None,
            kind="both" if known and known.kind != kind else kind,
        )
        found[pid] = noted
        mib = readings.mib(process.usedGpuMemory)
        # Both lists give what the process holds in all, so the figures are not added up.
        sizes = [size for size in (mib, noted.memory_mib) if size is not None]
        found[pid] = noted.model_copy(update={"memory_mib": max(sizes, default=None)})

    def _process_name(self, pid: int) -> str | None:
        name: str | None = readings.or_none(readings.text, self.read("nvmlSystemGetProcessName", pid))
        if name:
            return name
        import psutil

        try:
            return readings.text(psutil.Process(pid).name())
        except (psutil.Error, ValueError, OverflowError):
            return None

    def _nvlinks(self, handle: Any) -> _NvLinks | None:
        """Return a GPU's active NVLinks, None where the driver tells none of them."""
        active: list[int] = []
        peers: list[str] = []
        answered, switch, unknown = False, 0, 0
        for link in range(_MOST_NVLINKS):
            state = self.read("nvmlDeviceGetNvLinkState", handle, link)
            answered = answered or state is not None
            if state != 1:
                continue
            active.append(link)
            kind = self.read("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
            remote = self.read("nvmlDeviceGetNvLinkRemotePciInfo", handle, link)
            peer: str | None = readings.or_none(readings.bus_id, remote)
            if kind == _REMOTE_SWITCH:
                switch += 1
            elif peer and kind in (_REMOTE_GPU, _REMOTE_UNKNOWN, None):
                peers.append(peer)
            elif kind in (_REMOTE_UNKNOWN, None):
                unknown += 1
        return _NvLinks(tuple(active), tuple(peers), switch, unknown) if answered else None

    def _pairs(self, read: list[_Read], problems: list[str]) -> Iterator[GpuPair]:
        here = {gpu.pci_bus_id for gpu, _, _ in read if gpu.pci_bus_id}
        for one, other in combinations(read, 2):
            try:
                pair = self._pair(one, other, here)
            except self._nvml.NVMLError as error:
                problem = f"not all links can be read: {error}"
                problems += [problem] if problem not in problems else []
                continue
            if pair is not None:
                yield pair

    def _pair(self, one: _Read, other: _Read, here: set[str]) -> GpuPair | None:
        (gpu_a, a, links_a), (gpu_b, b, links_b) = one, other
        peer_nvlink = self._peer(a, b, _PEER_NVLINK)
        code = _nvlink_code(links_a, links_b, gpu_a, gpu_b, here, reached=peer_nvlink == "OK")
        if code is None:
            code = readings.or_none(readings.topology, self.read("nvmlDeviceGetTopologyCommonAncestor", a, b))
        if code is None:
            return None
        return GpuPair(
            a=gpu_a.index,
            b=gpu_b.index,
            code=code,
            peer_read=self._peer(a, b, _PEER_READ),
            peer_write=self._peer(a, b, _PEER_WRITE),
            peer_nvlink=peer_nvlink,
            peer_atomics=self._peer(a, b, _PEER_ATOMICS),
        )

    def _peer(self, a: Any, b: Any, capability: int) -> str | None:
        return readings.or_none(readings.peer, self.read("nvmlDeviceGetP2PStatus", a, b, capability))


#: A GPU, its handle and its NVLinks.
_Read = tuple[Gpu, Any, _NvLinks]


def _nvlink_code(
    a: _NvLinks, b: _NvLinks, one: Gpu, other: Gpu, here: set[str], *, reached: bool
) -> str | None:
    """Return NV and the number of links between two GPUs, None if there are none.

    Direct links are those whose other end is the other GPU. By a switch any two GPUs have the links of the
    one that has fewer. Links whose other end is hidden, or is no GPU of this machine (a switch seen by its
    bus id), count as to a switch where the driver says that the two reach each other by NVLink.
    """
    direct = sum(peer == other.pci_bus_id for peer in a.to_gpus) if other.pci_bus_id else 0
    if direct == 0 and one.pci_bus_id:
        direct = sum(peer == one.pci_bus_id for peer in b.to_gpus)
    if direct:
        return f"NV{direct}"
    switched = min(_switched(a, here, reached), _switched(b, here, reached))
    return f"NV{switched}" if switched else None


def _switched(links: _NvLinks, here: set[str], reached: bool) -> int:
    hidden = links.unknown + sum(peer not in here for peer in links.to_gpus)
    return links.to_switch + (hidden if reached else 0)


def _numa_node(bus_id: str | None, devices: Path = _PCI_DEVICES) -> int | None:
    """Return the NUMA node of a PCI device; sysfs writes the domain with four digits, NVML with eight."""
    if bus_id is None:
        return None
    domain, _, rest = bus_id.lower().partition(":")
    try:
        node = int((devices / f"{domain[-4:]}:{rest}" / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None
