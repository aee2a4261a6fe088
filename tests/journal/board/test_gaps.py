"""Which lines are questions that somebody leaves open, of what kind, and that each is one row for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal.board import KINDS, gaps_in, question_kind
from tests.journal.board.samples import COLLECTIVES, SESSION, TABLE


def test_the_questions_of_a_session_are_its_numbered_lines_and_its_open_question():
    found = gaps_in(SESSION)
    assert [(gap.line, gap.kind) for gap in found] == [
        (18, "interconnect"),
        (19, "tp_overhead"),
        (22, "joint_serving"),
        (23, "quantisation_tp"),
        (32, "idle_memory"),
    ]
    assert found[0].topic == "The slower road"
    assert found[0].question == "By how much is PCIe slower than NVLink for TP?"
    assert found[1].question == "What VRAM overhead does TP add on each card?"
    assert found[4].topic is None
    assert {gap.section for gap in found} == {"What I Need to Learn", "Plans"}


def test_plans_checklists_and_answered_questions_are_no_gaps():
    quiz = "## Check\n**Q1**: When is one better?\n<details>\nWhen it is.\n</details>\n"
    steps = "## After each test\n1. **Quality**: Does it change the answer?\n"
    assert gaps_in(TABLE) + gaps_in(COLLECTIVES) + gaps_in(quiz) + gaps_in(steps) == []


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("## Open Questions\n\n**Prefixes:**\nAre they counted once?\n", ["Are they counted once?"]),
        ("## Questions Remaining\n1. **How much?** One number so far.\n", ["How much? One number so far."]),
        ("Open questions:\n- Is it cold?\n- Is it warm?\n\nDone.\n", ["Is it cold?", "Is it warm?"]),
        ("## Open questions\n### Caches\nDo they survive a boot?\n", ["Do they survive a boot?"]),
        ("## What I Need to Learn\n- none yet\n", []),
        ("## Open Questions\nNone.\n", []),
        ("```\nOpen question: is code asked?\n```\n", []),
        ("- Open question — what of lists?\n", ["what of lists?"]),
    ],
)
def test_shapes_of_questions(text, questions):
    assert [gap.question for gap in gaps_in(text)] == questions


def test_a_question_keeps_its_key_when_the_text_around_it_changes():
    before = {gap.key("s1") for gap in gaps_in(SESSION)}
    after = {
        gap.key("s1") for gap in gaps_in("# A title\n\n" + SESSION.replace("## Plans", "More.\n\n## Plans"))
    }
    assert before == after
    assert before.isdisjoint(gap.key("s2") for gap in gaps_in(SESSION))
    twice = gaps_in("## Open Questions\n- Why?\n- Why?\n")
    assert len({gap.key("s1") for gap in twice}) == 2


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How long does the model take to load from a cold page cache?", "load_time"),
        ("At what batch size does throughput saturate?", "saturation"),
        ("Is split-mode row better than layer on unequal cards?", "split_modes"),
        ("How many seconds does a swap cost?", "swap_cost"),
        ("Does tensor parallelism change the quality of answers?", "split_answers"),
        ("What is the bandwidth of an all-reduce?", "collectives"),
        ("Why is the sky blue?", None),
    ],
)
def test_kinds(question, kind):
    assert question_kind(question) == kind
    assert kind is None or kind in KINDS


@given(st.text(alphabet="#*-1.?: \n\t>|`[]ab√é\x00\ud800", max_size=400))
def test_any_text_is_read(text):
    for gap in gaps_in("## Open Questions\n" + text):
        assert gap.question.strip() == gap.question
        assert len(gap.key("s")) == 32
