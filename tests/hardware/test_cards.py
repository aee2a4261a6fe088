"""The table of cards, and finding a card by whatever name it goes by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.hardware import CARDS, NvLink, card_for
from subcortex.hardware.cards import BY_KEY, key_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 3060 Ti", "RTX 3060 Ti"),
        ("NVIDIA GeForce GTX 1060 3GB", "GTX 1060 3GB"),
        ("NVIDIA GeForce GTX 1060 6GB", "GTX 1060 6GB"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("Tesla V100-SXM2-16GB", "V100 16GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("rtx3060ti", "RTX 3060 Ti"),
        ("3090", "RTX 3090"),
        ("GTX 1060", "GTX 1060 3GB"),
        ("RTX 2080 Ti 22GB", "RTX 2080 Ti"),  # a card that somebody soldered more memory to
    ],
)
def test_names_that_people_and_nvml_use(name, expected):
    found = card_for(name)

    assert found is not None
    assert found.name == expected


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 3070 Laptop GPU",  # not the desktop's, and not in the table
        "NVIDIA A40-8Q",  # a slice of a card
        "NVIDIA GeForce GTX 1060 with Max-Q Design",
        "NVIDIA Graphics Device",
        "",
        "GeForce",
        "24GB",
    ],
)
def test_what_is_not_in_the_table(name):
    assert card_for(name) is None


@pytest.mark.parametrize(
    ("name", "memory_mib", "expected"),
    [
        ("NVIDIA GeForce RTX 4060 Ti", 8188, "RTX 4060 Ti"),
        ("NVIDIA GeForce RTX 4060 Ti", 16380, "RTX 4060 Ti 16GB"),
        ("NVIDIA GeForce RTX 3080", 12288, "RTX 3080 12GB"),
        ("A100", 81920, "A100 80GB"),
        ("NVIDIA GeForce GTX 1060 3GB", 3019, "GTX 1060 3GB"),
        ("NVIDIA H200", 18000, "H200"),
    ],
)
def test_memory_tells_apart_what_nvml_names_alike(name, memory_mib, expected):
    found = card_for(name, memory_mib)

    assert found is not None
    assert found.name == expected


@pytest.mark.parametrize(
    ("name", "memory_gb_per_s", "reported_mib", "pcie", "nvlink_gb_per_s"),
    [
        ("RTX 3090", 936.2, 24576, (4, 16), 56.25),
        ("RTX 4090", 1008.0, 24564, (4, 16), 0),
        ("RTX 3060 Ti", 448.0, 8192, (4, 16), 0),
        ("GTX 1060 3GB", 192.2, 3072, (3, 16), 0),
        ("A100 80GB", 2039.0, 81920, (4, 16), 300),
        ("H100", 3350.0, 81559, (5, 16), 450),
        ("H200", 4800.0, 143771, (5, 16), 450),
        ("B200", 8000.0, 183359, (5, 16), 900),
        ("V100 16GB", 897.0, 16384, (3, 16), 150),
        ("A40", 696.0, 46068, (4, 16), 56.25),
    ],
)
def test_figures_of_data_sheets(name, memory_gb_per_s, reported_mib, pcie, nvlink_gb_per_s):
    card = CARDS[name]

    assert (card.memory_gb_per_s, card.reported_mib, card.pcie) == (memory_gb_per_s, reported_mib, pcie)
    assert card.nvlink_gb_per_s == nvlink_gb_per_s


@pytest.mark.parametrize("card", CARDS.values(), ids=str)
def test_figures_hang_together(card):
    # What NVML reports is what is sold less what ECC takes (a sixteenth of GDDR) and a little; never more
    # but for cards that are sold with part of their memory spare.
    assert 0.9 * card.memory_gib * 1024 <= card.reported_mib <= 1.02 * card.memory_gib * 1024
    # A card's memory is faster than the way to it, and sums in 16 bits count by the flop, not by the byte.
    assert card.memory_gb_per_s > card.nvlink_gb_per_s
    assert card.tflops is None or 3 < card.tflops < 2500
    assert (card.nvlink is NvLink.NONE) == (card.nvlink_gb_per_s == 0)
    assert card.pcie[0] in (3, 4, 5)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_goes_by_its_own_name_and_the_way_nvml_writes_it(name):
    assert card_for(name) is card_for(f"NVIDIA GeForce {name}") is CARDS[name]


def test_no_two_cards_share_a_name():
    assert len({key_of(name) for name in CARDS}) == len(CARDS)
    assert {card.name for card in BY_KEY.values()} == set(CARDS)


@given(st.text(max_size=60), st.none() | st.floats(1, 1e6))
def test_any_name_is_a_card_or_none(name, memory_mib):
    found = card_for(name, memory_mib)

    assert found is None or CARDS[found.name] is found
