"""Who holds the memory of this machine, and what is left to plan with. Pure.

Per device, tiers, foreign processes, what nobody shows and what is free sum to the total. A driver does not
always name the holder: in a container it may list processes by ids of another namespace, or hide how much
each holds. What running tiers are planned to take there is then taken for theirs, and marked as assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from subcortex.hardware import Gpu
from subcortex.types import DeviceLedger, ForeignProcess, Ledger, TierShare
from subcortex.vram.footprint import Footprint
from subcortex.vram.plan.budget import HOST_MIB, gpu_budget


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU, as the driver lists it.

    Args:
        gpu_index: As NVML counts.
        mib: None where the driver does not say.
        name: None where no process of that id is visible here.
        ours: It is, or was, an engine's, though perhaps of no tier's tree any more.
    """

    gpu_index: int
    pid: int
    mib: float | None = None
    name: str | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Holding:
    """A tier: its processes, and what the plan gives it.

    Args:
        pids: Of its whole process tree; none while it is stopped.
        planned_mib: By GPU index.
        planned_host_mib: Of host memory; None without a plan.
        resident_mib: Of host memory, held by its processes now; None while it is stopped.
    """

    tier: str
    pids: frozenset[int] = frozenset()
    planned_mib: Mapping[int, float] = field(default_factory=dict)
    planned_host_mib: float | None = None
    resident_mib: float | None = None

    @property
    def running(self) -> bool:
        """Whether it has processes."""
        return bool(self.pids)


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Host memory as a whole, MiB."""

    total_mib: float
    available_mib: float


def planned_by_gpu(
    footprint: Footprint, gpu_indices: Sequence[int], *, asleep: bool = False
) -> dict[int, float]:
    """Return what a footprint expects of each GPU, MiB.

    Args:
        footprint: Device by device in the engine's order.
        gpu_indices: NVML's index of each of them.
        asleep: What it keeps while it sleeps, if it can.
    """
    amounts = [need.total.mean_mib for need in footprint.devices]
    if asleep and footprint.asleep is not None:
        amounts = [amount.mean_mib for amount in footprint.asleep]
    return dict(zip(gpu_indices, amounts, strict=False))


def ledger(
    gpus: Sequence[Gpu],
    processes: Sequence[GpuProcess],
    holdings: Sequence[Holding],
    host: HostMemory,
) -> Ledger:
    """Return who holds what: GPU by GPU, then host memory.

    What is kept free is what the plan keeps free (``plan.budget``).

    Args:
        gpus: With their memory in use now.
        processes: All that hold memory of any of them.
        holdings: A tier each.
        host: Host memory now.
    """
    cards = [_card(gpu, processes, holdings) for gpu in gpus]
    return Ledger(devices=[*cards, _host(host, holdings)])


def _card(gpu: Gpu, processes: Sequence[GpuProcess], holdings: Sequence[Holding]) -> DeviceLedger:
    here = [process for process in processes if process.gpu_index == gpu.index]
    shares, ours, hidden = [], set[int](), []
    for holding in holdings:
        rows = [process for process in here if process.pid in holding.pids]
        ours |= {process.pid for process in rows}
        planned = holding.planned_mib.get(gpu.index)
        if not rows and planned is None:
            continue
        told = [process.mib for process in rows if process.mib is not None]
        share = TierShare(tier=holding.tier, planned_mib=planned, taken_mib=sum(told) if rows else 0.0)
        if holding.running and (not rows or len(told) < len(rows)):
            share.taken_mib = None
            hidden.append(share)
        shares.append(share)
    # What an engine that died has not given back yet is nobody's: unexplained, not foreign.
    foreign = [process for process in here if process.pid not in ours and not process.ours]
    if any(share.planned_mib for share in hidden):
        # Processes that nobody can see here are ours by elimination: hidden tiers run, and show nowhere.
        foreign = [process for process in foreign if process.name is not None]
    foreign_mib = sum(process.mib or 0.0 for process in foreign)
    known_mib = sum(share.taken_mib or 0.0 for share in shares)
    unexplained_mib = gpu.memory_used_mib - foreign_mib - known_mib
    unexplained_mib -= _assume(hidden, unexplained_mib)
    budget = gpu_budget(gpu)
    return DeviceLedger(
        name=gpu.name,
        gpu_index=gpu.index,
        total_mib=gpu.memory_total_mib,
        used_mib=gpu.memory_used_mib,
        tiers=shares,
        foreign=[
            ForeignProcess(pid=process.pid, name=process.name, mib=process.mib)
            for process in sorted(foreign, key=lambda process: -(process.mib or 0.0))
        ],
        foreign_mib=foreign_mib,
        unexplained_mib=unexplained_mib,
        reserve_mib=budget.reserve_mib,
        # Nothing is planned on a card in MIG mode (hardware.mig).
        plannable_mib=0.0 if gpu.mig is not None else _plannable(budget.mib, shares, holdings),
    )


def _assume(hidden: Sequence[TierShare], pool_mib: float) -> float:
    """Give hidden tiers what is unexplained, up to their plans and in proportion; return what was given."""
    wanted_mib = sum(share.planned_mib or 0.0 for share in hidden)
    if wanted_mib <= 0 or pool_mib <= 0:
        return 0.0
    factor = min(1.0, pool_mib / wanted_mib)
    given_mib = 0.0
    for share in hidden:
        if share.planned_mib is not None:
            share.taken_mib, share.assumed = share.planned_mib * factor, True
            given_mib += share.taken_mib
    return given_mib


def _host(host: HostMemory, holdings: Sequence[Holding]) -> DeviceLedger:
    used_mib = host.total_mib - host.available_mib
    shares = [
        TierShare(
            tier=holding.tier,
            planned_mib=holding.planned_host_mib,
            taken_mib=(holding.resident_mib if holding.running else 0.0),
        )
        for holding in holdings
        if holding.running or holding.planned_host_mib is not None
    ]
    taken_mib = sum(share.taken_mib or 0.0 for share in shares)
    foreign_mib = max(0.0, used_mib - taken_mib)
    return DeviceLedger(
        name="host memory",
        total_mib=host.total_mib,
        used_mib=used_mib,
        tiers=shares,
        foreign_mib=foreign_mib,
        # Below zero: pages that several of ours share, or that the system could drop (mapped weights).
        unexplained_mib=used_mib - taken_mib - foreign_mib,
        reserve_mib=HOST_MIB,
        plannable_mib=_plannable(host.available_mib - HOST_MIB, shares, holdings),
    )


def _plannable(budget_mib: float, shares: Sequence[TierShare], holdings: Sequence[Holding]) -> float:
    """Return what another engine may be given: the budget, less what running tiers may yet grow to."""
    running = {holding.tier for holding in holdings if holding.running}
    growth_mib = sum(
        max(0.0, share.planned_mib - (share.taken_mib or 0.0))
        for share in shares
        if share.tier in running and share.planned_mib is not None
    )
    return max(0.0, budget_mib - growth_mib)
