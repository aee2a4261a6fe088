"""Experiments in a real daemon: asked for over the socket, killed with it, and gone on with by the next."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import nan
from pathlib import Path

import psutil
import pytest

from subcortex.client import Client
from subcortex.config import load
from subcortex.errors import InvalidRequest
from subcortex.journal.board import Gap
from subcortex.journal.diary import Diary, board, board_queries, experiments, session_queries, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.sessions import parse, read
from subcortex.types import ThinkRequest
from tests.cli.helpers import invoke
from tests.conftest import ROOT, stop, wait_for, write_config
from tests.experiments.worker.stub import BLOCKS


@pytest.fixture
def client(folder: Path) -> Client:
    return Client(load(write_config(folder), {}))


@pytest.fixture
def daemon(client: Client) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Return what starts a daemon on stubs; the last one is stopped afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.daemon.stub_daemon", "--config", str(client.config.source)]
        child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        started.append(child)
        wait_for(lambda: client._transport.reachable())
        return child

    yield start
    stop(client)
    for child in started:
        child.kill()
        child.wait()


def lab_processes(client: Client) -> list[psutil.Process]:
    lab = str(client.config.runtime_dir / "lab")
    found = []
    for one in psutil.process_iter():
        try:
            if any(lab in word for word in one.cmdline()) and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


def sampled(diary: Diary, run_id: str, count: int) -> None:
    wait_for(lambda: len(experiments.readings(diary, run_id)) >= count)


def test_killed_with_its_daemon_it_leaves_nothing_and_the_next_daemon_goes_on(
    client: Client, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = daemon()
    (run,) = client.run_experiments(["served"])
    with Diary.open(client.config.database_path) as diary:
        sampled(diary, run.id, 2)
        assert lab_processes(client)
        first.send_signal(signal.SIGKILL)
        first.wait()
        wait_for(lambda: not lab_processes(client), 10.0)
        assert experiments.run(diary, run.id).state in ("yielded", "running")
        daemon()
        seen = list(client.watch_experiment(run.id))
        assert seen[-1].state == "settled"
        assert [one.block for one in experiments.readings(diary, run.id)] == list(range(BLOCKS))
        assert experiments.run(diary, run.id).lives == 2
    wait_for(lambda: not lab_processes(client), 10.0)


def test_a_daemon_killed_with_its_keepers_is_cleaned_up_after_by_the_next(
    client: Client, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    first = daemon()
    (run,) = client.run_experiments(["probing"])
    with Diary.open(client.config.database_path) as diary:
        sampled(diary, run.id, 1)
    # The worst hour: whoever would clean up is killed first, and the worker stays behind, stopped.
    worker = next(one for one in lab_processes(client) if "tests.experiments.worker.stub" in one.cmdline())
    worker.suspend()
    first.send_signal(signal.SIGKILL)
    for one in lab_processes(client):
        # The daemon's death may have ended some already.
        with suppress(psutil.NoSuchProcess):
            if any(word.endswith("_launch.py") for word in one.cmdline()):
                one.kill()
    first.wait()
    assert worker.is_running()
    daemon()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert client.cancel_experiment(run.id).state == "cancelled"
    wait_for(lambda: not lab_processes(client), 10.0)


def test_over_the_socket_asked_watched_and_cancelled(
    client: Client, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    (run,) = client.run_experiments(["endless"], minutes=5)
    assert (run.asked_by, run.seconds, run.experiment) == ("person", 300.0, "endless")
    (other,) = client.run_experiments(["ticks"], subject="machine")
    assert [one.id for one in client.open_experiments()] == [run.id, other.id]
    states = []
    for seen in client.watch_experiment(run.id):
        states.append(seen.state)
        if seen.state == "running":
            client.cancel_experiment(run.id)
    assert states[-1] == "cancelled"
    assert [one.state for one in client.watch_experiment(other.id)][-1] == "settled"
    assert [one.id for one in client.run_experiments(["ticks"])] == [other.id]
    for refused, match in (
        (lambda: client.run_experiments(["../ticks"]), "names"),
        (lambda: client.run_experiments(["nothing"]), "no experiment"),
        (lambda: client.run_experiments(["ticks"], minutes=nan), "nan minutes"),
        (lambda: client.cancel_experiment(run.id), "cancelled already"),
        (lambda: list(client.watch_experiment("zz")), "no run"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            refused()


def test_a_real_one_is_run_answered_and_written_up_and_thoughts_go_first(
    started: Callable[..., Client],
) -> None:
    client = started()
    (run,) = client.run_experiments(["startup"], subject="fast")
    seen = []
    for one in client.watch_experiment(run.id):
        seen.append(one.state)
        if one.state == "running" and "yielded" not in seen:
            client.think(ThinkRequest(messages=[{"role": "user", "content": "one"}], max_tokens=2))
    with Diary.open(client.config.database_path) as diary:
        found = experiments.run(diary, run.id)
        assert found.state == "settled"
        assert found.report is not None
        assert found.report["answers"]
        assert found.session_id is not None
        with diary.reading() as conn:
            session = session_queries.whole(conn, found.session_id)
    assert session.file is not None
    assert (client.config.resolve(client.config.journal.sessions_dir) / session.file).exists()
    wait_for(lambda: not lab_processes(client), 10.0)


def test_an_agents_tick_has_its_question_measured_and_the_answer_satisfies_its_drive(folder: Path) -> None:
    file = write_config(folder)
    file.write_text(file.read_text() + "\n[agent]\nidle_s = 0\n")
    client = Client(load(file, {}))
    client.start_daemon()
    try:
        with Diary.open(client.config.database_path) as diary:
            session = sessions.open_session(diary, [], origin="agent")
            asked = Gap("How long does the model fast take to load, mapped and read?", kind="load_time")
            board.record(diary, session.id, [asked], ())
            sessions.end(diary, session.id, "Over.", read(parse("Over."), "x.md"), file="x.md")
            (gap,) = board_queries.gaps(diary)
            assert invoke("drives", "bump", "LEARNING", "150", "--config", file).exit_code == 0
            before = kept.levels(diary)["LEARNING"].pressure

            ticked = invoke("agent", "tick", "--json", "--config", file)

            outcome = json.loads(ticked.stdout)
            assert (outcome["did"], outcome["drive"]) == ("asked", "LEARNING"), ticked.stdout
            run = experiments.run(diary, outcome["run_id"])
            assert (run.asked_by, run.experiment, run.gap_id) == ("agent", "load_time", gap.id)
            second = invoke("agent", "tick", "--json", "--config", file)
            assert "an experiment is under way for LEARNING" in json.loads(second.stdout)["reason"]
            assert [one.state for one in client.watch_experiment(run.id)][-1] == "settled"
            assert board_queries.gap(diary, gap.id).state == "answered"
            (event,) = kept.history(diary, "LEARNING", limit=1)
            assert (event.kind, event.session_id) == (
                "satisfied",
                experiments.run(diary, run.id).session_id,
            )
            assert kept.levels(diary)["LEARNING"].pressure < before
    finally:
        stop(client)


def test_minutes_that_nobody_has_are_refused_over_http(
    client: Client, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    # Python's JSON has words for what is no number.
    for minutes, said in (("NaN", "nan"), ("Infinity", "inf"), ("1e999", "inf"), ("0", "0"), ("-1", "-1")):
        body = f'{{"names": ["ticks"], "minutes": {minutes}}}'.encode()
        with pytest.raises(InvalidRequest, match=f"given {said} minutes") as refused:
            client._transport.call("POST", "/v1/experiments", body, timeout_s=60.0)
        assert "at most 1440" in (refused.value.hint or "")
        assert refused.value.details["param"] == "minutes"
    assert client.open_experiments() == []


def test_an_agent_asks_for_what_answers_a_question_and_for_nothing_else(
    client: Client, daemon: Callable[[], subprocess.Popen[bytes]]
) -> None:
    daemon()
    for asked in (
        {"names": ["ticks"], "asked_by": "agent"},
        {"names": "next", "asked_by": "agent", "minutes": 5},
        {"names": "next", "gap": "ff"},
        {"names": "next", "asked_by": "agent", "gap": "../../etc"},
        {"names": "next", "asked_by": "agent", "gap": "ffff"},
        {"names": "next", "asked_by": "schedule"},
    ):
        with pytest.raises(InvalidRequest):
            client._transport.call("POST", "/v1/experiments", json.dumps(asked).encode(), timeout_s=60.0)
    assert client.open_experiments() == []
