"""Beside the real emergence-ai 0.4.0, in an environment of its own, on a state that its own code made."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from subcortex.config import Config, load
from subcortex.drives import KnownDrives, find, read, report_satisfaction
from subcortex.errors import InvalidRequest
from subcortex.mind.keeping import DriveKeeper
from tests.conftest import ROOT, wait_for, write_config

PYTHON = ROOT / ".venv-emergence" / "bin" / "python"
COMMAND = ROOT / ".venv-emergence" / "bin" / "emergence"

SESSION = """# Session: LEARNING
**Date:** 2026-02-22 15:08
**Drive:** LEARNING (137%)
**Topic:** What a page of the key-value cache costs

## What I Already Know

- A page holds sixteen tokens

## What I Need to Learn

1. **Size:** How many bytes does one page of the small model take?

## Depth

**Moderate** — Worked out the sum, measured nothing.
"""


class Agent:
    """An agent's workspace with emergence-ai in it; nothing of it is outside of its folder."""

    def __init__(self, folder: Path, **settings) -> None:
        self.home = folder / "home"
        self.workspace = self.home / "workspace"
        self.state = self.workspace / ".emergence" / "state"
        self.workspace.mkdir(parents=True)
        self.settings = self.workspace / "emergence.json"
        drives = {"tick_interval": 0.1, "quiet_hours": None, "manual_mode": True, "emergency_spawn": False}
        self.settings.write_text(
            json.dumps(
                {"agent": {"name": "A"}, "drives": drives, "paths": {"workspace": "."}, **settings}, indent=1
            )
        )
        self.environ = {
            **os.environ,
            "HOME": str(self.home),
            "EMERGENCE_CONFIG": str(self.settings),
            "EMERGENCE_STATE": str(self.state),
            "PYTHONUTF8": "1",
        }

    def emergence(self, *arguments: object) -> str:
        """Run its command; return all that it said."""
        done = subprocess.run(
            [COMMAND, "drives", *map(str, arguments)],
            env=self.environ,
            cwd=self.workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=True,
        )
        return done.stdout.decode()

    def python(self, code: str) -> None:
        """Run code with its package, on ``state`` as its own functions load and save it."""
        head = (
            "from core.drives import load_config, load_state, save_state, get_state_path\n"
            "path = get_state_path(load_config()); state = load_state(path)\n"
        )
        whole = f"{head}{code}\nsave_state(path, state)\n"
        subprocess.run([PYTHON, "-c", whole], env=self.environ, cwd=self.workspace, timeout=60, check=True)

    def adopt(self, name: str, **keys: object) -> None:
        """Have its own code add a drive."""
        drive = {
            "name": name,
            "threshold": 20.0,
            "rate_per_hour": 0.0,
            "pressure": 0.0,
            "prompt": "p",
            **keys,
        }
        self.python(f"state['drives'][{name!r}] = {{'description': 'd', **{drive!r}}}")

    def pressure(self, name: str) -> float:
        return read(self.state).drives[name].pressure


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not COMMAND.is_file():
        pytest.fail(f"no emergence-ai at {COMMAND}: run `make setup`")


@pytest.fixture
def agent(tmp_path) -> Agent:
    made = Agent(tmp_path)
    made.emergence("bump", "CARE", 21)
    return made


@pytest.fixture
def config(folder, agent, monkeypatch) -> Config:
    for name in ("HOME", "EMERGENCE_STATE"):
        monkeypatch.setenv(name, agent.environ[name])
    overrides = {"SUBCORTEX_DRIVES__EMERGENCE_COMMAND": str(COMMAND)}
    return load(write_config(folder), overrides)


@pytest.fixture
def ticking(agent) -> Iterator[subprocess.Popen[bytes]]:
    """Its daemon, run as itself in the foreground: ``daemon start`` would install a systemd unit."""
    agent.adopt("GROWING", threshold=1e9, rate_per_hour=36000.0)
    agent.adopt("OURS", threshold=1e9, pressure=4096.0, aspects=["kept"])
    command = [PYTHON, "-m", "core.drives.daemon", "--foreground", "--config", agent.settings]
    with (agent.home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            command, env=agent.environ, cwd=agent.workspace, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    yield daemon
    daemon.terminate()
    daemon.wait(30)


def test_a_state_that_it_made_is_read(agent):
    agent.adopt("好奇心 at night", pressure=30.0, threshold=25.0, category="discovered")
    agent.emergence("bump", "MAINTENANCE", 10)
    found = read(agent.state)

    assert {"CARE", "MAINTENANCE", "REST", "好奇心 at night"} <= set(found.drives)
    care = found.drives["CARE"]
    assert (care.pressure, care.threshold, care.category) == (21.0, 20.0, "core")
    assert care.rate_per_hour > 0
    assert found.drives["REST"].activity_driven
    assert found.last_tick is not None
    assert found.left_out == ()
    levels = {level.drive: level for level in found.levels(found.last_tick)}
    assert (levels["CARE"].percent, levels["CARE"].band) == (105.0, "triggered")
    assert levels["好奇心 at night"].percent == pytest.approx(120.0)


def test_a_drive_that_it_adopts_routes_at_once(agent, config):
    known = KnownDrives(config)
    assert "CARE" in known.current()
    with pytest.raises(InvalidRequest):
        find(known.current(), "NOVELTY")
    agent.adopt("NOVELTY")
    assert find(known.current(), "novelty").name == "NOVELTY"


@pytest.mark.parametrize(
    ("depth", "left"), [("shallow", 14.7), ("moderate", 10.5), ("deep", 5.25), ("full", 0.0)]
)
def test_a_satisfaction_lands_in_its_state_by_its_own_command(agent, depth, left, monkeypatch):
    for name in ("HOME", "EMERGENCE_STATE"):
        monkeypatch.setenv(name, agent.environ[name])
    agent.adopt("-odd name", pressure=10.0)
    before = read(agent.state)
    told = report_satisfaction("CARE", depth, folder=agent.state, command=str(COMMAND), reason="a session")
    odd = report_satisfaction("-odd name", "deep", folder=agent.state, command=str(COMMAND))

    assert (told.before, told.attempts) == (21.0, 1)
    assert told.after == agent.pressure("CARE") == pytest.approx(left)
    assert odd.after == agent.pressure("-odd name") == 2.5
    assert set(read(agent.state).drives) == set(before.drives)
    events = [
        json.loads(line) for line in (agent.state / "satisfaction_history.jsonl").read_text().splitlines()
    ]
    assert [(event["drive"], event["depth"]) for event in events] == [("CARE", depth), ("-odd name", "deep")]


def test_the_keeper_tells_it_and_keeps_what_was_told(agent, config):
    with DriveKeeper.open(config) as keeper:
        assert keeper.owner == "emergence"
        assert keeper.triggered()[0].drive == "CARE"
        moved = keeper.satisfy("care", "deep", reason="looked after the disks")
        assert (moved.owner, moved.before, moved.after) == ("emergence", 21.0, 5.25)
        with pytest.raises(InvalidRequest, match="Emergence's own"):
            keeper.bump("CARE")
        [event] = keeper.history("CARE")
    assert (event.kind, event.depth, event.pressure_after) == ("satisfied", "deep", 5.25)
    assert agent.pressure("CARE") == 5.25


def test_its_daemon_ticking_meanwhile_loses_nothing_on_either_side(agent, config, ticking):
    def ticked_on(last: datetime | None, growing: float) -> bool:
        at = read(agent.state).last_tick
        ticked = at is not None and (last is None or at > last)
        return ticked and agent.pressure("GROWING") > growing

    wait_for(lambda: agent.pressure("GROWING") > 0)
    grown = []
    with DriveKeeper.open(config) as keeper:
        for _ in range(6):
            keeper.satisfy("OURS", "moderate")
            last, growing = read(agent.state).last_tick, agent.pressure("GROWING")
            wait_for(partial(ticked_on, last, growing))
            grown.append(agent.pressure("GROWING"))
        events = keeper.history("OURS")

    # Ours: each of the six halved what the one before it had left. Theirs: growth went on and never back.
    assert agent.pressure("OURS") == 4096.0 / 2**6
    assert [event.pressure_after for event in events] == [64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0]
    assert grown == sorted(grown)
    assert ticking.poll() is None
    definitions = json.loads((agent.state / "drives.json").read_text())["drives"]
    assert definitions["OURS"]["aspects"] == ["kept"]


class Model(BaseHTTPRequestHandler):
    """Answers as Ollama does, and keeps what it was asked."""

    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
        impacts = {"impacts": [{"drive": "CARE", "delta": -12, "reason": "it cared"}]}
        body = json.dumps({"response": json.dumps(impacts)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def model() -> Iterator[HTTPServer]:
    handler = type("Handler", (Model,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    server.asked = handler.asked  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("how", ["file", "recent"])
def test_its_ingest_reads_our_session_files(tmp_path, model, how):
    url = f"http://127.0.0.1:{model.server_port}/api/generate"
    agent = Agent(tmp_path, ingest={"ollama_url": url}, memory={"session_dir": "sessions"})
    agent.emergence("bump", "CARE", 21)
    day = "2026-02-22" if how == "file" else datetime.now().astimezone().strftime("%Y-%m-%d")
    file = agent.workspace / "sessions" / f"{day}-1508-LEARNING.md"
    file.parent.mkdir()
    file.write_text(SESSION)

    said = agent.emergence("ingest", *([file] if how == "file" else ["--recent"]))

    [prompt] = model.asked
    assert SESSION.strip() in prompt
    assert "it cared" in said
    assert agent.pressure("CARE") == 9.0
