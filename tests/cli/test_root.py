"""Errors become words and stable codes; nothing is imported that a command does not need."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import click
import pytest

from subcortex import errors
from subcortex.cli._root import COMMANDS, cli
from tests.cli.helpers import COMMAND, invoke, run, run_on_terminal
from tests.conftest import write_config

HEAVY = {
    "rich",
    "sqlite_utils",
    "openai",
    "aiohttp",
    "xllamacpp",
    "pynvml",
    "psutil",
    "structlog",
    "tenacity",
}


def test_wrong_usage_is_2_and_points_to_the_help():
    done = run("ps", "--no-such-option")

    assert done.returncode == 2
    assert done.stdout == ""
    assert "--no-such-option" in done.stderr
    assert "subcortex ps --help" in done.stderr


def test_wrong_usage_is_json_where_json_was_asked_for():
    done = invoke("logs", "--json")

    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["code"], error["exit_code"]) == (2, "usage", 2)
    assert done.stderr == ""


def test_json_after_two_dashes_is_a_word_of_the_prompt(folder):
    done = invoke("route", "--config", write_config(folder), "--", "--json")

    assert done.exit_code == 0
    assert not done.stdout.startswith("{")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_says_what_it_does(name):
    done = invoke(name, "--help")

    assert done.exit_code == 0
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.get_short_help_str(limit=200) in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "kind",
    [kind for kind in vars(errors).values() if isinstance(kind, type) and kind.__module__ == errors.__name__],
)
def test_typed_errors_give_their_code_and_their_hint(kind, monkeypatch, folder):
    def fail(*_):
        raise kind("it \x1b[31mbroke", hint="mend it")

    monkeypatch.setattr("subcortex.config.load", fail)

    done = invoke("ps")
    as_json = invoke("ps", "--json")

    assert done.exit_code == as_json.exit_code == kind.exit_code
    assert done.stdout == ""
    assert done.stderr == "error: it ␛[31mbroke\nmend it\n"
    error = json.loads(as_json.stdout)["error"]
    assert (error["code"], error["hint"], error["exit_code"]) == (kind.code, "mend it", kind.exit_code)
    assert "\x1b" not in as_json.stdout


def test_exit_codes_are_what_the_help_promises():
    codes = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}

    help_text = " ".join((cli.help or "").split())
    for code in {*codes, 0, 2, 70, 130}:
        assert f"{code} " in help_text


def test_a_bug_shows_one_line_and_a_traceback_only_when_debugging(monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("subcortex.config.load", fail)

    done = invoke("ps")

    assert done.exit_code == 70
    assert "Traceback" not in done.stderr
    assert "ZeroDivisionError" in done.stderr
    monkeypatch.setenv("SUBCORTEX_DEBUG", "1")
    assert isinstance(invoke("ps").exception, ZeroDivisionError)


def test_an_engines_log_tail_is_shown_inert(monkeypatch):
    def fail(*_):
        raise errors.EngineFailed("exited", log_tail="one\n\x1b]0;x\x07two")

    monkeypatch.setattr("subcortex.config.load", fail)

    assert invoke("ps").stderr.endswith("  one\n  ␛]0;x␇two\n")


def test_a_broken_pipe_is_silent(folder):
    file = write_config(folder)
    child = subprocess.Popen(
        [*COMMAND, "config", "show", "--config", str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()

    said = child.stderr.read().decode()
    child.stderr.close()

    assert child.wait() == 141
    assert said == ""


def test_control_c_is_130_without_a_traceback(folder):
    file = write_config(folder)
    (folder / "logs").mkdir()
    (folder / "logs" / "fast.log").write_text("first line\n")
    child = subprocess.Popen(
        [*COMMAND, "logs", "fast", "--follow", "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "first line\n"
    child.send_signal(signal.SIGINT)

    _, said = child.communicate()

    assert child.returncode == 130
    assert said.strip() == "error: interrupted"


def test_ps_imports_nothing_heavy(folder):
    script = f"""
import sys
from subcortex.cli import cli
try:
    cli.main(["ps", "--config", {str(write_config(folder))!r}])
except SystemExit as end:
    print(end.code, *sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["9"]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_gets_colours_unless_it_does_not_want_them(folder, variables):
    file = write_config(folder)

    code, plain = run_on_terminal("ps", "--config", file, env=variables)
    _, coloured = run_on_terminal("ps", "--config", file, env={"NO_COLOR": ""})

    assert code == 9
    assert "\x1b" not in plain
    assert "\x1b[31m" in coloured


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    done = invoke("completion", shell)

    assert done.exit_code == 0
    assert "_SUBCORTEX_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("subcortex th", {"think", "thoughts"}),
        ("subcortex think --tier d", {"deep"}),
        ("subcortex think --drive cu", {"CURIOSITY"}),
        ("subcortex logs ", {"fast", "deep"}),
    ],
)
def test_commands_tiers_and_drives_complete(folder, words, expected):
    variables = {
        "_SUBCORTEX_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
        "SUBCORTEX_CONFIG": str(write_config(folder)),
    }
    script = "from subcortex.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=True,
    )

    assert {line.split(",")[1] for line in done.stdout.split()} == expected


def test_completion_with_a_broken_config_says_nothing(folder):
    broken = folder / "config.toml"
    broken.write_text("not toml [")
    variables = {
        "_SUBCORTEX_COMPLETE": "bash_complete",
        "COMP_WORDS": "subcortex think --tier ",
        "COMP_CWORD": "3",
        "SUBCORTEX_CONFIG": str(broken),
    }

    done = run(env=variables)

    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_newline_in_a_name_forges_no_line_of_an_error(tmp_path):
    name = "m\nerror: all is well\nsubcortex: nothing to do"

    done = run("plan", tmp_path / name, "--gpus", "H200")

    assert done.returncode == 3
    first, *others = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert "error: all is well" in done.stderr
    assert not [line for line in others if line.startswith(("error:", "subcortex:"))]
    assert "       error: all is well" in others
