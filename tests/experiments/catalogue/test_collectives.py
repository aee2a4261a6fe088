"""Collectives: over gloo for real, over NVLink from samples as the probe writes them."""

import os
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from subcortex.experiments.catalogue.collectives.experiment import SIZES, Collectives, medium
from subcortex.experiments.catalogue.collectives.report import bus_factor, gb_per_s, report
from subcortex.experiments.laboratory.lab import PROBES
from tests.experiments.catalogue.test_machine_speed import around, feed, on_two_h200, without_gpus
from tests.experiments.harness import VLLM_PYTHON, lab_for

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")


class Small(Collectives):
    goes: ClassVar[int] = 1
    cpu_sizes: ClassVar[tuple[int, ...]] = (2**14, 2**18)


async def test_two_processes_collect_and_what_comes_out_is_checked(tmp_path: Path) -> None:
    scene = without_gpus(tmp_path)
    experiment = Small()
    (inquiry,) = experiment.inquiries(scene)
    assert (inquiry.quantity, inquiry.about) == ("bus_bandwidth", "gloo")
    async with lab_for(scene, seconds=90) as (lab, keep):
        found = await experiment.run(lab, inquiry)
    wrong = [(one.facts["check"], one.value) for one in keep.kept if one.metric == "wrong"]
    assert sorted({name for name, _ in wrong}) == sorted(OPERATIONS)
    assert {value for _, value in wrong} == {0.0}
    by = {one.quantity: one for one in found.answers}
    assert by.keys() == {"bus_bandwidth", "latency"}
    # Of two ranks an all-reduce has the same bandwidth both ways of counting.
    assert "algorithm bandwidth too" in by["bus_bandwidth"].statement
    times = [one.value for one in keep.kept if one.metric == "all_reduce" and one.facts["bytes"] == 2**14]
    latency = by["latency"].value
    assert latency is not None
    assert len(times) >= 7
    assert min(times) <= latency <= max(times)
    table = by["bus_bandwidth"].details["by_size"]["as_found"]
    assert {name: set(rows) for name, rows in table.items()} == {
        name: {"16384", "262144"} for name in OPERATIONS
    }
    for row in table["all_gather"].values():
        assert row["busbw_gb_per_s"] == pytest.approx(row["algbw_gb_per_s"] / 2)
    # Kept samples are the whole of it: a run that comes back with them measures nothing.
    async with lab_for(scene, seconds=90, earlier=keep.kept) as (again, other):
        again_found = await experiment.run(again, inquiry)
    assert len(keep.commands) == 1
    assert other.commands == []
    assert [one.value for one in again_found.answers] == [one.value for one in found.answers]


def test_bandwidths_are_counted_as_nccl_tests_counts_them() -> None:
    # PERFORMANCE.md: of 8 ranks 1.75, 0.875, 0.875, 1.
    assert [bus_factor(name, 8) for name in OPERATIONS] == [1.75, 0.875, 0.875, 1.0]
    assert gb_per_s(64 * 2**20, 671.08864) == pytest.approx(100.0)


async def test_over_nvlink_the_direct_path_is_compared_and_latency_is_the_graphs(tmp_path: Path) -> None:
    scene = on_two_h200(tmp_path)
    assert medium(scene) == "NVLink NV18 of H200"
    async with lab_for(scene) as (lab, _):
        for block in range(7):
            for arm, us in (("as_found", 320.0), ("no_peer", 2900.0)):
                for value in around(us)[:4]:
                    lab.sample(
                        "all_reduce", value + block, "µs", arm=arm, block=block, bytes=SIZES[-1], how="eager"
                    )
        for arm, how, us in (
            ("as_found", "eager", 31.0),
            ("as_found", "graph", 14.0),
            ("no_peer", "graph", 29.0),
        ):
            for block, value in enumerate(around(us)):
                lab.sample("all_reduce", value, "µs", arm=arm, block=block, bytes=SIZES[0], how=how)
        found = report(lab, medium(scene), 2, SIZES, ["no_peer: a rank has ended"])
    by = {one.quantity: one for one in found.answers}
    bus = by["bus_bandwidth"]
    # Between two ranks it is the algorithm's, and told once.
    assert "algorithm_bandwidth" not in by
    assert bus.value is not None
    assert bus.value == pytest.approx(2**26 / 323e-6 / 1e9, rel=0.01)
    assert bus.low is not None
    assert bus.high is not None
    assert bus.low < bus.value < bus.high
    latency = by["latency"]
    assert latency.value == pytest.approx(14.0, rel=0.002)
    assert latency.details["all_reduce"]["gpus"] == [0, 1]
    assert latency.details["all_reduce"]["latency_s"] == pytest.approx(14e-6, rel=0.002)
    assert latency.details["no_peer_us"] == pytest.approx(29.0, rel=0.002)
    direct = by["speed_ratio"]
    assert direct.outcome == "different"
    assert direct.value == pytest.approx(2903 / 323, rel=0.02)
    assert found.noticed == ("Not all was measured: no_peer: a rank has ended.",)


async def test_wrong_sums_come_first_and_fail(tmp_path: Path) -> None:
    scene = on_two_h200(tmp_path)
    async with lab_for(scene) as (lab, _):
        feed(lab, "all_reduce", "µs", around(300.0), bytes=SIZES[-1], how="eager")
        lab.sample("wrong", 77, "elements", arm="as_found", check="all_reduce", bytes=SIZES[-1])
        lab.sample("wrong", 0, "elements", arm="as_found", check="broadcast", bytes=SIZES[-1])
        found = report(lab, medium(scene), 2, SIZES, [])
    assert (found.answers[0].outcome, found.answers[0].value) == ("failed", 50.0)
    assert "77 elements" in found.noticed[0]


def test_ranks_end_with_the_probe() -> None:
    command: list[str | Path] = [
        VLLM_PYTHON,
        PROBES / "collectives.py",
        "--sizes",
        "16384",
        "--blocks",
        "1000000",
    ]
    probe = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert probe.stdout is not None
    assert b"check" in probe.stdout.readline()
    ranks = psutil.Process(probe.pid).children()
    assert len(ranks) == 2
    os.kill(probe.pid, signal.SIGKILL)
    probe.wait()
    probe.stdout.close()
    gone, alive = psutil.wait_procs(ranks, timeout=20)
    assert (len(gone), alive) == (2, [])
