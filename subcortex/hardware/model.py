"""The description of a machine that planning starts from; it can be stored as JSON and read back."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

#: Of what is written now; a snapshot without one is older than 2. 3 came with ``mig`` and ``unread``, 4 with
#: ``measured_latency_s``.
SCHEMA_VERSION = 4

#: What one machine may have. Links are kept for each two GPUs, and a plan looks at sets of them.
MOST_GPUS = 64
#: What one GPU may have.
MOST_PROCESSES = 1024
MOST_INSTANCES = 64
_MOST_PAIRS = MOST_GPUS * (MOST_GPUS - 1) // 2
_MOST_INDEX = 1023
# As many as Linux can have.
_MOST_NODES = 1024
_MOST_NAMES = 1024

# Bounds far beyond any machine. They keep out what a driver answers for "unknown" and what a file makes up.
_Mib = Annotated[float, Field(ge=0, le=2**40)]
_Mhz = Annotated[int, Field(ge=0, le=100_000)]
_Watts = Annotated[float, Field(ge=0, le=100_000)]
_Celsius = Annotated[int, Field(ge=-273, le=1000)]
_Few = Annotated[int, Field(ge=0, le=1000)]
_Cores = Annotated[int, Field(ge=0, le=2**20)]
_Version = tuple[_Few, _Few]
_Index = Annotated[int, Field(ge=0, le=_MOST_INDEX)]
_Names = Annotated[tuple[str, ...], Field(max_length=_MOST_NAMES)]


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GpuProcess(_Described):
    """A process that uses a GPU.

    Args:
        pid: As the driver counts; in a container it may be of another namespace.
        name: Its executable; None where it cannot be seen from here.
        memory_mib: What it holds of this GPU; None where the driver hides it.
        kind: What its context is for.
    """

    pid: int = Field(ge=0, le=2**32)
    name: str | None = None
    memory_mib: _Mib | None = None
    kind: Literal["compute", "graphics", "both"] = "compute"


class MigInstance(_Described):
    """A part of a GPU in MIG mode, which CUDA sees as a device.

    Args:
        uuid: NVML's, which ``CUDA_VISIBLE_DEVICES`` takes, e.g. ``MIG-…``.
        name: E.g. ``NVIDIA H100 80GB HBM3 MIG 1g.10gb``.
        memory_total_mib: Its share of the card's.
    """

    uuid: str | None = None
    name: str | None = None
    memory_total_mib: _Mib | None = None


class Gpu(_Described):
    """One GPU. Whatever a card or its driver does not tell is None.

    Args:
        index: Position as NVML counts (PCI bus order), which CUDA follows only under
            ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
        uuid: NVML's, or None for a stand-in.
        memory_total_mib, memory_used_mib: As NVML reports them; used includes other programs.
        memory_reserved_mib: The driver's share; part of used.
        compute_capability: Major and minor, e.g. (8, 6).
        processes: Who uses it; empty if nobody, None if the driver does not tell.
        pci_bus_id: E.g. ``00000000:17:00.0``.
        pcie_generation, pcie_width: Of the link now; the generation falls while the card idles.
        pcie_generation_max, pcie_width_max: What card and slot can do together.
        nvlinks: Active NVLinks, to whichever device.
        nvlink_version: E.g. ``4.0``.
        nvlink_mb_per_s: Signalling rate of one NVLink and direction as the driver says, 10^6 bytes/s; a
            little above what data sheets promise for data.
        display_attached, display_active: A monitor is plugged in; something is drawn on it.
        numa_node: Of the host, that its slot belongs to.
        mig: Its instances while it is in MIG mode, of which CUDA then sees one in place of the card; None
            otherwise.
        unread: Of the fields above, those whose answer made no sense, or that stand for one that did not
            come.
    """

    index: _Index
    name: str
    uuid: str | None = None
    memory_total_mib: float = Field(gt=0, le=2**40)
    memory_used_mib: _Mib = 0.0
    memory_reserved_mib: _Mib | None = None
    compute_capability: _Version | None = None
    processes: tuple[GpuProcess, ...] | None = Field(default=None, max_length=MOST_PROCESSES)
    sm_clock_mhz: _Mhz | None = None
    sm_clock_max_mhz: _Mhz | None = None
    memory_clock_mhz: _Mhz | None = None
    memory_clock_max_mhz: _Mhz | None = None
    temperature_c: _Celsius | None = None
    power_draw_w: _Watts | None = None
    power_limit_w: _Watts | None = None
    pci_bus_id: str | None = None
    pcie_generation: _Few | None = None
    pcie_generation_max: _Few | None = None
    pcie_width: _Few | None = None
    pcie_width_max: _Few | None = None
    nvlinks: _Few | None = None
    nvlink_version: str | None = Field(default=None, pattern=r"^[0-9]{1,3}(\.[0-9]{1,3})?$")
    nvlink_mb_per_s: float | None = Field(default=None, ge=0, le=10**9)
    display_attached: bool | None = None
    display_active: bool | None = None
    numa_node: _Few | None = None
    mig: tuple[MigInstance, ...] | None = Field(default=None, max_length=MOST_INSTANCES)
    unread: _Names = ()

    @property
    def memory_free_mib(self) -> float:
        """Total less used, MiB."""
        return max(0.0, self.memory_total_mib - self.memory_used_mib)


class GpuPair(_Described):
    """What lies between two GPUs, both ways alike.

    Args:
        a, b: Their indices, the smaller one first.
        code: As ``nvidia-smi topo -m`` writes it; ``hardware.LINK_CODES`` says what it means.
        peer_read, peer_write, peer_nvlink, peer_atomics: Whether one reaches the other's memory, as
            ``nvidia-smi topo -p2p`` writes it (``hardware.PEER_CODES``); None if not told.
        measured_gb_per_s: Of one direction, 10^9 bytes/s, where an experiment measured it.
        measured_latency_s: Of an all-reduce of a few KiB between them, where an experiment measured it.
    """

    a: _Index
    b: _Index
    code: str = Field(pattern=r"^(NV[1-9][0-9]?|PIX|PXB|PHB|NODE|SYS)$")
    peer_read: str | None = None
    peer_write: str | None = None
    peer_nvlink: str | None = None
    peer_atomics: str | None = None
    measured_gb_per_s: float | None = Field(default=None, gt=0, le=10**6)
    measured_latency_s: float | None = Field(default=None, gt=0, le=1000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.a >= self.b:
            raise ValueError(f"a pair of GPUs {self.a} and {self.b}; the smaller index comes first")
        return self


class NumaNode(_Described):
    """A part of the host whose cores are near its memory; ``cores`` is a list like ``0-15,32-47``."""

    index: int = Field(ge=0)
    cores: str
    memory_total_mib: _Mib | None = None
    memory_free_mib: _Mib | None = None


class Host(_Described):
    """The machine around the GPUs, apart from what ``Hardware`` has had from the start.

    Args:
        swap_total_mib, swap_free_mib: Swap space.
        cores_physical, cores_logical: Of the machine, whoever may use them.
        affinity: The cores this process may use, e.g. ``0-15``.
        cpu_quota: CPU time allowed by the container, in cores; None without a limit.
        cpu_model, kernel, architecture: As the kernel writes them.
        numa_nodes: Empty where the kernel does not tell.
    """

    swap_total_mib: _Mib | None = None
    swap_free_mib: _Mib | None = None
    cores_physical: _Cores | None = None
    cores_logical: _Cores | None = None
    affinity: str | None = None
    cpu_quota: float | None = Field(default=None, gt=0)
    cpu_model: str | None = None
    kernel: str | None = None
    architecture: str | None = None
    numa_nodes: tuple[NumaNode, ...] = Field(default=(), max_length=_MOST_NODES)


class TorchDevice(_Described):
    """A GPU as torch numbers it; ``uuid`` is NVML's, so that the two orders can be matched."""

    index: _Index
    name: str
    uuid: str | None = None
    compute_capability: _Version | None = None
    memory_total_mib: _Mib | None = None


class Interpreter(_Described):
    """What a Python interpreter that runs engines says of its own libraries.

    Args:
        python: The interpreter that was asked.
        tiers: Which tiers run on it.
        version: Python's.
        torch, vllm, flash_attn, flashinfer: Versions; None if not installed.
        cuda: Toolkit that torch was built with; None for a build without CUDA.
        nccl: E.g. ``2.28.9``; None without CUDA.
        cuda_available: ``torch.cuda.is_available()``; None without torch.
        architectures: For which torch was built, e.g. ``sm_90``.
        devices: In torch's order.
        device_order, visible_devices: ``CUDA_DEVICE_ORDER`` and ``CUDA_VISIBLE_DEVICES``, where set.
        problem: Why some or all of it is not known.
    """

    python: str
    tiers: _Names = ()
    version: str | None = None
    torch: str | None = None
    cuda: str | None = None
    nccl: str | None = None
    vllm: str | None = None
    flash_attn: str | None = None
    flashinfer: str | None = None
    cuda_available: bool | None = None
    architectures: _Names = ()
    devices: tuple[TorchDevice, ...] = Field(default=(), max_length=MOST_GPUS)
    device_order: str | None = None
    visible_devices: str | None = None
    problem: str | None = None


class Hardware(_Described):
    """A machine as seen at one moment.

    Args:
        gpus: In NVML's order; empty without an NVIDIA driver.
        links: What lies between each two GPUs; a pair that is not listed is unknown.
        driver_version: Of the NVIDIA driver, e.g. ``580.159.03``.
        cuda_version: Newest CUDA the driver can run, (major, minor).
        host_memory_total_mib, host_memory_available_mib: Host memory in MiB, the container's limit
            taken into account.
        cores: Cores this process may use.
        host: The rest of the host; None in old snapshots.
        interpreters: Those that run engines, if they were asked.
        assumed: Some of it was named by a person, not measured.
        problem: Why GPUs, or some of them, could not be asked though a driver is there; None otherwise.
            What single readings are missing stands in ``Gpu.unread``.
        taken_at: When it was read, UTC; None in old snapshots.
        schema_version: Of the snapshot.
    """

    gpus: tuple[Gpu, ...] = Field(default=(), max_length=MOST_GPUS)
    links: tuple[GpuPair, ...] = Field(default=(), max_length=_MOST_PAIRS)
    driver_version: str | None = None
    cuda_version: _Version | None = None
    host_memory_total_mib: _Mib
    host_memory_available_mib: _Mib
    cores: int = Field(ge=1, le=2**20)
    host: Host | None = None
    interpreters: tuple[Interpreter, ...] = Field(default=(), max_length=_MOST_NAMES)
    assumed: bool = False
    problem: str | None = None
    taken_at: AwareDatetime | None = None
    schema_version: int = Field(default=SCHEMA_VERSION, ge=1)

    @model_validator(mode="after")
    def _indices(self) -> Self:
        known = {gpu.index for gpu in self.gpus}
        if len(known) < len(self.gpus):
            raise ValueError("two GPUs have one index")
        for (a, b), times in Counter((pair.a, pair.b) for pair in self.links).items():
            if not {a, b} <= known:
                raise ValueError(f"a link between GPUs {a} and {b}, and only {sorted(known)} are there")
            if times > 1:
                raise ValueError(f"{times} links between GPUs {a} and {b}; one says it all")
        return self

    def pair(self, a: int, b: int) -> GpuPair | None:
        """Return what is known of the way between two GPUs, in either order."""
        wanted = (min(a, b), max(a, b))
        return next((pair for pair in self.links if (pair.a, pair.b) == wanted), None)
