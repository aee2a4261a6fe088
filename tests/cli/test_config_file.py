"""The files in the repository that are made from the code: config.toml, its schema, the command reference."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex import config
from subcortex.cli import reference
from subcortex.cli.init import planned
from subcortex.config.editing import toml
from subcortex.hardware import Hardware
from tests.cli.helpers import invoke, run
from tests.conftest import ROOT, write_config

DEFAULT = ROOT / "config.toml"
#: A key or a table that is commented out; prose never looks like one.
_COMMENTED = re.compile(r"^# (?=\[\[|[a-z_]+ = )")


def test_the_default_config_is_what_init_writes_offline():
    anywhere = Hardware(host_memory_total_mib=1, host_memory_available_mib=1, cores=1)

    assert DEFAULT.read_text() == planned(anywhere, DEFAULT, offline=True)[1]


def test_the_default_config_serves_the_testbed():
    loaded = config.load(DEFAULT, {})

    fast, deep = loaded.tiers
    assert isinstance(fast, config.LlamaCppTier)
    assert isinstance(deep, config.LlamaCppTier)
    assert (fast.model, fast.context_tokens, fast.parallel, fast.threads) == (
        "testbed/models/fast/fast.gguf",
        1024,
        4,
        1,
    )
    assert (deep.model, deep.context_tokens, deep.threads) == ("testbed/models/deep/deep.gguf", 1024, 2)


def test_the_default_config_changes_no_default():
    """Sections hold comments alone, so a key uncommented by hand starts from what holds anyway."""
    data = tomllib.loads(DEFAULT.read_text())

    assert {name: table for name, table in data.items() if name != "tiers"} == {
        "subcortex": {"version": 1},
        "daemon": {},
        "journal": {},
        "drives": {},
        "routing": {},
        "fleet": {},
        "agent": {},
        "experiments": {},
    }


def _uncommented() -> dict[str, Any]:
    lines = DEFAULT.read_text().splitlines()
    return tomllib.loads("\n".join(_COMMENTED.sub("", line) for line in lines))


def test_every_example_is_valid_when_its_comments_are_taken_away():
    loaded = config.parse(_uncommented(), DEFAULT, {})

    assert [tier.engine for tier in loaded.tiers] == ["llama.cpp", "llama.cpp", "llama.cpp", "vllm", "remote"]
    assert next(tier for tier in loaded.tiers if isinstance(tier, config.VllmTier)).tensor_parallel_size == 2


def test_commented_defaults_are_the_defaults():
    found, bare = (
        _uncommented(),
        config.Config.model_validate({"tiers": [{"name": "a", "engine": "llama.cpp", "model": "m"}]}),
    )
    for section in ("daemon", "journal", "drives", "routing", "fleet", "agent"):
        for key, value in getattr(bare, section).model_dump(mode="json").items():
            if value not in (None, [], {}):
                assert found[section][key] == value, (section, key)


def test_every_key_of_the_schema_is_explained():
    schema = config.json_schema()
    keys = {key for part in schema["$defs"].values() for key in part.get("properties", {})}

    text = DEFAULT.read_text()
    missing = [key for key in keys if not re.search(rf"^(# )*{key} = .*  # \w", text, re.MULTILINE)]
    assert missing == []


def test_the_published_schema_is_the_codes():
    assert json.loads((ROOT / "docs" / "config.schema.json").read_text()) == config.json_schema()


def test_the_command_reference_is_what_the_help_texts_say():
    assert (ROOT / "docs" / "cli.md").read_text() == reference.page(), (
        "run: python -m subcortex.cli.reference > docs/cli.md"
    )


@given(
    st.recursive(
        st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_values_come_back_from_toml_as_they_were(value):
    if isinstance(value, str):
        value = value.encode("utf-8", "ignore").decode()
    text = toml(value)

    assert tomllib.loads(f"x = {text}")["x"] == (value if "\ud800" not in str(value) else ...)


def test_check_names_each_mistake_and_what_to_write(folder):
    file = write_config(folder, daemon="autostrat = true", fast="threds = 2")

    done = run("config", "check", "--config", file)
    problems = json.loads(run("config", "check", "--json", "--config", file).stdout)["error"]["details"][
        "problems"
    ]

    assert done.returncode == 3
    assert "autostart" in done.stderr
    assert [problem["key"] for problem in problems] == ["daemon.autostrat", "tiers[fast].threds"]
    assert "'threads'" in problems[1]["hint"]


@pytest.mark.parametrize(
    ("line", "why"), [("61 * * * *", "61"), ("", "it has 0 fields of 5"), ("* * * *", "it has 4 fields of 5")]
)
def test_check_names_a_window_that_is_no_line_of_cron(tmp_path, line, why):
    file = write_config(tmp_path)
    file.write_text(f'{file.read_text()}\n[experiments]\nwindows = ["{line}"]\n')
    result = invoke("config", "check", "--config", file)
    assert result.exit_code == 3
    told = " ".join(result.stderr.split())
    assert f"experiments.windows: {line!r} is no line of cron" in told
    assert why in told


def test_check_of_a_good_file_is_0(folder):
    done = json.loads(invoke("config", "check", "--json", "--config", write_config(folder)).stdout)

    assert done == {"valid": True, "file": str(folder / "config.toml"), "tiers": ["fast", "deep"]}


def test_show_has_overrides_and_hides_secrets(folder):
    file = write_config(folder, fast='env = { HF_TOKEN = "hunter2", LANG = "C" }')

    done = run("config", "show", "--config", file, env={"SUBCORTEX_ROUTING__PATIENCE": "0.75"})
    as_json = run("config", "show", "--json", "--config", file)

    assert "routing.patience = 0.75" in done.stdout
    assert 'LANG": "C"' in done.stdout
    assert "hunter2" not in done.stdout + as_json.stdout


def test_path_says_where_everything_lies(folder):
    file = write_config(folder)

    assert invoke("config", "path", "--config", file).stdout == f"{file}\n"
    places = json.loads(invoke("config", "path", "--json", "--config", file).stdout)
    assert places["socket"] == str(folder / "run" / "subcortex.sock")
    assert places["logs"] == str(folder / "logs")


@pytest.mark.parametrize("arguments", [["ps"], ["think", "x"], ["thoughts"], ["logs", "fast"]])
def test_no_config_at_all_says_how_to_write_one(tmp_path, arguments):
    done = run(*arguments, cwd=tmp_path, env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)})

    assert done.returncode == 3
    assert "subcortex init" in done.stderr
