"""Starting a daemon: by one caller at a time, and no longer than the thought can wait."""

from __future__ import annotations

import threading
import time

import pytest

from subcortex import Client, DaemonUnreachable, DeadlineExceeded, athink, stream, think
from subcortex.client import launch
from subcortex.config import load
from subcortex.daemon import lock
from subcortex.errors import DaemonRunning
from tests.conftest import stop, write_config


@pytest.fixture
def config(folder):
    return load(write_config(folder), {"SUBCORTEX_DAEMON__START_TIMEOUT_S": "0.5"})


def test_of_many_callers_one_starts_a_daemon(config, monkeypatch):
    at_once, most, starts = 0, 0, 0
    guard = threading.Lock()

    def start(config, end):
        nonlocal at_once, most, starts
        with guard:
            at_once, starts = at_once + 1, starts + 1
            most = max(most, at_once)
        time.sleep(0.01)
        with guard:
            at_once -= 1
        raise DaemonRunning("a daemon is up already", pid=4711)

    monkeypatch.setattr(launch, "_start_once", start)
    errors = []

    def call():
        with pytest.raises(DaemonUnreachable) as caught:
            launch.start_daemon(config)
        errors.append(caught.value.message)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most == 1
    assert starts >= 1
    assert len(errors) == 8
    assert any("process 4711" in error for error in errors)


@pytest.mark.parametrize("ask", [think, lambda *args, **options: list(stream(*args, **options))])
def test_a_start_takes_no_longer_than_the_deadline(folder, ask):
    client = Client(load(write_config(folder), {}))
    client.config.runtime_dir.mkdir(mode=0o700)
    # Whoever holds the lock never listens, as a daemon that hangs in its start.
    with lock.hold(client.config.runtime_dir), pytest.raises(DeadlineExceeded):
        ask("hi", deadline=0.3, client=client)


async def test_neither_does_it_for_asyncio(folder):
    client = Client(load(write_config(folder), {}))
    client.config.runtime_dir.mkdir(mode=0o700)
    with lock.hold(client.config.runtime_dir), pytest.raises(DeadlineExceeded):
        await athink("hi", deadline=0.3, client=client)


def test_without_a_deadline_it_is_the_daemon_that_cannot_be_reached(config):
    config.runtime_dir.mkdir(mode=0o700)
    with lock.hold(config.runtime_dir), pytest.raises(DaemonUnreachable) as caught:
        think("hi", client=Client(config))
    assert caught.value.details["sent"] is False


def test_a_lock_file_that_cannot_be_made_stops_no_start(config):
    config.runtime_dir.mkdir(mode=0o700)
    (config.runtime_dir / "starting.lock").symlink_to("nowhere")
    client = Client(load(config.source, {}))
    try:
        assert client.start_daemon() == client.status().daemon.pid
    finally:
        stop(client)


@pytest.mark.parametrize("written", ["", "no number", "0"])
def test_a_daemon_whose_number_cannot_be_read_is_found(folder, written):
    client = Client(load(write_config(folder, deep='start = "lazy"'), {}))
    client.start_daemon()
    (client.config.runtime_dir / "daemon.lock").write_text(written)
    try:
        assert client.start_daemon() == 0
        assert client.status().daemon.pid
    finally:
        stop(client)
