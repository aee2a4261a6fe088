"""What goes into the journal comes out again as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import JournalError
from subcortex.experiments import forms
from subcortex.experiments.choice import Belief
from subcortex.experiments.experiment import Answer, Chart, Inquiry, Line, Needs, Report
from subcortex.experiments.laboratory.record import Reading

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_words = st.text(max_size=20)
_plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _numbers | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=6,
)
_facts = st.dictionaries(_words, _plain, max_size=4)
_beliefs = st.builds(Belief, _numbers, st.floats(1e-9, 1e9), st.sampled_from(["normal", "log-normal"]))
_needs = st.builds(Needs, st.integers(0, 8), st.none() | _numbers, _numbers, st.booleans())
_inquiries = st.builds(
    Inquiry,
    *[_words] * 6,
    prior=_beliefs,
    noise=_numbers,
    worth=_numbers,
    minutes=_numbers,
    needs=_needs,
    after=st.frozensets(_words, max_size=3),
    depends_on=_facts,
)
_answers = st.builds(
    Answer,
    quantity=_words,
    about=_words,
    unit=st.none() | _words,
    outcome=st.sampled_from(["measured", "different", "alike", "inconclusive", "passed", "failed"]),
    statement=_words,
    value=st.none() | _numbers,
    low=st.none() | _numbers,
    high=st.none() | _numbers,
    n=st.none() | st.integers(0, 1000),
    n_needed=st.none() | st.integers(0, 1000),
    details=_facts,
)
_points = st.lists(st.lists(_numbers, min_size=2, max_size=4).map(tuple), max_size=4).map(tuple)
_charts = st.builds(
    Chart,
    *[_words] * 3,
    lines=st.lists(st.builds(Line, _words, _points), max_size=3).map(tuple),
    marks=st.lists(st.tuples(_numbers, _words), max_size=2).map(tuple),
    categories=st.lists(_words, max_size=3).map(tuple),
)
_reports = st.builds(
    Report,
    st.lists(_answers, max_size=3).map(tuple),
    st.lists(_words, max_size=2).map(tuple),
    st.lists(_words, max_size=2).map(tuple),
    st.lists(_charts, max_size=2).map(tuple),
)
_readings = st.builds(
    Reading, _words, _numbers, _words, _words, st.integers(0, 100), _numbers, _facts, _facts
)


def through_json(data: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(data)))


@given(_inquiries)
def test_an_inquiry_comes_back(inquiry: Inquiry) -> None:
    assert forms.inquiry_from_json(through_json(forms.inquiry_to_json(inquiry))) == inquiry


@given(_reports)
def test_a_report_comes_back(report: Report) -> None:
    assert forms.report_from_json(through_json(forms.report_to_json(report))) == report


@given(_readings)
def test_a_sample_comes_back(reading: Reading) -> None:
    assert forms.reading_from_json(through_json(forms.reading_to_json(reading))) == reading


INQUIRY = Inquiry(
    "load_time",
    "fast",
    "How long?",
    "load_time",
    "m.gguf",
    "s",
    prior=Belief(1.0, 0.5, "log-normal"),
    noise=0.1,
    worth=1.0,
    minutes=2.0,
    depends_on={"driver": "570.1", "gpus": ["GPU-1"], "flags": {"threads": 1}},
)


def test_the_digest_is_of_the_question_and_what_its_answer_depends_on() -> None:
    same = replace(INQUIRY, worth=9.0, minutes=7.0, prior=Belief(2.0, 1.0, "normal"))
    assert forms.digest_of(same, 1) == forms.digest_of(INQUIRY, 1)
    turned = replace(INQUIRY, depends_on=dict(reversed(list(INQUIRY.depends_on.items()))))
    assert forms.digest_of(turned, 1) == forms.digest_of(INQUIRY, 1)
    others = [
        forms.digest_of(INQUIRY, 2),
        forms.digest_of(replace(INQUIRY, subject="deep"), 1),
        forms.digest_of(replace(INQUIRY, about="n.gguf"), 1),
        forms.digest_of(replace(INQUIRY, depends_on={**INQUIRY.depends_on, "driver": "575"}), 1),
    ]
    assert len({forms.digest_of(INQUIRY, 1), *others}) == 5


def test_what_json_does_not_know_is_kept_in_its_words() -> None:
    answer = Answer("q", "a", None, "measured", "so", value=1.0, low=-float("inf"), details={"at": Path("m")})
    written = through_json(forms.report_to_json(Report((answer,))))
    assert written["answers"][0]["details"] == {"at": "m"}
    assert forms.report_from_json(written).answers[0].low is None


def test_what_is_no_inquiry_is_refused_in_words() -> None:
    with pytest.raises(JournalError, match="inquiry"):
        forms.inquiry_from_json({"experiment": "load_time"})
