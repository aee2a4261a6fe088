"""Thinking aloud is told from answering, wherever the stream is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.engines.reasoning import ReasoningSplitter


def split(pieces: list[str]) -> tuple[str, str]:
    splitter = ReasoningSplitter()
    parts = [splitter.feed(piece) for piece in pieces]
    parts.append(splitter.finish())
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("plain words", "", "plain words"),
        ("<think>why</think>because", "why", "because"),
        ("  \n<think>\nwhy\n</think>\n\nbecause", "why\n", "because"),
        ("<think></think>\n\nanswer", "", "answer"),
        ("<think>cut short", "cut short", ""),
        ("<think>a < b </thin", "a < b </thin", ""),
        ("<thinking>not a tag", "", "<thinking>not a tag"),
        ("<thi", "", "<thi"),
        ("say <think>this</think>", "", "say <think>this</think>"),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("  indented", "", "  indented"),
        ("", "", ""),
        ("\n", "", "\n"),
    ],
)
def test_where_reasoning_ends_does_not_depend_on_how_the_text_is_cut(
    text: str, reasoning: str, answer: str
) -> None:
    assert split([text]) == (reasoning, answer)
    assert split(list(text)) == (reasoning, answer)
    for cut in range(len(text)):
        assert split([text[:cut], text[cut:]]) == (reasoning, answer)


@given(st.text(alphabet="<think>/ \na", max_size=60), st.data())
def test_any_cutting_of_any_text_gives_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=10)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(pieces) == split([text])


def test_an_answer_passes_at_once_and_the_splitter_steps_aside() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed("He") == ("", "He")
    assert splitter.transparent


def test_reasoning_is_not_held_until_its_end() -> None:
    splitter = ReasoningSplitter()
    splitter.feed("<think>")
    assert splitter.feed("first step") == ("first step", "")
    assert splitter.feed(" and </th") == (" and ", "")
    assert splitter.feed("ree") == ("</three", "")
