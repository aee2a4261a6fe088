"""The agent's own time on the testbed: pressure rises, a session is held, the drive falls."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
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


def said(*args: object, file: Path):
    done = run(*args, "--json", "--config", file)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def level(file: Path, name: str) -> float:
    drives = said("drives", file=file)["drives"]
    return float(next(drive["percent"] for drive in drives if drive["drive"] == name))


def test_pressure_rises_a_session_is_held_written_and_rated_and_pressure_falls(file, folder):
    notes = folder / "2026-02-22-1508-LEARNING.md"
    notes.write_text(QUESTIONS)
    assert said("sessions", "import", notes, file=file)["new"] == 1
    assert said("agent", "tick", file=file)["did"] == "waited"
    run("drives", "bump", "LEARNING", "30", "--config", file)
    assert level(file, "LEARNING") == pytest.approx(125.0, abs=0.1)

    outcome = said("agent", "tick", file=file)

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
    thoughts = said("thoughts", "--session", outcome["session_id"], file=file)
    assert [thought["tier"] for thought in thoughts] == ["deep", "deep"]
    for thought in thoughts:
        assert f"`{thought['id']}`" in text
        # A line of a model's that would be structure is kept with a backslash before it.
        assert thought["text"].strip().splitlines()[0].lstrip("#-* ") in text
    shown = run("sessions", "show", outcome["session_id"], "--config", file)
    assert "What I Thought" in shown.stdout
    assert run("sessions", "export", folder / "sessions", "--config", file).returncode == 0
    assert said("sessions", "check", file=file)["ok"]
    # Satisfied: four hours are its minimum.
    assert said("agent", "tick", file=file)["did"] == "waited"


def test_the_agent_runs_until_it_is_told_to_stop(file, folder):
    run("drives", "bump", "CARE", "30", "--config", file)
    process = subprocess.Popen(
        [*COMMAND, "agent", "run", "--json", "--config", str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout
        outcome = json.loads(process.stdout.readline())
        assert (outcome["did"], outcome["drive"]) == ("held", "CARE")
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


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
    assert len(said("sessions", file=file)) == 1


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
    assert said("agent", "tick", file=file)["did"] == "waited"
    found = said("sessions", "show", session_id, file=file)
    assert (found["state"], found["topic"]) == ("interrupted", "Cut off")
    assert "This was said." in found["text"]
    with Reader.open(load(file, {}).database_path) as reader:
        assert reader.thoughts() == []
    wait_for(lambda: not (folder / "run" / "subcortex.sock").exists())
