"""The agent's own time on the testbed: pressure rises, a session is held, the drive falls."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from subcortex import session, think
from subcortex.client import Client
from subcortex.config import load
from subcortex.errors import InvalidRequest
from subcortex.journal import Reader
from subcortex.journal.sessions import parse, read
from subcortex.types import Depth
from tests.cli.helpers import COMMAND, run
from tests.conftest import ROOT, wait_for, write_config

#: What a daemon says of itself that has one tier, and nothing to do.
IDLE = json.dumps(
    {
        "daemon": {
            "pid": 1,
            "version": "0",
            "started_at": "2026-03-02T12:00:00Z",
            "uptime_s": 1.0,
            "socket": "s",
            "database": "d",
            "config": None,
            "tcp": None,
        },
        "tiers": [],
    }
).encode()
QUESTIONS = """# Session: LEARNING
**Date:** 2026-02-22 15:08

## What I Need to Learn

1. **Sums:** What is 7 + 5?
"""


@pytest.fixture
def file(folder: Path):
    """A configuration whose sessions and drives lie beside it, on a machine that is idle at once."""
    path = write_config(folder, journal='sessions_dir = "sessions"')
    text = path.read_text().replace(str(ROOT / "drives"), "drives")
    path.write_text(text.replace("[[tiers]]", "[agent]\nidle_s = 0\nmax_tokens = 60\n[[tiers]]", 1))
    shutil.copytree(ROOT / "drives", folder / "drives")
    yield path
    run("down", "--config", path)


def said_json(*args: object, file: Path):
    done = run(*args, "--json", "--config", file)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def level(file: Path, name: str) -> float:
    drives = said_json("drives", file=file)["drives"]
    return float(next(drive["percent"] for drive in drives if drive["drive"] == name))


def test_pressure_rises_a_session_is_held_written_and_rated_and_pressure_falls(file, folder):
    notes = folder / "2026-02-22-1508-LEARNING.md"
    notes.write_text(QUESTIONS)
    assert said_json("sessions", "import", notes, file=file)["new"] == 1
    assert said_json("agent", "tick", file=file)["did"] == "waited"
    run("drives", "bump", "LEARNING", "30", "--config", file)
    assert level(file, "LEARNING") == pytest.approx(125.0, abs=0.1)

    outcome = said_json("agent", "tick", file=file)

    assert (outcome["did"], outcome["drive"], outcome["depth"]) == ("held", "LEARNING", "moderate")
    assert outcome["level_before"] == pytest.approx(125.0, abs=0.5)
    assert outcome["level_after"] == pytest.approx(62.5, abs=0.5)
    assert level(file, "LEARNING") == pytest.approx(62.5, abs=0.5)
    (markdown,) = (folder / "sessions").glob("*-LEARNING.md")
    text = markdown.read_text()
    found = read(parse(text), markdown.name)
    assert [(drive.name, round(drive.level_percent or 0)) for drive in found.drives] == [("LEARNING", 125)]
    assert found.depth is Depth.MODERATE
    assert found.topic == "Sums"
    assert "What is 7 + 5?" in text
    thoughts = said_json("thoughts", "--session", outcome["session_id"], file=file)
    assert [thought["tier"] for thought in thoughts] == ["deep", "deep"]
    for thought in thoughts:
        assert f"`{thought['id']}`" in text
        # A line of a model's that would be structure is kept with a backslash before it.
        assert thought["text"].strip().splitlines()[0].lstrip("#-* ") in text
    shown = run("sessions", "show", outcome["session_id"], "--config", file)
    assert "What I Thought" in shown.stdout
    assert run("sessions", "export", folder / "sessions", "--config", file).returncode == 0
    assert said_json("sessions", "check", file=file)["ok"]
    # Satisfied: four hours are its minimum.
    assert said_json("agent", "tick", file=file)["did"] == "waited"


def running(file: Path) -> subprocess.Popen[str]:
    """Start `agent run`; its lines come through a pipe as they are written, whatever Python buffers."""
    return subprocess.Popen(
        [*COMMAND, "agent", "run", "--json", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def heard(process: subprocess.Popen[str]):
    assert process.stdout
    return json.loads(process.stdout.readline())


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    return process.returncode, said


def put(file: Path, text: str) -> None:
    """Replace a file whole: whoever reads it meanwhile sees one or the other."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.rename(file)


def changed(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    put(file, text.replace(old, new))


def test_the_agent_runs_until_it_is_told_to_stop(file, folder):
    run("drives", "bump", "CARE", "30", "--config", file)
    process = running(file)
    outcome = heard(process)
    assert (outcome["did"], outcome["drive"]) == ("held", "CARE")
    assert ended(process, signal.SIGTERM) == (0, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_an_agent_stopped_in_the_middle_of_a_thought_leaves_it_to_the_next(file, folder, number, code):
    # A daemon that takes thoughts in and answers none, as one does whose model loads for minutes.
    (folder / "run").mkdir(mode=0o700)
    arrived = threading.Event()
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(folder / "run" / "subcortex.sock"))
        silent.listen()
        threading.Thread(target=_take_in, args=(silent, arrived), daemon=True).start()
        run("drives", "bump", "CARE", "30", "--config", file)
        process = running(file)
        assert arrived.wait(60)
        got, said = ended(process, number)
    assert got == code
    assert "Traceback" not in said
    (begun,) = said_json("sessions", file=file)
    assert begun["state"] == "open"
    (folder / "run" / "subcortex.sock").unlink()
    outcome = said_json("agent", "tick", file=file)
    assert (outcome["did"], outcome["session_id"]) == ("held", begun["id"])


def _take_in(silent: socket.socket, arrived: threading.Event) -> None:
    """Say that nothing is at work, and keep every thought waiting."""
    kept = []
    with contextlib.suppress(OSError):
        while True:
            connection, _ = silent.accept()
            asked = connection.recv(65536)
            if asked.startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(IDLE), IDLE))
                connection.close()
            elif asked:
                kept.append(connection)
                arrived.set()


def test_the_agent_takes_up_changed_files_and_says_once_what_is_wrong(file, folder):
    changed(file, "[agent]\n", '[agent]\ntick_s = 1\nquiet_hours = ["00:00-24:00"]\n')
    drives = folder / "drives"
    process = running(file)
    try:
        broken = drives / "care.toml"
        good = broken.read_text()
        put(broken, "threshold = [")
        assert heard(process)["error"]["code"] == "config_error"
        text = file.read_text()
        put(file, text + "nonsense =")
        # The first complaint is not repeated, so the next line is about the next file.
        assert "config.toml" in heard(process)["error"]["message"]
        put(broken, good.replace("threshold = ", "threshold = 0.000001 # "))
        put(file, text)
        outcome = heard(process)
        assert (outcome["did"], outcome["drive"]) == ("deferred", "CARE")
        changed(file, '["00:00-24:00"]', "[]")
        assert heard(process)["did"] == "held"
    finally:
        assert ended(process, signal.SIGTERM) == (0, "")


def test_without_a_daemon_that_may_start_drives_are_put_off(file):
    changed(file, "[daemon]\n", "[daemon]\nautostart = false\n")
    run("drives", "bump", "CARE", "30", "--config", file)
    outcome = said_json("agent", "tick", file=file)
    assert outcome["did"] == "deferred"
    assert "no daemon is up" in outcome["reason"]


def test_a_model_that_is_not_there_is_said_and_its_drive_rests(file):
    for tier in ("fast", "deep"):
        changed(file, f"{tier}.gguf", "missing.gguf")
    run("drives", "bump", "CARE", "30", "--config", file)
    first = run("agent", "tick", "--config", file)
    assert first.returncode == 0
    assert "held a session for CARE: none" in first.stdout
    assert "CARE stays at 107 %" in first.stdout
    again = run("agent", "tick", "--config", file)
    assert again.stdout == "nothing to do: the last sessions came to nothing, so these rest: CARE\n"


def test_a_folder_for_the_lock_that_is_none_is_an_error_and_no_traceback(file, folder):
    (folder / "run").write_text("")
    done = run("agent", "tick", "--config", file)
    assert (done.returncode, done.stdout) == (3, "")
    assert "the folder" in done.stderr
    (folder / "run").unlink()
    (folder / "run").mkdir(mode=0o700)
    (folder / "run" / "agent.lock").symlink_to(folder / "elsewhere")
    done = run("agent", "tick", "--config", file)
    assert done.returncode == 3
    assert "agent.lock cannot be opened" in done.stderr
    assert not (folder / "elsewhere").exists()


def test_sessions_that_cannot_be_filed_are_told_on_the_screen(file, folder):
    (folder / "sessions").write_text("")
    changed(file, "[agent]\n", '[agent]\nquiet_hours = ["00:00-24:00"]\n')
    run("drives", "bump", "CARE", "30", "--config", file)
    done = run("agent", "tick", "--config", file)
    assert "its file is not written" in done.stdout
    assert said_json("sessions", file=file)[0]["kind"] == "deferral"


def test_an_agents_own_session_collects_its_thoughts_and_notes(file, folder):
    config = load(file, {})
    client = Client(config)
    with session("learning", topic="Sums by heart", config=config) as held:
        one = think("What is 7 + 5?", tier="deep", temperature=0.0, client=client)
        other = think("What is 2 + 2?", drive="CARE", tier="fast", temperature=0.0, client=client)
        held.field("Mood", "calm")
        held.note("Twelve.\n\n## Depth\n\n**Full** - or so a model says", section="What I Noticed")
        held.rate("deep", "I counted on my fingers")
    outside = think("What is 1 + 1?", tier="fast", temperature=0.0, client=client)

    assert [thought.session for thought in (one, other, outside)] == [held.id, held.id, None]
    assert [thought.drive for thought in (one, other, outside)] == ["LEARNING", "CARE", None]
    record = held.record
    assert record is not None
    assert (record.depth, record.evidence_depth) == (Depth.DEEP, Depth.MODERATE)
    assert record.ratings_differ
    found = read(parse(record.text), record.file)
    assert ("Mood", "calm") in found.fields
    assert found.depth is Depth.DEEP
    assert one.text.strip() in record.text
    assert (folder / "sessions" / str(record.file)).read_text() == record.text


def test_a_block_that_raises_leaves_its_session_and_an_unknown_drive_none(file, folder):
    config = load(file, {})
    with pytest.raises(ZeroDivisionError), session("CARE", config=config) as held:
        held.note(f"{1 / 0}")
    assert held.record is not None
    assert "ZeroDivisionError" in held.record.text
    assert held.record.state == "ended"
    with pytest.raises(InvalidRequest, match="unknown drive"), session("CAER", config=config):
        pytest.fail("there is no such drive")
    assert len(said_json("sessions", file=file)) == 1


_KILLED = """
import os, signal, sys
from subcortex import session
from subcortex.config import load
with session("CARE", topic="Cut off", config=load(sys.argv[1], {})) as held:
    held.note("This was said.")
    print(held.id, flush=True)
    signal.pause()
"""


def test_what_a_killed_agent_had_noted_is_written_by_the_next_tick(file, folder):
    process = subprocess.Popen([COMMAND[0], "-c", _KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    session_id = process.stdout.readline().strip()
    process.kill()
    process.wait()
    assert said_json("agent", "tick", file=file)["did"] == "waited"
    found = said_json("sessions", "show", session_id, file=file)
    assert (found["state"], found["topic"]) == ("interrupted", "Cut off")
    assert "This was said." in found["text"]
    with Reader.open(load(file, {}).database_path) as reader:
        assert reader.thoughts() == []
    wait_for(lambda: not (folder / "run" / "subcortex.sock").exists())
