"""What a daemon tells systemd, and what it keeps from its engines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from subcortex.client import Client
from subcortex.config import load
from subcortex.daemon.supervisor import Supervisor
from subcortex.types import TierState
from tests.conftest import until, write_config


@pytest.fixture
def listener(folder: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        listening.settimeout(60)
        yield listening


def test_the_daemon_says_when_it_is_ready_and_when_it_stops(
    listener: socket.socket, folder: Path, request: pytest.FixtureRequest
) -> None:
    file = write_config(folder, deep='start = "lazy"')
    daemon = subprocess.Popen(
        [sys.executable, "-m", "subcortex.cli", "up", "--foreground", "--config", str(file)],
        env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
    )
    request.addfinalizer(daemon.kill)
    assert listener.recv(100) == b"READY=1"
    client = Client(load(file, {}))
    status = until(client, lambda status: status.tiers[0].state is TierState.READY)
    client.close()
    assert status.daemon.pid == daemon.pid, "the process that systemd has started"
    assert "NOTIFY_SOCKET" not in psutil.Process(status.tiers[0].pid).environ()
    daemon.send_signal(signal.SIGTERM)
    assert listener.recv(100) == b"STOPPING=1"
    assert daemon.wait() == 0


def test_a_name_without_a_file_and_nobody_at_all(listener: socket.socket) -> None:
    name = f"subcortex-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0{name}")
        abstract.settimeout(60)
        Supervisor(f"@{name}").tell("READY=1")
        assert abstract.recv(100) == b"READY=1"
    Supervisor(f"@{name}").tell("READY=1")
    Supervisor("/no/such/socket").tell("READY=1")
    environ = {"NOTIFY_SOCKET": ""}
    Supervisor.of(environ).tell("READY=1")
    assert environ == {}
