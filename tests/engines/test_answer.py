"""What a stream of server-sent events says, in whatever pieces it arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.engines._answer import Answer, MalformedAnswer, whole_answer
from subcortex.engines.protocol import Delta
from subcortex.types import Usage


def event(finish_reason: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'
DONE = b"data: [DONE]\n\n"


def read(*reads: bytes) -> tuple[list[Delta], Answer]:
    answer = Answer()
    deltas = [delta for data in reads if (delta := answer.feed(data)) is not None]
    return [*deltas, answer.last()], answer


def test_each_read_is_one_delta_and_the_end_carries_reason_and_usage() -> None:
    deltas, answer = read(
        event(role="assistant", content=""),
        event(content="Hel"),
        event(content="lo"),
        event("stop"),
        USAGE + DONE,
    )
    assert [delta.text for delta in deltas] == ["Hel", "lo", ""]
    assert [delta.tokens for delta in deltas] == [1, 1, 0]
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].usage == Usage(prompt_tokens=7, completion_tokens=3)
    assert answer.done
    assert answer.ended
    assert answer.error is None


def test_events_that_come_in_one_read_are_counted_one_by_one() -> None:
    deltas, _ = read(
        event(content="a") + event(content="b") + event(content="c") + event("length") + USAGE + DONE
    )
    assert (deltas[0].text, deltas[0].tokens) == ("abc", 3)
    assert deltas[-1].finish_reason == "length"


@given(st.data())
def test_the_answer_does_not_depend_on_how_the_bytes_are_cut(data: st.DataObject) -> None:
    whole = b": ping\n\n" + event(content="Grüße ") + event(content="→ 42") + event("stop") + USAGE + DONE
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    deltas, answer = read(*pieces)
    assert "".join(delta.text for delta in deltas) == "Grüße → 42"
    assert sum(delta.tokens for delta in deltas) == 2
    assert deltas[-1].usage == Usage(prompt_tokens=7, completion_tokens=3)
    assert answer.done


def test_line_endings_and_missing_blanks_are_taken_as_the_standard_allows() -> None:
    crlf = (event(content="a") + event("stop") + DONE).replace(b"\n", b"\r\n").replace(b"data: ", b"data:")
    deltas, answer = read(crlf)
    assert (deltas[0].text, deltas[-1].finish_reason, answer.done) == ("a", "stop", True)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_that_the_engine_separates(key: str) -> None:
    deltas, _ = read(event(**{key: "hmm"}), event(content="yes"), event("stop"), DONE)
    assert [(delta.reasoning, delta.text) for delta in deltas] == [("hmm", ""), ("", "yes"), ("", "")]


def test_reasoning_that_the_model_writes_into_its_text() -> None:
    deltas, _ = read(
        event(content="<thi"), event(content="nk>hmm</th"), event(content="ink>\nyes"), event("stop")
    )
    assert "".join(delta.reasoning for delta in deltas) == "hmm"
    assert "".join(delta.text for delta in deltas) == "yes"
    assert sum(delta.tokens for delta in deltas) == 3


def test_text_held_back_as_a_possible_tag_comes_at_the_end() -> None:
    deltas, _ = read(event(content="<thi"), event("stop"), DONE)
    assert "".join(delta.text for delta in deltas) == "<thi"


def test_tool_calls_are_put_together_by_their_index() -> None:
    deltas, _ = read(
        event(tool_calls=[{"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"x"'}}]),
        event(tool_calls=[{"index": 1, "id": "b", "function": {"name": "sub", "arguments": "{}"}}]),
        event(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        event("tool_calls"),
        DONE,
    )
    calls = [(call.id, call.name, call.arguments) for call in deltas[-1].tool_calls]
    assert calls == [("a", "add", '{"x": 1}'), ("b", "sub", "{}")]
    assert deltas[-1].finish_reason == "tool_calls"


def test_a_stream_that_stops_without_an_end_is_seen() -> None:
    _, answer = read(event(content="half"))
    assert not answer.ended
    assert not answer.done


@pytest.mark.parametrize(
    ("payload", "status", "message"),
    [
        (b'data: {"error":{"message":"Grammar error","code":400}}\n\n', 400, "Grammar error"),
        (b'data: {"error":"out of luck"}\n\n', 500, "out of luck"),
        (b'error: {"code":500,"message":"slot lost"}\n\n', 500, "slot lost"),
        (b"data: not json\n\n", 500, "not json"),
        (b"data: [1, 2]\n\n", 500, "[1, 2]"),
    ],
)
def test_an_error_in_the_stream_ends_it_with_its_status(payload: bytes, status: int, message: str) -> None:
    _, answer = read(event(content="a"), payload + event(content="b"))
    assert answer.error is not None
    assert (answer.error["message"], answer.error_status) == (message, status)
    assert answer.done


def test_half_a_surrogate_pair_becomes_a_character_that_can_be_stored() -> None:
    deltas, _ = read(b'data: {"choices":[{"delta":{"content":"a\\ud83d b"}}]}\n\n')
    assert deltas[0].text == "a\ufffd b"
    deltas[0].text.encode()


def test_a_whole_answer_is_one_delta() -> None:
    delta = whole_answer(
        {
            "choices": [{"message": {"content": "<think>so</think>4"}, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 1},
        }
    )
    assert (delta.text, delta.reasoning, delta.finish_reason, delta.tokens) == ("4", "so", "length", 1)
    assert delta.usage == Usage(prompt_tokens=5, completion_tokens=1)


@pytest.mark.parametrize("body", ["<html>", {}, {"choices": []}, {"choices": [{}]}, [], None])
def test_a_whole_answer_of_another_form_is_refused(body: Any) -> None:
    with pytest.raises(MalformedAnswer):
        whole_answer(body)
