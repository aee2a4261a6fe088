"""Medians, arms and verdicts: the rules, and figures that can be looked up elsewhere."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.experiments.statistics import (
    Sample,
    abba,
    difference,
    enough,
    kept,
    median_of,
    paired,
    ratio,
    verdict,
    warm_up,
)
from subcortex.experiments.statistics._student import student

samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


@pytest.mark.parametrize(
    ("level", "degrees", "t"),
    [
        (0.90, 1, 6.3138),
        (0.90, 2, 2.9200),
        (0.95, 3, 3.1824),
        (0.95, 4, 2.7764),
        (0.95, 10, 2.2281),
        (0.90, 30, 1.6973),
    ],
)
def test_students_t_is_that_of_the_tables(level, degrees, t):
    assert student(level, degrees) == pytest.approx(t, abs=1e-4)


def test_a_median_of_nine_lies_between_the_second_and_the_eighth():
    """The 90 % interval by ranks: x2 to x8 covers 96 %, x3 to x7 82 %; between them lies what covers 90."""
    found = median_of([float(i) for i in range(1, 10)])
    assert found.median == 5
    assert 2 < found.interval.low < 3
    assert 7 < found.interval.high < 8
    assert found.n == 9


def test_one_sample_bounds_nothing_and_two_bound_little():
    alone = median_of([3.0])
    assert alone.interval.width == math.inf
    assert median_of([3.0, 4.0]).interval.width == pytest.approx(6.3138, abs=1e-3)


@given(samples, st.floats(-1e3, 1e3), st.floats(0.1, 100))
def test_an_interval_holds_its_median_and_moves_with_the_samples(values, shift, scale):
    found = median_of(values)
    assert found.interval.holds(found.median)
    moved = median_of([value * scale + shift for value in values])
    near = pytest.approx(found.interval.low * scale + shift, rel=1e-6, abs=1e-3)
    assert moved.interval.low == near
    assert median_of(list(reversed(values))) == found


@given(samples)
def test_a_wider_level_gives_a_wider_interval(values):
    narrow, wide = median_of(values, level=0.8).interval, median_of(values, level=0.99).interval
    # With four to seven samples the wider one is Student's and the other is not.
    assert wide.width >= narrow.width - 1e-6 or len(values) in (4, 5, 6, 7)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_is_no_sample_is_refused(values):
    with pytest.raises(InvalidRequest):
        median_of(values)


def test_the_order_is_a_palindrome_in_each_block():
    assert [arm for _, arm in abba(("a", "b"), 2)] == ["a", "b", "b", "a", "b", "a", "a", "b"]
    three = abba(("p", "q", "r"), 3)
    assert [arm for block, arm in three if block == 1] == ["r", "q", "p", "p", "q", "r"]


def test_a_line_in_time_cancels_to_nothing():
    order = abba(("a", "b", "c"), 4)
    found = paired([Sample(100.0 + 7 * i, arm, block) for i, (block, arm) in enumerate(order)], "a", "c")
    assert difference(found.a, found.b).median == pytest.approx(0, abs=1e-9)
    assert difference(found.a, found.b).interval.width == pytest.approx(0, abs=1e-9)


def test_a_throttled_sample_takes_its_block_along_and_is_counted():
    runs = [Sample(1.0, arm, block) for block, arm in abba(("a", "b"), 4)]
    runs[5] = Sample(0.5, runs[5].arm, runs[5].block, throttled=True, why="power cap")
    found = paired(runs[:-1], "a", "b")
    assert (len(found.a), found.throttled, found.incomplete) == (2, 1, 1)


def test_throttled_samples_and_warm_up_are_left_out_with_a_count():
    values = [9.0, 5.0, 3.05, 3.0, 3.05, 2.95, 3.02, 3.0, 2.98, 3.03, 3.0, 2.97]
    runs = [Sample(value) for value in values]
    runs.insert(6, Sample(1.0, throttled=True, why="thermal"))
    found = kept(runs)
    assert (found.throttled, found.warm_up, len(found.samples)) == (1, 2, 10)
    assert min(found.values) == 2.95


def test_steady_samples_have_next_to_no_warm_up():
    rng = random.Random(4)
    runs = [warm_up([rng.gauss(10, 1) for _ in range(12)]) for _ in range(500)]
    assert sum(one > 0 for one in runs) < 15
    assert warm_up([9.0, 1.0, 1.0]) == 0


def test_a_difference_outside_noise_is_one_and_inside_what_does_not_matter_is_none():
    a = [10.0, 10.2, 9.9, 10.1, 10.0, 9.8, 10.1, 10.0]
    b = [value + 2 for value in reversed(a)]
    found = verdict(a, b)
    assert (found.kind, found.n_needed) == ("different", None)
    assert found.interval.low > 1.5
    assert verdict(a, b, within=3.0).kind == "alike"
    by_ratio = verdict(a, b, as_ratio=True)
    assert by_ratio.kind == "different"
    assert by_ratio.estimate == pytest.approx(ratio(a, b).median)
    assert 1.15 < by_ratio.interval.low < 1.2 < by_ratio.interval.high < 1.25


def test_three_blocks_can_tell_a_great_difference():
    assert verdict([1.0, 1.1, 1.05], [2.0, 2.05, 2.1]).kind == "different"
    assert verdict([1.0, 1.1, 1.05], [1.2, 1.0, 1.4]).kind == "inconclusive"


def test_what_is_inconclusive_says_how_many_would_settle_it_and_they_do():
    rng = random.Random(7)
    a = [rng.gauss(100, 3) for _ in range(10)]
    b = [x + rng.gauss(1.0, 3) for x in a]
    found = verdict(a, b)
    assert found.kind == "inconclusive"
    assert found.n_needed is not None
    assert found.n_needed > 10
    # Twice as far apart with the same noise needs about a quarter as many: the root of n.
    near = verdict([0.0] * 20, [0.25 + (-1) ** i * (1 + i % 5) for i in range(20)])
    far = verdict([0.0] * 20, [0.50 + (-1) ** i * (1 + i % 5) for i in range(20)])
    assert near.n_needed is not None
    assert far.n_needed is not None
    assert near.n_needed / far.n_needed == pytest.approx(4, rel=0.25)


def test_being_alike_can_be_the_nearer_way_to_settle_it():
    values = [(-1) ** i * (1 + i % 3) + 0.01 for i in range(12)]
    asked, unasked = verdict([0.0] * 12, values, within=1.0), verdict([0.0] * 12, values)
    assert asked.kind == unasked.kind == "inconclusive"
    assert asked.n_needed is not None
    assert asked.n_needed < 100
    assert unasked.n_needed is None or unasked.n_needed > asked.n_needed


@given(st.lists(st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)), min_size=1, max_size=20), st.booleans())
def test_different_is_said_only_where_the_interval_leaves_none_out(pairs, as_ratio):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found = verdict(a, b, as_ratio=as_ratio)
    assert (found.kind == "different") == (not found.interval.holds(1.0 if as_ratio else 0.0))
    back = verdict(b, a, as_ratio=as_ratio)
    assert back.kind == found.kind


def test_arms_of_unequal_length_and_ratios_of_zero_are_refused():
    with pytest.raises(InvalidRequest, match="2 and 1 blocks"):
        verdict([1.0, 2.0], [1.0])
    with pytest.raises(InvalidRequest, match="above zero"):
        ratio([1.0, 0.0], [1.0, 1.0])


def test_repeating_stops_at_narrow_or_out_of_time_and_says_how_many_more():
    steady = [100.0, 100.5, 99.5, 100.2, 99.8, 100.1, 99.9, 100.0]
    assert enough(steady, 0.02, 60).reason == "narrow"
    assert enough(steady[:3], 0.02, 60).stop is False
    late = enough([100.0, 120.0, 80.0, 110.0, 90.0, 101.0, 99.0, 100.0], 0.02, 5, sample_s=10)
    assert (late.stop, late.reason) == (True, "time")
    assert late.more is not None
    assert late.more > 50
    assert enough([], 0.02, 60).more == 7
