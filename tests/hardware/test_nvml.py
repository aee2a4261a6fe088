"""What is read through NVML, on made-up cards that answer as pynvml does."""

from __future__ import annotations

import re
from pathlib import Path

import pynvml
import pytest

from subcortex.hardware import Gpu, GpuPair, GpuProcess, Hardware, detect, matrix
from subcortex.hardware import _nvml as reading
from tests.hardware import nvml as fake


def test_a_card_is_read_in_full():
    found = detect(fake.two_h200())

    assert (found.driver_version, found.cuda_version, found.problem) == ("580.159.04", (13, 0), None)
    assert found.gpus[1] == Gpu(
        index=1,
        name="NVIDIA H200",
        uuid="GPU-11111111-2222-3333-4444-555555555555",
        memory_total_mib=143771,
        memory_used_mib=629,
        memory_reserved_mib=628,
        compute_capability=(9, 0),
        processes=(),
        sm_clock_mhz=345,
        sm_clock_max_mhz=1980,
        memory_clock_mhz=3201,
        memory_clock_max_mhz=3201,
        temperature_c=31,
        power_draw_w=76.543,
        power_limit_w=700.0,
        pci_bus_id="00000000:1A:00.0",
        pcie_generation=5,
        pcie_generation_max=5,
        pcie_width=16,
        pcie_width_max=16,
        nvlinks=18,
        nvlink_version="4.0",
        nvlink_mb_per_s=26562.0,
        display_attached=False,  # though the driver says so: it has no socket
        display_active=False,
    )
    assert found.gpus[0].memory_free_mib == 143142


def test_a_card_that_tells_next_to_nothing_is_still_a_card():
    assert detect(fake.bare()).gpus == (
        Gpu(index=0, name="NVIDIA Mystery", memory_total_mib=4096, memory_used_mib=96),
    )


def _single_readings() -> list[str]:
    source = Path(reading.__file__).read_text()
    needed = {"nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"}
    return sorted(set(re.findall(r'"(nvml(?:Device|System)\w+)"', source)) - needed)


@pytest.mark.parametrize("function", _single_readings())
@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_UNKNOWN]
)
def test_no_single_reading_is_needed(function, code):
    machine = fake.two_h200()
    machine.failing = {function: code}

    found = detect(machine)

    assert [gpu.memory_total_mib for gpu in found.gpus] == [143771, 143771]
    assert found.problem is None
    assert Hardware.model_validate_json(found.model_dump_json()) == found


def test_every_function_that_is_asked_for_is_one_of_pynvmls():
    missing = [name for name in _single_readings() if not hasattr(pynvml, name)]

    assert missing == []


def test_processes_have_what_the_driver_shows_of_them():
    found = detect(fake.household()).gpus

    assert found[0].processes == (
        GpuProcess(pid=1234, name="/usr/lib/xorg/Xorg", memory_mib=None, kind="graphics"),
        GpuProcess(pid=4321, name="game\x1b[2J", memory_mib=900, kind="both"),
    )
    assert found[1].processes is None  # the driver lists none for that card, which is not nobody


def test_a_process_of_another_namespace_has_no_name():
    machine = fake.two_h200()
    machine.cards[0].answers["ComputeRunningProcesses"] = [fake.Process(2**30, 5 * fake.MIB)]

    assert detect(machine).gpus[0].processes == (GpuProcess(pid=2**30, memory_mib=5),)


def test_a_switch_gives_every_pair_all_links():
    found = detect(fake.two_h200())

    assert matrix(found) == [["X", "NV18"], ["NV18", "X"]]
    assert found.links == (
        GpuPair(a=0, b=1, code="NV18", peer_read="OK", peer_write="OK", peer_nvlink="OK", peer_atomics="OK"),
    )


def test_a_bridge_joins_those_under_it_by_the_links_that_are_up():
    found = detect(fake.bridged())

    assert matrix(found) == [["X", "NV3", "NODE"], ["NV3", "X", "SYS"], ["NODE", "SYS", "X"]]
    assert [gpu.nvlinks for gpu in found.gpus] == [3, 3, None]
    assert found.links[1].peer_read is None


def test_cards_on_the_host_bridge_without_peer_access():
    assert detect(fake.household()).links == (
        GpuPair(
            a=0, b=1, code="PHB", peer_read="CNS", peer_write="CNS", peer_nvlink="NS", peer_atomics="CNS"
        ),
    )


@pytest.mark.parametrize(
    ("level", "code"),
    [(0, "PIX"), (10, "PIX"), (20, "PXB"), (30, "PHB"), (40, "NODE"), (50, "SYS")],
)
def test_levels_of_pcie(level, code):
    machine = fake.household()
    machine.topology = {(0, 1): level}

    assert detect(machine).links[0].code == code


@pytest.mark.parametrize("level", [None, 99])
def test_a_pair_of_unknown_topology_is_left_out(level):
    machine = fake.household()
    machine.topology = {} if level is None else {(0, 1): level}

    assert matrix(detect(machine)) == [["X", None], [None, "X"]]


@pytest.mark.parametrize(("kind", "bus_id"), [(fake.UNKNOWN, None), (None, None), (None, "00000000:05:00.0")])
@pytest.mark.parametrize(("nvlink_status", "code"), [(0, "NV18"), (5, "SYS")])
def test_links_whose_other_end_is_hidden_count_where_the_driver_says_they_reach(
    kind, bus_id, nvlink_status, code
):
    machine = fake.two_h200()
    machine.peers = {(0, 1): (0, 0, nvlink_status, 0)}
    for card in machine.cards:
        card.nvlinks = [fake.NvLink(kind, bus_id) for _ in range(18)]

    assert detect(machine).links[0].code == code


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, False),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, False),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, True),
    ],
)
def test_no_driver_is_no_gpu_and_a_driver_in_trouble_is_said(code, problem):
    machine = fake.two_h200()
    machine.failing = {"nvmlInit": code}

    found = detect(machine)

    assert found.gpus == ()
    assert (found.problem is not None) is problem


def test_nvml_is_closed_whatever_happens():
    machine, broken = fake.two_h200(), fake.two_h200()
    broken.failing = {"nvmlDeviceGetCount": pynvml.NVML_ERROR_UNKNOWN}

    assert detect(machine).problem is None
    assert "Unknown Error" in (detect(broken).problem or "")
    assert (machine.open, broken.open) == (0, 0)


def test_a_card_that_falls_off_the_bus_is_named_and_the_others_stay():
    machine = fake.two_h200()
    machine.cards[0].answers.pop("MemoryInfo")
    machine.cards[0].answers["Name"] = "NVIDIA Mystery"

    found = detect(machine)

    assert [gpu.index for gpu in found.gpus] == [1]
    assert found.links == ()
    assert found.problem == "GPU 0 does not answer: Not Supported"


def test_a_known_card_that_does_not_tell_its_memory_has_that_of_the_table():
    machine = fake.two_h200()
    machine.cards[1].answers.pop("MemoryInfo")

    assert [gpu.memory_total_mib for gpu in detect(machine).gpus] == [143771, 143771]


def test_a_display_takes_memory_of_the_card_it_is_on():
    found = detect(fake.household()).gpus

    assert [(gpu.display_attached, gpu.display_active) for gpu in found] == [(True, True), (False, False)]


def test_the_numa_node_of_a_slot(tmp_path):
    slot = tmp_path / "0000:1a:00.0"
    slot.mkdir()
    (slot / "numa_node").write_text("1\n")
    (tmp_path / "0000:1b:00.0").mkdir()
    (tmp_path / "0000:1b:00.0" / "numa_node").write_text("-1\n")

    found = [reading._numa_node(f"00000000:{bus}:00.0", tmp_path) for bus in ("1A", "1B", "1C")]

    assert found == [1, None, None]
