"""What lies between GPUs: codes to GB/s, recorded or assumed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.hardware import (
    CARDS,
    LINK_CODES,
    PEER_CODES,
    Gpu,
    GpuPair,
    Hardware,
    Link,
    detect,
    link_between,
    matrix,
    nominal_link,
    slowest_link,
    with_gpus,
)
from tests.hardware import nvml as fake


def gpu(name: str, index: int = 0, **more) -> Gpu:
    return Gpu(index=index, name=name, memory_total_mib=24576, **more)


def machine(*gpus: Gpu, links: tuple[GpuPair, ...] = ()) -> Hardware:
    return Hardware(gpus=gpus, links=links, host_memory_total_mib=1, host_memory_available_mib=1, cores=1)


@pytest.mark.parametrize(
    ("name", "code", "gb_per_s"),
    [
        ("NVIDIA GeForce RTX 3090", "NV4", 56.25),
        ("NVIDIA GeForce RTX 3090", "NV2", 28.125),
        ("NVIDIA A100-SXM4-80GB", "NV12", 300),
        ("NVIDIA H100 80GB HBM3", "NV18", 450),
        ("NVIDIA H200", "NV18", 450),
        ("NVIDIA B200", "NV18", 900),
        ("Tesla V100-SXM2-16GB", "NV2", 50),
    ],
)
def test_nvlink_by_the_data_sheet(name, code, gb_per_s):
    link = nominal_link(gpu(name), gpu(name, 1), code)

    assert (link.kind, link.gb_per_s, link.measured, link.peer) == (code, gb_per_s, False, True)


@pytest.mark.parametrize(
    ("told", "gb_per_s"),
    [
        ({"nvlink_version": "5.0", "nvlink_mb_per_s": 53125.0}, 100),
        ({"nvlink_version": "9.0", "nvlink_mb_per_s": 53125.0}, 106.25),
        ({}, 40),
    ],
)
def test_nvlink_of_an_unknown_card_by_what_the_driver_says(told, gb_per_s):
    assert nominal_link(gpu("NVIDIA X1", **told), gpu("NVIDIA X1", 1, **told), "NV2").gb_per_s == gb_per_s


@pytest.mark.parametrize(
    ("generation", "lanes", "gb_per_s"),
    [
        (1, 16, 4.0),
        (2, 16, 8.0),
        (3, 16, 15.754),
        (4, 16, 31.508),
        (4, 8, 15.754),
        (5, 16, 63.015),
        (6, 16, 121),
    ],
)
def test_pcie_by_generation_and_lanes(generation, lanes, gb_per_s):
    """By hand: GT/s × lanes × coding / 8."""
    known = gpu("NVIDIA X1", pcie_generation_max=generation, pcie_width=lanes)

    assert nominal_link(known, known, "PIX").gb_per_s == pytest.approx(gb_per_s, rel=1e-4)


def test_pcie_is_as_fast_as_the_slower_end_and_the_lanes_in_use():
    ti, gtx = detect(fake.household()).gpus

    link = nominal_link(ti, gtx, "PHB")

    assert (link.kind, link.words, link.measured, link.peer) == ("PHB", "PCIe 3 x4", False, None)
    assert link.gb_per_s == pytest.approx(3.938, rel=1e-3)


def test_an_idle_cards_generation_is_not_its_links():
    idle = gpu("RTX 3090", pcie_generation=1, pcie_generation_max=4, pcie_width=16, pcie_width_max=16)

    assert nominal_link(idle, idle, "PHB").words == "PCIe 4 x16"


@pytest.mark.parametrize(
    ("name", "words"),
    [("RTX 3090", "PCIe 4 x16"), ("RTX 4060", "PCIe 4 x8"), ("24 GiB card", "PCIe 3 x16")],
)
def test_what_the_driver_does_not_tell_is_the_cards_own(name, words):
    assert nominal_link(gpu(name), gpu("H200", 1), "PHB").words == words


@pytest.mark.parametrize("code", ["X", "NV", "NV#", "NVx", "", "PCI", "nv4"])
def test_what_is_no_code(code):
    with pytest.raises(ValueError, match="no code"):
        nominal_link(gpu("RTX 3090"), gpu("RTX 3090", 1), code)


_CODES = st.sampled_from([code for code in LINK_CODES if code not in ("X", "NV#")]) | st.integers(1, 18).map(
    lambda links: f"NV{links}"
)
_GPUS = st.builds(
    gpu,
    st.sampled_from([*CARDS, "unheard of"]),
    pcie_generation_max=st.none() | st.integers(0, 9),
    pcie_width=st.none() | st.sampled_from([0, 1, 2, 4, 8, 16]),
    nvlink_version=st.none() | st.sampled_from(["1.0", "2.2", "5.0", "9.9"]),
)


@given(_GPUS, _GPUS, _CODES)
def test_a_link_is_the_same_both_ways_and_carries_something(a, b, code):
    link = nominal_link(a, b, code)

    assert link == nominal_link(b, a, code)
    assert 0 < link.gb_per_s < 2000


def test_recorded_links_say_whether_peers_reach_each_other():
    h200, home = detect(fake.two_h200()), detect(fake.household())

    assert link_between(h200, 1, 0) == Link("NV18", 450, peer=True, words="18 x NVLink of 25 GB/s")
    assert link_between(home, 0, 1).peer is False


@pytest.mark.parametrize(
    ("read", "write", "peer"),
    [
        ("OK", "OK", True),
        ("OK", "NS", False),
        ("CNS", None, False),
        ("U", "U", None),
        (None, None, None),
        ("OK", None, None),
    ],
)
def test_peer_access_by_what_the_driver_says_of_reading_and_writing(read, write, peer):
    pair = GpuPair(a=0, b=1, code="PIX", peer_read=read, peer_write=write)

    assert link_between(machine(gpu("T4"), gpu("T4", 1), links=(pair,)), 0, 1).peer is peer


def test_a_measured_bandwidth_counts_more_than_a_promised_one():
    pair = GpuPair(a=0, b=1, code="PHB", measured_gb_per_s=11.5)

    link = link_between(machine(gpu("RTX 3090"), gpu("RTX 3090", 1), links=(pair,)), 0, 1)

    assert (link.kind, link.gb_per_s, link.measured) == ("PHB", 11.5, True)


def test_without_a_matrix_cards_talk_over_the_host():
    found = link_between(machine(gpu("RTX 3090"), gpu("RTX 3090", 1)), 0, 1)

    assert (found.kind, found.words, found.peer) == ("PHB", "PCIe 4 x16", None)


def test_a_gpu_has_no_link_to_itself_nor_to_one_that_is_not_there():
    alone = machine(gpu("RTX 3090"))

    with pytest.raises(ValueError, match="itself"):
        link_between(alone, 0, 0)
    with pytest.raises(KeyError):
        link_between(alone, 0, 1)


def test_the_slowest_link_among_gpus():
    found = detect(fake.bridged())

    assert slowest_link(found, [0, 1]) == link_between(found, 0, 1)
    assert (slowest_link(found, [0, 1, 2]) or Link("", 0)).kind in ("NODE", "SYS")
    assert slowest_link(found, [1]) is None
    assert slowest_link(found, []) is None


def test_bridges_that_a_person_wrote():
    found = with_gpus("2x RTX 3090 NVLink + RTX 4090")

    assert found.assumed
    assert matrix(found) == [["X", "NV4", "PHB"], ["NV4", "X", "PHB"], ["PHB", "PHB", "X"]]
    assert slowest_link(found, [0, 1]) == Link("NV4", 56.25, peer=True, words="4 x NVLink of 14.0625 GB/s")


def test_every_code_and_word_is_explained():
    recorded = [detect(machine) for machine in (fake.two_h200(), fake.household(), fake.bridged())]
    pairs = [pair for found in recorded for pair in found.links]

    words = {pair.peer_read for pair in pairs} | {pair.peer_nvlink for pair in pairs}
    assert {"NV#" if pair.code.startswith("NV") else pair.code for pair in pairs} <= LINK_CODES.keys()
    assert words - {None} <= PEER_CODES.keys()
