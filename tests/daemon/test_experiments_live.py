"""Experiments in a real daemon: asked for over the socket, killed with it, and gone on with by the next."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from subcortex.client import Client
from subcortex.config import load
from subcortex.errors import InvalidRequest
from subcortex.journal.diary import Diary, experiments, session_queries
from subcortex.types import ThinkRequest
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
        (lambda: client.run_experiments(["ticks"], minutes=-1), "minutes"),
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
