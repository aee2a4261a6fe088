"""The configuration: what is accepted, and how a mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subcortex import config
from subcortex.errors import ConfigError

GOOD = """
[subcortex]
version = 1
[daemon]
runtime_dir = "run"
[[tiers]]
name = "fast"
engine = "llama.cpp"
model = "fast.gguf"
[[tiers]]
name = "Deep70"
engine = "vllm"
model = "meta-llama/Llama-3.1-70B-Instruct"
tensor_parallel_size = 2
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


def test_paths_are_relative_to_the_file(tmp_path):
    loaded = config.load(write(tmp_path, GOOD), {})
    assert loaded.socket_path == tmp_path / "run" / "subcortex.sock"
    assert [t.name for t in loaded.tiers] == ["fast", "Deep70"]
    assert loaded.tier("Deep70").engine == "vllm"
    with pytest.raises(KeyError):
        loaded.tier("medium")


@pytest.mark.parametrize(
    ("old", "new", "key", "hint"),
    [
        ("[daemon]", "[daemon]\nautostrat = true", "daemon.autostrat", "autostart"),
        ("[daemon]", "[deamon]\nx = 1\n[daemon]", "deamon", "daemon"),
        (
            'model = "fast.gguf"',
            'model = "f"\ncontxt_tokens = 9',
            "tiers[fast].contxt_tokens",
            "context_tokens",
        ),
        ('engine = "vllm"', 'engine = "vlm"', "tiers[Deep70].engine", "vllm"),
        ('model = "fast.gguf"', "", "tiers[fast].model", "Add 'model'"),
        ("tensor_parallel_size = 2", "tensor_parallel_size = 0", "tiers[Deep70].tensor_parallel_size", ""),
        ('name = "Deep70"', 'name = "fast"', "tiers", ""),
        ("version = 1", "version = 2", "subcortex.version", ""),
    ],
)
def test_a_mistake_is_named_with_file_key_and_what_to_write(tmp_path, old, new, key, hint):
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        config.load(file, {})
    assert caught.value.details["key"] == key
    assert str(file) in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1"])
def test_minutes_of_a_day_are_a_number_that_a_day_can_have(tmp_path, minutes):
    file = write(tmp_path, f"{GOOD}[experiments]\nminutes_a_day = {minutes}\n")
    with pytest.raises(ConfigError, match=rf"minutes_a_day: Input should be .* \(it is {minutes}\)"):
        config.load(file, {})


def test_every_mistake_is_named_at_once(tmp_path):
    text = GOOD.replace("[daemon]", "[daemon]\none = 1\ntwo = 2")
    with pytest.raises(ConfigError) as caught:
        config.load(write(tmp_path, text), {})
    assert [p["key"] for p in caught.value.details["problems"]] == ["daemon.one", "daemon.two"]


@pytest.mark.parametrize("text", ["[daemon", "\xff".encode("latin-1").decode("latin-1") + "=="])
def test_what_is_not_toml_is_said(tmp_path, text):
    with pytest.raises(ConfigError, match="not TOML"):
        config.load(write(tmp_path, text), {})


def test_bytes_that_are_not_utf8_are_said(tmp_path):
    file = tmp_path / "config.toml"
    file.write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8: byte 2"):
        config.load(file, {})


def test_variables_override_tables_and_tiers_by_name_or_place(tmp_path):
    environ = {
        "SUBCORTEX_DAEMON__AUTOSTART": "false",
        "SUBCORTEX_DAEMON__IDLE_STOP_S": "5",
        "SUBCORTEX_TIERS__FAST__MODEL": "other.gguf",
        "SUBCORTEX_TIERS__1__FLAGS": '["--enforce-eager"]',
        "SUBCORTEX_TEST_ANYTHING": "not a key: no double underscore",
    }
    loaded = config.load(write(tmp_path, GOOD), environ)
    assert loaded.daemon.autostart is False
    assert loaded.daemon.idle_stop_s == 5
    assert loaded.tier("fast").model == "other.gguf"
    deep = loaded.tier("Deep70")
    assert isinstance(deep, config.VllmTier)
    assert deep.flags == ["--enforce-eager"]


def test_a_variable_that_names_nothing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="medium"):
        config.load(write(tmp_path, GOOD), {"SUBCORTEX_TIERS__MEDIUM__MODEL": "x"})
    with pytest.raises(ConfigError, match=r"daemon\.autostrat"):
        config.load(write(tmp_path, GOOD), {"SUBCORTEX_DAEMON__AUTOSTRAT": "true"})


def test_search_order(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "subcortex").mkdir(parents=True)
    monkeypatch.setattr("subcortex.paths.config_home", lambda: home / "subcortex")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="subcortex init|no config.toml"):
        config.find(None, {})
    (home / "subcortex" / "config.toml").write_text(GOOD)
    assert config.find(None, {}) == home / "subcortex" / "config.toml"
    write(tmp_path, "[tool]\nx = 1\n")  # some other program's config.toml is not ours
    assert config.find(None, {}) == home / "subcortex" / "config.toml"
    write(tmp_path, GOOD)
    assert config.find(None, {}) == tmp_path / "config.toml"
    named = tmp_path / "named.toml"
    with pytest.raises(ConfigError, match=r"named\.toml"):
        config.find(None, {"SUBCORTEX_CONFIG": str(named)})
    named.write_text(GOOD)
    assert config.find(None, {"SUBCORTEX_CONFIG": str(named)}) == named


def test_the_schema_has_every_section_and_no_inner_field():
    schema = config.json_schema()
    assert set(schema["properties"]) == {
        "subcortex",
        "daemon",
        "journal",
        "drives",
        "routing",
        "fleet",
        "agent",
        "experiments",
        "tiers",
    }
    assert schema["additionalProperties"] is False
    json.dumps(schema)
