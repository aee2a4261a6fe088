"""A session's way to the board, and what a model may add to it."""

from __future__ import annotations

import pytest

from subcortex.errors import InvalidRequest
from subcortex.journal.board import gaps_in
from subcortex.journal.diary import Diary, board, board_queries
from subcortex.journal.folder import import_files
from subcortex.mind.board import (
    Noted,
    Question,
    Questions,
    from_thought,
    note_imported,
    note_session,
    prompt_for,
)
from tests.journal.board.samples import SESSION, TABLE
from tests.journal.diary.test_board import _SESSION


@pytest.fixture
def diary(tmp_path):
    with Diary.open(tmp_path / "journal.db") as opened:
        with opened.transaction() as conn:
            conn.execute(_SESSION, ("5e5510", "d"))
        yield opened


def test_a_session_is_read_settled_and_kept_at_once(diary):
    assert note_session(diary, "5e5510", SESSION) == Noted(gaps=5, claims=5, settled=4)
    assert note_session(diary, "5e5510", SESSION) == Noted(gaps=5, claims=5, settled=0)
    claim = board_queries.claims(diary, quantity="bandwidth")[0]
    assert claim.fact is not None
    assert claim.fact.source == "arithmetic"
    assert "16 lanes × 16 GT/s" in (claim.fact.working or "")
    assert claim.fact.provenance["rule"] == "link"
    with pytest.raises(InvalidRequest, match="no session"):
        note_session(diary, "none", TABLE)


def test_questions_of_a_thought_are_marked_placed_and_not_asked_twice(diary):
    text = "# Notes\n\n## Today\nI wonder whether sleep mode keeps the weights. I do not know.\n"
    answer = Questions(
        questions=[
            Question(question="whether sleep mode keeps the weights?", topic="sleep"),
            Question(question="How long does a\x1b[2J wake take?"),
            Question(question="Whether sleep mode keeps the weights?"),
            Question(question="?"),
            Question(question="weights take. weights cache takes 2."),
        ]
    )
    found = from_thought(answer, text)
    assert [(gap.found_by, gap.line, gap.section) for gap in found] == [
        ("thought", 4, "Today"),
        ("thought", None, ""),
    ]
    board.record(diary, "5e5510", found, ())
    assert {gap.found_by for gap in board_queries.gaps(diary)} == {"thought"}
    known = gaps_in("## Open Questions\n- How long does a wake take?\n")
    assert (
        from_thought(Questions(questions=[Question(question="How long does a wake take?")]), text, known)
        == []
    )


def test_the_prompt_holds_the_notes_and_no_more_than_it_may():
    assert SESSION in prompt_for(SESSION)
    assert len(prompt_for("x" * 10**6)) < 13_000


def test_an_import_that_was_killed_before_the_board_is_made_good_by_the_next(diary, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "2026-02-22-1508-LEARNING.md").write_text(SESSION)
    (tmp_path / "notes" / "2026-02-23-1508-CARE.md").write_text("# Session: CARE\n\nNothing was asked.\n")
    assert import_files(diary, [tmp_path / "notes"]).count("new") == 2
    again = import_files(diary, [tmp_path / "notes"])
    assert again.count("known") == 2
    assert note_imported(diary, again.added) == Noted(gaps=5, claims=5, settled=4)
    assert note_imported(diary, again.added) == Noted(0, 0, 0)
