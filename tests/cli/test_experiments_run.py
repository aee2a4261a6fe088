"""experiments run and cancel: with a daemon that runs them, and what is said where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from subcortex.client import Client
from subcortex.config import load
from subcortex.errors import DaemonUnreachable
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import RunRecord
from tests.cli.helpers import invoke, run
from tests.cli.test_experiments import enqueued, inquiry
from tests.conftest import stop, write_config

_Change = Callable[[Diary, str], None]


@pytest.fixture
def file(folder: Path):
    file = write_config(folder)
    yield file
    stop(Client(load(file, {})))


def test_a_run_is_asked_watched_shown_and_known_the_next_time(file):
    asked = ("experiments", "run", "idle_and_swap", "--tier", "fast", "--config", file)
    done = run(*asked, env={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "idle_and_swap of fast: waits" in done.stderr
    assert "state      settled\n" in done.stdout
    assert "fast: host memory by state\n" in done.stdout
    picture = Path(
        next(line for line in done.stderr.splitlines() if line.endswith(".svg")).partition(": ")[2]
    )
    assert picture.read_text().startswith("<svg")
    [listed] = json.loads(invoke("experiments", "--json", "--config", file).stdout)
    assert listed["asked_by"] == "person"
    session = invoke("sessions", "show", listed["session_id"], "--config", file)
    assert listed["answer"].rstrip(".") in session.stdout

    again = invoke(*asked, "--json")
    assert again.exit_code == 0
    [known] = json.loads(again.stdout)
    assert known["id"] == listed["id"]
    assert "known for this very machine" in invoke(*asked).stderr

    _, waiting = json.loads(
        invoke("experiments", "run", "saturation", "--no-wait", "--json", "--config", file).stdout
    )
    assert (waiting["subject"], waiting["state"]) == ("deep", "queued")
    assert f"\n{waiting['id'][:16]}  saturation of deep  " in invoke("ps", "--config", file).stdout
    assert invoke("experiments", "cancel", waiting["id"], "--config", file).exit_code == 0
    with Diary.open(load(file, {}).database_path) as diary:
        assert experiments.run(diary, waiting["id"]).state == "cancelled"
    shown = invoke("experiments", "show", waiting["id"], "--config", file)
    assert "state      cancelled" in shown.stdout


def test_a_name_that_is_none_and_minutes_that_nobody_has_are_refused_without_starting_a_daemon(file):
    for name in ("nosuch", "../../etc"):
        refused = invoke("experiments", "run", name, "--config", file)
        assert refused.exit_code == 4
        assert f"there is no experiment '{name}'\nThere are: peer_trust" in refused.stderr
    for minutes in ("1441", "nan", "inf", "-inf", "0", "-1"):
        refused = invoke("experiments", "run", "load_time", "--minutes", minutes, "--config", file)
        assert refused.exit_code == 4
        assert f"cannot be given {minutes} minutes\nGive more than 0 and at most 1440, or" in refused.stderr
    assert invoke("ps", "--config", file).exit_code == 9


def test_without_a_daemon_what_waits_is_given_up_in_the_journal(file):
    with Diary.open(load(file, {}).database_path) as diary:
        waiting = enqueued(diary, inquiry())
    cancelled = invoke("experiments", "cancel", waiting.id[:20], "--config", file, "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    again = invoke("experiments", "cancel", waiting.id, "--config", file)
    assert again.exit_code == 4
    assert "cancelled already" in again.stderr


class _Told:
    """A daemon that has a run change, tells of it each time, and then does as it is told."""

    def __init__(
        self, database: Path, asked: RunRecord | None, changes: Sequence[_Change], ends: Any
    ) -> None:
        self.database, self.asked, self.changes, self.ends = database, asked, changes, ends

    def run_experiments(self, names: Sequence[str], **options: Any) -> list[RunRecord]:
        return [self.asked] if self.asked else []

    def watch_experiment(self, run_id: str, *, waits: Callable[[str | None], None]) -> Iterator[RunRecord]:
        with Diary.open(self.database) as diary:
            for change in self.changes:
                change(diary, run_id)
                waits("thoughts are under way" if change is _waits else None)
                yield experiments.run(diary, run_id)
        if self.ends:
            raise self.ends


@pytest.fixture
def told(file, monkeypatch):
    """Return a function that has the daemon be one that does as told; it returns the run that waits."""
    database = load(file, {}).database_path

    def be(*changes: _Change, asked: bool = True, ends: Any = None) -> RunRecord | None:
        with Diary.open(database) as diary:
            waiting = enqueued(diary, inquiry()) if asked else None
        daemon = _Told(database, waiting, changes, ends)
        monkeypatch.setattr("subcortex.client.Client", lambda config: daemon)
        return waiting

    return be


def _waits(diary: Diary, run_id: str) -> None:
    pass


def _fails(diary: Diary, run_id: str) -> None:
    experiments.failed(diary, run_id, {"message": "out of memory"})


def _goes_on(diary: Diary, run_id: str) -> None:
    experiments.begin(diary, run_id)
    experiments.progress(diary, run_id, "ladder at 4", 0.5)


def _gives_way(diary: Diary, run_id: str) -> None:
    experiments.yielded(diary, run_id, "a thought came")


def _is_cancelled(diary: Diary, run_id: str) -> None:
    experiments.cancelled(diary, run_id)


def test_a_failure_and_a_cancelled_run_have_exit_codes_of_their_own(file, told):
    told(_fails)
    result = invoke("experiments", "run", "saturation", "--config", file)
    assert result.exit_code == 6
    assert "out of memory" in result.stdout
    told(_is_cancelled)
    assert invoke("experiments", "run", "saturation", "--config", file, "--json").exit_code == 12


@pytest.mark.parametrize("ends", [None, DaemonUnreachable("it died", sent=True)])
def test_a_daemon_that_goes_away_is_told_and_what_becomes_of_the_run(file, told, ends):
    told(_goes_on, ends=ends)
    result = invoke("experiments", "run", "saturation", "--config", file)
    assert result.exit_code == 9
    assert "the daemon that had saturation of fast to run is gone" in result.stderr
    assert "the next daemon" in result.stderr


def test_ctrl_c_leaves_the_run_to_the_daemon(file, told):
    waiting = told(ends=KeyboardInterrupt())
    result = invoke("experiments", "run", "saturation", "--config", file)
    assert result.exit_code == 130
    assert f"goes on; `subcortex experiments show {waiting.id[:16]}`" in result.stderr


def test_nothing_left_to_ask_is_no_failure(file, told):
    told(asked=False)
    result = invoke("experiments", "run", "next", "--config", file)
    assert result.exit_code == 0
    assert "nothing is left to ask" in result.stderr


def test_how_far_it_is_is_told_when_that_changes(file, told):
    told(_waits, _goes_on, _gives_way, _goes_on, _is_cancelled)
    result = invoke("experiments", "run", "saturation", "--config", file)
    lines = [line.partition(": ")[2] for line in result.stderr.splitlines() if line.startswith("saturation")]
    assert lines == [
        "waits: thoughts are under way",
        "50% ladder at 4",
        "gave way: a thought came; it goes on by itself",
        "50% ladder at 4",
    ]
