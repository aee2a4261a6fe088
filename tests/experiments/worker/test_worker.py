"""The worker does what waits in the journal, keeps each sample, and can be killed at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from subcortex.config import Config
from subcortex.errors import InvalidRequest
from subcortex.experiments import catalogue, forms
from subcortex.experiments.experiment import Answer, Outcome, Report
from subcortex.experiments.laboratory import surroundings
from subcortex.experiments.worker.handing import hand_over, handed_over
from subcortex.experiments.worker.keeping import DiaryKeep
from subcortex.experiments.worker.limits import time_left_s
from subcortex.experiments.worker.running import check_gates, check_same, differing, work
from subcortex.hardware import Interpreter
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import RunRecord
from tests.conftest import ROOT
from tests.experiments.harness import scene_for
from tests.experiments.worker.stub import BLOCKS, STUBS


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", STUBS)


@pytest.fixture
def diary(config: Config) -> Iterator[Diary]:
    with Diary.open(config.database_path) as opened:
        yield opened


def ask(diary: Diary, config: Config, name: str, *, seconds: float = 60.0) -> RunRecord:
    experiment = catalogue.find(name)
    inquiry = experiment.inquiries(scene_for(config))[0]
    return experiments.enqueue(
        diary,
        experiment=name,
        subject=inquiry.subject,
        inquiry=forms.inquiry_to_json(inquiry),
        asked_by="person",
        seconds=seconds,
        digest=forms.digest_of(inquiry, experiment.method),
    )


async def test_runs_are_done_in_order_and_a_fault_in_one_stops_no_other(diary: Diary, config: Config) -> None:
    runs = [ask(diary, config, name) for name in ("broken", "ticks")]
    gone = ask(diary, config, "served")
    experiments.cancelled(diary, gone.id)
    await work(config, [runs[0].id, gone.id, runs[1].id])
    broken, ticks = (experiments.run(diary, run.id) for run in runs)
    assert (broken.state, ticks.state) == ("failed", "measured")
    assert broken.error is not None
    assert "by nought" in broken.error["message"]
    assert "ZeroDivisionError" in broken.error["details"]["traceback"]
    assert len(experiments.readings(diary, broken.id)) == 1
    assert ticks.started_at is not None
    assert broken.ended_at is not None
    assert ticks.started_at >= broken.ended_at
    assert ticks.report is not None
    assert forms.report_from_json(ticks.report).answers[0].value == BLOCKS
    assert ticks.provenance == {"threads": [1, 1], "experiment": "ticks", "method": 1, "run": ticks.id}
    assert [one.block for one in experiments.readings(diary, ticks.id)] == list(range(BLOCKS))
    assert (ticks.progress, ticks.share) == (f"block {BLOCKS - 1}", 1.0)


async def test_what_takes_too_long_tells_what_there_is_and_without_any_has_failed(
    diary: Diary, config: Config
) -> None:
    runs = [ask(diary, config, name, seconds=0.5) for name in ("endless", "patient", "silent")]
    await work(config, [run.id for run in runs])
    *told, silent = (experiments.run(diary, run.id) for run in runs)
    for run in told:
        assert run.state == "measured"
        (answer,) = forms.report_from_json(run.report or {}).answers
        kept = len(experiments.readings(diary, run.id))
        assert (answer.quantity, answer.outcome, answer.value) == ("count", "inconclusive", None)
        assert f"too few ({kept} of tick)" in answer.statement
    # The engine that there was no time for a second time was not asked for.
    assert len(experiments.boots(diary, told[1].id)) <= 1
    assert silent.error is not None
    assert (silent.state, silent.error["code"]) == ("failed", "deadline_exceeded")
    assert "nothing was measured" in silent.error["message"]


async def test_engines_stay_warm_from_one_run_to_the_next(diary: Diary, config: Config) -> None:
    first = ask(diary, config, "served")
    with diary.transaction() as conn:
        conn.execute("UPDATE experiment_runs SET digest = digest || 'x' WHERE id = ?", (first.id,))
    second = ask(diary, config, "served")
    with diary.transaction() as conn:
        conn.execute("UPDATE experiment_runs SET digest = rtrim(digest, 'x')")
    await work(config, [first.id, second.id])
    assert [run.state for run in experiments.runs(diary)] == ["measured", "measured"]
    boots = [len(experiments.boots(diary, run.id)) for run in (first, second)]
    assert boots == [1, 0]
    assert not list((config.runtime_dir / "lab" / "engines").glob("*/process.json"))


def test_a_machine_that_has_changed_is_not_measured_on(config: Config) -> None:
    experiment, scene = catalogue.find("ticks"), scene_for(config)
    inquiry = experiment.inquiries(scene)[0]
    digest = forms.digest_of(inquiry, experiment.method)
    check_same(experiment, scene, inquiry, digest)
    tiers = [tier.model_copy(update={"threads": 3}) for tier in config.tiers]
    other = scene_for(config.model_copy(update={"tiers": tiers}))
    with pytest.raises(InvalidRequest, match="threads"):
        check_same(experiment, other, inquiry, digest)
    assert differing({"a": (1, 2), "b": 1, "c": 1}, {"a": [1, 2], "b": 2, "d": 1}) == ["b", "c", "d"]


async def test_what_a_gate_found_wrong_forbids_what_comes_after(diary: Diary, config: Config) -> None:
    gate = ask(diary, config, "ticks")
    experiments.begin(diary, gate.id)
    found: tuple[tuple[Outcome, bool], ...] = (("passed", False), ("inconclusive", True), ("failed", True))
    for outcome, forbids in found:
        answer = Answer("peers", "GPU 0-1", None, outcome, "7 of 8 MiB were lost")
        report = forms.report_to_json(Report((answer,)))
        with diary.transaction() as conn:
            conn.execute("UPDATE experiment_runs SET state = 'running'")
            experiments.measured(diary, gate.id, report, {})
        inquiry = replace(
            catalogue.find("served").inquiries(scene_for(config))[0], after=frozenset({"ticks"})
        )
        with pytest.raises(InvalidRequest, match="7 of 8") if forbids else nullcontext():
            check_gates(inquiry, experiments.runs(diary))
    experiments.expire(diary, gate.id, "mended")
    check_gates(inquiry, experiments.runs(diary))


def test_time_that_earlier_lives_have_had_is_gone(diary: Diary, config: Config) -> None:
    run = ask(diary, config, "ticks", seconds=600.0)
    assert time_left_s(run) == 600.0
    with diary.transaction() as conn:
        conn.execute("UPDATE experiment_runs SET gpu_minutes = 4")
    assert time_left_s(experiments.run(diary, run.id)) == 360.0
    with diary.transaction() as conn:
        conn.execute("UPDATE experiment_runs SET gpu_minutes = 40")
    assert time_left_s(experiments.run(diary, run.id)) == 60.0


def test_a_journal_that_takes_nothing_is_told_at_the_end_of_the_run(diary: Diary, config: Config) -> None:
    run = ask(diary, config, "ticks")
    with DiaryKeep(diary, run.id) as keep:
        keep.command(["engine"], None)
        keep.flush()
        assert len(experiments.commands(diary, run.id)) == 1
        with diary.transaction() as conn:
            conn.execute("DELETE FROM experiment_runs")
        keep.boot({"tier": "fast"})
        with pytest.raises(InvalidRequest, match="no run"):
            keep.flush()


def test_a_daemons_configuration_is_handed_over_whole(config: Config, folder: Path) -> None:
    file = folder / "config.json"
    hand_over(config, file)
    assert handed_over(file) == config
    assert file.stat().st_mode & 0o77 == 0
    assert config.source is not None
    assert handed_over(config.source).database_path == config.database_path


def test_what_interpreters_said_is_handed_over_with_it(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = folder / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    said = {"torch": "2.11.0", "problem": None}

    def ask(path: str) -> Interpreter:
        return Interpreter(python=path, **said)

    monkeypatch.setattr("subcortex.hardware.ask_interpreter", ask)
    monkeypatch.setattr(surroundings, "_interpreters", {})
    assert surroundings.asked(python).torch == "2.11.0"
    file = folder / "config.json"
    hand_over(config, file)
    # In another process, to which it would say something else.
    monkeypatch.setattr(surroundings, "_interpreters", {})
    said["torch"] = "2.12.0"
    assert handed_over(file) == config
    assert surroundings.asked(python).torch == "2.11.0"
    os.utime(python, ns=(1, 1))
    assert surroundings.asked(python).torch == "2.12.0"
    said |= {"problem": "it did not answer"}
    monkeypatch.setattr(surroundings, "_interpreters", {})
    assert surroundings.asked(python).problem
    assert surroundings.told() == []


@pytest.fixture
def worker(config: Config) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(run_id: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.experiments.worker.stub", "--config", str(config.source)]
        child = subprocess.Popen([*command, run_id], cwd=ROOT, stderr=subprocess.DEVNULL)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come"
        time.sleep(0.02)


def test_killed_it_loses_next_to_nothing_and_goes_on_where_it_was(
    diary: Diary, config: Config, worker: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    run = ask(diary, config, "ticks")
    first = worker(run.id)
    until(lambda: len(experiments.readings(diary, run.id)) >= 3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    found = experiments.run(diary, run.id)
    assert (found.state, found.owner_pid, found.lives) == ("running", first.pid, 1)
    assert worker(run.id).wait(60) == 0
    assert experiments.run(diary, run.id).state == "measured"
    kept = experiments.readings(diary, run.id)
    assert [one.block for one in kept] == list(range(BLOCKS))
    assert [one.life for one in kept] == sorted(one.life for one in kept)
    assert {one.life for one in kept} == {1, 2}


def test_told_to_stop_it_gives_way_at_once_with_all_that_it_started(
    diary: Diary, config: Config, worker: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    run = ask(diary, config, "probing")
    child = worker(run.id)
    until(lambda: experiments.readings(diary, run.id))
    until(lambda: any("sleep 321" in " ".join(one.cmdline()) for one in descendants(child.pid)))
    family = descendants(child.pid)
    child.terminate()
    assert child.wait(10) == 0
    psutil.wait_procs(family, timeout=10)
    assert [one for one in family if one.is_running()] == []
    found = experiments.run(diary, run.id)
    assert (found.state, found.owner_pid) == ("yielded", None)


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
