"""The drives that a thought may name: files and state together, as they are at that moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subcortex.config import load
from subcortex.drives import KnownDrives, find, followed
from subcortex.drives.known import command
from subcortex.errors import InvalidRequest
from subcortex.mind.deciding import explain
from subcortex.types import ThinkRequest
from tests.conftest import write_config
from tests.drives.emergence_state import drive, write


@pytest.fixture
def state(folder, monkeypatch):
    monkeypatch.setenv("EMERGENCE_STATE", str(folder / "state"))
    return folder / "state"


@pytest.fixture
def config(folder, state):
    return load(write_config(folder), {})


def test_a_drive_routes_the_moment_it_appears(config, state):
    known = KnownDrives(config)
    with pytest.raises(InvalidRequest, match="NOVELTY"):
        find(known.current(), "NOVELTY")

    write(state, {"CARE": drive()}, {})
    with pytest.raises(InvalidRequest, match="NOVELTY"):
        find(known.current(), "NOVELTY")
    assert find(known.current(), "care").threshold == 20.0

    write(state, {"CARE": drive(), "NOVELTY": drive(), "deep work": drive()}, {})
    assert find(known.current(), "novelty").name == "NOVELTY"
    assert find(known.current(), "Deep-Work").name == "deep work"
    assert find(known.current(), "LEARNING").lean == 0.6

    for file in state.iterdir():
        file.unlink()
    with pytest.raises(InvalidRequest, match="NOVELTY"):
        find(known.current(), "NOVELTY")
    assert find(known.current(), "CARE").threshold == 28.0


def test_nothing_is_read_again_while_nothing_changes(config, state, monkeypatch):
    write(state, {"NOVELTY": drive()}, {})
    known = KnownDrives(config)
    first = known.current()
    monkeypatch.setattr("subcortex.drives.emergence.read", None)
    assert known.current() is first


def test_a_broken_state_leaves_the_drives_there_were(config, state):
    write(state, {"NOVELTY": drive()}, {})
    known = KnownDrives(config)
    assert "NOVELTY" in known.current()
    (state / "drives.json").write_text("{")
    assert "NOVELTY" in known.current()
    assert known.problem is not None
    write(state, {"OTHER": drive()}, {})
    assert "OTHER" in known.current()
    assert known.problem is None


def test_a_thought_names_it_as_the_state_does(config, state):
    write(state, {"好奇心": drive(), "Novelty": drive()}, {})
    for asked in ("好奇心", "NOVELTY", "novelty"):
        request = ThinkRequest(messages=[{"role": "user", "content": "hello"}], drive=asked)
        assert explain(config, request).tier in ("fast", "deep")


def test_two_drives_that_differ_in_case_alone_are_told_apart_by_it(config, state):
    write(state, {"care": drive(threshold=1.0), "CARE": drive(threshold=2.0)}, {})
    known = KnownDrives(config).current()
    assert (find(known, "care").threshold, find(known, "CARE").threshold) == (1.0, 2.0)
    with pytest.raises(InvalidRequest, match="may be any of"):
        find(known, "Care")


def settings(folder: Path, **paths: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "emergence.json"
    text = json.dumps({"paths": paths}, indent=2)
    file.write_text(f'{{ // whose\n # mine\n "url": "http://x", // a place\n {text[1:]}')
    return file


def test_where_a_state_is_looked_for(folder, tmp_path):
    config, home = load(write_config(folder), {}), tmp_path / "home"
    assert followed(config, {"HOME": str(home)}) is None

    last = write(home / ".openclaw" / "state", {}, {})
    assert followed(config, {"HOME": str(home)}) == last
    settings(home / ".openclaw" / "workspace", workspace=".", state=".emergence/state")
    assert followed(config, {"HOME": str(home)}) == last
    named = write(home / ".openclaw" / "workspace" / ".emergence" / "state", {}, {})
    assert followed(config, {"HOME": str(home)}) == named

    elsewhere = write(tmp_path / "elsewhere" / "s", {}, {})
    by_config = {"HOME": str(home), "EMERGENCE_CONFIG": str(settings(tmp_path / "elsewhere", state="s"))}
    assert followed(config, by_config) == elsewhere
    assert followed(config, {"HOME": str(home), "EMERGENCE_STATE": str(elsewhere)}) == elsewhere
    # A variable means what it says: nothing else is followed where that folder is empty.
    assert followed(config, {"HOME": str(home), "EMERGENCE_STATE": str(tmp_path)}) is None


@pytest.mark.parametrize("text", ["", "[]", '{"paths": 3}', '{"paths": {"state": 3}}', "[" * 100_000])
def test_settings_that_make_no_sense_are_passed_over(folder, tmp_path, text):
    (tmp_path / "e.json").write_text(text)
    assert followed(load(write_config(folder), {}), {"EMERGENCE_CONFIG": str(tmp_path / "e.json")}) is None


def test_the_configuration_says_which_or_none(folder, state):
    write(state, {}, {})
    file = write_config(folder)
    assert followed(load(file, {})) == state
    assert followed(load(file, {"SUBCORTEX_DRIVES__EMERGENCE": "off"})) is None
    for place in ("mine", "mine/drives.json"):
        assert followed(load(file, {"SUBCORTEX_DRIVES__EMERGENCE": place})) == folder / "mine"
    assert command(load(file, {})) == "emergence"
    named = load(file, {"SUBCORTEX_DRIVES__EMERGENCE_COMMAND": "v/bin/emergence"})
    assert command(named) == str(folder / "v/bin/emergence")
