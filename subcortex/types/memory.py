"""Who holds memory, and what engines say that they take of it; MiB."""

from __future__ import annotations

from pydantic import Field

from subcortex.types._model import Model


class DeviceFigures(Model):
    """What an engine said it takes of one device, MiB; what it did not say is absent or None.

    Args:
        device: As the engine names it: ``GPU 0`` (its first rank's), ``CUDA0``, ``CPU``.
        components: By the names of ``vram.footprint.Component``, the KV pool aside; ``mapped`` are pages of
            a mapped file of weights.
        other_mib: Outside its own allocator since ``free_at_start_mib`` was read: what is left of the CUDA
            context, communication and libraries' buffers, which it does not tell apart.
        kv_pool_mib: Set aside for keys and values.
        free_at_start_mib: Free on the device at the engine's first reading. By then the context exists and,
            with several ranks, NCCL does too.
        total_mib: The whole device, as the engine sees it.
        taken_mib: By all of its processes once it was ready, as the driver or the kernel counts; never the
            engine's own word.
    """

    device: str
    components: dict[str, float] = Field(default_factory=dict)
    other_mib: float | None = None
    kv_pool_mib: float | None = None
    free_at_start_mib: float | None = None
    total_mib: float | None = None
    taken_mib: float | None = None


class BootFigures(Model):
    """What an engine said of its own memory while it started.

    Args:
        devices: GPUs in the engine's order; none for an engine on the CPU.
        host: Host memory, None where it said nothing of it.
        kv_tokens: Tokens that the KV pool holds.
        max_concurrency: Requests of full length that the pool holds.
        kv_pinned: The pool has the size it was told to have. Otherwise it is what the rest left over, and
            says nothing that the rest does not.
        context_tokens: Longest request.
        max_batched_tokens: Tokens in one step.
        gpu_memory_utilization: Share of the card that it was to take.
        resolution_mib: Step that its figures are rounded to.
    """

    engine: str
    version: str | None = None
    devices: list[DeviceFigures] = Field(default_factory=list)
    host: DeviceFigures | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    kv_pinned: bool = True
    kv_dtype: str | None = None
    context_tokens: int | None = None
    max_batched_tokens: int | None = None
    chunked_prefill: bool | None = None
    gpu_memory_utilization: float | None = None
    resolution_mib: float = 0.0


class TierShare(Model):
    """What a tier has of one device, MiB.

    Args:
        planned_mib: What the plan gives it; None without a plan.
        taken_mib: What its processes hold now; None if that cannot be told.
        assumed: ``taken_mib`` is inferred: the driver lists processes that cannot be matched with ours.
    """

    tier: str
    planned_mib: float | None = None
    taken_mib: float | None = None
    assumed: bool = False

    @property
    def difference_mib(self) -> float | None:
        """Taken less planned; None unless both are known."""
        if self.planned_mib is None or self.taken_mib is None:
            return None
        return self.taken_mib - self.planned_mib


class ForeignProcess(Model):
    """A process that is not ours and holds memory of a GPU; ``mib`` is None where the driver hides it."""

    pid: int
    name: str | None = None
    mib: float | None = None


class DeviceLedger(Model):
    """Who holds one device's memory, MiB. Tiers, foreign, unexplained and free sum to the total.

    Args:
        gpu_index: As NVML counts; None for host memory.
        foreign_mib: By processes that are not ours. Host memory: all that is used and not ours.
        unexplained_mib: Used and by no process that is shown: the driver, firmware, hidden processes.
            Slightly negative where processes share pages that each is charged for.
        reserve_mib: Kept free by every plan.
        plannable_mib: What a plan may give another engine: what others and the driver leave, less the reserve
            and what tiers may still grow to. 0 on a card in MIG mode.
    """

    name: str
    gpu_index: int | None = None
    total_mib: float
    used_mib: float
    tiers: list[TierShare] = Field(default_factory=list)
    foreign: list[ForeignProcess] = Field(default_factory=list)
    foreign_mib: float = 0.0
    unexplained_mib: float = 0.0
    reserve_mib: float = 0.0
    plannable_mib: float = 0.0
    counted_mib: float | None = None

    @property
    def free_mib(self) -> float:
        """Total less used."""
        return self.total_mib - self.used_mib


class Ledger(Model):
    """Who holds the memory of this machine: GPU by GPU, or host memory where there are none."""

    devices: list[DeviceLedger] = Field(default_factory=list)
