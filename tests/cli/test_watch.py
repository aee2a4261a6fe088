"""ps --watch and yield against real daemons: on a terminal, off one, and as JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading

import psutil
import pytest

from subcortex.client import Client
from subcortex.config import load
from subcortex.errors import DaemonUnreachable
from subcortex.types import TierEvent, TierState, YieldRequest
from tests.cli.helpers import COMMAND, invoke, run, run_on_terminal
from tests.conftest import stop, until, wait_for, write_config


@pytest.fixture
def client(folder):
    made = Client(load(write_config(folder, deep='start = "lazy"'), {}))
    made.start_daemon()
    until(made, lambda status: status.tiers[0].state is TierState.READY)
    yield made
    stop(made)


def watching(client: Client, *options: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "ps", "--watch", *options, "--config", str(client.config.source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_off_a_terminal_each_event_is_a_line_and_the_daemons_end_is_the_end(client):
    child = watching(client)
    assert child.stdout is not None
    first = [child.stdout.readline().split(" ", 1)[1] for _ in range(2)]
    stop(client)
    rest, said = child.communicate()
    assert first == ["fast: ready\n", "deep: stopped\n"]
    steps = [line.split(" ", 1)[1].partition(" (")[0] for line in rest.splitlines()]
    assert [step for step in steps if step.startswith("fast")] == [
        "fast: ready → stopping",
        "fast: stopping → stopped",
    ]
    assert (child.returncode, said) == (0, "the daemon has stopped\n")


def test_as_json_each_line_is_an_event(client):
    child = watching(client, "--json")
    assert child.stdout is not None
    # What one read brings beyond these two lines would be lost to ``communicate``.
    first = child.stdout.readline() + child.stdout.readline()
    stop(client)
    rest, _ = child.communicate()
    events = [TierEvent.model_validate_json(line) for line in (first + rest).splitlines()]
    assert [(event.tier, event.state, event.was) for event in events[:2]] == [
        ("fast", TierState.READY, None),
        ("deep", TierState.STOPPED, None),
    ]
    assert events[-1].state is TierState.STOPPED
    assert child.returncode == 0


def test_on_a_terminal_the_view_is_redrawn_as_things_change(client):
    shown: list[tuple[int, str]] = []
    file = client.config.source
    thread = threading.Thread(
        target=lambda: shown.append(
            run_on_terminal("ps", "-w", "--config", file, env={"NO_COLOR": "", "COLUMNS": "150"})
        )
    )
    thread.start()
    # It asks how things stand on one connection, then listens on another.
    wait_for(lambda: _connections(client) == 2)
    stop(client)
    thread.join()
    code, text = shown[0]
    assert code == 0
    assert "TIER" in text
    assert "free" in text, "the whole view, with who holds the memory"
    assert "the daemon has stopped" in text


def _connections(client: Client) -> int:
    """Return how many others are connected to the daemon."""
    sockets = psutil.Process(client.status().daemon.pid).net_connections("unix")
    path = str(client.config.socket_path)
    listening_and_ours = 2
    return sum(str(found.laddr) == path for found in sockets) - listening_and_ours


def test_ctrl_c_ends_it_as_it_ends_any_command(client):
    child = watching(client)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate()
    assert child.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said


def test_a_daemon_that_is_killed_is_no_end(client):
    child = watching(client)
    assert child.stdout is not None
    child.stdout.readline()
    os.kill(client.status().daemon.pid, signal.SIGKILL)
    _, said = child.communicate()
    assert child.returncode == DaemonUnreachable.exit_code
    assert "went away" in said


def test_with_no_daemon_there_is_nothing_to_watch(folder):
    assert run("ps", "--watch", "--config", write_config(folder)).returncode == 9


def test_a_watcher_does_not_keep_an_idle_daemon_up(folder, monkeypatch):
    monkeypatch.setenv("SUBCORTEX_DAEMON__IDLE_STOP_S", "0.2")
    client = Client(load(write_config(folder, deep='start = "lazy"', fast='start = "lazy"'), {}))
    client.start_daemon()
    last = {event.tier: event.state for event in client.events()}  # ends when the daemon does
    assert last == {"fast": TierState.STOPPED, "deep": TierState.STOPPED}
    with pytest.raises(DaemonUnreachable):
        client.status()


def test_yield_says_what_is_given_and_end_takes_it_back(client):
    file = client.config.source
    given = run("yield", "--for", "1h30m", "--config", file)
    ps = run("ps", "--config", file)
    ended = run("yield", "--end", "--json", "--config", file)
    assert (given.returncode, ended.returncode) == (0, 0)
    assert given.stdout.startswith("all tiers rest until ")
    assert given.stdout.splitlines()[1].startswith("now: fast ")
    assert "YIELDED all tiers rest until" in ps.stdout
    value = json.loads(ended.stdout)
    assert (value["daemon_up"], value["daemon"]["yielded"]) == (True, [])
    assert run("yield", "--end", "--config", file).stdout.startswith("nothing is left to others\nnow: ")


def test_a_yield_puts_tiers_to_rest_and_its_end_brings_them_back(client):
    file = client.config.source
    assert run("yield", "--config", file).returncode == 0
    until(client, lambda status: status.tiers[0].state is TierState.STOPPED)
    ps = run("ps", "--config", file).stdout
    assert "YIELDED all tiers rest; `subcortex yield --end` takes back\n" in ps
    assert "\nfast waits: " in ps
    assert run("yield", "--end", "--config", file).returncode == 0
    until(client, lambda status: status.tiers[0].state is TierState.READY)
    assert "YIELDED" not in run("ps", "--config", file).stdout


def test_a_gpu_that_is_not_there_is_4(client):
    done = run("yield", "--gpu", "63", "--json", "--config", client.config.source)
    assert done.returncode == 4
    assert "no GPU 63" in json.loads(done.stdout)["error"]["message"]


def test_without_a_daemon_there_is_nothing_to_yield(folder):
    file = write_config(folder)
    done = invoke("yield", "--for", "2h", "--config", file)
    assert (done.exit_code, done.stdout) == (0, "no daemon is up: it holds no GPU\n")
    assert json.loads(invoke("yield", "--end", "--json", "--config", file).stdout) == {"daemon_up": False}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--for", "soon"], "90s, 30m, 2h"),
        (["--for", "0s"], "a year"),
        (["--for", "-2h"], "90s, 30m, 2h"),
        (["--gpu", "-1"], "--gpu"),
        (["--gpu", "all"], "--gpu"),
        (["--end", "--for", "2h"], "--end takes back everything"),
        (["--end", "--gpu", "0"], "--end takes back everything"),
    ],
)
def test_nonsense_is_wrong_usage_with_the_way_out(folder, arguments, named):
    done = invoke("yield", *arguments, "--json", "--config", write_config(folder))
    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["code"]) == (2, "usage")
    assert named in error["message"]


def test_what_the_command_line_takes_the_daemon_takes_too():
    from subcortex.cli._options import LONGEST_S, Duration

    longest = Duration().convert("366d", None, None)
    assert longest == LONGEST_S == YieldRequest(for_s=longest).for_s
