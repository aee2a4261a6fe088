"""Counters read from Prometheus text, and whether they move."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from subcortex.engines._metrics import Effort, Heart, figures

TEXT = """\
# HELP vllm:iteration_tokens_total Histogram of number of tokens per engine_step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="a b}"} 99.0
vllm:iteration_tokens_total_count{engine="0",model_name="a b} c"} 32.0
vllm:iteration_tokens_total_count{engine="1",model_name="a b} c"} 1.5e+01 1795271214
vllm:generation_tokens_total{engine="0"} NaN
llamacpp:n_decode_total 48
llamacpp:n_decode_total_of_others 7
llamacpp:broken
llamacpp:worse{x="1"} many
"""


def test_only_the_named_metrics_are_read_and_labels_are_summed() -> None:
    names = {
        "vllm:iteration_tokens_total_count",
        "vllm:generation_tokens_total",
        "llamacpp:n_decode_total",
        "llamacpp:broken",
        "llamacpp:worse",
        "llamacpp:missing",
    }
    assert figures(TEXT, names) == {
        "vllm:iteration_tokens_total_count": 47.0,
        "llamacpp:n_decode_total": 48.0,
    }


@given(st.text(st.sampled_from('ab{}" \n1.e+-')), st.text("ab", min_size=1))
def test_no_text_makes_it_fall_over(text: str, name: str) -> None:
    assert figures(text, {name}).keys() <= {name}


@given(st.lists(st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 2).map(float))))
def test_a_heart_beats_once_for_each_look_that_shows_a_change(looks: list[dict[str, float] | None]) -> None:
    heart, told = Heart(), [look for look in looks if look is not None]
    counts = [heart.beat(look) for look in looks]
    assert counts == sorted(counts)
    changes = sum(now != before for before, now in pairwise(told))
    assert (counts[-1] if counts else 0) == changes


@given(st.lists(st.booleans(), min_size=1))
def test_what_is_seen_at_work_has_a_pulse_whatever_its_counters_say(busy: list[bool]) -> None:
    heart = Heart()
    counts = [heart.beat({"steps": 1.0}, busy=at_work) for at_work in busy]
    assert counts[-1] == sum(busy)


@given(st.lists(st.tuples(st.floats(1.0, 60.0), st.floats(0.0, 4.0)), min_size=1))
def test_a_process_is_at_work_where_it_has_a_tenth_of_a_core(whiles: list[tuple[float, float]]) -> None:
    effort, now_s, spent_s = Effort(), 1000.0, 5.0
    assert not effort.at_work(now_s, spent_s)
    for while_s, share in whiles:
        now_s, spent_s = now_s + while_s, spent_s + while_s * share
        if abs(share - 0.1) > 1e-6:
            assert effort.at_work(now_s, spent_s) is (share > 0.1)
        else:
            effort.at_work(now_s, spent_s)


def test_many_short_whiles_make_one_that_says_something() -> None:
    effort = Effort()
    # A tick of a hundredth in a fiftieth of a second is a half, and means nothing.
    looks = [effort.at_work(place / 50, 0.01 * (place > 0)) for place in range(50)]
    assert not any(looks)
    assert not effort.at_work(1.0, 0.02)
    assert effort.at_work(2.5, 0.32)


def test_another_process_begins_anew() -> None:
    effort = Effort()
    effort.at_work(0.0, 100.0)
    assert not effort.at_work(10.0, 5.0)
    assert effort.at_work(20.0, 15.0)
