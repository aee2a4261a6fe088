"""What the cost book learns, and what it says before it has learned anything."""

from __future__ import annotations

import math
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.routing import Cost, CostBook
from subcortex.routing.costs import WINDOW


def test_nothing_known_is_zero_with_n_0():
    assert Cost(0.0, 0.0, 0.0, 0) == CostBook().cost("fast")


def test_nominal_figures_stand_until_something_is_measured():
    book = CostBook()
    book.nominal("deep", ttft_s=1.0, load_s=60.0)
    assert Cost(1.0, 0.0, 60.0, 0) == book.cost("deep")
    book.nominal("deep", tpot_s=0.1)
    assert Cost(1.0, 0.1, 60.0, 0) == book.cost("deep")


def test_nominal_figures_count_as_one_of_the_first_measurements_and_then_no_more():
    book = CostBook()
    book.nominal("deep", ttft_s=1.0)
    book.observe("deep", ttft_s=3.0)
    assert Cost(2.0, 0.0, 0.0, 1) == book.cost("deep")
    book.observe("deep", ttft_s=4.0)
    book.observe("deep", ttft_s=4.0)
    assert Cost(4.0, 0.0, 0.0, 3) == book.cost("deep")


def test_one_outlier_moves_nothing():
    book = CostBook()
    for _ in range(5):
        book.observe("fast", ttft_s=0.2, tpot_s=0.01)
    book.observe("fast", ttft_s=50.0, tpot_s=9.0)
    assert Cost(0.2, 0.01, 0.0, 6) == book.cost("fast")


def test_a_change_for_good_is_followed_within_the_window():
    book = CostBook()
    for _ in range(1000):
        book.observe("fast", ttft_s=0.2)
    for _ in range(WINDOW // 2 + 1):
        book.observe("fast", ttft_s=0.8)
    assert book.cost("fast").ttft_s == 0.8


def test_a_start_teaches_the_load_and_is_no_thought():
    book = CostBook()
    book.observe("deep", load_s=42.0)
    assert Cost(0.0, 0.0, 42.0, 0) == book.cost("deep")


def test_a_seed_speaks_at_once_and_is_outvoted_soon():
    book = CostBook()
    book.nominal("deep", ttft_s=9.0)
    book.seed("deep", ttft_s=1.0, tpot_s=0.1, load_s=50.0, n=500)
    assert Cost(1.0, 0.1, 50.0, 500) == book.cost("deep")
    for _ in range(4):
        book.observe("deep", ttft_s=2.0)
    assert Cost(2.0, 0.1, 50.0, 504) == book.cost("deep")


def test_a_seed_of_no_thoughts_is_nothing():
    book = CostBook()
    book.seed("deep", ttft_s=1.0, n=0)
    assert Cost() == book.cost("deep")


def test_forgetting_leaves_other_tiers_alone():
    book = CostBook()
    book.observe("fast", ttft_s=0.2)
    book.observe("deep", ttft_s=2.0)
    book.forget("deep")
    book.forget("never seen")
    assert (Cost(), 0.2) == (book.cost("deep"), book.cost("fast").ttft_s)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_what_is_no_duration_is_refused_whole(bad: float):
    book = CostBook()
    with pytest.raises(ValueError, match="not a duration"):
        book.observe("fast", ttft_s=0.2, tpot_s=bad)
    with pytest.raises(ValueError, match="not a duration"):
        book.nominal("fast", load_s=bad)
    with pytest.raises(ValueError, match="not a duration"):
        book.seed("fast", ttft_s=bad, n=3)
    assert Cost() == book.cost("fast")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3 * WINDOW))
def test_the_figure_is_the_median_of_the_last_ones(values: list[float]):
    book = CostBook()
    for value in values:
        book.observe("fast", ttft_s=value)
    assert median(values[-WINDOW:]) == book.cost("fast").ttft_s
    assert len(values) == book.cost("fast").n
