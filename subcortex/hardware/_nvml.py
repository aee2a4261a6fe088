"""Reading GPUs through NVML. Any single reading may be missing on some card; then it is None."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from subcortex.hardware.cards import card_for
from subcortex.hardware.model import Gpu, GpuPair, GpuProcess

_MIB = 2**20
_PCI_DEVICES = Path("/sys/bus/pci/devices")

# NVML's own numbers, which never change. They are written out as the binding's are not all right (the index
# of reading between peers is a tuple there) and older bindings lack some.
_CLOCK_SM, _CLOCK_MEMORY = 1, 2
_TEMPERATURE_GPU = 0
_FIELD_NVLINK_MB_PER_S = 90
_MEMORY_V2 = 0x02000028
_REMOTE_GPU, _REMOTE_SWITCH, _REMOTE_UNKNOWN = 0, 2, 255
_MOST_NVLINKS = 36
_NVLINK_VERSIONS = {1: "1.0", 2: "2.0", 3: "2.2", 4: "3.0", 5: "3.1", 6: "4.0", 7: "5.0", 8: "6.0"}
_TOPOLOGY = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
_PEER = {0: "OK", 1: "CNS", 2: "GNS", 3: "TNS", 4: "DR", 5: "NS", 6: "U"}
_PEER_READ, _PEER_WRITE, _PEER_NVLINK, _PEER_ATOMICS = 0, 1, 2, 3
_VALUE_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


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
        _Reader(nvml).read("nvmlShutdown")


class _Reader:
    """NVML, with None for whatever it does not answer."""

    def __init__(self, nvml: ModuleType | Any) -> None:
        self._nvml = nvml
        # An older library or binding lacks functions or arguments; a name may be no UTF-8 (ValueError).
        self._unanswered = (nvml.NVMLError, AttributeError, TypeError, ValueError)

    def read(self, function: str, *arguments: Any) -> Any:
        """Return a function's answer, None where there is none."""
        try:
            return getattr(self._nvml, function)(*arguments)
        except self._unanswered:
            return None

    def all(self) -> Found:
        handles: dict[int, Any] = {}
        nvlinks: dict[int, _NvLinks] = {}
        gpus: list[Gpu] = []
        problems: list[str] = []
        for index in range(self._nvml.nvmlDeviceGetCount()):
            try:
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                found = self._nvlinks(handle)
                gpu = self._gpu(index, handle, found)
            except self._nvml.NVMLError as error:
                problems.append(f"GPU {index} does not answer: {error}")
                continue
            gpus.append(gpu)
            handles[index], nvlinks[index] = handle, found or _NvLinks()
        cuda = _whole(self.read("nvmlSystemGetCudaDriverVersion_v2"))
        return Found(
            gpus=tuple(gpus),
            links=tuple(self._pairs(gpus, handles, nvlinks)),
            driver_version=_text(self.read("nvmlSystemGetDriverVersion")),
            cuda_version=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
            problem="; ".join(problems) or None,
        )

    def _gpu(self, index: int, handle: Any, nvlinks: _NvLinks | None) -> Gpu:
        name = _text(self.read("nvmlDeviceGetName", handle)) or "unknown GPU"
        total_mib, used_mib, reserved_mib = self._memory_mib(handle, name)
        capability = self.read("nvmlDeviceGetCudaComputeCapability", handle)
        bus_id = _bus_id(self.read("nvmlDeviceGetPciInfo", handle))
        active = _flag(self.read("nvmlDeviceGetDisplayActive", handle))
        first = nvlinks.links[0] if nvlinks and nvlinks.links else None
        return Gpu(
            index=index,
            name=name,
            uuid=_text(self.read("nvmlDeviceGetUUID", handle)),
            memory_total_mib=total_mib,
            memory_used_mib=used_mib,
            memory_reserved_mib=reserved_mib,
            compute_capability=(int(capability[0]), int(capability[1])) if capability else None,
            processes=self._processes(handle),
            sm_clock_mhz=_whole(self.read("nvmlDeviceGetClockInfo", handle, _CLOCK_SM)),
            sm_clock_max_mhz=_whole(self.read("nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM)),
            memory_clock_mhz=_whole(self.read("nvmlDeviceGetClockInfo", handle, _CLOCK_MEMORY)),
            memory_clock_max_mhz=_whole(self.read("nvmlDeviceGetMaxClockInfo", handle, _CLOCK_MEMORY)),
            temperature_c=_whole(self.read("nvmlDeviceGetTemperature", handle, _TEMPERATURE_GPU)),
            power_draw_w=_watts(self.read("nvmlDeviceGetPowerUsage", handle)),
            power_limit_w=_watts(self.read("nvmlDeviceGetEnforcedPowerLimit", handle)),
            pci_bus_id=bus_id,
            pcie_generation=_whole(self.read("nvmlDeviceGetCurrPcieLinkGeneration", handle)),
            pcie_generation_max=_whole(self.read("nvmlDeviceGetMaxPcieLinkGeneration", handle)),
            pcie_width=_whole(self.read("nvmlDeviceGetCurrPcieLinkWidth", handle)),
            pcie_width_max=_whole(self.read("nvmlDeviceGetMaxPcieLinkWidth", handle)),
            nvlinks=len(nvlinks.links) if nvlinks else None,
            nvlink_version=None if first is None else self._nvlink_version(handle, first),
            nvlink_mb_per_s=None if first is None else self._nvlink_mb_per_s(handle),
            display_attached=_attached(name, self.read("nvmlDeviceGetDisplayMode", handle), active),
            display_active=active,
            numa_node=_numa_node(bus_id),
        )

    def _memory_mib(self, handle: Any, name: str) -> tuple[float, float, float | None]:
        """Return total, used and the driver's share; raises NVMLError where nothing tells the total."""
        detailed = self.read("nvmlDeviceGetMemoryInfo", handle, _MEMORY_V2)
        reserved_mib = None if detailed is None else detailed.reserved / _MIB
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        except self._nvml.NVMLError as error:
            card = card_for(name)
            if card is None or error.value != self._nvml.NVML_ERROR_NOT_SUPPORTED:
                raise
            return card.reported_mib, 0.0, reserved_mib
        return memory.total / _MIB, memory.used / _MIB, reserved_mib

    def _processes(self, handle: Any) -> tuple[GpuProcess, ...] | None:
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
                pid, used = int(process.pid), process.usedGpuMemory
                mib = None if used is None else used / _MIB
                known = found.get(pid)
                # Both lists give what the process holds in all, so the figures are not added up.
                sizes = [size for size in (mib, known.memory_mib if known else None) if size is not None]
                found[pid] = GpuProcess(
                    pid=pid,
                    name=known.name if known else self._process_name(pid),
                    memory_mib=max(sizes, default=None),
                    kind="both" if known and known.kind != kind else kind,
                )
        return tuple(sorted(found.values(), key=lambda process: process.pid))

    def _process_name(self, pid: int) -> str | None:
        name = _text(self.read("nvmlSystemGetProcessName", pid))
        if name:
            return name
        import psutil

        try:
            return psutil.Process(pid).name() or None
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
            if not state:
                continue
            active.append(link)
            kind = self.read("nvmlDeviceGetNvLinkRemoteDeviceType", handle, link)
            peer = _bus_id(self.read("nvmlDeviceGetNvLinkRemotePciInfo", handle, link))
            if kind == _REMOTE_SWITCH:
                switch += 1
            elif peer and kind in (_REMOTE_GPU, _REMOTE_UNKNOWN, None):
                peers.append(peer)
            elif kind in (_REMOTE_UNKNOWN, None):
                unknown += 1
        return _NvLinks(tuple(active), tuple(peers), switch, unknown) if answered else None

    def _nvlink_version(self, handle: Any, link: int) -> str | None:
        return _NVLINK_VERSIONS.get(self.read("nvmlDeviceGetNvLinkVersion", handle, link))

    def _nvlink_mb_per_s(self, handle: Any) -> float | None:
        values = self.read("nvmlDeviceGetFieldValues", handle, [_FIELD_NVLINK_MB_PER_S])
        if not values or values[0].nvmlReturn != 0:
            return None
        found = getattr(values[0].value, _VALUE_MEMBERS.get(values[0].valueType, ""), 0)
        return float(found) if found > 0 else None

    def _pairs(
        self, gpus: list[Gpu], handles: dict[int, Any], nvlinks: dict[int, _NvLinks]
    ) -> Iterable[GpuPair]:
        here = {gpu.pci_bus_id for gpu in gpus if gpu.pci_bus_id}
        for one, other in combinations(gpus, 2):
            a, b = handles[one.index], handles[other.index]
            peer_nvlink = self._peer(a, b, _PEER_NVLINK)
            code = _nvlink_code(
                nvlinks[one.index], nvlinks[other.index], one, other, here, reached=peer_nvlink == "OK"
            )
            if code is None:
                code = _TOPOLOGY.get(self.read("nvmlDeviceGetTopologyCommonAncestor", a, b))
            if code is None:
                continue
            yield GpuPair(
                a=one.index,
                b=other.index,
                code=code,
                peer_read=self._peer(a, b, _PEER_READ),
                peer_write=self._peer(a, b, _PEER_WRITE),
                peer_nvlink=peer_nvlink,
                peer_atomics=self._peer(a, b, _PEER_ATOMICS),
            )

    def _peer(self, a: Any, b: Any, capability: int) -> str | None:
        return _PEER.get(self.read("nvmlDeviceGetP2PStatus", a, b, capability))


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


def _optional(convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return None if value is None else convert(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    found: int | None = _optional(int, value)
    return found


def _watts(milliwatts: Any) -> float | None:
    found: float | None = _optional(lambda value: int(value) / 1000, milliwatts)
    return found


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _attached(name: str, mode: Any, active: bool | None) -> bool | None:
    """Return whether a monitor is plugged in.

    Drivers say so of data-centre cards too, which have no socket for one, or have it switched off.
    """
    made_for_it = any(word in name.upper() for word in ("GEFORCE", "RTX", "GTX", "QUADRO", "TITAN"))
    return _flag(mode) if made_for_it or active or not mode else False


def _bus_id(pci: Any) -> str | None:
    # A link that leads nowhere answers with an empty id.
    found = _text(getattr(pci, "busId", None))
    return found.upper() if found and found.strip("0:.") else None
