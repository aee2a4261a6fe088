"""How an answer builds up from its deltas."""

from __future__ import annotations

import pytest

from subcortex.engines.protocol import Delta
from subcortex.mind.saying import Saying
from subcortex.types import Usage
from tests.fakes import FakeClock


def test_times_and_tokens():
    clock = FakeClock()
    saying = Saying(clock, began_s=0.0)
    for at_s, delta in (
        (1.0, Delta(text="a")),
        (1.5, Delta(text="b")),
        (2.0, Delta(text="c")),
        (2.5, Delta(finish_reason="stop", usage=Usage(prompt_tokens=9, completion_tokens=5), tokens=0)),
    ):
        clock.seconds = at_s
        saying.add(delta)
    timing = saying.timing()
    assert timing.ttft_s == 1.0
    assert timing.tpot_s == pytest.approx((2.0 - 1.0) / (5 - 1))
    assert timing.total_s == 2.5
    assert saying.counted().prompt_tokens == 9
    assert saying.finish_reason == "stop"


def test_an_answer_in_one_piece_says_nothing_of_the_time_between_tokens():
    saying = Saying(FakeClock(), began_s=0.0)
    saying.add(Delta(text="all of it", tokens=5))
    assert saying.timing().tpot_s is None
    assert saying.counted().completion_tokens == 5


@pytest.mark.parametrize(
    "deltas",
    [
        [Delta(reasoning="\n7+5"), Delta(reasoning="=12\n"), Delta(text="\n"), Delta(text="\nIt is 12.")],
        [Delta(reasoning="\n7+5=12\n", text="\nIt is 12.")],
    ],
)
def test_line_breaks_around_thinking_aloud_belong_to_neither_part(deltas):
    saying = Saying(FakeClock(), began_s=0.0)
    emitted = [saying.add(delta) for delta in deltas]
    assert (saying.reasoning, saying.text) == ("7+5=12", "It is 12.")
    assert "".join(text for text, _ in emitted) == "It is 12."


def test_text_without_thinking_is_kept_to_the_letter():
    saying = Saying(FakeClock(), began_s=0.0)
    saying.add(Delta(text="\n  indented"))
    assert saying.text == "\n  indented"
