"""The claims of the seed notes, derived anew; the page that shows them says what comes out now."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from tests.vram import seed_figures
from tests.vram.seed_claims import CLAIMS
from tests.vram.seed_figures import Room
from tests.vram.seeds import Figure, Fits, rendered

PAGE = Path(__file__).parents[2] / "docs/seeds-vram.md"


def test_every_verdict_is_what_the_planner_says():
    derived = {(claim.seed, claim.line, claim.words): claim.asked.derived()[2] for claim in CLAIMS}
    assert derived == {(claim.seed, claim.line, claim.words): claim.verdict for claim in CLAIMS}


def test_every_wrong_line_says_why():
    assert [claim for claim in CLAIMS if claim.verdict == "wrong" and not claim.why] == []


def test_lines_are_told_once_and_in_order():
    told = [(claim.seed, claim.line) for claim in CLAIMS]
    by_seed = {seed: [line for one, line in told if one == seed] for seed, _ in told}
    assert {seed: sorted(lines) for seed, lines in by_seed.items()} == by_seed
    assert len({(claim.seed, claim.line, claim.words) for claim in CLAIMS}) == len(CLAIMS)


def test_the_page_is_what_the_table_says_now():
    assert PAGE.read_text("utf-8") == rendered(), (
        "write it anew: python -m tests.vram.seeds > docs/seeds-vram.md"
    )


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (Figure(10, "GB", lambda: 10.4), "right"),
        (Figure(10, "GB", lambda: 8.6), "roughly"),
        (Figure(10, "GB", lambda: 11.6), "wrong"),
        (Figure(10, "GB", lambda: 15.5, 15), "right"),
        (Figure(10, "GB", lambda: 8.0, 15), "wrong"),
        (Figure(1, "×", lambda: 7.0, inf), "right"),
        (Figure(0, "GB/s", lambda: 56.0), "wrong"),
        (Figure(0, "GB/s", lambda: 0.0), "right"),
        (Fits(True, lambda: Room(0.96, "")), "right"),
        (Fits(True, lambda: Room(0.5, "")), "roughly"),
        (Fits(False, lambda: Room(0.5, "")), "roughly"),
        (Fits(False, lambda: Room(0.96, "")), "wrong"),
        (Fits(True, lambda: Room(0.04, "")), "wrong"),
    ],
)
def test_a_verdict(asked, verdict):
    assert asked.derived()[2] == verdict


def test_a_display_takes_from_its_own_card_alone():
    first, second = seed_figures.cards()
    shown, other = seed_figures.cards(display=True)
    assert shown.memory_free_mib < first.memory_free_mib
    assert other == second


def test_two_servers_on_a_card_need_what_both_need():
    alone = ("llama-3.1-8b", "Q6_K", seed_figures.ALL_LAYERS, (0,))
    assert seed_figures.served(alone).probability > 0.95
    assert seed_figures.served(alone, alone).probability < 0.01
