"""The description of a machine that planning starts from; it can be stored as JSON and read back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Described(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gpu(_Described):
    """One GPU.

    Args:
        index: Position as NVML counts (PCI bus order), which CUDA follows only under
            ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
        uuid: NVML's, or None for a stand-in.
        memory_total_mib, memory_used_mib: As NVML reports them; used includes other programs.
        compute_capability: Major and minor, e.g. (8, 6); None if unknown.
    """

    index: int = Field(ge=0)
    name: str
    uuid: str | None = None
    memory_total_mib: float = Field(gt=0)
    memory_used_mib: float = Field(default=0.0, ge=0)
    compute_capability: tuple[int, int] | None = None

    @property
    def memory_free_mib(self) -> float:
        """Total less used, MiB."""
        return max(0.0, self.memory_total_mib - self.memory_used_mib)


class Hardware(_Described):
    """A machine as seen at one moment.

    Args:
        gpus: In NVML's order; empty without an NVIDIA driver.
        driver_version: Of the NVIDIA driver, e.g. ``580.159.03``.
        cuda_version: Newest CUDA the driver can run, (major, minor).
        host_memory_total_mib, host_memory_available_mib: Host memory in MiB, the container's limit
            taken into account.
        cores: Cores this process may use.
        assumed: Some of it was named by a person, not measured.
        problem: Why GPUs could not be asked though a driver is there; None otherwise.
    """

    gpus: tuple[Gpu, ...] = ()
    driver_version: str | None = None
    cuda_version: tuple[int, int] | None = None
    host_memory_total_mib: float = Field(ge=0)
    host_memory_available_mib: float = Field(ge=0)
    cores: int = Field(ge=1)
    assumed: bool = False
    problem: str | None = None
