"""From a report to facts, answers, claims, session and drive: all of it, once, whatever was killed."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest

from subcortex.errors import InvalidRequest
from subcortex.experiments.choice import believed
from subcortex.experiments.experiment import Report
from subcortex.experiments.statistics import Interval
from subcortex.journal.board import Claim, Figure
from subcortex.journal.diary import Diary, board, board_queries, experiments, sessions
from subcortex.journal.diary import drives as kept
from subcortex.mind.board import note_session
from subcortex.mind.experimenting.following import follow
from subcortex.mind.keeping import DriveKeeper
from tests.mind.agent.helpers import grown, imported, only, pressure
from tests.mind.experimenting.helpers import CERTIFICATE, REPORT, Links, answer, inquiry, measured

WRONG = "PCIe 4.0 x16 reaches 15.0 GB/s between our cards"
NOTICED = """## What I Noticed

- A copy over PCIe 4.0 x16 reaches 25.13 GB/s in one direction (median 25.13 GB/s, 90 % interval 25.02 to \
25.31 GB/s, n = 4).
- Believed before: 17.89 GB/s (90 %: 10 to 32 GB/s); after: 25.13 GB/s (90 %: 24.98 to 25.27 GB/s). That is \
0.9612 σ above what was believed, and 6.603 bits of surprise.
- The copies from GPU 1 to GPU 0 took 1.7 % longer.
- Answers "How much of the bandwidth of PCIe 4.0 x16 does a copy reach?"
- Refuted: "PCIe 4.0 x16 reaches 15.0 GB/s between our cards"
"""


def claimed(diary: Diary, value: float, about: str = "PCIe 4.0 x16", statement: str = WRONG) -> str:
    figure = Figure(f"{value} GB/s", value, value - 0.05, value + 0.05, "GB/s", "bandwidth", about)
    board.record(diary, None, [], [Claim(statement, "figure", figures=(figure,))])
    return board_queries.claims(diary)[-1].id


def everything(diary: Diary) -> list[list[tuple[object, ...]]]:
    """Return all rows that following writes."""
    tables = ("facts", "gaps", "claims", "sessions", "session_entries", "drive_events", "experiment_runs")
    with diary.reading() as conn:
        return [[tuple(row) for row in conn.execute(f"SELECT * FROM {table}")] for table in tables]


def test_a_report_becomes_fact_answer_verdict_session_and_a_satisfied_drive(config, diary, clock):
    imported(diary)
    [gap] = board_queries.gaps(diary)
    wrong, other = claimed(diary, 15.0), claimed(diary, 15.0, "PCIe 5.0 x16", "The same of another link")
    grown(config, diary, clock, 12)
    run = measured(diary, gap_id=gap.id)
    followed = follow(diary, config, run.id, experiment=Links())

    [fact] = followed.facts
    assert (fact.value, fact.low, fact.high, fact.unit, fact.n) == (25.13, 25.02, 25.31, "GB/s", 4)
    assert fact.source == "measurement"
    assert fact.provenance["certificate"] == CERTIFICATE
    assert (fact.provenance["run"], fact.provenance["level"]) == (run.id, 0.9)
    closed = board_queries.gap(diary, gap.id)
    assert (closed.state, closed.fact_id, closed.closed_by) == ("answered", fact.id, followed.session.id)
    assert [claim.id for claim in followed.decided] == [wrong]
    assert board_queries.claim(diary, wrong).state == "refuted"
    assert board_queries.claim(diary, other).state == "claimed"
    [raised] = followed.raised
    assert (raised.found_by, raised.state) == ("experiment", "open")

    text = followed.session.text
    assert NOTICED in text
    assert "- Believed of the bandwidth of PCIe 4.0 x16: 17.89 GB/s (90 %: 10 to 32 GB/s)." in text
    assert "# version 2.11.0\npython copies.py --mib 256\n" in text
    assert "arms in the order forth, back, forth" in text
    assert "GPU clocks: 1410 MHz" in text
    assert "1. Why does a copy reach 79.75 % of what PCIe 4.0 x16 promises?" in text
    # Its own question is answered, and it leaves one of its own.
    assert followed.session.evidence_depth == "deep"
    assert "**Drive:** LEARNING (120%)" in text
    file = config.resolve(config.journal.sessions_dir) / (followed.session.file or "")
    assert file.read_text("utf-8") == text
    assert pressure(diary, "LEARNING") == pytest.approx(12.0 * 0.25)
    assert (followed.run.state, followed.run.session_id) == ("settled", followed.session.id)


def test_again_it_changes_nothing(config, diary, clock):
    imported(diary)
    grown(config, diary, clock, 12)
    run = measured(diary)
    first = follow(diary, config, run.id, experiment=Links())
    rows = everything(diary)
    second = follow(diary, config, run.id, experiment=Links())
    assert everything(diary) == rows
    assert replace(second, moved=first.moved) == first
    assert second.moved is None
    # Nor does reading the session as any other: what it says came from the board and is there as facts.
    note_session(diary, first.session.id, first.session.text, origin="agent")
    assert everything(diary) == rows


@pytest.mark.parametrize(
    ("room", "name"),
    [
        (board, "add_fact"),
        (board, "answer"),
        (board, "decide_by_fact"),
        (sessions, "end"),
        (experiments, "written_up"),
        ("subcortex.mind.experimenting.following", "file_away"),
        (kept, "was_told"),
        (experiments, "settled"),
    ],
)
def test_killed_at_any_step_the_next_life_ends_it_alike(config, diary, clock, monkeypatch, room, name):
    imported(diary)
    claimed(diary, 15.0)
    grown(config, diary, clock, 12)
    run = measured(diary)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(import_module(room) if isinstance(room, str) else room, name, killed)
        with pytest.raises(KeyboardInterrupt):
            follow(diary, config, run.id, experiment=Links())
    assert experiments.run(diary, run.id).state == "measured"
    followed = follow(diary, config, run.id, experiment=Links())
    assert (len(followed.facts), len(followed.answered), len(followed.decided)) == (1, 1, 1)
    assert (followed.run.state, followed.session.evidence_depth) == ("settled", "deep")
    assert len([event for event in kept.history(diary) if event.kind == "satisfied"]) == 1
    assert pressure(diary, "LEARNING") == pytest.approx(3.0)
    with diary.reading() as conn:
        written = "SELECT count(*) FROM sessions WHERE origin = 'agent' AND topic LIKE '%copy over%'"
        assert conn.execute(written).fetchone()[0] == 1


def test_an_inconclusive_answer_closes_nothing_and_says_what_it_takes(config, diary, clock):
    imported(diary)
    claimed(diary, 15.0)
    grown(config, diary, clock, 12)
    doubtful = answer(
        outcome="inconclusive", statement="The two directions cannot be told apart.", n_needed=37
    )
    followed = follow(diary, config, measured(diary, report=Report((doubtful,))).id, experiment=Links())
    assert (followed.answered, followed.decided) == ((), ())
    assert board_queries.gaps(diary)[0].state == "open"
    assert (
        'Leaves open "How much of the bandwidth of PCIe 4.0 x16 does a copy reach?":'
        " inconclusive; 37 blocks would settle it" in followed.session.text
    )
    assert followed.session.evidence_depth == "moderate"


def test_its_own_question_answered_and_none_left_is_full(config, diary, clock):
    imported(diary)
    [gap] = board_queries.gaps(diary)
    grown(config, diary, clock, 12)
    run = measured(diary, report=replace(REPORT, gaps=()), gap_id=gap.id, drive="CARE")
    followed = follow(diary, config, run.id, experiment=Links())
    assert followed.session.evidence_depth == "full"
    assert {level.drive: level.pressure for level in DriveKeeper(config, diary).levels()} == {
        "CARE": 0.0,
        "LEARNING": 12.0,
        "REST": 0.0,
    }


def test_a_question_about_another_model_stays_open(config, diary, clock):
    imported(diary, "# Session: LEARNING\n\n## Open Questions\n\n- How slow is PCIe for a Llama 70B?\n")
    found = answer(about="qwen-3-8b")
    report = Report((found,))
    assert follow(diary, config, measured(diary, report=report).id, experiment=Links()).answered == ()
    right = Report((answer(about="llama-3.1-70b"),))
    asked = inquiry(about="llama-3.1-70b")
    assert len(follow(diary, config, measured(diary, asked, right).id, experiment=Links()).answered) == 1


def test_a_question_about_another_engine_stays_open(config, diary):
    imported(diary, "# Session: LEARNING\n\n## Open Questions\n\n- How slow is PCIe for vLLM?\n")
    other = inquiry(depends_on={"engine": {"name": "llama.cpp"}})
    assert follow(diary, config, measured(diary, other).id, experiment=Links()).answered == ()
    same = inquiry(depends_on={"engine": {"name": "vllm"}})
    assert len(follow(diary, config, measured(diary, same).id, experiment=Links()).answered) == 1


def test_what_a_statement_says_is_not_said_twice(config, diary):
    found = answer(statement="A copy reaches 25.1 GB/s (25.0 to 25.3 GB/s, n = 4).")
    text = follow(diary, config, measured(diary, report=Report((found,))).id, experiment=Links()).session.text
    assert "\n- A copy reaches 25.1 GB/s (25.0 to 25.3 GB/s, n = 4).\n" in text


def test_the_same_question_is_put_on_the_board_once(config, diary):
    first = follow(diary, config, measured(diary).id, experiment=Links())
    again = follow(diary, config, measured(diary).id, experiment=Links())
    assert (len(first.raised), len(again.raised)) == (1, 0)
    assert "Questions Remaining" not in again.session.text


def test_without_a_drive_that_finds_out_none_is_told(config, diary):
    only(config, "rest")
    followed = follow(diary, config, measured(diary).id, experiment=Links())
    assert (followed.run.state, followed.moved) == ("settled", None)
    assert followed.session.drives == []


def test_a_prior_of_another_unit_is_held_against_the_answer(config, diary):
    report = Report((answer(value=25130.0, low=25020.0, high=25310.0, unit="MB/s"),))
    asked = inquiry(prior=believed(Interval(24.0, 26.0, 0.9)))
    text = follow(diary, config, measured(diary, asked, report).id, experiment=Links()).session.text
    assert "after: 25.13 GB/s (90 %: 24.98 to 25.27 GB/s)" in text


def test_nothing_follows_from_a_run_that_is_not_measured(config, diary):
    run = measured(diary)
    waiting = experiments.enqueue(
        diary, experiment="links", subject="x", inquiry={}, asked_by="person", seconds=1, digest="d"
    )
    with pytest.raises(InvalidRequest, match="it is queued"):
        follow(diary, config, waiting.id)
    assert experiments.run(diary, run.id).state == "measured"
