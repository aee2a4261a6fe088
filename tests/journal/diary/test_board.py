"""The board's transactions: once is enough, facts decide what they are about and nothing else."""

from __future__ import annotations

import pytest

from subcortex.errors import InvalidRequest
from subcortex.journal.board import Gap, claims_in, gaps_in
from subcortex.journal.diary import Diary, board, board_queries
from subcortex.journal.diary.board_records import NewFact, Verdict
from tests.journal.board.samples import SESSION, TABLE

_SESSION = (
    "INSERT INTO sessions (id, kind, shape, origin, state, digest, text)"
    " VALUES (?, 'note', 'plain', 'import', 'ended', ?, '')"
)


@pytest.fixture
def diary(tmp_path):
    with Diary.open(tmp_path / "journal.db") as opened:
        with opened.transaction() as conn:
            for name in ("5e5510", "5e5511"):
                conn.execute(_SESSION, (name, name))
        yield opened


def fact(value: float, unit: str | None = "GB", **more) -> NewFact:
    fields = {"quantity": "weights_size", "subject": "llama-3.1-8b Q4_K_M", "statement": "so it is", **more}
    return NewFact("measurement", provenance={"run": "r1"}, value=value, unit=unit, **fields)


def claims_of(diary: Diary, text: str = "Llama 3.1 8B Q4_K_M is ~7GB\n") -> list[str]:
    board.record(diary, "5e5510", (), claims_in(text))
    return [claim.id for claim in board_queries.claims(diary)]


def test_a_session_recorded_twice_is_there_once(diary):
    gaps, claims = gaps_in(SESSION), claims_in(SESSION)
    first = board.record(diary, "5e5510", gaps, claims)
    assert (first.new_gaps, first.new_claims) == (len(gaps), len(claims)) == (5, 5)
    kept = board_queries.gaps(diary), board_queries.claims(diary)
    again = board.record(diary, "5e5510", gaps_in("\n" + SESSION), claims_in("\n" + SESSION))
    assert (again.new_gaps, again.new_claims) == (0, 0)
    assert [gap.id for gap in board_queries.gaps(diary)] == [gap.id for gap in kept[0]]
    assert board_queries.gaps(diary)[0].line == (kept[0][0].line or 0) + 1
    other = board.record(diary, "5e5511", gaps, claims)
    assert (other.new_gaps, other.new_claims) == (5, 5)


def test_an_answered_question_stays_answered_when_its_session_is_read_again(diary):
    board.record(diary, "5e5510", gaps_in(SESSION), ())
    first, second, third, *_ = board_queries.gaps(diary)
    answered = board.answer(diary, first.id, "By a third.", session_id="5e5511")
    assert (answered.state, answered.answer, answered.closed_by) == ("answered", "By a third.", "5e5511")
    assert board.drop(diary, second.id, "no such cards").state == "dropped"
    assert board.plan(diary, third.id).state == "planned"
    board.record(diary, "5e5510", gaps_in(SESSION), ())
    states = [gap.state for gap in board_queries.gaps(diary)]
    assert states == ["planned", "open", "open", "answered", "dropped"]
    assert board_queries.gaps(diary, kind="interconnect")[0].id == first.id
    with pytest.raises(InvalidRequest, match="answered already"):
        board.drop(diary, first.id, "again")
    with pytest.raises(InvalidRequest, match="no words"):
        board.answer(diary, third.id, "  ")


def test_ids_may_be_cut_short_and_say_so_when_they_are_too_short(diary):
    board.record(diary, "5e5510", gaps_in(SESSION), ())
    first = board_queries.gaps(diary)[0]
    assert board_queries.gap(diary, first.id[:20]) == first
    with pytest.raises(InvalidRequest, match="several"):
        board_queries.gap(diary, first.id[:3])
    for wrong in ("ffff", "", "%", "x' OR 1", "\x1b[2J"):
        with pytest.raises(InvalidRequest, match="no question"):
            board_queries.gap(diary, wrong)


@pytest.mark.parametrize(
    ("value", "low", "high", "unit", "state"),
    [
        (7.2, None, None, "GB", "confirmed"),
        (4.9, None, None, "GB", "refuted"),
        (6.0, 5.5, 6.5, "GB", "confirmed"),
        (6.0, 5.6, 6.4, "GB", "refuted"),
        (6.52, None, None, "GiB", "confirmed"),
        (7.2, None, None, "GB/s", "claimed"),
        (7.2, None, None, None, "claimed"),
    ],
)
def test_a_fact_decides_by_its_interval_in_units_that_compare(diary, value, low, high, unit, state):
    (claim_id,) = claims_of(diary)
    found = board.add_fact(diary, fact(value, unit, low=low, high=high))
    decided = board.decide_by_fact(diary, found.id)
    assert board_queries.claim(diary, claim_id).state == state
    assert [claim.id for claim in decided] == ([claim_id] if state != "claimed" else [])
    assert board_queries.claim(diary, claim_id).fact_id == (found.id if state != "claimed" else None)


@pytest.mark.parametrize(
    "about", [{"subject": "llama-3.1-8b Q6_K"}, {"quantity": "kv_cache"}, {"subject": "llama-3.1-8b"}]
)
def test_a_fact_about_something_else_decides_nothing(diary, about):
    (claim_id,) = claims_of(diary)
    found = board.add_fact(diary, fact(4.9, **about))
    assert board.decide_by_fact(diary, found.id) == []
    assert board_queries.claim(diary, claim_id).state == "claimed"


def test_a_claim_of_two_figures_is_refuted_by_one_and_confirmed_by_none(diary):
    claims_of(diary, "Llama 3.1 8B: KV cache 1 GB and activations 5 GB\n")
    right = board.add_fact(diary, fact(1.0, quantity="kv_cache", subject="llama-3.1-8b"))
    assert board.decide_by_fact(diary, right.id) == []
    wrong = board.add_fact(diary, fact(0.3, quantity="activations", subject="llama-3.1-8b"))
    assert [claim.state for claim in board.decide_by_fact(diary, wrong.id)] == ["refuted"]


def test_a_decided_claim_keeps_its_fact_until_that_expires(diary):
    (claim_id,) = claims_of(diary)
    first = board.add_fact(diary, fact(4.9))
    assert board.add_fact(diary, fact(4.9)).id == first.id
    board.decide_by_fact(diary, first.id)
    second = board.add_fact(diary, fact(7.0))
    assert board.decide_by_fact(diary, second.id) == []
    assert [claim.state for claim in board.expire(diary, first.id, "another card")] == ["expired"]
    with pytest.raises(InvalidRequest, match="expired"):
        board.decide_by_fact(diary, first.id)
    assert board.decide(diary, claim_id, second.id, "confirmed").fact_id == second.id


def test_bounds_without_an_end_are_kept(diary):
    claims_of(diary, "Llama 3.1 8B Q4_K_M is at least 4 GB\n")
    (figure,) = board_queries.claims(diary)[0].figures
    assert (figure.low, figure.high) == (3.5, None)
    found = board.add_fact(diary, fact(400))
    assert [claim.state for claim in board.decide_by_fact(diary, found.id)] == ["confirmed"]


def test_findings_are_written_with_the_claims_and_counted(diary):
    claims = claims_in(TABLE)
    found: dict[int, tuple[Verdict, NewFact]] = {0: ("refuted", fact(1.0)), 1: ("confirmed", fact(9.0))}
    recorded = board.record(diary, "5e5510", (), claims, found)
    assert (recorded.settled, recorded.new_claims) == (2, len(claims))
    assert board.record(diary, "5e5510", (), claims, found).settled == 0
    counted = board_queries.counts(diary)
    assert (counted.confirmed, counted.refuted, counted.undecided) == (1, 1, len(claims) - 2)
    assert len(board_queries.claims(diary, quantity="score:math-500")) == 2


def test_what_cannot_be_stored_is_mended_and_what_is_unknown_refused(diary):
    board.record(diary, "5e5510", [Gap("why \ud800?", found_by="person")], ())
    assert board_queries.gaps(diary)[0].question == "why \ufffd?"
    with pytest.raises(InvalidRequest, match="no session"):
        board.record(diary, "nobody", [Gap("why?")], ())
    with pytest.raises(InvalidRequest, match="not finite"):
        board.add_fact(diary, fact(float("inf")))
    assert len(board_queries.gaps(diary)) == 1
