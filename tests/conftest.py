"""What many tests share: a folder for sockets, a configuration on the testbed's models, and its daemon."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from subcortex.client import Client
from subcortex.config import Config, load
from subcortex.errors import DaemonUnreachable
from subcortex.types import Status, TierState

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "testbed" / "models"

# How long one example takes says how busy the machine is: time belongs to bench/.
settings.register_profile("subcortex", deadline=None)
settings.load_profile("subcortex")

# No test follows the Emergence state of whoever runs it; daemons that tests start take this over.
os.environ["EMERGENCE_STATE"] = "/nonexistent"
os.environ.pop("EMERGENCE_CONFIG", None)

TESTBED = """
[subcortex]
version = 1
[daemon]
runtime_dir = "run"
idle_stop_s = 600
{daemon}
[journal]
database = "journal.db"
{journal}
[drives]
dir = "{drives}"
[[tiers]]
name = "fast"
engine = "llama.cpp"
model = "{models}/fast/fast.gguf"
context_tokens = 1024
threads = 1
{fast}
[[tiers]]
name = "deep"
engine = "llama.cpp"
model = "{models}/deep/deep.gguf"
context_tokens = 1024
threads = 1
{deep}
"""


def write_config(folder: Path, *, daemon="", journal="", fast="", deep="") -> Path:
    """Write a configuration of both tiny models on llama.cpp; everything it makes lies in ``folder``."""
    file = folder / "config.toml"
    file.write_text(
        TESTBED.format(
            models=MODELS, drives=ROOT / "drives", daemon=daemon, journal=journal, fast=fast, deep=deep
        )
    )
    return file


@pytest.fixture(autouse=True)
def _no_config_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBCORTEX_CONFIG", raising=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's has 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="sub-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def config(folder: Path) -> Config:
    """Both tiny models on llama.cpp."""
    return load(write_config(folder), {})


@pytest.fixture
def started(folder: Path) -> Iterator[Callable[..., Client]]:
    """Return a function that starts a daemon on a configuration; all are stopped afterwards."""
    clients: list[Client] = []

    def start(**sections: str) -> Client:
        client = Client(load(write_config(folder, **sections), {}))
        clients.append(client)
        client.start_daemon()
        return client

    yield start
    for client in clients:
        stop(client)


@pytest.fixture(scope="session")
def running() -> Iterator[Client]:
    """One daemon with both tiny models for all tests that only ask it things."""
    path = Path(tempfile.mkdtemp(prefix="sub-"))
    client = Client(load(write_config(path), {}))
    client.start_daemon()
    until(client, lambda status: all(tier.state is TierState.READY for tier in status.tiers))
    yield client
    stop(client)
    shutil.rmtree(path, ignore_errors=True)


def stop(client: Client) -> None:
    """Stop a daemon if it is up."""
    try:
        client.stop()
    except DaemonUnreachable:
        return
    finally:
        client.close()


def until(client: Client, condition: Callable[[Status], bool], limit_s: float = 60.0) -> Status:
    """Wait until the daemon's status fulfils a condition; fail with the status if it never does."""
    end = time.monotonic() + limit_s
    while True:
        status = client.status()
        if condition(status):
            return status
        assert time.monotonic() < end, f"never came: {status}"
        time.sleep(0.02)


def wait_for(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "never came"
        time.sleep(0.02)


def gone(pid: int | None) -> bool:
    """Return whether a process is no more; one that is dead and not yet taken note of counts as gone."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
