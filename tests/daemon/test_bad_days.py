"""What goes wrong around a daemon: typed errors, nothing recorded is lost, no process left behind."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from typing import Any

import psutil
import pytest

from subcortex import (
    Cancelled,
    Client,
    ConfigError,
    DaemonUnreachable,
    DeadlineExceeded,
    EngineFailed,
    Reader,
    athink,
    think,
)
from subcortex.client.launch import start_daemon
from subcortex.client.transport import _UnixConnection
from subcortex.config import load
from subcortex.types import ThoughtStatus, TierState
from tests.conftest import ROOT, gone, stop, until, wait_for, write_config
from tests.daemon.halfway import LONG, halfway, over, said


def post(client: Client, body: bytes, path="/v1/think") -> tuple[int, dict[str, Any]]:
    connection = _UnixConnection(str(client.config.socket_path))
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    status, answer = response.status, json.loads(response.read())
    connection.close()
    return status, answer


def engine_pids(client: Client) -> list[int]:
    return [tier.pid for tier in client.status().tiers if tier.pid]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "not UTF-8"),
        (b"not json", "not JSON"),
        (b"[1]", "JSON list"),
        (b'{"messages": [], "temprature": 1}', "temprature"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_body_that_cannot_be_read_is_a_typed_error(running, body, named):
    status, answer = post(running, body)
    assert status == 400
    assert answer["error"]["code"] == "invalid_request"
    assert named in answer["error"]["message"]


def test_a_body_beyond_the_limit_is_refused_with_the_figure(running):
    status, answer = post(running, b'{"messages": [{"role":"user","content":"' + b"x" * 5_000_000 + b'"}]}')
    assert status == 400
    assert "4 MiB" in answer["error"]["message"]


@pytest.mark.parametrize("path", ["/nope", "/v1/logs/../../etc/passwd", "/v1/think/x"])
def test_an_unknown_route_is_said_and_no_path_is_forwarded(running, path):
    status, answer = post(running, b"{}", path)
    assert status in (404, 405)
    assert answer["error"]["code"] == "not_found"


def test_openai_shaped_errors(running):
    hi = {"messages": [{"role": "user", "content": "hi"}]}
    status, answer = post(running, json.dumps(hi | {"model": "gpt-9"}).encode(), "/v1/chat/completions")
    assert (status, answer["error"]["param"]) == (400, "tier")
    status, answer = post(running, json.dumps(hi | {"modle": "x"}).encode(), "/v1/chat/completions")
    assert (status, answer["error"]["param"]) == (400, "modle")


def test_the_socket_is_ours_alone(running):
    assert running.config.socket_path.stat().st_mode & 0o777 == 0o600
    assert running.config.runtime_dir.stat().st_mode & 0o777 == 0o700
    assert running.config.database_path.stat().st_mode & 0o777 == 0o600


def test_a_second_daemon_names_the_first(running):
    pid = running.status().daemon.pid
    command = [sys.executable, "-m", "subcortex.daemon", "--config", str(running.config.source)]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 10
    assert str(pid) in second.stderr
    assert "Traceback" not in second.stderr
    assert start_daemon(running.config) == pid, "a client finds the first one instead"
    assert running.status().daemon.pid == pid


def test_with_no_daemon_and_no_autostart_it_is_said(folder):
    client = Client(load(write_config(folder, daemon="autostart = false"), {}))
    with pytest.raises(DaemonUnreachable, match="subcortex up"):
        think("hi", client=client)
    with pytest.raises(DaemonUnreachable):
        client.status()


def test_think_starts_the_daemon_and_leaves_it_up(folder):
    client = Client(load(write_config(folder, deep='start = "lazy"'), {}))
    try:
        assert think("hi", tier="fast", client=client).text
        status = client.status()
        assert os.getsid(status.daemon.pid) == status.daemon.pid, "in a session of its own"
        assert {t.name: t.state for t in status.tiers}["deep"] is TierState.STOPPED
        first = status.daemon.pid
        assert think("hi", tier="deep", client=client).timing.load_s > 0
        assert client.status().daemon.pid == first
    finally:
        stop(client)
    wait_for(lambda: gone(first))
    assert not client.config.socket_path.exists()


def test_several_programs_may_start_the_daemon_at_once(folder):
    file = write_config(folder, deep='start = "lazy"')
    code = "from subcortex import think; print(think('What is 7 + 5?', tier='fast', temperature=0.0))"
    env = {**os.environ, "SUBCORTEX_CONFIG": str(file)}
    programs = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [program.communicate()[0] for program in programs]
    stop(Client(load(file, {})))
    assert [program.returncode for program in programs] == [0] * 4
    assert all("12" in text for text in said)


def test_a_thought_that_meets_a_stopping_daemon_is_had_by_the_next(started):
    client = started()
    pieces, _ = halfway(client)
    first = client.status().daemon.pid
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: not client.config.socket_path.exists())
    # The first one still waits for the answer under way; nothing new is lost to that.
    assert "12" in think("What is 7 + 5?", tier="fast", temperature=0.0, client=client).text
    assert client.status().daemon.pid != first
    with pytest.raises(Cancelled):
        list(pieces)


def test_a_deadline_holds_when_the_daemon_stands_still(running, monkeypatch):
    monkeypatch.setattr("subcortex.client.sending._GRACE_S", 0.1)
    daemon = psutil.Process(running.status().daemon.pid)
    daemon.suspend()
    try:
        with pytest.raises(DeadlineExceeded, match="silent"):
            think("hi", deadline=0.1, client=running)
    finally:
        daemon.resume()


async def test_a_daemon_killed_under_an_async_call_is_a_typed_error(started):
    client = started()
    pieces, _ = await asyncio.to_thread(halfway, client)
    asking = asyncio.create_task(athink("What is 7 + 5?", tier="deep", client=client))
    await asyncio.to_thread(until, client, lambda status: status.tiers[1].in_flight == 2)
    os.kill(client.status().daemon.pid, signal.SIGKILL)
    with pytest.raises(DaemonUnreachable, match="went away"):
        await asking
    with pytest.raises(DaemonUnreachable):
        list(pieces)


def test_a_fork_does_not_share_connections(running):
    def right(numbers: tuple[int, ...]) -> bool:
        asked = [think(f"What is {n} + 5?", tier="fast", temperature=0.0, client=running) for n in numbers]
        return all(str(n + 5) in thought.text for n, thought in zip(numbers, asked, strict=True))

    assert right((1,))
    child = os.fork()
    if child == 0:
        os._exit(0 if right((2, 3, 4)) else 1)
    assert right((5, 6, 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_idle_daemon_stops_by_itself(folder):
    client = Client(load(write_config(folder), {"SUBCORTEX_DAEMON__IDLE_STOP_S": "0.2"}))
    os.environ["SUBCORTEX_DAEMON__IDLE_STOP_S"] = "0.2"
    try:
        pid = client.start_daemon()
    finally:
        del os.environ["SUBCORTEX_DAEMON__IDLE_STOP_S"]
    wait_for(lambda: gone(pid))
    assert not client.config.socket_path.exists()


def test_a_missing_model_file_is_named_and_the_other_tier_serves(started, folder):
    client = started(deep='max_restarts = 0\n[tiers.env]\nX = "y"')
    stop(client)
    file = client.config.source
    file.write_text(file.read_text().replace("deep/deep.gguf", "deep/gone.gguf"))
    client = Client(load(file, {}))
    try:
        thought = think("Prove it, step by step.", complexity=1.0, client=client)
        assert thought.tier == "fast"
        assert thought.route.degraded
        assert "gone.gguf" in (thought.route.degraded_reason or "")
        with pytest.raises(ConfigError, match="gone.gguf"):
            think("hi", tier="deep", client=client)
    finally:
        stop(client)


def test_a_typo_in_the_config_stops_the_daemon_with_the_key(folder):
    client = Client(load(write_config(folder), {}))
    file = folder / "config.toml"
    file.write_text(file.read_text().replace("idle_stop_s", "idle_stopp_s"))
    with pytest.raises(ConfigError) as caught:
        think("hi", client=client)
    assert caught.value.details["key"] == "daemon.idle_stopp_s"
    assert "idle_stop_s" in (caught.value.hint or "")


def test_a_port_that_is_taken_is_said(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        client = Client(load(write_config(folder, daemon=f'tcp = "127.0.0.1:{port}"'), {}))
        with pytest.raises(ConfigError, match=str(port)) as caught:
            client.start_daemon()
        assert caught.value.details["key"] == "daemon.tcp"
    assert not client.config.socket_path.exists()


def test_a_port_open_to_the_world_is_refused(folder):
    client = Client(load(write_config(folder, daemon='tcp = "0.0.0.0:8741"'), {}))
    with pytest.raises(ConfigError, match="loopback"):
        client.start_daemon()


def test_the_loopback_port_serves_and_refuses_web_pages(folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Client(load(write_config(folder, daemon=f'tcp = "127.0.0.1:{port}"', deep='start = "lazy"'), {}))
    client.start_daemon()
    try:
        for headers, status in (
            ({}, 200),
            ({"Origin": "https://evil.example"}, 400),
            ({"Host": "evil.example"}, 400),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/v1/status", headers=headers)
            assert connection.getresponse().status == status, headers
            connection.close()
    finally:
        stop(client)


def test_something_else_at_the_sockets_place_is_not_removed(folder):
    client = Client(load(write_config(folder), {}))
    client.config.runtime_dir.mkdir(mode=0o700)
    client.config.socket_path.mkdir()
    with pytest.raises(ConfigError, match="not a socket"):
        client.start_daemon()
    assert client.config.socket_path.is_dir()


def test_a_socket_path_too_long_is_said(folder):
    file = write_config(folder)
    file.write_text(file.read_text().replace('runtime_dir = "run"', f'runtime_dir = "{"r" * 120}"'))
    with pytest.raises(ConfigError, match="107"):
        Client(load(file, {})).start_daemon()


def test_a_daemon_killed_in_the_middle_of_a_stream_loses_nothing(started):
    client = started()
    pieces, row = halfway(client)
    assert row.prompt == LONG
    fast, deep = engine_pids(client)
    os.kill(client.status().daemon.pid, signal.SIGKILL)
    with pytest.raises(DaemonUnreachable, match="went away"):
        list(pieces)
    with pytest.raises(DaemonUnreachable):
        client.status()

    client.start_daemon()
    status = until(client, lambda status: all(tier.state is TierState.READY for tier in status.tiers))
    assert status.tiers[0].pid == fast, "what works is adopted"
    assert status.tiers[1].pid != deep
    assert gone(deep), "what stands still is not"
    kept = Reader.open(client.config.database_path).thought(row.id)
    assert kept is not None
    assert kept.status is ThoughtStatus.INTERRUPTED
    assert said(kept).startswith(said(row))
    assert think("What is 7 + 5?", tier="fast", client=client).text


def test_a_daemon_that_stands_still_is_said_and_not_waited_for(started, monkeypatch):
    client = started()
    monkeypatch.setattr("subcortex.client.client._CONTROL_S", 0.2)
    daemon = psutil.Process(client.status().daemon.pid)
    daemon.suspend()
    with pytest.raises(DaemonUnreachable, match="does not answer"):
        client.status()
    daemon.resume()
    monkeypatch.undo()
    assert client.status().daemon.pid == daemon.pid


def test_an_engine_killed_in_the_middle_is_an_error_and_comes_back(started):
    client = started()
    pieces, row = halfway(client)
    victim = client.status().tiers[1].pid
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(EngineFailed) as caught:
        list(pieces)
    assert caught.value.details["thought_id"] == row.id
    status = until(client, lambda s: s.tiers[1].state is TierState.READY and s.tiers[1].pid != victim)
    assert status.tiers[1].restarts == 1
    assert "12" in think("What is 7 + 5?", tier="deep", temperature=0.0, client=client).text
    kept = Reader.open(client.config.database_path).thought(row.id)
    assert kept is not None
    assert kept.status is ThoughtStatus.FAILED
    assert said(kept).startswith(said(row))


def test_closing_a_stream_early_is_recorded_as_cancelled(started):
    client = started()
    pieces, row = halfway(client)
    pieces.close()
    reader = Reader.open(client.config.database_path)
    wait_for(lambda: over(reader.thought(row.id)))
    kept = reader.thought(row.id)
    assert kept is not None
    assert kept.status is ThoughtStatus.CANCELLED
    assert said(kept).startswith(said(row))


def test_a_full_disk_while_recording_costs_no_answer_and_no_row(started):
    client = started(deep='start = "lazy"')
    until(client, lambda status: status.tiers[0].state is TierState.READY)
    before = think("What is 7 + 5?", tier="fast", client=client)
    # A limit on file size makes the daemon's writes fail as on a full disk, and can be lifted again.
    daemon = psutil.Process(client.status().daemon.pid)
    free = daemon.rlimit(resource.RLIMIT_FSIZE)
    daemon.rlimit(resource.RLIMIT_FSIZE, (4096, free[1]))
    during = [think(f"What is {n} + 5?", tier="fast", client=client) for n in range(3)]
    assert all(thought.text for thought in during)
    assert client.status().daemon.journal.startswith("degraded")
    daemon.rlimit(resource.RLIMIT_FSIZE, free)
    until(client, lambda status: status.daemon.journal == "ok")
    stop(client)
    reader = Reader.open(client.config.database_path)
    for thought in (before, *during):
        kept = reader.thought(thought.id)
        assert kept is not None
        assert (kept.status, kept.text) == (ThoughtStatus.COMPLETED, thought.text)


def test_stopping_interrupts_what_is_under_way_with_a_typed_error(started):
    client = started()
    pieces, row = halfway(client)
    pids = engine_pids(client)
    os.kill(client.status().daemon.pid, signal.SIGTERM)
    with pytest.raises(Cancelled, match="stopping"):
        list(pieces)
    wait_for(lambda: all(gone(pid) for pid in pids))
    kept = Reader.open(client.config.database_path).thought(row.id)
    assert kept is not None
    assert kept.status is ThoughtStatus.INTERRUPTED


def test_the_agent_loop_example_runs(folder):
    file = write_config(folder)
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "agent_loop.py")],
        env={**os.environ, "SUBCORTEX_CONFIG": str(file)},
        capture_output=True,
        text=True,
    )
    stop(Client(load(file, {})))
    assert ran.returncode == 0, ran.stderr
    assert "[MAINTENANCE → fast]" in ran.stdout
    assert "[LEARNING → deep]" in ran.stdout
    assert "I remember 3 thoughts" in ran.stdout
    assert "12211" in ran.stdout
    lines = (ROOT / "examples" / "agent_loop.py").read_text().splitlines()
    assert len(lines) <= 30
