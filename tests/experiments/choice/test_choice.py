"""What is asked next: scores by hand, and the rules that an order keeps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.experiments.choice import (
    Belief,
    Question,
    believed,
    bits_expected,
    guessed,
    learned,
    order,
    score,
    score_together,
    surprise,
    worth_across,
)
from subcortex.experiments.statistics import Interval

WIDE = Belief(0.0, 0.75, "log-normal")


def question(name: str, *, worth: float = 1.0, minutes: float = 10.0, **rest) -> Question:
    base = Question(name, name, name, WIDE, 0.05, worth, minutes)
    return replace(base, **rest)


def names(questions: list[Question], *rest, **more) -> list[str]:
    return [choice.experiment for choice in order(questions, *rest, **more)]


def test_an_interval_and_its_belief_are_the_same():
    prior = believed(Interval(20.0, 80.0))
    assert prior.middle == pytest.approx(40)
    assert prior.interval().low == pytest.approx(20)
    assert prior.interval().high == pytest.approx(80)
    even = believed(Interval(-1.0, 3.0), "normal")
    assert (even.mean, round(even.sigma, 4)) == (1.0, 1.2159)
    assert guessed("bandwidth", 900.0).interval().high == pytest.approx(3600)
    assert guessed("who knows").interval().high == pytest.approx(10)
    assert guessed("share").scale == "normal"


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, math.inf)])
def test_what_is_no_interval_is_no_prior(low, high):
    with pytest.raises(InvalidRequest, match="no log-normal prior"):
        believed(Interval(low, high))


def test_bits_by_hand():
    """A prior √3 times as wide as the noise loses one bit: half the logarithm of 1 + 3."""
    assert bits_expected(Belief(0.0, math.sqrt(3) * 0.05, "normal"), 0.05) == pytest.approx(1)
    assert score(question("a", pressure=0.5)).worth == 1.5
    found = score(question("a", worth=2.0, minutes=4.0))
    assert found.a_minute == pytest.approx(found.bits * 2 / 4)


def test_what_is_learned_is_the_bits_expected_of_it():
    after = learned(WIDE, 1.0, 0.05)
    assert math.log2(WIDE.sigma / after.sigma) == pytest.approx(bits_expected(WIDE, 0.05))
    assert 1.0 <= learned(WIDE, 1.5, 0.05).middle < 1.5


def test_surprise_has_a_sign_in_sigmas_and_none_in_bits():
    low, high = learned(WIDE, math.exp(-1.5), 0.01), learned(WIDE, math.exp(1.5), 0.01)
    assert surprise(WIDE, high).sigmas == pytest.approx(2, abs=0.01)
    assert surprise(WIDE, low).sigmas == pytest.approx(-2, abs=0.01)
    assert surprise(WIDE, low).bits == pytest.approx(surprise(WIDE, high).bits)
    assert surprise(WIDE, high).bits > surprise(WIDE, learned(WIDE, 1.0, 0.01)).bits
    assert surprise(WIDE, WIDE).bits == pytest.approx(0)


def test_an_answer_that_moves_no_plan_is_worth_nothing():
    assert worth_across(WIDE, lambda _: 12.0) == 0
    assert worth_across(WIDE, lambda answer: max(12.0, answer)) == 0
    ends = WIDE.interval()
    assert worth_across(WIDE, lambda answer: answer) == pytest.approx(ends.high - ends.low)


def test_one_run_that_answers_two_gaps_is_paid_for_once():
    one, two = question("a", minutes=10), question("b", minutes=10)
    apart = [one, two]
    together = [one, replace(two, experiment="a")]
    assert score_together(together).a_minute == pytest.approx(score(one).a_minute * 2)
    # Asked twice of one quantity: its bits are learned once, and serve two plans.
    twice = score_together([one, replace(two, experiment="a", quantity="a")])
    assert twice.bits == pytest.approx(score(one).bits)
    assert twice.value == pytest.approx(score_together(together).value)
    assert len(order(apart)) == 2
    assert order(together)[0].questions == ("a", "b")


def test_a_dear_gate_goes_first_only_where_what_it_opens_is_worth_both():
    gate = question("gate", worth=0.01, minutes=5)
    rich = question("rich", worth=9.0, minutes=5, needs=frozenset({"gate"}))
    plain = question("plain", worth=1.0, minutes=5)
    assert names([plain, rich, gate]) == ["gate", "rich", "plain"]
    assert order([plain, rich, gate])[0].opens == "rich"
    poor = replace(rich, worth=0.1)
    assert names([plain, poor, gate])[0] == "plain"
    assert names([plain, rich], done={"gate"}) == ["rich", "plain"]


def test_what_nobody_can_open_is_left_out_and_a_circle_is_refused():
    assert names([question("a"), question("b", needs=frozenset({"peers"}))]) == ["a"]
    with pytest.raises(InvalidRequest, match="circle"):
        order([question("a", needs=frozenset({"b"})), question("b", needs=frozenset({"a"}))])


def test_what_is_remembered_comes_first_and_costs_nothing():
    known = question("known", worth=0.0, provenance="d1")
    found = order([question("a"), known, question("b", provenance="d2")], {"d1"})
    assert (found[0].experiment, found[0].remembered, found[0].score) == ("known", True, None)
    assert len(found) == 3


def test_one_that_is_remembered_opens_what_needs_it():
    gate = question("gate", provenance="d1")
    assert names([question("a", needs=frozenset({"gate"})), gate], {"d1"}) == ["gate", "a"]


@pytest.mark.parametrize("broken", [{"noise": 0.0}, {"worth": -1.0}, {"gpu_minutes": math.nan}])
def test_figures_that_are_none_are_refused(broken):
    with pytest.raises(InvalidRequest, match="Question a"):
        order([question("a", **broken)])


drawn = st.lists(
    st.tuples(st.floats(0.001, 10), st.floats(0.1, 100), st.sets(st.integers(0, 9), max_size=3)),
    min_size=1,
    max_size=10,
)


@given(drawn)
def test_every_order_runs_each_once_and_nothing_before_what_it_needs(figures):
    questions = [
        question(str(i), worth=worth, minutes=minutes, needs=frozenset(str(n) for n in needs if n < i))
        for i, (worth, minutes, needs) in enumerate(figures)
    ]
    found = names(questions)
    assert sorted(found) == sorted(one.id for one in questions)
    for one in questions:
        assert all(found.index(need) < found.index(one.id) for need in one.needs)
    assert found == names(list(reversed(questions)))


@given(drawn)
def test_without_needs_the_order_is_by_value_a_minute(figures):
    each = enumerate(figures)
    questions = [question(str(i), worth=worth, minutes=minutes) for i, (worth, minutes, _) in each]
    scores = [choice.a_minute for choice in order(questions)]
    assert scores == sorted(scores, reverse=True)
