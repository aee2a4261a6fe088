"""NVIDIA's cards: what their data sheets say, found by the names that people and NVML give them. Pure.

Sources: NVIDIA's data sheets, and the white papers of Pascal GP104, Volta, Turing, Ampere GA100 and GA102,
Ada, Hopper and Blackwell. Memory as NVML reports it is what ``nvidia-smi`` commonly shows with drivers from
510 on, which count the driver's own share as part of the total; ECC is as the card is delivered. The H200's
was read on a card of ours; the others have not been held against cards, nor each figure against its sheet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

#: GB/s of one NVLink in one direction, by version. GA102's bridge is the exception: see ``Card.nvlink_gb``.
NVLINK_GB_PER_S = {1: 20.0, 2: 25.0, 3: 25.0, 4: 25.0, 5: 50.0}


class NvLink(StrEnum):
    """What a card's NVLinks lead to."""

    NONE = "none"
    #: A bridge that a person puts over two cards.
    BRIDGE = "bridge"
    #: The other GPUs of a board, which share the links among them.
    BOARD = "board"
    #: A switch, by which any two GPUs have all links.
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Card:
    """One model of card.

    Args:
        name: As this table has it.
        memory_gib: As sold.
        reported_mib: Total as NVML reports it.
        capability: Compute capability.
        memory_gb_per_s: Bandwidth of its memory, 10^9 bytes/s.
        tflops: Dense 16-bit matrix multiplication that sums in 32 bits, as engines do: bf16, fp16 before
            Ampere. Pascal computes 16 bits no faster than 32, so there the 32-bit rate. None where it hangs
            on the maker's power limit (laptops).
        pcie: Generation and lanes.
        nvlink: What its NVLinks lead to.
        nvlink_version, nvlink_links: 0 without.
        nvlink_gb: GB/s of one link in one direction.
    """

    name: str
    memory_gib: float
    reported_mib: float
    capability: tuple[int, int]
    memory_gb_per_s: float
    tflops: float | None
    pcie: tuple[int, int]
    nvlink: NvLink = NvLink.NONE
    nvlink_version: int = 0
    nvlink_links: int = 0
    nvlink_gb: float = 0.0

    @property
    def nvlink_gb_per_s(self) -> float:
        """Of all NVLinks in one direction, 10^9 bytes/s."""
        return self.nvlink_links * self.nvlink_gb


_Row = tuple[str, float, float, tuple[int, int], float, float | None]
_X16_3, _X16_4, _X8_4, _X16_5, _X8_5 = (3, 16), (4, 16), (4, 8), (5, 16), (5, 8)

# Name, memory as sold in GiB, as NVML reports it in MiB, compute capability, memory GB/s, TFLOP/s.
# fmt: off
_BY_SLOT: dict[tuple[int, int], tuple[_Row, ...]] = {
    _X16_3: (
        ("GTX 1060 3GB", 3, 3072, (6, 1), 192.2, 3.9),  # older drivers: 3019
        ("GTX 1060 6GB", 6, 6144, (6, 1), 192.2, 4.4),
        ("GTX 1070", 8, 8192, (6, 1), 256.3, 6.5),
        ("GTX 1070 Ti", 8, 8192, (6, 1), 256.3, 8.2),
        ("GTX 1080", 8, 8192, (6, 1), 320.3, 8.9),
        ("GTX 1080 Ti", 11, 11264, (6, 1), 484.4, 11.3),
        ("GTX 1650", 4, 4096, (7, 5), 128.0, 6.0),
        ("GTX 1660", 6, 6144, (7, 5), 192.1, 10.0),
        ("GTX 1660 Super", 6, 6144, (7, 5), 336.0, 10.0),
        ("GTX 1660 Ti", 6, 6144, (7, 5), 288.0, 11.0),
        ("RTX 2060", 6, 6144, (7, 5), 336.0, 25.8),
        ("RTX 2060 Super", 8, 8192, (7, 5), 448.0, 28.7),
        ("RTX 2070", 8, 8192, (7, 5), 448.0, 29.9),
        ("RTX 2070 Super", 8, 8192, (7, 5), 448.0, 36.3),
        ("RTX 2080", 8, 8192, (7, 5), 448.0, 40.3),
        ("RTX 2080 Super", 8, 8192, (7, 5), 495.9, 44.6),
        ("RTX 2080 Ti", 11, 11264, (7, 5), 616.0, 53.8),
        ("TITAN RTX", 24, 24576, (7, 5), 672.0, 130.5),
        ("Quadro RTX 6000", 24, 24576, (7, 5), 672.0, 130.5),
        ("Quadro RTX 8000", 48, 49152, (7, 5), 672.0, 130.5),
        ("P40", 24, 23040, (6, 1), 347.1, 11.8),
        ("P100 16GB", 16, 16384, (6, 0), 732.2, 18.7),
        ("V100 PCIe 16GB", 16, 16384, (7, 0), 897.0, 112.0),
        ("V100 PCIe 32GB", 32, 32768, (7, 0), 897.0, 112.0),
        ("V100 16GB", 16, 16384, (7, 0), 897.0, 125.0),
        ("V100 32GB", 32, 32768, (7, 0), 897.0, 125.0),
        ("T4", 16, 15360, (7, 5), 320.0, 65.0),
    ),
    _X16_4: (
        ("RTX 3060", 12, 12288, (8, 6), 360.0, 25.5),
        ("RTX 3060 Ti", 8, 8192, (8, 6), 448.0, 32.4),
        ("RTX 3070", 8, 8192, (8, 6), 448.0, 40.6),
        ("RTX 3070 Ti", 8, 8192, (8, 6), 608.3, 43.5),
        ("RTX 3080", 10, 10240, (8, 6), 760.3, 59.5),
        ("RTX 3080 12GB", 12, 12288, (8, 6), 912.4, 61.3),
        ("RTX 3080 Ti", 12, 12288, (8, 6), 912.4, 68.2),
        ("RTX 3090", 24, 24576, (8, 6), 936.2, 71.0),
        ("RTX 3090 Ti", 24, 24564, (8, 6), 1008.3, 80.0),
        ("RTX 4070", 12, 12282, (8, 9), 504.2, 58.3),
        ("RTX 4070 Super", 12, 12282, (8, 9), 504.2, 71.0),
        ("RTX 4070 Ti", 12, 12282, (8, 9), 504.2, 80.2),
        ("RTX 4070 Ti Super", 16, 16376, (8, 9), 672.3, 88.2),
        ("RTX 4080", 16, 16376, (8, 9), 716.8, 97.5),
        ("RTX 4080 Super", 16, 16376, (8, 9), 736.3, 104.4),
        ("RTX 4090", 24, 24564, (8, 9), 1008.0, 165.2),
        ("RTX A4000", 16, 16376, (8, 6), 448.0, 76.7),
        ("RTX A5000", 24, 24564, (8, 6), 768.0, 111.1),
        ("RTX A6000", 48, 49140, (8, 6), 768.0, 154.8),
        ("RTX 6000 Ada", 48, 49140, (8, 9), 960.0, 364.2),
        ("L4", 24, 23034, (8, 9), 300.0, 121.0),
        ("L40", 48, 46068, (8, 9), 864.0, 181.0),
        ("L40S", 48, 46068, (8, 9), 864.0, 362.0),
        ("A10", 24, 23028, (8, 6), 600.0, 125.0),
        ("A30", 24, 24576, (8, 0), 933.0, 165.0),
        ("A40", 48, 46068, (8, 6), 696.0, 149.7),
        ("A100 40GB", 40, 40960, (8, 0), 1555.0, 312.0),
        ("A100 80GB", 80, 81920, (8, 0), 2039.0, 312.0),
        ("A100 PCIe 40GB", 40, 40960, (8, 0), 1555.0, 312.0),
        ("A100 PCIe 80GB", 80, 81920, (8, 0), 1935.0, 312.0),
        ("RTX 3080 Laptop", 16, 16384, (8, 6), 448.0, None),
        ("RTX 4080 Laptop", 12, 12282, (8, 9), 432.0, None),
        ("RTX 4090 Laptop", 16, 16376, (8, 9), 576.0, None),
    ),
    _X8_4: (
        ("RTX 3050", 8, 8192, (8, 6), 224.0, 18.2),
        ("RTX 3050 6GB", 6, 6144, (8, 6), 168.0, 13.5),
        ("RTX 4060", 8, 8188, (8, 9), 272.0, 30.2),
        ("RTX 4060 Ti", 8, 8188, (8, 9), 288.0, 44.1),
        ("RTX 4060 Ti 16GB", 16, 16380, (8, 9), 288.0, 44.1),
        ("RTX 4060 Laptop", 8, 8188, (8, 9), 256.0, None),
        ("RTX 4070 Laptop", 8, 8188, (8, 9), 256.0, None),
    ),
    _X16_5: (
        ("RTX 5070", 12, 12227, (12, 0), 672.0, 61.7),
        ("RTX 5070 Ti", 16, 16303, (12, 0), 896.0, 87.9),
        ("RTX 5080", 16, 16303, (12, 0), 960.0, 112.6),
        ("RTX 5090", 32, 32607, (12, 0), 1792.0, 209.5),
        ("RTX PRO 6000", 96, 97887, (12, 0), 1792.0, 503.8),
        ("H100", 80, 81559, (9, 0), 3350.0, 989.4),
        ("H100 PCIe", 80, 81559, (9, 0), 2039.0, 756.0),
        ("H100 NVL", 94, 95830, (9, 0), 3938.0, 835.5),
        ("H20", 96, 97871, (9, 0), 4000.0, 148.0),
        ("H200", 141, 143771, (9, 0), 4800.0, 989.4),
        ("H200 NVL", 141, 143771, (9, 0), 4800.0, 835.5),
        ("B200", 180, 183359, (10, 0), 8000.0, 2250.0),
    ),
    _X8_5: (
        ("RTX 5060", 8, 8151, (12, 0), 448.0, 38.4),
        ("RTX 5060 Ti", 8, 8151, (12, 0), 448.0, 47.4),
        ("RTX 5060 Ti 16GB", 16, 16311, (12, 0), 448.0, 47.4),
    ),
}

# What they lead to, version, links. Cards that are not here have none.
_NVLINK: dict[str, tuple[NvLink, int, int]] = {
    "RTX 2070 Super": (NvLink.BRIDGE, 2, 1), "RTX 2080": (NvLink.BRIDGE, 2, 1),
    "RTX 2080 Super": (NvLink.BRIDGE, 2, 1), "RTX 2080 Ti": (NvLink.BRIDGE, 2, 2),
    "TITAN RTX": (NvLink.BRIDGE, 2, 2), "Quadro RTX 6000": (NvLink.BRIDGE, 2, 2),
    "Quadro RTX 8000": (NvLink.BRIDGE, 2, 2),
    "V100 16GB": (NvLink.BOARD, 2, 6), "V100 32GB": (NvLink.BOARD, 2, 6),
    "RTX 3090": (NvLink.BRIDGE, 3, 4), "RTX 3090 Ti": (NvLink.BRIDGE, 3, 4),
    "RTX A5000": (NvLink.BRIDGE, 3, 4), "RTX A6000": (NvLink.BRIDGE, 3, 4), "A40": (NvLink.BRIDGE, 3, 4),
    "A30": (NvLink.BRIDGE, 3, 4),
    "A100 40GB": (NvLink.SWITCH, 3, 12), "A100 80GB": (NvLink.SWITCH, 3, 12),
    "A100 PCIe 40GB": (NvLink.BRIDGE, 3, 12), "A100 PCIe 80GB": (NvLink.BRIDGE, 3, 12),
    "H100": (NvLink.SWITCH, 4, 18), "H20": (NvLink.SWITCH, 4, 18), "H200": (NvLink.SWITCH, 4, 18),
    "H100 PCIe": (NvLink.BRIDGE, 4, 12), "H100 NVL": (NvLink.BRIDGE, 4, 12),
    "H200 NVL": (NvLink.BRIDGE, 4, 18),
    "B200": (NvLink.SWITCH, 5, 18),
}

# Other names, NVML's among them, as far as dropping the words in _DROPPED does not give them.
_ALSO: dict[str, tuple[str, ...]] = {
    "GTX 1060 3GB": ("GTX 1060",),
    "P100 16GB": ("P100", "P100-PCIE-16GB"),
    "V100 PCIe 16GB": ("V100-PCIE-16GB",), "V100 PCIe 32GB": ("V100-PCIE-32GB", "V100S-PCIE-32GB"),
    "V100 16GB": ("V100", "V100-SXM2-16GB"), "V100 32GB": ("V100-SXM2-32GB", "V100-SXM3-32GB"),
    "RTX 6000 Ada": ("RTX 6000 Ada Generation",),
    "A100 40GB": ("A100", "A100-SXM4-40GB"), "A100 80GB": ("A100-SXM4-80GB",),
    "A100 PCIe 40GB": ("A100-PCIE-40GB", "A100 PCIe"), "A100 PCIe 80GB": ("A100 80GB PCIe", "A100-PCIE-80GB"),
    "RTX PRO 6000": ("RTX PRO 6000 Blackwell", "RTX PRO 6000 Blackwell Workstation Edition",
                     "RTX PRO 6000 Blackwell Server Edition",
                     "RTX PRO 6000 Blackwell Max-Q Workstation Edition"),
    "H100": ("H100 80GB", "H100 80GB HBM3", "H100 SXM", "H100 SXM5"),
    "H200": ("H200 SXM", "H200 141GB"),
}
# fmt: on


def _cards() -> dict[str, Card]:
    found = {}
    for pcie, rows in _BY_SLOT.items():
        for row in rows:
            kind, version, links = _NVLINK.get(row[0], (NvLink.NONE, 0, 0))
            # GA102 runs its links at 14.0625 GB/s: 56.25 over the four of a bridge (white paper of GA102).
            slow = version == 3 and row[3] == (8, 6)
            rate = 14.0625 if slow else NVLINK_GB_PER_S.get(version, 0.0)
            found[row[0]] = Card(*row, pcie, kind, version, links, rate)
    return found


#: Every card of the table, by name.
CARDS: dict[str, Card] = _cards()

_DROPPED = re.compile(r"nvidia|geforce|tesla|generation|rtx|gtx|gpu")
_SIZED = re.compile(r"^(.*?)[\s-]*\(?([0-9]+(?:\.[0-9]+)?)\s*(?:GiB|GB|G)\)?$", re.IGNORECASE)


def key_of(name: str) -> str:
    """Return what is left of a card's name once makers' words, case and punctuation are gone."""
    return re.sub(r"[^a-z0-9]", "", _DROPPED.sub(" ", name.lower()))


def _index() -> dict[str, Card]:
    found = {key_of(name): card for name, card in CARDS.items()}
    for name, others in _ALSO.items():
        found.update({key_of(other): CARDS[name] for other in others})
    return found


#: Every name in the form of ``key_of``.
BY_KEY: dict[str, Card] = _index()


def card_for(name: str, memory_mib: float | None = None) -> Card | None:
    """Return the card of a name, None if the table has none.

    Args:
        name: A person's or NVML's (``NVIDIA A100-SXM4-80GB``). A laptop's GPU is never taken for the desktop
            card of that number. A size that this card is not sold with (``RTX 2080 Ti 22GB``) is passed over.
        memory_mib: Tells apart cards that NVML names alike, e.g. the RTX 4060 Ti of 8 and of 16 GB.
    """
    found = BY_KEY.get(key_of(name))
    if found is None and (sized := _SIZED.match(name.strip())):
        found = BY_KEY.get(key_of(sized[1]))
        memory_mib = float(sized[2]) * 1024 if memory_mib is None else memory_mib
    if found is None or memory_mib is None:
        return found
    wanted = memory_mib
    return min(_alike(found), key=lambda card: abs(card.reported_mib - wanted))


@cache
def _alike(card: Card) -> tuple[Card, ...]:
    """Return a card and those that differ from it by the size in their name alone; itself first."""
    base = _base(card.name)
    return (card, *(other for other in CARDS.values() if other is not card and _base(other.name) == base))


def _base(name: str) -> str:
    sized = _SIZED.match(name)
    return sized[1] if sized else name
