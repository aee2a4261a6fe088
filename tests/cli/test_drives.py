"""``subcortex drives`` on the command line: ours, and those of an Emergence state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.helpers import invoke, run_on_terminal
from tests.conftest import write_config
from tests.drives.emergence_state import drive, write


@pytest.fixture
def config(folder):
    return write_config(folder)


@pytest.fixture
def state(folder, monkeypatch):
    monkeypatch.setenv("EMERGENCE_STATE", str(folder / "state"))
    return folder / "state"


def drives(*arguments: object, config: Path) -> Result:
    return invoke("drives", *arguments, "--config", config)


def as_json(*arguments: object, config: Path) -> Any:
    done = drives(*arguments, "--json", config=config)
    return json.loads(done.stdout)


def test_status_is_a_table_with_the_most_pressing_first(config):
    drives("bump", "learning", 30, config=config)
    lines = invoke("drives", "--config", config).stdout.splitlines()

    assert lines[0].split() == ["DRIVE", "LEVEL", "BAND", "PRESSURE", "NEXT"]
    assert lines[1].split() == ["LEARNING", "125", "%", "█" * 20 + "!" * 5, "triggered", "30.0/24", "now"]
    assert lines[2].split() == ["CARE", "0", "%", "░" * 20, "neutral", "0.0/28", "in", "28.0", "h"]
    assert len(lines) == 10
    assert drives("status", config=config).stdout.splitlines()[0] == lines[0]


def test_status_as_json(config):
    found = as_json(config=config)
    assert (found["owner"], found["emergence"]) == ("subcortex", None)
    rest = next(level for level in found["drives"] if level["drive"] == "REST")
    assert (rest["percent"], rest["band"], rest["next_at"], rest["is_triggered"]) == (
        0.0,
        "neutral",
        None,
        False,
    )


def test_bump_satisfy_and_history(config):
    assert drives("bump", "CARE", 28, "--reason", "a long day", config=config).stdout == (
        "CARE: 0.0 → 28.0, 100 % (triggered)\n"
    )
    told = as_json("satisfy", "care", "DEEP", "--reason", "a walk", config=config)
    assert (told["drive"], told["owner"], told["depth"]) == ("CARE", "subcortex", "deep")
    assert told["after"] == pytest.approx(7.0, abs=0.01)
    satisfied, bumped = as_json("history", "care", config=config)
    assert (satisfied["kind"], satisfied["depth"], satisfied["reason"]) == ("satisfied", "deep", "a walk")
    assert (bumped["kind"], bumped["reason"]) == ("bumped", "a long day")
    assert [event["seq"] for event in as_json("history", "--before", satisfied["seq"], config=config)] == [
        bumped["seq"]
    ]
    assert "a long day" in drives("history", config=config).stdout


def test_show_has_all_of_a_drive(config):
    drives("bump", "LEARNING", 12, config=config)
    shown = drives("show", "learning", config=config).stdout
    for said in (
        "50 %, available",
        "1.5 an hour",
        "4 h between sessions",
        "the best open question",
        "bumped",
    ):
        assert said in shown
    found = as_json("show", "LEARNING", config=config)
    assert (found["name"], found["lean"], found["satisfied_by"]) == ("LEARNING", 0.6, "gap")
    assert found["level"]["percent"] == pytest.approx(50.0, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "lerning"], 4, "Did you mean LEARNING?"),
        (["satisfy", "LEARNING", "wholly"], 2, "deep"),
        (["satisfy", "LEARNING", "deep", "--session", "nobody"], 4, "sessions"),
        (["bump", "LEARNING", "nan"], 4, "above 0"),
        (["history", "-n", "0"], 2, "range"),
        (["--json", "status"], 2, "options go after"),
    ],
)
def test_mistakes_are_told_with_what_to_write(config, arguments, code, said):
    done = invoke("drives", *arguments, *(["--config", config] if arguments[0] != "--json" else []))
    assert done.exit_code == code, done.output
    assert said in done.output


def test_nothing_yet_says_so_and_makes_nothing(config, folder):
    assert drives("history", config=config).stderr == "nothing has happened yet\n"
    assert not (folder / "journal.db").exists()


def test_a_state_of_emergence_is_followed(config, state, folder):
    write(state, {"NOVELTY": drive(), "deep work": drive()}, {"NOVELTY": {"pressure": 30.0}})

    done = drives(config=config)
    assert done.stderr == f"following the Emergence state in {state}\n"
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["DRIVE", "NOVELTY", "deep"]
    assert as_json(config=config)["emergence"] == str(state)

    bumped = drives("bump", "NOVELTY", config=config)
    assert bumped.exit_code == 4
    assert "emergence drives bump NOVELTY" in bumped.stderr
    assert invoke("route", "hello", "--drive", "Deep-Work", "--config", config).exit_code == 0


def test_satisfying_goes_through_its_command(config, state, folder, monkeypatch):
    write(state, {"NOVELTY": drive()}, {"NOVELTY": {"pressure": 30.0}})
    program = folder / "emergence"
    program.write_text("#!/bin/sh\necho '✗ Unknown drive' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("SUBCORTEX_DRIVES__EMERGENCE_COMMAND", str(program))
    refused = drives("satisfy", "novelty", "deep", config=config)
    assert refused.exit_code == 14
    assert "Unknown drive" in refused.stderr

    lower = f"""import json,sys; from pathlib import Path; file = Path({str(state)!r}, "drives-state.json")
s = json.loads(file.read_text()); s["drives"]["NOVELTY"]["pressure"] = 7.5; file.write_text(json.dumps(s))"""
    (folder / "lower.py").write_text(lower)
    program.write_text(f"#!/bin/sh\nexec python3 {folder}/lower.py\n")
    done = drives("satisfy", "novelty", "deep", config=config)
    assert done.stdout == "NOVELTY: 30.0 → 7.5, 38 % (available) by Emergence's own command\n"
    assert as_json("history", config=config)[0]["pressure_after"] == 7.5


def test_a_broken_state_is_named_and_stops_no_thought(config, state):
    write(state, {"NOVELTY": drive()}, {})
    (state / "drives.json").write_text("{")
    done = drives(config=config)
    assert done.exit_code == 14
    assert str(state / "drives.json") in done.stderr
    assert invoke("route", "hello", "--drive", "LEARNING", "--config", config).exit_code == 0


def test_a_name_that_drives_a_terminal_comes_out_inert(config, state):
    hostile = "\x1b[2J\x1b]0;owned\x07\nFAKE  100 %\u202e"
    write(state, {hostile: drive(description=hostile, prompt=hostile)}, {hostile: {"pressure": 30.0}})
    for arguments in (["status"], ["show", hostile], ["bump", hostile], ["satisfy", hostile, "none"]):
        _, sent = run_on_terminal("drives", *arguments, "--config", config, env={"NO_COLOR": "1"})
        assert "\x1b" not in sent
        assert "\x07" not in sent
        assert "\u202e" not in sent
    assert "FAKE" not in [line.split()[0] for line in drives(config=config).stdout.splitlines()]


def test_drives_of_the_state_complete(config, state):
    write(state, {"novelty": drive()}, {})
    words = f"subcortex drives show --config {config} NOV"
    done = invoke(
        env={"_SUBCORTEX_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "5"},
        prog_name="subcortex",
    )
    assert "plain,novelty" in done.output
