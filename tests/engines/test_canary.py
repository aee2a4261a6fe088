"""What a canary's answer is read as, and when two of them differ."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.engines.canary import (
    LOGPROB_TOLERANCE,
    PROMPT,
    TIE_TOLERANCE,
    TOKENS,
    MalformedCanary,
    differs,
    implausible,
    read,
    request,
)
from subcortex.engines.protocol import Canary

VLLM: dict[str, Any] = {
    "text_offset": [0, 12],
    "tokens": ["token_id:226", "token_id:141"],
    "token_logprobs": [-0.25, -1.5],
    "top_logprobs": [
        {"token_id:226": -0.25, "token_id:48": -2.5},
        {"token_id:141": -1.5, "token_id:70": -1.75, "token_id:7": -4.0},
    ],
}
LLAMACPP: dict[str, Any] = {
    "content": [
        {
            "id": 226,
            "token": "\ufffd",
            "bytes": [200],
            "logprob": -0.25,
            "top_logprobs": [{"id": 226, "logprob": -0.25}, {"id": 48, "logprob": -2.5}],
        },
        {
            "id": 141,
            "token": "\ufffd",
            "bytes": [201],
            "logprob": -1.5,
            "top_logprobs": [{"id": 141, "logprob": -1.5}, {"id": 70, "logprob": -1.75}],
        },
    ]
}


def answer(logprobs: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": "…", "logprobs": logprobs, "finish_reason": "length"}]}


@pytest.mark.parametrize("logprobs", [VLLM, LLAMACPP], ids=["vllm", "llama.cpp"])
def test_both_shapes_are_read_alike(logprobs: dict[str, Any]) -> None:
    assert read(answer(logprobs)) == Canary(("token_id:226", "token_id:141"), (-0.25, -1.5), (-2.5, -1.75))


def test_without_log_probabilities_there_is_no_canary() -> None:
    assert read(answer(None)) is None
    assert read({"choices": [{"text": "x"}]}) is None


def test_a_null_is_kept_as_no_number() -> None:
    canary = read(answer(VLLM | {"token_logprobs": [-0.25, None]}))
    assert canary is not None
    assert canary.logprobs[0] == -0.25
    assert math.isnan(canary.logprobs[1])
    assert implausible(canary) == "the log-probability of token 2 is no number"


def test_runners_up_may_be_left_out() -> None:
    canary = read(answer({"tokens": ["a"], "token_logprobs": [-0.5]}))
    assert canary == Canary(("a",), (-0.5,), (None,))


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        None,
        {},
        {"choices": []},
        {"choices": ["text"]},
        answer("none"),
        answer({}),
        answer(VLLM | {"tokens": ["a"]}),
        answer(VLLM | {"tokens": [226, 141]}),
        answer(VLLM | {"token_logprobs": [-0.25, "-1.5"]}),
        answer(VLLM | {"token_logprobs": [-0.25, True]}),
        answer(VLLM | {"top_logprobs": [[], []]}),
        answer(VLLM | {"top_logprobs": [["x"], None]}),
        answer({"content": None}),
        answer({"content": [{"id": 1}]}),
        answer({"content": [{"logprob": -1.0}]}),
        answer({"content": [{"id": True, "logprob": -1.0}]}),
        answer({"content": [{"id": 1, "logprob": -1.0, "top_logprobs": [3]}]}),
        answer({"content": [{"id": 1, "logprob": -1.0, "top_logprobs": [{"logprob": "x"}, {}]}]}),
    ],
)
def test_another_shape_is_no_canary(body: Any) -> None:
    with pytest.raises(MalformedCanary):
        read(body)


def test_it_fits_the_shortest_context_on_the_poorest_tokenizer() -> None:
    # A byte a token, three for a space, and a mark at the start; 64 is the least that context_tokens takes.
    assert len(PROMPT.encode()) + 2 * PROMPT.count(" ") + 1 + TOKENS <= 64
    assert request("m")["max_tokens"] == TOKENS


logprobs = st.floats(-15, 0)


@st.composite
def canaries(draw: st.DrawFn, least: int = 1) -> Canary:
    count = draw(st.integers(least, 8))
    tokens = tuple(draw(st.lists(st.sampled_from("abcdef"), min_size=count, max_size=count)))
    best = tuple(draw(st.lists(logprobs, min_size=count, max_size=count)))
    leads = draw(st.lists(st.none() | st.floats(0, 5), min_size=count, max_size=count))
    seconds = tuple(None if lead is None else lp - lead for lp, lead in zip(best, leads, strict=True))
    return Canary(tokens, best, seconds)


def changed(canary: Canary, place: int, *, token: str | None = None, logprob: float | None = None) -> Canary:
    tokens, values = list(canary.tokens), list(canary.logprobs)
    tokens[place] = token or tokens[place]
    values[place] = values[place] if logprob is None else logprob
    return replace(canary, tokens=tuple(tokens), logprobs=tuple(values))


@given(canaries())
def test_a_canary_agrees_with_itself(canary: Canary) -> None:
    assert differs(canary, canary) is None


@given(canaries(), st.data())
def test_arithmetic_alone_makes_no_difference(canary: Canary, data: st.DataObject) -> None:
    room = LOGPROB_TOLERANCE * 0.99
    moved = tuple(
        min(0.0, lp + data.draw(st.floats(-room, room), label=f"token {i}"))
        for i, lp in enumerate(canary.logprobs)
    )
    assert differs(canary, replace(canary, logprobs=moved)) is None


@given(canaries(), st.data())
def test_a_log_probability_that_moved_further_makes_one(canary: Canary, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(canary.tokens) - 1))
    by = data.draw(st.floats(LOGPROB_TOLERANCE * 1.01, 10))
    words = differs(canary, changed(canary, place, logprob=canary.logprobs[place] - by))
    assert words is not None
    assert words.startswith((f"token {place + 1} of ", f"the log-probability of token {place + 1} is "))


@given(canaries(), st.data())
def test_another_token_makes_one_unless_the_two_best_were_as_good_as_equal(
    canary: Canary, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(canary.tokens) - 1))
    second = canary.runners_up[place]
    said = canary.logprobs[place] if second is None else max(second, -15.0)
    other = changed(canary, place, token="other", logprob=said)
    tied = second is not None and canary.logprobs[place] - second <= TIE_TOLERANCE
    assert (differs(canary, other) is None) is tied
    if tied:
        # What follows a tie is another text.
        for later in range(place + 1, len(canary.tokens)):
            other = changed(other, later, token="else", logprob=-3.0)
        assert differs(canary, other) is None
        # At a tie too, what is said must be about as likely as what was not.
        far = said - 2 * LOGPROB_TOLERANCE if said > -15 else said + 2 * LOGPROB_TOLERANCE
        assert differs(canary, changed(other, place, logprob=far)) is not None


@given(canaries(least=2))
def test_a_tie_excuses_nothing_before_it(canary: Canary) -> None:
    tied = replace(canary, runners_up=(*canary.runners_up[:-1], canary.logprobs[-1]))
    first = changed(tied, 0, logprob=tied.logprobs[0] - 1.0)
    assert differs(tied, changed(first, len(tied.tokens) - 1, token="other")) is not None


@given(canaries(), st.sampled_from([math.nan, math.inf, -math.inf, 1.0, -9999.0, -17.5]), st.data())
def test_garbage_agrees_with_nothing_not_even_itself(
    canary: Canary, value: float, data: st.DataObject
) -> None:
    garbage = changed(canary, data.draw(st.integers(0, len(canary.tokens) - 1)), logprob=value)
    for before, after in ((canary, garbage), (garbage, canary), (garbage, garbage)):
        assert differs(before, after) is not None


@given(canaries(least=2))
def test_an_answer_cut_short_makes_a_difference(canary: Canary) -> None:
    short = Canary(canary.tokens[:-1], canary.logprobs[:-1], canary.runners_up[:-1])
    assert differs(canary, short) == (
        f"it says {len(short.tokens)} tokens where it said {len(canary.tokens)}"
    )
    assert differs(canary, Canary((), ())) == "it says nothing"


def test_the_words_name_token_and_figures() -> None:
    before = Canary(("a", "b"), (-0.1, -0.5), (-2.0, -3.0))
    assert differs(before, changed(before, 1, token="z", logprob=-4.0)) == (
        "token 2 of 2 is 'z' at -4.00 where it was 'b' at -0.50, 2.50 ahead of the next"
    )
    assert differs(before, changed(before, 0, logprob=-1.25)) == (
        "token 1 of 2 has the log-probability -1.250 where it had -0.100"
    )
