"""A driver that answers nonsense, or a card that is lost meanwhile: the rest of the machine is still read."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.hardware import Gpu, GpuProcess, Hardware, detect
from subcortex.hardware import _nvml as reading
from tests.hardware import nvml as fake

WHOLE = detect(fake.two_h200()).gpus
MEMORY = {"total": 143771 * fake.MIB, "used": 629 * fake.MIB}


def answering(name: str, value: Any) -> Hardware:
    """Return a machine of two H200, the first of which answers one question so."""
    machine = fake.two_h200()
    machine.cards[0].answers[name] = value
    found = detect(machine)
    assert Hardware.model_validate_json(found.model_dump_json()) == found
    return found


@pytest.mark.parametrize(
    ("name", "value", "lacking"),
    [
        ("Temperature", -(10**6), {"temperature_c"}),
        ("Temperature", math.nan, {"temperature_c"}),
        ("Temperature", math.inf, {"temperature_c"}),
        ("Temperature", "hot", {"temperature_c"}),
        ("PowerUsage", -1000, {"power_draw_w"}),
        ("PowerUsage", math.nan, {"power_draw_w"}),
        ("EnforcedPowerLimit", 2**32 - 1, {"power_limit_w"}),
        ("CurrPcieLinkWidth", 2**32 - 1, {"pcie_width"}),
        ("MaxPcieLinkGeneration", -1, {"pcie_generation_max"}),
        ("CudaComputeCapability", (), {"compute_capability"}),
        ("CudaComputeCapability", (9,), {"compute_capability"}),
        ("CudaComputeCapability", (-9, 0), {"compute_capability"}),
        ("CudaComputeCapability", (9, None), {"compute_capability"}),
        ("ClockInfo", {1: -345, 2: 3201}, {"sm_clock_mhz"}),
        ("NvLinkVersion", 99, {"nvlink_version"}),
        ("NvLinkMbPerS", -5, {"nvlink_mb_per_s"}),
        ("DisplayActive", 7, {"display_active"}),
        ("BusId", "../../etc", {"pci_bus_id"}),
        ("UUID", 5, {"uuid"}),
        ("MigMode", [], {"mig"}),
        ("MigMode", 1, {"mig"}),
        ("ComputeRunningProcesses", 3, {"processes"}),
        ("MemoryInfo", SimpleNamespace(**MEMORY), {"memory_reserved_mib"}),
        ("MemoryInfo", SimpleNamespace(**MEMORY, reserved=-1), {"memory_reserved_mib"}),
    ],
)
def test_one_answer_that_makes_no_sense_is_marked_and_the_others_stay(name, value, lacking):
    found = answering(name, value)

    expected = {field: getattr(WHOLE[0], field) for field in Gpu.model_fields}
    expected.update(dict.fromkeys(lacking), unread=tuple(lacking))
    assert found.problem is None
    assert {field: getattr(found.gpus[0], field) for field in expected if field != "numa_node"} == {
        field: fact for field, fact in expected.items() if field != "numa_node"
    }
    assert found.gpus[1] == WHOLE[1]


@pytest.mark.parametrize("bytes_", [-1, math.nan, math.inf, None, "much", 2**63 * 2**20])
@pytest.mark.parametrize("field", ["total", "used"])
def test_a_card_whose_memory_makes_no_sense_is_left_out_and_said(bytes_, field):
    memory = {"total": 143771 * fake.MIB, "used": 0, "reserved": 0, field: bytes_}

    found = answering("MemoryInfo", SimpleNamespace(**memory))

    assert found.gpus == (WHOLE[1],)
    assert (found.problem or "").startswith("GPU 0 answers nonsense: ")


def test_a_card_without_memory_is_left_out():
    assert answering("MemoryInfo", (0, 0, 0)).problem == "GPU 0 answers nonsense: memory_total_mib"


def test_processes_that_make_no_sense_are_marked_and_the_others_stay():
    found = answering(
        "ComputeRunningProcesses",
        [
            fake.Process(2**30 + 1, 5 * fake.MIB),
            fake.Process(2**30 + 2, -5),
            fake.Process(-7, 5 * fake.MIB),
            fake.Process(None, None),  # type: ignore[arg-type]
            SimpleNamespace(pid=3),
        ],
    )

    assert [(process.pid, process.memory_mib) for process in found.gpus[0].processes or ()] == [
        (3, None),
        (2**30 + 1, 5.0),
        (2**30 + 2, None),
    ]
    assert found.gpus[0].unread == ("processes",)


def test_more_processes_than_are_kept_are_said():
    found = answering("ComputeRunningProcesses", [fake.Process(2**30 + n, None) for n in range(1025)])

    assert len(found.gpus[0].processes or ()) == 1024
    assert found.gpus[0].unread == ("processes",)


def test_names_that_are_no_text_are_kept_as_far_as_they_can_be_stored(monkeypatch):
    machine = fake.two_h200()
    machine.cards[0].answers["Name"] = "NVIDIA\x00\x1b[2J\udcff"
    machine.cards[0].answers["ComputeRunningProcesses"] = [fake.Process(1, None)]
    machine.driver = b"580\xff"  # type: ignore[assignment]
    # So psutil gives a name that is no UTF-8.
    monkeypatch.setattr("psutil.Process.name", lambda self: "caf\udce9")

    found = detect(machine)

    assert found.gpus[0].name == "NVIDIA\x00\x1b[2J?"
    assert found.gpus[0].processes == (GpuProcess(pid=1, name="caf?"),)
    assert found.driver_version == "580�"
    assert Hardware.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("name", ["Name", "MemoryInfo", "Temperature", "MaxPcieLinkWidth", "DisplayActive"])
def test_a_card_lost_while_it_is_read_is_left_out_and_said(name):
    found = answering(name, fake.lost())

    assert found.gpus == (WHOLE[1],)
    assert found.problem == "GPU 0 does not answer: GPU is lost"


def test_a_card_lost_once_it_was_read_is_said():
    machine = fake.bridged()
    machine.failing = {"nvmlDeviceGetP2PStatus": pynvml.NVML_ERROR_GPU_IS_LOST}

    found = detect(machine)

    assert (len(found.gpus), found.links) == (3, ())
    assert found.problem == "not all links can be read: GPU is lost"
    assert machine.open == 0


@pytest.mark.parametrize(
    ("count", "problem", "read"),
    [
        (-1, "NVML counts -1 GPUs", 0),
        (None, "NVML counts None GPUs", 0),
        (70, "70 GPUs, of which the first 64 are read", 64),
    ],
)
def test_a_count_of_gpus_that_is_none_or_too_many(monkeypatch, count, problem, read):
    machine = fake.Nvml([fake.Card({"Name": "NVIDIA L4", "MemoryInfo": (23034, 0, None)})] * 70)
    monkeypatch.setattr(machine, "nvmlDeviceGetCount", lambda: count)

    found = detect(machine)

    assert (found.problem, len(found.gpus)) == (problem, read)


@pytest.mark.parametrize("cuda", [-13000, math.nan, "13", 10**9])
def test_a_version_of_cuda_that_is_none(cuda):
    machine = fake.two_h200()
    machine.cuda = cuda

    found = detect(machine)

    assert (found.cuda_version, found.gpus) == (None, WHOLE)
    assert "nonsense for the version of CUDA" in (found.problem or "")


def test_a_known_card_that_does_not_tell_its_memory_is_marked():
    machine = fake.two_h200()
    machine.cards[1].answers.pop("MemoryInfo")

    assert detect(machine).gpus[1].unread == ("memory_total_mib", "memory_used_mib")


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.just(fake.lost()),
    st.just(pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)),
    st.just(IndexError("list index out of range")),
    st.just(SimpleNamespace()),
)
ASKED = sorted({*fake.h200(0).answers, "MigMode"})


@given(st.dictionaries(st.sampled_from(ASKED), ODD), st.sampled_from([0, 1]))
def test_whatever_one_card_answers_the_other_is_read_in_full(answers, place):
    machine = fake.two_h200()
    machine.cards[place].answers.update(answers)

    found = detect(machine)

    assert [gpu for gpu in found.gpus if gpu.index != place] == [WHOLE[1 - place]]
    assert len(found.gpus) == 2 or (found.problem or "").startswith(f"GPU {place} ")
    assert Hardware.model_validate_json(found.model_dump_json()) == found
    assert machine.open == 0


def test_the_module_names_the_error_of_a_lost_card_as_the_binding_does():
    assert pynvml.NVML_ERROR_GPU_IS_LOST == reading._GPU_IS_LOST
    assert pynvml.NVML_DEVICE_MIG_ENABLE == reading._MIG_ON
