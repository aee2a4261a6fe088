"""Reporting a satisfaction to a command that may do anything: what is believed, what is tried again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from subcortex.drives import report_satisfaction
from subcortex.errors import EmergenceFailed, InvalidRequest
from tests.drives.emergence_state import drive, write

#: A stand-in for the command: notes how it was called, and does what the test says.
SCRIPT = """#!{python}
import json, os, sys, time
from pathlib import Path
settings = json.loads(Path(os.environ["EMERGENCE_CONFIG"]).read_text())
folder = Path(settings["paths"]["workspace"]) / settings["paths"]["state"]
with Path({calls!r}).open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
attempt = len(Path({calls!r}).read_text().splitlines())
name, depth = sys.argv[-2:]
def lower(share):
    file = folder / "drives-state.json"
    state = json.loads(file.read_text())
    state["drives"][name]["pressure"] *= share
    file.write_text(json.dumps(state))
{body}
"""


@pytest.fixture
def state(tmp_path):
    names = ("CARE", "deep work", "-x", "a-b", "a_b")
    return write(
        tmp_path / "state",
        {name: drive() for name in names},
        {name: {"pressure": 20.0} for name in names},
        last_tick="2999-01-01T00:00:00+00:00",
    )


@pytest.fixture
def command(tmp_path):
    def make(body: str) -> str:
        file = tmp_path / "emergence"
        calls = str(tmp_path / "calls")
        file.write_text(SCRIPT.format(python=sys.executable, calls=calls, body=body))
        file.chmod(0o755)
        return str(file)

    return make


def calls(tmp_path: Path) -> list[list[str]]:
    file = tmp_path / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_the_drive_is_lowered_and_what_is_returned_is_what_the_state_has(tmp_path, state, command):
    told = report_satisfaction(
        "CARE",
        "deep",
        folder=state,
        command=command('lower(0.25); print("✓ CARE satisfied")'),
        reason="did it",
    )
    assert (told.before, told.after, told.attempts) == (20.0, 5.0, 1)
    assert calls(tmp_path) == [["drives", "satisfy", "--reason=did it", "--", "CARE", "deep"]]


@pytest.mark.parametrize("name", ["deep work", "-x"])
def test_a_name_reaches_it_as_it_is(tmp_path, state, command, name):
    report_satisfaction(name, "full", folder=state, command=command("lower(0)"))
    assert calls(tmp_path)[0][-2:] == [name, "full"]


def test_a_reason_is_one_short_argument(tmp_path, state, command):
    hostile = "--config=/etc/passwd\0; rm -rf $HOME\n\ud800" + "x" * 9999
    report_satisfaction("CARE", "full", folder=state, command=command("lower(0)"), reason=hostile)
    [argument] = [found for found in calls(tmp_path)[0] if found.startswith("--reason=")]
    assert argument.startswith("--reason=--config=/etc/passwd ; rm -rf $HOME ?xxx")
    assert len(argument) == 500 + len("--reason=")


def test_depth_none_and_an_empty_drive_report_nothing(tmp_path, state, command):
    assert report_satisfaction("CARE", "none", folder=state, command="no such").attempts == 0
    write(state, {"CARE": drive()}, {"CARE": {"pressure": 0.0}})
    assert report_satisfaction("CARE", "full", folder=state, command="no such").after == 0.0


def test_an_unknown_drive_and_two_alike_are_refused_before_anything_runs(tmp_path, state, command):
    runs = command("lower(0)")
    with pytest.raises(InvalidRequest, match="no drive 'care'"):
        report_satisfaction("care", "full", folder=state, command=runs)
    with pytest.raises(InvalidRequest, match="'a-b' and 'a_b' for one drive"):
        report_satisfaction("a-b", "full", folder=state, command=runs)
    assert calls(tmp_path) == []


def test_a_command_that_is_not_there_says_what_to_install(state):
    with pytest.raises(EmergenceFailed, match="not there") as caught:
        report_satisfaction("CARE", "deep", folder=state, command="emergence-that-is-not-there")
    assert "drives.emergence_command" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('print("✗ Unknown drive: CARE", file=sys.stderr)', "Unknown drive"),
        ('print("Config file corrupted"); sys.exit(1)', "ended with 1"),
        ('sys.stdout.buffer.write(b"\\xff\\x1b[2J"); sys.exit(3)', "ended with 3"),
    ],
)
def test_what_it_says_when_it_fails_is_passed_on(tmp_path, state, command, body, said):
    with pytest.raises(EmergenceFailed, match=said) as caught:
        report_satisfaction("CARE", "deep", folder=state, command=command(body))
    assert caught.value.exit_code == 14
    assert caught.value.details["output"]
    assert len(calls(tmp_path)) == 1


def test_one_that_never_ends_is_ended(state, command):
    with pytest.raises(EmergenceFailed, match=r"more than 0\.5 s"):
        report_satisfaction(
            "CARE", "deep", folder=state, command=command("time.sleep(600)"), time_limit_s=0.5
        )


def test_a_locked_state_is_tried_again(tmp_path, state, command):
    body = (
        'if attempt < 3: print("⚠ State file locked by another process", file=sys.stderr)\nelse: lower(0.5)'
    )
    told = report_satisfaction("CARE", "moderate", folder=state, command=command(body))
    assert (told.after, told.attempts, len(calls(tmp_path))) == (10.0, 3, 3)


def test_a_report_that_was_overwritten_is_made_again(tmp_path, state, command):
    body = 'print("✓ CARE satisfied")\nif attempt == 2: lower(0.25)'
    told = report_satisfaction("CARE", "deep", folder=state, command=command(body))
    assert (told.after, told.attempts) == (5.0, 2)


def test_a_report_that_never_arrives_is_an_error(tmp_path, state, command):
    with pytest.raises(EmergenceFailed, match="in 3 attempts"):
        report_satisfaction("CARE", "deep", folder=state, command=command('print("✓ CARE satisfied")'))
    assert len(calls(tmp_path)) == 3
