"""What lies between GPUs, in words and in GB/s as makers promise it. Pure.

PCIe's lanes carry 2.5, 5, 8, 16, 32 and 64 GT/s from generation 1 to 6 (PCI-SIG's specifications); the first
two spend a fifth on 8b/10b coding, the next three 2 bits of 130, the last 14 bytes of a flit of 256. NVLink's
rates are those of the cards' data sheets; see ``hardware.cards``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from subcortex.hardware.cards import NVLINK_GB_PER_S, card_for
from subcortex.hardware.model import Gpu, GpuPair, Hardware

#: What each code of the link matrix means, nearest first. NV is followed by the number of links.
LINK_CODES: dict[str, str] = {
    "X": "the GPU itself",
    "NV#": "that many NVLinks, direct or by a switch",
    "PIX": "PCIe, over one switch at most",
    "PXB": "PCIe, over several switches, not over the CPU",
    "PHB": "PCIe, over the CPU's host bridge",
    "NODE": "PCIe, over several host bridges of one NUMA node",
    "SYS": "PCIe and the link between CPU sockets or NUMA nodes",
}

#: What each word of the peer-access matrices means.
PEER_CODES: dict[str, str] = {
    "OK": "the GPUs reach each other's memory",
    "CNS": "the chipset does not support it",
    "GNS": "the GPU does not support it",
    "TNS": "the topology does not support it",
    "DR": "a driver setting has switched it off",
    "NS": "not supported",
    "U": "unknown",
}

#: GB/s of one lane in one direction, by generation.
PCIE_LANE_GB_PER_S = {
    1: 2.5 * 8 / 10 / 8,
    2: 5 * 8 / 10 / 8,
    3: 8 * 128 / 130 / 8,
    4: 16 * 128 / 130 / 8,
    5: 32 * 128 / 130 / 8,
    6: 64 * 242 / 256 / 8,
}
#: Generation and lanes of a card that nothing is known of: the slot of a modest desktop.
_UNKNOWN_PCIE = (3, 16)
#: What is taken for granted between cards whose matrix nobody gave.
ASSUMED_CODE = "PHB"


@dataclass(frozen=True, slots=True)
class Link:
    """The way between two GPUs.

    Args:
        kind: Its code, see ``LINK_CODES``.
        gb_per_s: Of one direction, 10^9 bytes/s.
        measured: By an experiment; otherwise it is what the makers promise, more than transfers reach.
        peer: The GPUs reach each other's memory without the host's; None if unknown.
        words: What the figure comes from, e.g. ``PCIe 4 x16``.
        latency_s: Of an all-reduce of a few KiB over it, where an experiment measured it.
    """

    kind: str
    gb_per_s: float
    measured: bool = False
    peer: bool | None = None
    words: str = ""
    latency_s: float | None = None


def nominal_link(gpu_a: Gpu, gpu_b: Gpu, code: str) -> Link:
    """Return what the makers promise of a link.

    NVLink: links × what one carries, by the card's data sheet; for a card that the table lacks by the NVLink
    version that the driver names, else by the rate it says. PCIe: generation × lanes of the slower of the
    two. The generation is the best that card and slot can do, as it falls while a card idles; the lanes are
    those in use, as a slot with fewer of them often is not seen in the maximum. What the driver did not tell
    is taken from the card's data sheet, and for an unknown card is generation 3 with 16 lanes. The link
    between sockets (SYS) is taken to be no slower than PCIe.

    Args:
        gpu_a, gpu_b: The GPUs, in either order.
        code: A code of ``LINK_CODES``; NV with its number.

    Raises:
        ValueError: No such code.
    """
    if code.startswith("NV") and code[2:].isdecimal() and code.isascii():
        rate = min(_nvlink_gb_per_s(gpu_a), _nvlink_gb_per_s(gpu_b))
        links = int(code[2:])
        return Link(code, links * rate, peer=True, words=f"{links} x NVLink of {rate:g} GB/s")
    if code not in LINK_CODES or code in ("X", "NV#"):
        raise ValueError(f"no code of a link between two GPUs: {code!r}")
    generation, lanes = min(
        (_pcie(gpu) for gpu in (gpu_a, gpu_b)), key=lambda link: (_pcie_gb_per_s(link), link)
    )
    return Link(code, _pcie_gb_per_s((generation, lanes)), words=f"PCIe {generation} x{lanes}")


def _nvlink_gb_per_s(gpu: Gpu) -> float:
    card = card_for(gpu.name, gpu.memory_total_mib)
    if card and card.nvlink_gb:
        return card.nvlink_gb
    version = int(gpu.nvlink_version.partition(".")[0]) if gpu.nvlink_version else 0
    if version in NVLINK_GB_PER_S:
        return NVLINK_GB_PER_S[version]
    return gpu.nvlink_mb_per_s / 1000 if gpu.nvlink_mb_per_s else min(NVLINK_GB_PER_S.values())


def _pcie(gpu: Gpu) -> tuple[int, int]:
    """Return generation and lanes."""
    card = card_for(gpu.name, gpu.memory_total_mib)
    generation, lanes = card.pcie if card else _UNKNOWN_PCIE
    # 0 stands for unknown on virtual cards.
    return (
        gpu.pcie_generation_max or gpu.pcie_generation or generation,
        gpu.pcie_width or gpu.pcie_width_max or lanes,
    )


def _pcie_gb_per_s(link: tuple[int, int]) -> float:
    generation, lanes = link
    return PCIE_LANE_GB_PER_S[max(1, min(generation, max(PCIE_LANE_GB_PER_S)))] * lanes


def link_between(hardware: Hardware, a: int, b: int) -> Link:
    """Return the way between two GPUs of a machine, by their indices: measured, recorded or assumed.

    Without a recorded code it is taken to be PCIe over the host bridge. What the driver says of peer access
    counts more than the code.

    Raises:
        KeyError: No GPU has that index.
        ValueError: ``a`` is ``b``.
    """
    if a == b:
        raise ValueError(f"GPU {a} has no link to itself")
    gpus = {gpu.index: gpu for gpu in hardware.gpus}
    pair = hardware.pair(a, b)
    link = nominal_link(gpus[a], gpus[b], pair.code if pair else ASSUMED_CODE)
    if pair is None:
        return link
    peer = peer_access(pair)
    link = replace(link, peer=link.peer if peer is None else peer, latency_s=pair.measured_latency_s)
    if pair.measured_gb_per_s is None:
        return link
    return replace(link, gb_per_s=pair.measured_gb_per_s, measured=True, words="measured")


def peer_access(pair: GpuPair) -> bool | None:
    """Return whether two GPUs read and write each other's memory, None where the driver does not say."""
    answers = {pair.peer_read, pair.peer_write}
    if answers == {"OK"}:
        return True
    return False if answers - {"OK", "U", None} else None


def slowest_link(hardware: Hardware, indices: Iterable[int]) -> Link | None:
    """Return the slowest link among GPUs; None among fewer than two."""
    ways = [link_between(hardware, a, b) for a, b in combinations(sorted(set(indices)), 2)]
    return min(ways, key=lambda link: (link.gb_per_s, link.peer is True), default=None)


def matrix(hardware: Hardware) -> list[list[str | None]]:
    """Return the codes of all pairs, in the GPUs' order: ``X`` on the diagonal, None where unknown."""
    pairs = {(pair.a, pair.b): pair.code for pair in hardware.links}
    indices = [gpu.index for gpu in hardware.gpus]
    return [["X" if a == b else pairs.get((min(a, b), max(a, b))) for b in indices] for a in indices]


def assumed_links(gpus: Sequence[Gpu], nvlinks: dict[tuple[int, int], int]) -> tuple[GpuPair, ...]:
    """Return what is taken for granted between cards that a person named.

    Args:
        gpus: In the order of their indices.
        nvlinks: How many NVLinks join two of them, by the indices, the smaller first; PCIe over the host
            bridge for pairs that are not there.
    """
    return tuple(
        GpuPair(
            a=a.index,
            b=b.index,
            code=f"NV{nvlinks[a.index, b.index]}" if (a.index, b.index) in nvlinks else ASSUMED_CODE,
        )
        for a, b in combinations(gpus, 2)
    )
