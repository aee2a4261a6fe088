"""What moves belief: a figure of what was asked, and nothing that is inconclusive."""

from __future__ import annotations

from dataclasses import replace

import pytest

from subcortex.experiments.choice import believed
from subcortex.experiments.consequences.surprises import moved_by
from subcortex.experiments.experiment import Answer, Inquiry
from subcortex.experiments.statistics import Interval

ASKED = Inquiry(
    experiment="saturation",
    subject="fast",
    question="From how many requests at once on?",
    quantity="requests",
    about="some-8b",
    unit="requests",
    prior=believed(Interval(1.0, 64.0)),
    noise=0.1,
    worth=1.0,
    minutes=2.0,
)
KNEE = Answer("requests", "some-8b", "requests", "measured", "It is 200", value=200.0, low=180.0, high=220.0)
OTHER = replace(KNEE, about="some-70b", value=30.0, low=28.0, high=32.0)


def test_a_figure_that_was_not_believed_moves_belief_and_an_inconclusive_one_does_not() -> None:
    moved = moved_by(ASKED, (OTHER, KNEE))
    assert moved is not None
    assert moved.answer is KNEE
    assert moved.surprise.bits > 1
    assert moved_by(ASKED, (replace(KNEE, outcome="inconclusive"),)) is None


@pytest.mark.parametrize("value", [200.0, None])
def test_for_what_was_asked_and_is_inconclusive_no_other_answer_stands_in(value: float | None) -> None:
    assert moved_by(ASKED, (replace(KNEE, outcome="inconclusive", value=value), OTHER)) is None
    moved = moved_by(ASKED, (OTHER,))
    assert moved is not None
    assert moved.answer is OTHER
