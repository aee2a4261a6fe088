"""Who holds what: it sums up, names the others, and says what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.hardware import Gpu, Hardware, MigInstance
from subcortex.types import DeviceLedger, ForeignProcess, TierShare
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.ledger import GpuProcess, Holding, HostMemory, ledger, planned_by_gpu
from subcortex.vram.plan.budget import HOST as HOST_DEVICE
from subcortex.vram.plan.budget import budgets

HOST = HostMemory(total_mib=64000.0, available_mib=48000.0)


def card(index: int = 0, used: float = 20000.0, total: float = 24000.0, *, display: bool = False) -> Gpu:
    return Gpu(
        index=index,
        name="RTX 3090",
        memory_total_mib=total,
        memory_used_mib=used,
        display_attached=display,
    )


def on_card(gpu: Gpu, processes: list[GpuProcess], holdings: list[Holding]) -> DeviceLedger:
    found = ledger([gpu], processes, holdings, HOST)
    assert [device.gpu_index for device in found.devices] == [gpu.index, None]
    return found.devices[0]


def parts(device: DeviceLedger) -> float:
    taken = sum(share.taken_mib or 0.0 for share in device.tiers)
    return taken + device.foreign_mib + device.unexplained_mib + device.free_mib


def test_a_card_with_two_tiers_and_a_game() -> None:
    processes = [
        GpuProcess(0, 10, 6000.0, "python"),
        GpuProcess(0, 11, 500.0, "python"),
        GpuProcess(0, 20, 9000.0, "VLLM::Worker"),
        GpuProcess(0, 99, 3500.0, "game"),
        GpuProcess(1, 98, 77.0, "on another card"),
    ]
    fast = Holding("fast", frozenset({10, 11}), {0: 7000.0})
    deep = Holding("deep", frozenset({20}), {0: 8800.0, 1: 8800.0})
    lazy = Holding("lazy", planned_mib={0: 4000.0})
    device = on_card(card(used=19500.0, display=True), processes, [fast, deep, lazy])
    assert device.tiers == [
        TierShare(tier="fast", planned_mib=7000.0, taken_mib=6500.0),
        TierShare(tier="deep", planned_mib=8800.0, taken_mib=9000.0),
        TierShare(tier="lazy", planned_mib=4000.0, taken_mib=0.0),
    ]
    assert [share.difference_mib for share in device.tiers] == [-500.0, 200.0, -4000.0]
    assert device.foreign == [ForeignProcess(pid=99, name="game", mib=3500.0)]
    assert (device.foreign_mib, device.unexplained_mib, device.free_mib) == (3500.0, 500.0, 4500.0)
    # What fast has yet to take is spoken for; lazy's plan is not, since it does not run.
    assert device.reserve_mib == 128.0 + 512.0
    assert device.plannable_mib == 4500.0 - 640.0 - 500.0


def test_in_a_container_what_cannot_be_seen_is_ours_up_to_the_plan() -> None:
    # The driver names processes of the host, which are no processes here.
    processes = [GpuProcess(0, 40001, 9000.0, None), GpuProcess(0, 40002, 800.0, None)]
    deep = Holding("deep", frozenset({20}), {0: 8800.0})
    device = on_card(card(used=10300.0), processes, [deep])
    assert device.tiers == [TierShare(tier="deep", planned_mib=8800.0, taken_mib=8800.0, assumed=True)]
    assert (device.foreign, device.foreign_mib, device.unexplained_mib) == ([], 0.0, 1500.0)
    stopped = on_card(card(used=10300.0), processes, [Holding("deep", planned_mib={0: 8800.0})])
    assert [process.pid for process in stopped.foreign] == [40001, 40002]
    assert stopped.tiers[0].taken_mib == 0.0


def test_a_driver_that_hides_how_much_leaves_it_to_the_plans_in_proportion() -> None:
    processes = [GpuProcess(0, pid, None, "python") for pid in (10, 20, 30)]
    holdings = [Holding("fast", frozenset({10}), {0: 2000.0}), Holding("deep", frozenset({20}), {0: 6000.0})]
    device = on_card(card(used=4000.0), processes, holdings)
    assert [(share.taken_mib, share.assumed) for share in device.tiers] == [(1000.0, True), (3000.0, True)]
    assert device.foreign == [ForeignProcess(pid=30, name="python", mib=None)]
    assert device.unexplained_mib == 0.0
    assert device.plannable_mib == 20000.0 - 128.0 - 1000.0 - 3000.0


def test_a_hidden_tier_without_a_plan_is_unknown_not_nothing() -> None:
    device = on_card(card(used=4000.0), [GpuProcess(0, 10, None, "python")], [Holding("a", frozenset({10}))])
    assert device.tiers == [TierShare(tier="a", planned_mib=None, taken_mib=None)]
    assert device.tiers[0].difference_mib is None
    assert device.unexplained_mib == 4000.0


def test_nothing_is_to_be_planned_on_a_card_in_mig_mode() -> None:
    split = card(used=4000.0).model_copy(update={"mig": (MigInstance(uuid="MIG-1"),)})
    device = on_card(split, [], [])
    assert (device.free_mib, device.reserve_mib, device.plannable_mib) == (20000.0, 128.0, 0.0)


def test_host_memory_without_any_gpu() -> None:
    holdings = [
        Holding("fast", frozenset({10}), planned_host_mib=300.0, resident_mib=250.0),
        Holding("deep", frozenset({20, 21}), resident_mib=5000.0),
        Holding("off"),
    ]
    (host,) = ledger([], [], holdings, HOST).devices
    assert (host.name, host.gpu_index, host.used_mib) == ("host memory", None, 16000.0)
    assert host.tiers == [
        TierShare(tier="fast", planned_mib=300.0, taken_mib=250.0),
        TierShare(tier="deep", taken_mib=5000.0),
    ]
    assert (host.foreign_mib, host.unexplained_mib) == (10750.0, 0.0)
    assert host.reserve_mib == 2048.0
    assert host.plannable_mib == 48000.0 - 2048.0 - 50.0


def test_shared_pages_show_as_less_than_nothing_unexplained() -> None:
    holdings = [Holding("deep", frozenset({20, 21}), resident_mib=17000.0)]
    (host,) = ledger([], [], holdings, HOST).devices
    assert (host.foreign_mib, host.unexplained_mib) == (0.0, -1000.0)
    assert parts(host) == host.total_mib


AWAKE = DeviceNeed({Component.WEIGHTS: Amount(7000.0), Component.KV: Amount(1000.0, 50.0)})


@pytest.mark.parametrize(
    ("asleep", "kept", "expected"),
    [
        (False, (Amount(2000.0), Amount(2100.0)), {3: 8000.0, 1: 8000.0}),
        (True, (Amount(2000.0), Amount(2100.0)), {3: 2000.0, 1: 2100.0}),
        (True, None, {3: 8000.0, 1: 8000.0}),
    ],
)
def test_a_footprint_is_planned_on_the_cards_it_runs_on(asleep, kept, expected) -> None:
    footprint = Footprint((AWAKE, AWAKE), asleep=kept)
    assert planned_by_gpu(footprint, (3, 1), asleep=asleep) == expected


mib = st.integers(0, 30000).map(float)
processes = st.lists(
    st.builds(
        GpuProcess,
        st.integers(0, 2),
        st.integers(1, 12),
        st.none() | mib,
        st.sampled_from([None, "python", "game"]),
    ),
    max_size=8,
    unique_by=lambda process: (process.gpu_index, process.pid),
)
holdings = st.lists(
    st.builds(
        Holding,
        st.sampled_from("abcdef"),
        st.frozensets(st.integers(1, 12), max_size=3),
        st.dictionaries(st.integers(0, 2), mib),
        st.none() | mib,
        st.none() | mib,
    ),
    max_size=4,
    unique_by=lambda holding: holding.tier,
)


def disjoint(found: list[Holding]) -> list[Holding]:
    taken: set[int] = set()
    apart = []
    for holding in found:
        pids = holding.pids - taken
        taken |= pids
        apart.append(
            Holding(holding.tier, pids, holding.planned_mib, holding.planned_host_mib, holding.resident_mib)
        )
    return apart


@given(processes, holdings, st.lists(mib, min_size=1, max_size=3), st.booleans())
def test_the_parts_sum_to_the_total_and_nothing_is_promised_twice(
    seen: list[GpuProcess], tiers: list[Holding], used: list[float], display: bool
) -> None:
    cards = [card(index, used=mib, total=30000.0, display=display) for index, mib in enumerate(used)]
    found = ledger(cards, seen, disjoint(tiers), HOST)
    for device in found.devices:
        assert parts(device) == pytest.approx(device.total_mib)
        assert 0 <= device.plannable_mib <= device.free_mib
        assert all((share.taken_mib or 0.0) >= 0 for share in device.tiers)
        for share in device.tiers:
            assert not share.assumed or (share.taken_mib or 0.0) <= (share.planned_mib or 0.0) + 1e-6


@given(mib, st.none() | st.integers(0, 2000).map(float), st.none() | st.booleans(), mib)
def test_a_machine_that_runs_nothing_of_ours_is_left_as_the_plan_sees_it(
    used: float, driver: float | None, display: bool | None, free: float
) -> None:
    gpu = card(used=used, total=30000.0).model_copy(
        update={"memory_reserved_mib": driver, "display_attached": display}
    )
    seen = Hardware(gpus=(gpu,), host_memory_total_mib=64000.0, host_memory_available_mib=free, cores=8)
    found = ledger(seen.gpus, [], [Holding("off", planned_mib={0: 5000.0})], HostMemory(64000.0, free))
    limits = budgets(seen)
    for device, limit in zip(found.devices, (limits[0], limits[HOST_DEVICE]), strict=True):
        assert device.reserve_mib == limit.reserve_mib
        assert device.plannable_mib == pytest.approx(limit.mib)
