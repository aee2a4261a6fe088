"""Peer trust and machine speed: the CPU's for real, a GPU machine's from samples as its probes write them."""

import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from subcortex.experiments import catalogue
from subcortex.experiments.catalogue.common.machine import sampled
from subcortex.experiments.catalogue.machine_speed.experiment import MachineSpeed, memory_prior
from subcortex.experiments.catalogue.peer_trust.experiment import PeerTrust
from subcortex.experiments.catalogue.peer_trust.experiment import report_of as trust_report
from subcortex.experiments.choice import Belief
from subcortex.experiments.laboratory.lab import PROBES, Lab
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.scene import Scene
from subcortex.hardware import detect
from subcortex.journal.board.subjects import names_in
from tests.experiments.harness import VLLM_PYTHON, config_for, lab_for, scene_for
from tests.hardware import nvml as made_up


def on_two_h200(folder: Path) -> Scene:
    return Scene(config_for(folder), detect(made_up.two_h200()), VLLM_PYTHON, {}, {"torch": "2.11.0+cu130"})


class Once(MachineSpeed):
    goes: ClassVar[int] = 1


def without_gpus(folder: Path) -> Scene:
    scene = scene_for(config_for(folder))
    return Scene(scene.config, scene.hardware.model_copy(update={"gpus": (), "links": ()}), scene.python)


def feed(lab: Lab, metric: str, unit: str, values: Sequence[float], **facts: Any) -> None:
    for block, value in enumerate(values):
        lab.sample(metric, value, unit, block=block, **facts)


def around(value: float) -> list[float]:
    return [value * (1 + step / 1000) for step in (-3, 2, -1, 0, 1, -2, 3)]


def probe_lines(name: str, *words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [VLLM_PYTHON, PROBES / f"{name}.py", *words], capture_output=True, check=True, timeout=120
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_the_cpu_is_measured_and_every_figure_is_in_the_raw_samples(tmp_path: Path) -> None:
    scene = without_gpus(tmp_path)
    experiment = Once()
    (inquiry,) = experiment.inquiries(scene)
    assert (inquiry.quantity, inquiry.about, inquiry.unit) == ("bandwidth", "CPU", "GB/s")
    assert inquiry.after == frozenset()
    async with lab_for(scene, seconds=60) as (lab, keep):
        report = await experiment.run(lab, inquiry)
    # What is kept is enough for a run that comes back.
    async with lab_for(scene, seconds=60, earlier=keep.kept) as (again, other):
        assert (await experiment.run(again, inquiry)).answers == report.answers
    assert (len(keep.commands), len(other.commands)) == (1, 0)
    memory, compute = report.answers
    copies = [one.value for one in keep.kept if one.metric == "memory copy"]
    products = {(one.facts["dtype"], one.facts["n"]) for one in keep.kept if one.metric == "gemm"}
    assert len(copies) >= 7
    assert memory.value is not None
    assert min(copies) <= memory.value <= max(copies)
    assert memory.low is not None
    assert memory.low <= memory.value
    assert {dtype for dtype, _ in products} == {"float32", "bfloat16"}
    assert compute.unit == "TFLOP/s"
    assert compute.details["tflops"].keys() == {"float32", "bfloat16"}
    assert compute.value == compute.details["best_tflops"][compute.details["dtype"]]
    assert report.charts[0].kind == "bars"
    assert len(report.charts[0].categories) == len(report.charts[0].lines[0].points) == 2


async def test_two_h200_come_to_what_the_planner_takes(tmp_path: Path) -> None:
    scene = on_two_h200(tmp_path)
    async with lab_for(scene) as (lab, _):
        for device, copy in ((0, 4300.0), (1, 3900.0)):
            feed(lab, "memory copy", "GB/s", around(copy), device=device)
            feed(lab, "memory read", "GB/s", around(3500.0), device=device)
            feed(lab, "gemm", "TFLOP/s", around(790.0), device=device, dtype="bfloat16", n=8192)
        feed(lab, "gemm", "TFLOP/s", around(700.0), device=0, dtype="bfloat16", n=4096)
        feed(lab, "gemm", "TFLOP/s", around(52.0), device=0, dtype="float32", n=8192)
        for pinned, speed in ((True, 55.0), (False, 12.0)):
            feed(lab, "host to device", "GB/s", around(speed), device=0, pinned=pinned)
            feed(lab, "device to host", "GB/s", around(speed - 2), device=0, pinned=pinned)
        for pair, speed in (("0-1", 390.0), ("1-0", 380.0)):
            feed(lab, "peer", "GB/s", around(speed), pair=pair, peer_access=True)
        feed(lab, "peer both ways", "GB/s", around(740.0), pair="0-1")
        # Nothing is wide, so the probe is not run: there is no GPU here to run it on.
        report = await MachineSpeed().run(lab, MachineSpeed().inquiries(scene)[0])
    by = {(one.quantity, one.about): one for one in report.answers}
    assert by.keys() == {
        ("bandwidth", "memory of H200"),
        ("compute", "bfloat16 matrix products on H200"),
        ("bandwidth", "PCIe 5.0 x16 of H200 to the host"),
        ("bandwidth", "NVLink NV18 of H200"),
    }
    peers = by["bandwidth", "NVLink NV18 of H200"]
    assert peers.value == pytest.approx(380.0, rel=0.002)
    assert [(row["a"], row["b"]) for row in peers.details["pairs"]] == [(0, 1), (1, 0)]
    assert peers.details["peer_gb_per_s"]["0-1"] == pytest.approx(390.0, rel=0.002)
    assert peers.details["nominal_gb_per_s"] == 450.0
    compute = by["compute", "bfloat16 matrix products on H200"]
    assert compute.value == pytest.approx(790.0, rel=0.002)
    assert compute.details["nominal_tflops"] == 989.4
    host = by["bandwidth", "PCIe 5.0 x16 of H200 to the host"]
    assert host.details["device_to_host_pageable_gb_per_s"] == pytest.approx(10.0, rel=0.01)
    assert any("not alike" in one for one in report.noticed)
    # What a line of notes can name ("NVLink = 600 GB/s", "H200: 4.8 TB/s") is none of these.
    for _, about in by:
        assert about not in {name.name for name in names_in(about)}


def test_a_card_is_believed_by_its_data_sheet(tmp_path: Path) -> None:
    scene = on_two_h200(tmp_path)
    bounds = memory_prior(scene).interval()
    assert [bounds.low, bounds.high] == pytest.approx([0.65 * 4800, 4800.0])
    (inquiry,) = MachineSpeed().inquiries(scene)
    assert inquiry.after == {"peer_trust"}
    assert inquiry.needs.gpus == 2
    assert [gpu["uuid"] for gpu in inquiry.depends_on["gpus"]] == [gpu.uuid for gpu in scene.hardware.gpus]


def test_without_torch_nothing_is_measured(tmp_path: Path) -> None:
    scene = without_gpus(tmp_path)
    bare = Scene(scene.config, scene.hardware, None)
    assert "torch" in str(MachineSpeed().why_not(bare))
    assert MachineSpeed().inquiries(bare) == ()


def test_peers_are_two(tmp_path: Path) -> None:
    scene = without_gpus(tmp_path)
    assert PeerTrust().why_not(scene) == "this machine has no GPUs; peers are two"
    assert PeerTrust().inquiries(scene) == ()
    one = Scene(scene.config, detect(made_up.Nvml([made_up.h200(0)])), VLLM_PYTHON)
    assert PeerTrust().why_not(one) == "this machine has 1 GPU; peers are two"
    (inquiry,) = PeerTrust().inquiries(on_two_h200(tmp_path))
    assert isinstance(inquiry.prior, Belief)


def readings_of(lines: Sequence[dict[str, Any]]) -> list[Reading]:
    return [Reading(one["metric"], one["value"], one["unit"], "", one["block"], facts=one) for one in lines]


def test_lost_copies_are_found_and_forbid_the_rest(tmp_path: Path) -> None:
    scene = on_two_h200(tmp_path)
    words = ("--device", "cpu", "--scale", "small", "--repeats", "2", "--lose-after", str(2**20))
    lines = probe_lines("peer_trust", *words)
    assert [one["untouched_bytes"] for one in lines] == [0, 12, 0, 12] * 2
    lost = trust_report(scene, readings_of(lines))
    answer, sent = lost.answers[0], 4 * (4096 + 2**20 + 12)
    assert answer.outcome == "failed"
    assert (answer.details["bytes"], answer.details["intact_bytes"]) == (sent, sent - 4 * 12)
    assert f"Only {sent - 48} of {sent} bytes" in answer.statement
    assert "NVLink" in lost.noticed[0]
    whole = trust_report(scene, readings_of([one for one in lines if one["bytes"] == 4096]))
    assert (whole.answers[0].outcome, whole.answers[0].value) == ("passed", 100.0)
    assert whole.noticed == ()


def test_all_are_in_the_catalogue() -> None:
    numbers = {one.name: one.number for one in catalogue.CATALOGUE}
    assert {name: numbers[name] for name in ("peer_trust", "machine_speed", "collectives", "startup")} == {
        "peer_trust": 0,
        "machine_speed": 1,
        "collectives": 2,
        "startup": 12,
    }


async def test_lines_that_are_no_samples_are_left_out(tmp_path: Path) -> None:
    async def lines() -> AsyncIterator[dict[str, Any]]:
        good = {"metric": "peer", "value": 380.0, "unit": "GB/s", "pair": "0-1", "block": 2}
        for changed in ({}, {"value": float("inf")}, {"value": None}, {"value": "fast"}, {"block": "x"}):
            yield good | changed
        yield {"metric": "peer"}
        yield {"note": "no float8 here"}

    async with lab_for(without_gpus(tmp_path)) as (lab, keep):
        others = await sampled(lab, lines())
    assert [(one.value, one.block, one.facts) for one in keep.kept] == [(380.0, 2, {"pair": "0-1"})]
    assert others == [{"note": "no float8 here"}]
