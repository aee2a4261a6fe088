"""The evidence rule: what each depth takes, and that more evidence is never less depth."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal.sessions import Evidence, rate
from subcortex.types import Depth

_ORDER = list(Depth)
counts = st.integers(0, 5)
evidences = st.builds(
    Evidence,
    thoughts=counts,
    notes=counts,
    gaps_measured=counts,
    claims_refuted=counts,
    claims_confirmed=counts,
    question_answered=st.none() | st.booleans(),
    gaps_left=counts,
)


@pytest.mark.parametrize(
    ("evidence", "depth"),
    [
        (Evidence(), Depth.NONE),
        (Evidence(question_answered=True), Depth.NONE),
        (Evidence(thoughts=1), Depth.SHALLOW),
        (Evidence(notes=1), Depth.SHALLOW),
        (Evidence(thoughts=1, notes=1), Depth.MODERATE),
        (Evidence(thoughts=400, notes=400, question_answered=True), Depth.MODERATE),
        (Evidence(claims_confirmed=9), Depth.MODERATE),
        (Evidence(gaps_measured=1), Depth.DEEP),
        (Evidence(claims_refuted=1, question_answered=False), Depth.DEEP),
        (Evidence(gaps_measured=1, question_answered=True, gaps_left=1), Depth.DEEP),
        (Evidence(gaps_measured=1, question_answered=True), Depth.FULL),
    ],
)
def test_what_each_depth_takes(evidence: Evidence, depth: Depth) -> None:
    rated, reasons = rate(evidence)
    assert rated is depth
    assert reasons


def test_reasons_carry_the_figures() -> None:
    _, reasons = rate(Evidence(thoughts=3, notes=1, gaps_measured=2, question_answered=True, gaps_left=4))
    assert reasons == (
        "3 thoughts and 1 note",
        "2 gaps closed by a measurement",
        "4 gaps that it opened left open",
    )


@given(
    evidences, st.sampled_from(["thoughts", "notes", "gaps_measured", "claims_refuted", "claims_confirmed"])
)
def test_more_evidence_is_never_less_depth(evidence: Evidence, field: str) -> None:
    more = replace(evidence, **{field: getattr(evidence, field) + 1})
    assert _ORDER.index(rate(more)[0]) >= _ORDER.index(rate(evidence)[0])


@given(evidences)
def test_no_talk_reaches_deep(evidence: Evidence) -> None:
    talk = replace(evidence, gaps_measured=0, claims_refuted=0)
    assert _ORDER.index(rate(talk)[0]) <= _ORDER.index(Depth.MODERATE)
