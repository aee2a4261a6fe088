"""think, route and thoughts against a real daemon with the two tiny models."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from subcortex.client import Client
from subcortex.config import load
from subcortex.types import Route, Thought
from tests.cli import hostile
from tests.cli.helpers import invoke, run, run_on_terminal
from tests.conftest import ROOT, stop, write_config


@pytest.fixture
def file(running):
    return running.config.source


def test_the_answer_alone_is_on_stdout(file):
    done = run("think", "what is 7 + 5?", "--tier", "fast", "--temperature", "0", "--config", file)

    assert done.returncode == 0
    assert "12" in done.stdout
    assert done.stdout.endswith("\n")
    assert done.stdout.count("\n") == 1
    assert re.search(r"^fast \(.*fast\.gguf\) · first token .* · total .* · \d+ tokens", done.stderr)


def test_json_is_the_whole_thought_and_nothing_else(file):
    done = run(
        "think", "what is 7 + 5?", "--drive", "learning", "--session", "s1", "--json", "--config", file
    )

    thought = Thought.model_validate_json(done.stdout)
    assert (thought.drive, thought.session) == ("LEARNING", "s1")
    assert thought.timing.total_s > 0
    assert done.stderr == ""


def test_reasoning_stays_off_a_pipe_and_is_dimmed_on_a_terminal(file):
    arguments = ("think", "what is 48 * 37?", "--tier", "deep", "--temperature", "0", "--config", file)

    piped = run(*arguments)
    code, shown = run_on_terminal(*arguments, env={"NO_COLOR": ""})
    thought = Thought.model_validate_json(run(*arguments, "--json").stdout)

    assert code == 0
    assert thought.reasoning
    assert thought.reasoning.split()[0] not in piped.stdout
    assert f"\x1b[2m{thought.reasoning[0]}" in shown.replace("\r\n", "\n")
    assert thought.text.strip() in shown


def test_whole_and_streamed_answers_are_the_same(file):
    arguments = ("think", "what is 3 + 9?", "--tier", "fast", "--temperature", "0", "--config", file)

    assert run(*arguments).stdout == run(*arguments, "--no-stream").stdout


def test_the_prompt_may_come_from_standard_input(file):
    done = run(
        "think", "-", "--tier", "fast", "--temperature", "0", "--config", file, stdin=b"what is 2 + 2?\n"
    )

    assert "4" in done.stdout


def test_a_schema_is_obeyed(file, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(
        json.dumps({"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]})
    )

    done = run("think", "Answer as JSON: 3 + 4?", "--tier", "fast", "--schema", schema, "--config", file)

    assert list(json.loads(done.stdout)) == ["answer"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "said"),
    [
        ([""], b"", "empty"),
        (["hello", "--tier", "nope"], b"", "fast, deep"),
        (["hello", "--drive", "LERNING"], b"", "LEARNING"),
        (["-"], b"ab\xffcd", "byte 2: 0xff"),
        (["-"], b"x" * (5 * 2**20), "4 MiB"),
    ],
)
def test_what_cannot_be_asked_is_4_and_says_why(file, arguments, stdin, said):
    done = run("think", *arguments, "--config", file, stdin=stdin)
    as_json = run("think", *arguments, "--json", "--config", file, stdin=stdin)

    assert done.returncode == as_json.returncode == 4
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(as_json.stdout)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("text", ["[1]", "{", "\xff"])
def test_a_schema_that_is_none_is_refused_by_name(file, tmp_path, text):
    schema = tmp_path / "schema.json"
    schema.write_text(text, "latin-1")

    done = run("think", "hello", "--schema", schema, "--config", file)

    assert done.returncode == 4
    assert "schema.json" in done.stderr


def test_hostile_model_text_cannot_drive_the_terminal(folder):
    with hostile.serving() as url:
        config = folder / "config.toml"
        config.write_text(
            f'[subcortex]\nversion = 1\n[daemon]\nruntime_dir = "run"\n[journal]\ndatabase = "j.db"\n'
            f'[drives]\ndir = "{ROOT / "drives"}"\n[[tiers]]\nname = "far"\nengine = "remote"\n'
            f"model = {json.dumps(hostile.MODEL)}\nurl = {json.dumps(url)}\n"
        )
        client = Client(load(config, {}))
        try:
            code, shown = run_on_terminal("think", "hello", "--config", config, env={"NO_COLOR": "1"})
            piped = run("think", "hello", "--config", config)
            as_json = run("think", "hello", "--json", "--config", config)
            listed = [run("thoughts", *rest, "--config", config) for rest in ((), ("search", "hello"))]
            ps = run("ps", "--config", config)
        finally:
            stop(client)

    assert (code, piped.returncode, as_json.returncode) == (0, 0, 0)
    for text in (
        shown,
        piped.stdout,
        piped.stderr,
        as_json.stdout,
        ps.stdout,
        *(done.stdout for done in listed),
    ):
        bare = text.replace("\r\n", "\n")
        assert not set(bare) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}, text
    assert "␛[2J" in piped.stdout
    assert json.loads(as_json.stdout)["text"] == hostile.PAYLOAD


def test_route_explains_with_a_daemon_and_without_one(file, folder):
    live = json.loads(
        run("route", "what is 48 * 37?", "--drive", "LEARNING", "--json", "--config", file).stdout
    )
    offline = json.loads(
        run(
            "route", "what is 48 * 37?", "--drive", "LEARNING", "--json", "--config", write_config(folder)
        ).stdout
    )

    assert (live.pop("daemon_up"), offline.pop("daemon_up")) == (True, False)
    assert {cost.state for cost in Route.model_validate(live).alternatives} == {"ready"}
    assert {cost.state for cost in Route.model_validate(offline).alternatives} == {"stopped"}
    assert live["complexity"] == offline["complexity"]


def test_route_in_words_names_the_tier_first(folder):
    done = run("route", "hello", "--tier", "deep", "--config", write_config(folder))

    assert done.stdout.startswith("deep: score")
    assert "no daemon is up" in done.stdout


def test_thoughts_are_listed_searched_and_shown(file):
    thought = Thought.model_validate_json(
        run("think", "the zebra said 7 + 1?", "--session", "zoo", "--json", "--config", file).stdout
    )

    def found(*arguments: str) -> Any:
        return json.loads(run("thoughts", *arguments, "--json", "--config", file).stdout)

    assert [record["id"] for record in found("search", "zebra")] == [thought.id]
    assert [record["id"] for record in found("list", "--session", "zoo")] == [thought.id]
    assert found("list", "--session", "zoo", "--status", "failed") == []
    assert len(found("--limit", "1")) == 1
    assert found("show", thought.id[:16])["prompt"] == "the zebra said 7 + 1?"
    shown = run("thoughts", "show", thought.id, "--config", file).stdout
    assert "the zebra said 7 + 1?" in shown
    assert f"tier     {thought.tier}" in shown


def test_a_search_may_hold_anything(file):
    for words in ('"', "AND OR *", "a-b (c", "☃", "' ; drop table"):
        assert run("thoughts", "search", "--config", file, "--", words).returncode == 0


def test_an_unknown_id_is_4(file):
    done = run("thoughts", "show", "ffff", "--config", file)

    assert done.returncode == 4
    assert "ffff" in done.stderr


def test_nothing_recorded_yet_is_no_error(folder):
    done = invoke("thoughts", "--config", write_config(folder))

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no thoughts yet\n")
    assert json.loads(invoke("thoughts", "--json", "--config", write_config(folder)).stdout) == []


def test_options_before_a_subcommand_are_not_lost_in_silence(folder):
    done = invoke("thoughts", "--limit", "3", "search", "x")

    assert done.exit_code == 2
    assert "options go after `search`" in done.stderr
