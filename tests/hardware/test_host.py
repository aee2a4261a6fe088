"""The host, as the kernel's files tell it."""

from __future__ import annotations

import os

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.hardware import host
from subcortex.hardware.model import NumaNode


def test_this_host():
    found = host.read()

    assert found.cores_logical == psutil.cpu_count()
    assert found.affinity == host.as_list(os.sched_getaffinity(0))
    assert (found.kernel, found.architecture) == (os.uname().release, os.uname().machine)
    assert found.swap_total_mib == psutil.swap_memory().total / 2**20


@pytest.mark.parametrize(
    ("limit", "current", "expected"),
    [("1073741824", "268435456", (1024, 768)), ("1073741824", "2147483648", (1024, 0))],
)
def test_a_containers_limit_is_the_hosts_memory(tmp_path, limit, current, expected):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{current}\n")

    assert host.memory_mib(tmp_path) == expected


@pytest.mark.parametrize("limit", ["max\n", str(2**60), "", "nonsense"])
def test_no_limit_is_the_machines_memory(tmp_path, limit):
    (tmp_path / "memory.max").write_text(limit)

    assert host.memory_mib(tmp_path)[0] == psutil.virtual_memory().total / 2**20


@pytest.mark.parametrize(
    ("text", "cores"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), ("0 0", None), ("x y", None)],
)
def test_a_containers_share_of_cpu_time(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)

    assert host.read(cgroup=tmp_path).cpu_quota == cores


def test_numa_nodes(tmp_path):
    for index, cores in ((1, "16-31"), (0, "0-15")):
        node = tmp_path / f"node{index}"
        node.mkdir()
        (node / "cpulist").write_text(f"{cores}\n")
        (node / "meminfo").write_text(
            f"Node {index} MemTotal:       2097152 kB\nNode {index} MemFree:        1048576 kB\n"
        )
    (tmp_path / "node2").mkdir()  # gone while we look

    assert host.numa_nodes(tmp_path) == (
        NumaNode(index=0, cores="0-15", memory_total_mib=2048, memory_free_mib=1024),
        NumaNode(index=1, cores="16-31", memory_total_mib=2048, memory_free_mib=1024),
    )
    assert host.numa_nodes(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 9354\nmodel name\t: other\n", "AMD EPYC 9354"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", None),
    ],
)
def test_the_cpus_model(tmp_path, text, model):
    (tmp_path / "cpuinfo").write_text(text)

    assert host.read(cpuinfo=tmp_path / "cpuinfo").cpu_model == model


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cores_can_be_read_back(cores):
    read = set()
    for piece in filter(None, host.as_list(cores).split(",")):
        first, _, last = piece.partition("-")
        read |= set(range(int(first), int(last or first) + 1))

    assert read == cores


def test_lists_of_cores_are_short():
    assert host.as_list([3, 0, 1, 2, 8, 10, 11]) == "0-3,8,10-11"
