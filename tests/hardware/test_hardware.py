"""This machine, machines by name, and snapshots."""

from __future__ import annotations

import contextlib
import os

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex import hardware
from subcortex.errors import InvalidRequest
from subcortex.hardware import Gpu, Hardware, detect, load_snapshot, parse_gpus
from subcortex.hardware.standin import CARDS, with_gpus


def test_this_machine_has_memory_and_cores():
    found = detect()

    assert 0 < found.host_memory_available_mib <= found.host_memory_total_mib
    assert found.cores == len(os.sched_getaffinity(0))
    assert not found.assumed


class _Nvml:
    """NVML of a machine with two cards, answering as pynvml does."""

    NVMLError = pynvml.NVMLError
    GIB = 2**30

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fakes = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda index: "NVIDIA GeForce RTX 3090",
            "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
            "nvmlDeviceGetMemoryInfo": lambda index: type(
                "M", (), {"total": 24 * self.GIB, "used": index * self.GIB}
            ),
            "nvmlDeviceGetCudaComputeCapability": lambda index: (8, 6),
            "nvmlSystemGetCudaDriverVersion_v2": lambda: 12080,
            "nvmlSystemGetDriverVersion": lambda: "570.86",
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(pynvml, name, fake)


def test_gpus_come_from_nvml(monkeypatch):
    _Nvml(monkeypatch)

    found = detect()

    assert (found.driver_version, found.cuda_version) == ("570.86", (12, 8))
    assert found.gpus[1] == Gpu(
        index=1,
        name="NVIDIA GeForce RTX 3090",
        uuid="GPU-1",
        memory_total_mib=24576,
        memory_used_mib=1024,
        compute_capability=(8, 6),
    )
    assert found.gpus[1].memory_free_mib == 23552


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, False),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, False),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, True),
    ],
)
def test_no_driver_is_no_gpu_and_a_driver_in_trouble_is_said(monkeypatch, code, problem):
    def fail():
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)

    found = detect()

    assert found.gpus == ()
    assert (found.problem is not None) is problem


def test_a_card_that_falls_off_the_bus_is_a_problem_not_a_crash(monkeypatch):
    _Nvml(monkeypatch)

    def fail(_index):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", fail)

    assert detect().gpus == ()
    assert "lost" in (detect().problem or "").lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2x24GiB", [(24576, None)] * 2),
        ("2 x 24 GB", [(24576, None)] * 2),
        ("RTX 3060 Ti + GTX 1060", [(8192, (8, 6)), (3072, (6, 1))]),
        ("NVIDIA GeForce RTX 3060 Ti, gtx1060 6GB", [(8192, (8, 6)), (6144, (6, 1))]),
        ("2x RTX 3090", [(24576, (8, 6))] * 2),
        ("4×A6000", [(49152, (8, 6))] * 4),
        ("8x H100 + 10.5G", [(81920, (9, 0))] * 8 + [(10752, None)]),
        ("A100 80GB", [(81920, (8, 0))]),
    ],
)
def test_cards_as_a_person_writes_them(text, expected):
    found = parse_gpus(text)

    assert [(gpu.memory_total_mib, gpu.compute_capability) for gpu in found] == expected
    assert [gpu.index for gpu in found] == list(range(len(expected)))


@pytest.mark.parametrize(
    "text", ["", " ", "+", "RTX 3090 +", "0x24GiB", "65x24GiB", "2x0GiB", "potato", "x24GiB2"]
)
def test_what_is_no_card_is_refused_with_an_example(text):
    with pytest.raises(InvalidRequest, match="2x24GiB"):
        parse_gpus(text)


def test_the_nearest_card_is_named():
    with pytest.raises(InvalidRequest, match="did you mean 'RTX 3090'"):
        parse_gpus("RTX 3091")


@given(st.text(max_size=60))
def test_any_text_is_cards_or_refused(text):
    with contextlib.suppress(InvalidRequest):
        assert parse_gpus(text)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_of_the_table_can_be_named(name):
    assert parse_gpus(f"2x {name}")[1].memory_total_mib == CARDS[name][0] * 1024


def test_stand_ins_keep_the_host():
    here, there = detect(), with_gpus("2x24GiB")

    assert there.assumed
    assert len(there.gpus) == 2
    assert there.host_memory_total_mib == here.host_memory_total_mib


def test_a_snapshot_comes_back_as_it_was(tmp_path):
    file = tmp_path / "machine.json"
    file.write_text(with_gpus("RTX 3060 Ti + GTX 1060").model_dump_json())

    assert load_snapshot(file) == Hardware.model_validate_json(file.read_bytes())
    assert load_snapshot(file).gpus == hardware.parse_gpus("RTX 3060 Ti + GTX 1060")


@pytest.mark.parametrize("text", ["", "[]", '{"cores": 0}', '{"gpus": [{}]}', "\x00"])
def test_a_file_that_is_no_snapshot_is_refused_by_name(tmp_path, text):
    file = tmp_path / "machine.json"
    file.write_text(text)

    with pytest.raises(InvalidRequest, match=r"machine\.json"):
        load_snapshot(file)


def test_a_snapshot_that_is_not_there(tmp_path):
    with pytest.raises(InvalidRequest, match="No such file"):
        load_snapshot(tmp_path / "none.json")
