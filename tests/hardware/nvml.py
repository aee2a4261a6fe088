"""Machines that answer as ``pynvml`` does, to be handed to ``detect``.

``two_h200`` has the name, memory, driver and links of a real machine (docs/evidence/think-2xh200); the others
are written by hand. Whatever a card is not given, it answers with NVML's "not supported".
"""

# Functions and members are named as pynvml names them.
# ruff: noqa: N802, N815

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

MIB = 2**20
GPU, SWITCH, UNKNOWN = 0, 2, 255


@dataclass
class Process:
    """A process as pynvml lists it; ``usedGpuMemory`` is None where the driver hides it."""

    pid: int
    usedGpuMemory: int | None


@dataclass
class NvLink:
    """One NVLink: what is at its other end."""

    kind: int | None = SWITCH
    bus_id: str | None = None
    active: bool = True


@dataclass
class Card:
    """A card: by the name of an NVML function without ``nvmlDeviceGet``, what it answers.

    An exception among the answers is raised.

    Args:
        instances: Of a card in MIG mode, place by place; None where a place is empty.
    """

    answers: dict[str, Any]
    nvlinks: list[NvLink] = field(default_factory=list)
    instances: list[Card | None] = field(default_factory=list)


class Nvml:
    """The functions of pynvml that are used, on cards made up here.

    Args:
        cards: In NVML's order.
        topology: NVML's level between two cards, by their indices.
        peers: P2P status between two cards, by their indices, for read, write, NVLink and atomics.
        names: Names of processes.
        failing: By function, the code of the NVML error it answers with.
    """

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED

    def __init__(
        self,
        cards: list[Card],
        *,
        topology: dict[tuple[int, int], int] | None = None,
        peers: dict[tuple[int, int], tuple[int, int, int, int]] | None = None,
        names: dict[int, str] | None = None,
        driver: str = "580.159.04",
        cuda: int = 13000,
        failing: dict[str, int] | None = None,
    ) -> None:
        self.cards, self.topology, self.peers = cards, topology or {}, peers or {}
        self.names, self.driver, self.cuda = names or {}, driver, cuda
        self.failing = failing or {}
        self.open = 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml") and name in self.failing:
            code = self.failing[name]
            return lambda *_: _fail(code)
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)
        return lambda index, *_: self._answer(index, name.removeprefix("nvmlDeviceGet"))

    def _answer(self, index: int | tuple[int, int], name: str) -> Any:
        answers = self._at(index).answers
        if name not in answers:
            _fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if isinstance(answers[name], Exception):
            raise answers[name]
        return answers[name]

    def _at(self, index: int | tuple[int, int]) -> Card:
        if isinstance(index, int):
            return self.cards[index]
        found = self.cards[index[0]].instances[index[1]]
        assert found is not None
        return found

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        return self.names[pid] if pid in self.names else _fail(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetMaxMigDeviceCount(self, index: int) -> int:
        return len(self.cards[index].instances)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, index: int, place: int) -> Any:
        return (index, place) if self.cards[index].instances[place] else _fail(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetMemoryInfo(self, index: int | tuple[int, int], version: int | None = None) -> Any:
        found = self._answer(index, "MemoryInfo")
        if not isinstance(found, tuple):
            return found
        total, used, reserved = found
        if version and reserved is None:
            _fail(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(total=total * MIB, used=used * MIB, reserved=(reserved or 0) * MIB)

    def nvmlDeviceGetPciInfo(self, index: int) -> Any:
        return SimpleNamespace(busId=self._answer(index, "BusId"))

    def nvmlDeviceGetClockInfo(self, index: int, clock: int) -> Any:
        return self._answer(index, "ClockInfo")[clock]

    def nvmlDeviceGetMaxClockInfo(self, index: int, clock: int) -> Any:
        return self._answer(index, "MaxClockInfo")[clock]

    def nvmlDeviceGetFieldValues(self, index: int, fields: list[int]) -> list[Any]:
        found = self._answer(index, "NvLinkMbPerS")
        value = SimpleNamespace(uiVal=found)
        return [SimpleNamespace(nvmlReturn=0, valueType=1, value=value) for _ in fields]

    def nvmlDeviceGetNvLinkState(self, index: int, link: int) -> int:
        return int(self._link(index, link).active)

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, index: int, link: int) -> int:
        kind = self._link(index, link).kind
        return _fail(pynvml.NVML_ERROR_NOT_SUPPORTED) if kind is None else kind

    def nvmlDeviceGetNvLinkRemotePciInfo(self, index: int, link: int) -> Any:
        found = self._link(index, link).bus_id
        return _fail(pynvml.NVML_ERROR_NOT_SUPPORTED) if found is None else SimpleNamespace(busId=found)

    def _link(self, index: int, link: int) -> NvLink:
        links = self.cards[index].nvlinks
        if not links:
            _fail(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return links[link] if link < len(links) else _fail(pynvml.NVML_ERROR_INVALID_ARGUMENT)

    def nvmlDeviceGetTopologyCommonAncestor(self, a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        return self.topology[key] if key in self.topology else _fail(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetP2PStatus(self, a: int, b: int, capability: int) -> int:
        key = (min(a, b), max(a, b))
        return self.peers[key][capability] if key in self.peers else _fail(pynvml.NVML_ERROR_NOT_SUPPORTED)


def _fail(code: int) -> Any:
    raise pynvml.NVMLError(code)


def h200(index: int, **more: Any) -> Card:
    answers = {
        "Name": "NVIDIA H200",
        "UUID": f"GPU-{index}1111111-2222-3333-4444-555555555555",
        "MemoryInfo": (143771, 629, 628),
        "CudaComputeCapability": (9, 0),
        "ComputeRunningProcesses": [],
        "GraphicsRunningProcesses": [],
        "ClockInfo": {1: 345, 2: 3201},
        "MaxClockInfo": {1: 1980, 2: 3201},
        "Temperature": 31,
        "PowerUsage": 76543,
        "EnforcedPowerLimit": 700000,
        "BusId": f"00000000:{0x19 + index:02X}:00.0",
        "CurrPcieLinkGeneration": 5,
        "MaxPcieLinkGeneration": 5,
        "CurrPcieLinkWidth": 16,
        "MaxPcieLinkWidth": 16,
        "NvLinkVersion": pynvml.NVML_NVLINK_VERSION_4_0,
        "NvLinkMbPerS": 26562,
        "DisplayMode": 1,
        "DisplayActive": 0,
    }
    return Card(
        {**answers, **more}, [NvLink(SWITCH, f"00000000:{5 + link // 6:02X}:00.0") for link in range(18)]
    )


def two_h200() -> Nvml:
    """Two H200 of an NVSwitch machine."""
    return Nvml([h200(0), h200(1)], topology={(0, 1): 50}, peers={(0, 1): (0, 0, 0, 0)})


def lost() -> Exception:
    """Return the error of a card that has fallen off the bus."""
    error: Exception = pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
    return error


def split(*, told: bool = True) -> Nvml:
    """An H200 in MIG mode with two instances, beside one that is not; ``told``: its memory as a whole."""
    sizes = {0: 16384, 2: 71424}
    instances = [
        Card(
            {
                "UUID": f"MIG-{place}",
                "Name": f"NVIDIA H200 MIG {sizes[place] // 16384}g",
                "MemoryInfo": (sizes[place], 38, None),
            }
        )
        if place in sizes
        else None
        for place in range(7)
    ]
    whole = h200(0, MigMode=[1, 1])
    whole.instances = instances
    if not told:
        whole.answers["MemoryInfo"] = pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
    return Nvml([whole, h200(1, MigMode=[0, 1])], topology={(0, 1): 50})


def household() -> Nvml:
    """An RTX 3060 Ti that draws the desktop, and a GTX 1060 in a slot of four lanes; no peer access."""
    ti = Card(
        {
            "Name": "NVIDIA GeForce RTX 3060 Ti",
            "UUID": "GPU-aaaa",
            "MemoryInfo": (8192, 1500, 200),
            "CudaComputeCapability": (8, 6),
            "ComputeRunningProcesses": [Process(4321, 900 * MIB)],
            "GraphicsRunningProcesses": [Process(1234, None), Process(4321, 900 * MIB)],
            "ClockInfo": {1: 210, 2: 405},
            "MaxClockInfo": {1: 2100, 2: 7001},
            "Temperature": 41,
            "PowerUsage": 21000,
            "EnforcedPowerLimit": 200000,
            "BusId": "00000000:01:00.0",
            "CurrPcieLinkGeneration": 1,
            "MaxPcieLinkGeneration": 4,
            "CurrPcieLinkWidth": 16,
            "MaxPcieLinkWidth": 16,
            "DisplayMode": 1,
            "DisplayActive": 1,
        }
    )
    gtx = Card(
        {
            "Name": "NVIDIA GeForce GTX 1060 3GB",
            "UUID": "GPU-bbbb",
            "MemoryInfo": (3072, 0, None),
            "CudaComputeCapability": (6, 1),
            "BusId": "00000000:04:00.0",
            "CurrPcieLinkGeneration": 1,
            "MaxPcieLinkGeneration": 3,
            "CurrPcieLinkWidth": 4,
            "MaxPcieLinkWidth": 16,
            "DisplayMode": 0,
            "DisplayActive": 0,
        }
    )
    return Nvml(
        [ti, gtx],
        topology={(0, 1): pynvml.NVML_TOPOLOGY_HOSTBRIDGE},
        peers={(0, 1): (1, 1, 5, 1)},
        names={1234: "/usr/lib/xorg/Xorg", 4321: "game\x1b[2J"},
        driver="570.86",
        cuda=12080,
    )


def bare() -> Nvml:
    """A card that tells its name and its memory, and nothing else."""
    return Nvml([Card({"Name": "NVIDIA Mystery", "MemoryInfo": (4096, 96, None)})])


def bridged() -> Nvml:
    """Three RTX 3090, two of them under a bridge of four links; one bridge's link is down."""
    cards = []
    for index, other in enumerate((1, 0, None)):
        links = [NvLink(GPU, f"00000000:{other + 1:02X}:00.0") for _ in range(4)] if other is not None else []
        answers = {
            "Name": "NVIDIA GeForce RTX 3090",
            "UUID": f"GPU-{index}",
            "MemoryInfo": (24576, 0, None),
            "BusId": f"00000000:{index + 1:02X}:00.0",
            "NvLinkVersion": pynvml.NVML_NVLINK_VERSION_3_1,
        }
        cards.append(Card(answers, links))
    for card in cards[:2]:
        card.nvlinks[3].active = False
    return Nvml(cards, topology={(0, 1): 30, (0, 2): 40, (1, 2): 50}, peers={(0, 1): (0, 0, 0, 0)})
