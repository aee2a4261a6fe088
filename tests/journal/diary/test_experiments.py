"""Runs of experiments: each state is reached from those that may, raw data stays, the memo and the budget."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from subcortex.errors import InvalidRequest
from subcortex.experiments.laboratory.record import Reading
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import AskedBy, RunRecord


class Stopped:
    """A wall clock that goes on when told."""

    def __init__(self) -> None:
        self.at = datetime(2026, 2, 22, 15, 8, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()

    def on(self, **by: float) -> None:
        self.at += timedelta(**by)


@pytest.fixture
def clock() -> Stopped:
    return Stopped()


@pytest.fixture
def diary(tmp_path: Path, clock: Stopped):
    with Diary.open(tmp_path / "journal.db", clock=clock) as opened:
        yield opened


def enqueue(
    diary: Diary,
    experiment: str = "load_time",
    *,
    digest: str = "d",
    gpus: int = 2,
    asked_by: AskedBy = "schedule",
    seconds: float = 60.0,
) -> RunRecord:
    inquiry = {"question": "How long?", "needs": {"gpus": gpus}}
    return experiments.enqueue(
        diary,
        experiment=experiment,
        subject="fast",
        inquiry=inquiry,
        asked_by=asked_by,
        seconds=seconds,
        digest=digest,
        drive="learning",
    )


def reading(value: float, block: int = 0) -> Reading:
    return Reading("load", value, "s", "cold", block, 0.5, {"size": 3}, {"gpus": [{"sm_clock_mhz": 1980}]})


def test_a_run_from_asking_to_its_end(diary: Diary):
    asked = enqueue(diary)
    assert (asked.state, asked.lives, asked.drive, asked.gpu_minutes) == ("queued", 0, "LEARNING", 0.0)
    begun = experiments.begin(diary, asked.id)
    assert (begun.state, begun.lives, begun.owner_pid) == ("running", 1, os.getpid())
    experiments.keep_readings(diary, asked.id, [reading(1.25), reading(1.5, block=1)])
    experiments.keep_command(diary, asked.id, ["engine", "--flag"], "1.2")
    experiments.keep_boot(diary, asked.id, {"tier": "fast", "seconds": 2.5})
    experiments.progress(diary, asked.id, "half", 0.5)
    assert experiments.run(diary, asked.id[:20]).progress == "half"
    measured = experiments.measured(diary, asked.id, {"answers": []}, {"engine": "llama.cpp"})
    assert (measured.state, measured.owner_pid, measured.share) == ("measured", None, 1.0)
    settled = experiments.settled(diary, asked.id, None)
    assert settled.report == {"answers": []}
    assert settled.provenance == {"engine": "llama.cpp"}
    assert settled.ended_at is not None
    kept = experiments.readings(diary, asked.id)
    assert [(one.value, one.block, one.life, one.facts, one.readings["gpus"]) for one in kept] == [
        (1.25, 0, 1, {"size": 3}, [{"sm_clock_mhz": 1980}]),
        (1.5, 1, 1, {"size": 3}, [{"sm_clock_mhz": 1980}]),
    ]
    assert experiments.commands(diary, asked.id)[0].words == ["engine", "--flag"]
    assert experiments.boots(diary, asked.id)[0].facts == {"tier": "fast", "seconds": 2.5}


def test_a_run_that_gave_way_begins_a_new_life_with_its_samples(diary: Diary):
    run = enqueue(diary)
    experiments.begin(diary, run.id)
    experiments.keep_readings(diary, run.id, [reading(1.0)])
    gave_way = experiments.yielded(diary, run.id, "a thought came")
    assert (gave_way.state, gave_way.error) == ("yielded", {"message": "a thought came"})
    again = experiments.begin(diary, run.id)
    assert (again.lives, again.error, again.started_at) == (2, None, gave_way.started_at)
    experiments.keep_readings(diary, run.id, [reading(2.0, block=1)])
    assert [one.life for one in experiments.readings(diary, run.id)] == [1, 2]


def test_a_run_of_another_living_process_is_not_begun_and_one_of_a_dead_is(diary: Diary):
    run = enqueue(diary)
    with subprocess.Popen(["sleep", "60"]) as other:
        with diary.transaction() as conn:
            conn.execute(
                "UPDATE experiment_runs SET state = 'running', owner_pid = ?, lives = 1", (other.pid,)
            )
        with pytest.raises(InvalidRequest, match=str(other.pid)):
            experiments.begin(diary, run.id)
        other.kill()
    assert experiments.begin(diary, run.id).lives == 2


def test_the_same_question_in_the_queue_is_the_same_run_until_it_is_over(diary: Diary):
    first = enqueue(diary)
    assert enqueue(diary).id == first.id
    assert enqueue(diary, digest="other").id != first.id
    experiments.cancelled(diary, first.id)
    assert enqueue(diary).id != first.id
    assert [run.state for run in experiments.runs(diary)] == ["cancelled", "queued", "queued"]
    assert len(experiments.runs(diary, states=["queued"])) == 2
    assert experiments.runs(diary, limit=1)[0].seq == 3


def test_a_run_that_somebody_with_less_patience_asks_for_too_becomes_his(diary: Diary):
    run = enqueue(diary)
    experiments.begin(diary, run.id)
    experiments.yielded(diary, run.id, "a thought came")
    by_agent = enqueue(diary, asked_by="agent", seconds=30.0)
    assert (by_agent.id, by_agent.asked_by, by_agent.seconds) == (run.id, "agent", 60.0)
    by_person = enqueue(diary, asked_by="person", seconds=600.0)
    assert (by_person.id, by_person.asked_by, by_person.seconds) == (run.id, "person", 600.0)
    assert by_person.state == "yielded"
    assert enqueue(diary).asked_by == "person"


def test_what_is_over_stays_over(diary: Diary):
    run = enqueue(diary)
    experiments.failed(diary, run.id, {"message": "no room"})
    changes: tuple[Callable[[], RunRecord], ...] = (
        lambda: experiments.begin(diary, run.id),
        lambda: experiments.yielded(diary, run.id, "why"),
        lambda: experiments.cancelled(diary, run.id),
        lambda: experiments.measured(diary, run.id, {}, {}),
        lambda: experiments.settled(diary, run.id, None),
        lambda: experiments.failed(diary, run.id, {}),
    )
    for change in changes:
        with pytest.raises(InvalidRequest, match="failed already"):
            change()
    experiments.progress(diary, run.id, "late words")
    assert experiments.run(diary, run.id).progress == ""
    with pytest.raises(InvalidRequest, match="no run"):
        experiments.run(diary, "zz")


def test_only_answers_that_still_hold_are_remembered(diary: Diary):
    runs = [enqueue(diary, digest=digest) for digest in ("a", "b", "c")]
    for run in runs[:2]:
        experiments.begin(diary, run.id)
        experiments.measured(diary, run.id, {}, {})
    experiments.settled(diary, runs[1].id, None)
    assert experiments.remembered(diary) == {"a": runs[0].id, "b": runs[1].id}
    experiments.expire(diary, runs[0].id, "the driver is another")
    assert experiments.remembered(diary) == {"b": runs[1].id}


def test_minutes_of_all_lives_count_and_those_between_do_not(diary: Diary, clock: Stopped):
    began = clock.at
    run = enqueue(diary, gpus=2)
    clock.on(minutes=100)
    experiments.begin(diary, run.id)
    clock.on(minutes=3)
    experiments.keep_readings(diary, run.id, [reading(1.0)])
    clock.on(minutes=1)
    experiments.yielded(diary, run.id, "a thought came")
    clock.on(minutes=50)
    experiments.begin(diary, run.id)
    clock.on(minutes=2)
    experiments.progress(diary, run.id, None)
    clock.on(minutes=70)
    assert experiments.lost(diary, run.id, "its process was killed").losses == 1
    assert experiments.run(diary, run.id).gpu_minutes == pytest.approx(2 * (3 + 1 + 2), abs=1e-3)
    assert experiments.spent_gpu_minutes(diary, began) == pytest.approx(12, abs=1e-3)
    assert experiments.spent_gpu_minutes(diary, began, asked_by=["person"]) == 0
    assert experiments.spent_gpu_minutes(diary, clock.at) == 0


def test_what_was_inconclusive_is_no_answer_to_who_wants_one(diary: Diary):
    run = enqueue(diary, digest="a")
    experiments.begin(diary, run.id)
    experiments.measured(diary, run.id, {"answers": [{"outcome": "inconclusive"}]}, {})
    assert experiments.remembered(diary) == {"a": run.id}
    assert experiments.remembered(diary, conclusive=True) == {}
    again = enqueue(diary, digest="a")
    experiments.begin(diary, again.id)
    experiments.measured(diary, again.id, {"answers": [{"outcome": "alike"}]}, {})
    assert experiments.remembered(diary, conclusive=True) == {"a": again.id}


def test_a_figure_that_is_none_is_refused_and_nothing_of_it_kept(diary: Diary):
    run = enqueue(diary)
    experiments.begin(diary, run.id)
    with pytest.raises(InvalidRequest, match="not finite"):
        experiments.keep_readings(diary, run.id, [reading(1.0), reading(float("nan"))])
    assert experiments.readings(diary, run.id) == []


def test_its_samples_go_with_a_run(diary: Diary):
    run = enqueue(diary)
    experiments.begin(diary, run.id)
    experiments.keep_readings(diary, run.id, [reading(1.0)])
    with diary.transaction() as conn:
        conn.execute("DELETE FROM experiment_runs")
    assert experiments.readings(diary, run.id) == []
    with pytest.raises(sqlite3.IntegrityError), diary.transaction() as conn:
        conn.execute("INSERT INTO experiment_boots VALUES (NULL, 'none', 1, '', '{}')")


def test_a_fact_beside_a_sample_that_json_has_no_number_for_is_none(diary: Diary):
    run = enqueue(diary)
    experiments.begin(diary, run.id)
    odd = Reading("load", 1.0, "s", facts={"low": float("-inf"), "shape": (1, {2})}, readings={})
    experiments.keep_readings(diary, run.id, [odd])
    experiments.measured(diary, run.id, {"answers": [{"statement": "1 s", "low": float("inf")}]}, {})
    assert experiments.readings(diary, run.id)[0].facts == {"low": None, "shape": [1, [2]]}
    with diary.reading() as conn:
        row = conn.execute("SELECT question, answer, samples FROM experiment_list").fetchone()
    assert tuple(row) == ("How long?", "1 s", 1)


def test_what_is_measured_and_what_a_session_found_are_looked_up_and_not_searched_for(diary: Diary):
    wanted = {
        "SELECT * FROM facts WHERE source = 'measurement' AND expired_at IS NULL": "facts_measured",
        "SELECT * FROM facts WHERE session_id = '1'": "facts_by_session",
        "SELECT 1 FROM drive_events WHERE session_id = '1' AND kind = 'satisfied'": "drive_events_by_session",
    }
    with diary.reading() as conn:
        for sql, index in wanted.items():
            (plan,) = [row["detail"] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert index in plan
