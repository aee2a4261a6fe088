"""How far two next-token distributions lie apart, by hand and by rule."""

from __future__ import annotations

from math import exp, log, log1p

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import EngineFailed
from subcortex.experiments.laboratory.next_tokens import best, divergence, read


def logs(**shares: float) -> dict[str, float]:
    return {token: log(share) for token, share in shares.items()}


def test_whole_distributions_diverge_as_the_textbook_says():
    found = divergence(logs(a=0.5, b=0.5), logs(a=0.25, b=0.75))
    assert found == pytest.approx(0.5 * log(2) + 0.5 * log(2 / 3))
    assert divergence(logs(a=0.25, b=0.75), logs(a=0.5, b=0.5)) == pytest.approx(
        0.25 * log(0.5) + 0.75 * log(1.5)
    )


def test_what_is_not_told_of_both_is_one_token():
    # c is known of one only, d of the other: both go with what neither tells.
    p, q = logs(a=0.6, b=0.1, c=0.2), logs(a=0.5, b=0.2, d=0.25)
    assert divergence(p, q) == pytest.approx(0.6 * log(1.2) + 0.1 * log(0.5) + 0.3 * log(0.3 / 0.3))


def test_nothing_shared_tells_nothing():
    # All is lumped: the two wholes are alike, whatever is in them.
    assert divergence(logs(a=0.9), logs(b=0.9)) == 0.0


WEIGHTS = st.lists(st.floats(1e-3, 1.0), min_size=6, max_size=6)


@given(WEIGHTS, WEIGHTS, st.integers(1, 6))
def test_lumping_never_makes_it_more_and_never_negative(p, q, kept):
    def told(weights: list[float], n: int) -> dict[str, float]:
        shares = {f"t{i}": log(weight / sum(weights)) for i, weight in enumerate(weights)}
        return dict(sorted(shares.items(), key=lambda one: -one[1])[:n])

    whole = divergence(told(p, 6), told(q, 6))
    assert 0 <= divergence(told(p, kept), told(q, kept)) <= whole + 1e-9
    assert divergence(told(p, kept), told(p, kept)) == pytest.approx(0, abs=1e-12)


def test_a_token_without_any_probability_does_no_harm():
    top = read(
        {"choices": [{"logprobs": {"top_logprobs": [{"token_id:7": log(0.5), "token_id:8": -3.4e38}]}}]}
    )
    assert divergence(top, top) == 0.0
    assert best(top) == "token_id:7"


def test_of_equal_tokens_the_same_one_is_best_whatever_their_order():
    assert best({"b": -1.0, "a": -1.0}) == best({"a": -1.0, "b": -1.0})


def test_both_shapes_of_an_answer_are_read():
    vllm = {"choices": [{"logprobs": {"tokens": ["token_id:5"], "top_logprobs": [{"token_id:5": -0.5}]}}]}
    token = {"id": 5, "token": " a", "logprob": -0.5}
    place = {**token, "top_logprobs": [token]}
    llamacpp = {"choices": [{"logprobs": {"content": [place]}}]}
    assert read(vllm) == {"token_id:5": -0.5}
    assert read(llamacpp) == {"5": -0.5}


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"choices": []},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": {"top_logprobs": [{}]}}]},
        {"choices": [{"logprobs": {"top_logprobs": [{"a": None}]}}]},
        {"choices": [{"logprobs": {"top_logprobs": [{"a": True}]}}]},
        {"choices": [{"logprobs": {"top_logprobs": [{"a": float("nan")}]}}]},
        {"choices": [{"logprobs": {"top_logprobs": [{"a": 0.5}]}}]},
        {"choices": [{"logprobs": {"top_logprobs": [{"a": -0.1, "b": -0.1}]}}]},
        {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "a", "logprob": -1}]}]}}]},
    ],
)
def test_an_answer_without_probabilities_is_refused(body):
    with pytest.raises(EngineFailed):
        read(body)


def test_a_whole_that_is_rounded_up_is_none_too_many():
    top = {"a": log1p(-1e-9), "b": log(1e-8)}
    assert read({"choices": [{"logprobs": {"top_logprobs": [top]}}]}) == top
    assert exp(top["a"]) + exp(top["b"]) > 1
