"""Questions that an experiment answers are left to the daemon, and the tick waits for nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from subcortex.journal.board import Gap
from subcortex.journal.diary import Diary, board, board_queries, experiments, sessions
from subcortex.journal.diary.experiment_records import RunRecord
from tests.mind.agent.helpers import Thinker, grown, only, tick

QUESTION = "How long does a cold start of the 8B take?"


class Lab:
    """A daemon that has one experiment for what it is asked, or none."""

    def __init__(self, diary: Diary, *, applies: bool = True, here: bool = True) -> None:
        self.diary, self.applies, self.here = diary, applies, here
        self.asked: list[tuple[str, str]] = []

    def up(self) -> bool:
        return self.here

    def ask(self, gap_id: str, drive: str) -> RunRecord | None:
        self.asked.append((gap_id, drive))
        if not (self.here and self.applies):
            return None
        return experiments.enqueue(
            self.diary,
            experiment="load_time",
            subject="deep",
            inquiry={"question": QUESTION},
            asked_by="agent",
            seconds=60.0,
            digest="d",
            gap_id=gap_id,
            drive=drive,
        )


@pytest.fixture
def gap_id(config, diary, clock) -> str:
    only(config, "learning")
    session = sessions.open_session(diary, [], origin="tick")
    board.record(diary, session.id, [Gap(QUESTION, kind="load_time")], ())
    with diary.transaction() as conn:
        conn.execute("UPDATE sessions SET state = 'ended', evidence_depth = 'none'")
    grown(config, diary, clock, 12)
    return board_queries.gaps(diary)[0].id


def test_an_experiment_is_asked_for_once_and_until_it_is_over_its_drive_asks_for_nothing(
    config, diary, clock, gap_id
):
    lab, think = Lab(diary), Thinker()

    outcome = tick(config, diary, think, finder=lab)

    assert (outcome.did, outcome.drive) == ("asked", "LEARNING")
    assert f'load_time of deep is to answer "{QUESTION}"' == outcome.reason
    assert lab.asked == [(gap_id, "LEARNING")]
    assert outcome.run_id is not None
    assert (think.requests, sessions.open_sessions(diary, dead=False)) == ([], [])
    waits = tick(config, diary, think, finder=lab)
    assert (waits.did, waits.reason) == ("waited", "an experiment is under way for LEARNING")

    experiments.cancelled(diary, outcome.run_id)
    lab.applies = False
    assert tick(config, diary, think, finder=lab).did == "held"


def test_one_that_nobody_has_heard_of_for_hours_holds_its_drive_back_no_more(config, diary, clock, gap_id):
    lab = Lab(diary)
    assert tick(config, diary, finder=lab).did == "asked"
    lab.applies = False
    clock.at += timedelta(hours=5)
    assert tick(config, diary, finder=lab).did == "held"


def test_without_a_daemon_or_a_fitting_experiment_it_is_thought_about(config, diary, gap_id):
    assert tick(config, diary, Thinker("Perhaps 8 s."), finder=Lab(diary, here=False)).did == "held"


def test_what_waits_for_a_daemon_that_is_gone_holds_its_drive_back_from_nothing(config, diary, gap_id):
    lab = Lab(diary)
    assert tick(config, diary, finder=lab).did == "asked"
    lab.here = False
    assert tick(config, diary, finder=lab).did == "held"


def test_what_is_known_already_needs_neither_experiment_nor_thought(config, diary, gap_id):
    class Knows(Lab):
        def ask(self, gap_id: str, drive: str) -> RunRecord | None:
            board.answer(self.diary, gap_id, "Eight seconds.")
            return None

    think = Thinker()
    outcome = tick(config, diary, think, finder=Knows(diary))
    assert (outcome.did, outcome.reason) == ("waited", f'what is known answers "{QUESTION}"')
    assert think.requests == []


def test_while_one_measures_no_session_begins(config, diary, gap_id):
    run = Lab(diary).ask(gap_id, "CURIOSITY")
    assert run is not None
    experiments.begin(diary, run.id)
    outcome = tick(config, diary, finder=Lab(diary))
    assert (outcome.did, outcome.reason) == (
        "deferred",
        "the machine is not idle: an experiment is at work",
    )
