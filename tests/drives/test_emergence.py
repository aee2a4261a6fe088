"""Reading an Emergence state: as it has it, whatever stands in it, and never a byte written."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.drives import Drive, load_drives, read
from subcortex.drives.emergence import EmergenceState, merged
from subcortex.errors import EmergenceFailed
from tests.conftest import ROOT
from tests.drives.emergence_state import drive, put, write

NOW = datetime(2026, 2, 22, 15, 8, tzinfo=UTC)


def test_what_a_drive_is_and_what_it_has_built_come_from_two_files(tmp_path):
    folder = write(
        tmp_path,
        {"CARE": drive(category="core"), "NOVELTY": drive(threshold=25.0)},
        {
            "CARE": {"pressure": 14.0, "valence": "appetitive", "thwarting_count": 2},
            "NOVELTY": {
                "pressure": 37.5,
                "valence": "aversive",
                "last_triggered": "2026-02-22T14:00:00+00:00",
            },
        },
        triggered_drives=["NOVELTY"],
    )
    found = read(folder)

    assert (found.version, found.last_tick) == ("1.1", datetime(2026, 2, 22, 15, tzinfo=UTC))
    care, novelty = found.drives["CARE"], found.drives["NOVELTY"]
    assert (care.pressure, care.threshold, care.category, care.thwarted) == (14.0, 20.0, "core", 2)
    assert (novelty.category, novelty.is_triggered, care.is_triggered) == ("discovered", True, False)
    levels = {level.drive: level for level in found.levels(NOW)}
    assert (levels["CARE"].percent, levels["CARE"].band) == (70.0, "elevated")
    assert (levels["NOVELTY"].percent, levels["NOVELTY"].band) == (150.0, "crisis")
    # Four hours from when Emergence last had a session for it.
    assert levels["NOVELTY"].ready_at == datetime(2026, 2, 22, 18, tzinfo=UTC)
    assert not levels["NOVELTY"].is_triggered


def test_a_state_of_an_older_version_has_all_in_one_file(tmp_path):
    put(
        tmp_path / "drives.json",
        {
            "version": "1.0",
            "last_tick": "2026-02-07T10:00:00+00:00",
            "drives": {"CARE": {**drive(), "pressure": 21.0}},
            "triggered_drives": ["CARE"],
        },
    )
    found = read(tmp_path / "drives.json")
    assert found.drives["CARE"].pressure == 21.0
    assert found.drives["CARE"].is_triggered
    assert found.levels(NOW)[0].is_triggered


@pytest.mark.parametrize(
    "name", ["novelty", "Deep Work", "ÉMERVEILLEMENT", "好奇心", "a-b_c", " x ", "\x1b[31mRED"]
)
def test_a_drive_has_any_name(tmp_path, name):
    found = read(write(tmp_path, {name: drive()}, {name: {"pressure": 1.0}}))
    assert list(found.drives) == [name]
    known = merged({}, found)
    assert (known[name].name, known[name].lean) == (name, 0.0)


def test_a_drive_leans_as_the_file_of_its_name(tmp_path):
    files = load_drives(ROOT / "drives")
    known = merged(files, read(write(tmp_path, {"Learning": drive(threshold=99.0), "NOVELTY": drive()}, {})))

    assert "LEARNING" not in known
    assert (known["Learning"].lean, known["Learning"].floor) == (0.6, 0.35)
    assert (known["Learning"].threshold, known["Learning"].prompt) == (99.0, "What to do.")
    assert known["Learning"].satisfied_by == "gap"
    assert known["NOVELTY"].lean == 0.0
    assert set(files) - {"LEARNING"} < set(known)


def test_its_own_triggered_band_is_its_threshold(tmp_path):
    own = {"available": 3, "elevated": 6, "triggered": 10, "crisis": 15, "emergency": 20}
    found = read(write(tmp_path, {"CARE": drive(thresholds=own)}, {"CARE": {"pressure": 10.0}}))
    assert found.levels(NOW)[0].is_triggered


def test_a_drive_without_a_threshold_above_0_is_never_triggered(tmp_path):
    found = read(write(tmp_path, {"CARE": drive(threshold=0)}, {"CARE": {"pressure": 10.0}}))
    level = found.levels(NOW)[0]
    assert (level.pressure, level.percent, level.is_triggered, level.next_at) == (10.0, 0.0, False, None)


@pytest.mark.parametrize(
    "keys",
    [
        {"pressure": "much"}, {"pressure": float("nan")}, {"pressure": float("inf")}, {"pressure": -3},
        {"pressure": 10**400}, {"threshold": None}, {"threshold": [1]}, {"prompt": 7, "description": None},
        {"valence": ["x"], "thwarting_count": "3"}, {"min_interval_seconds": 1e308}, {"thresholds": "none"},
        {"last_triggered": "yesterday"}, {"last_triggered": 5}, {"prompt": "\ud800"}, {"unheard_of": {}},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_taken_as_emergence_would(tmp_path, keys):
    put(tmp_path / "drives.json", {"drives": {"CARE": {**drive(), **keys}, "B": 3, "C": None}})
    found = read(tmp_path)
    assert list(found.drives) == ["CARE", "B", "C"]
    assert [level.band for level in found.levels(NOW)] == ["neutral"] * 3
    assert all(known.prompt for known in merged({}, found).values())


def test_names_that_nothing_can_carry_are_left_out_and_said(tmp_path):
    names = ["", "   ", "x" * 201, "\ud800", "a\0b", "FINE"]
    found = read(write(tmp_path, {name: drive() for name in names}, {}))
    assert list(found.drives) == ["FINE"]
    assert len(found.left_out) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"), ('{"drives": {"CARE": {"pre', "no JSON"), ("[1, 2]", "no JSON object"),
        ("[" * 200_000, "no JSON"), ("9" * 5000, "no JSON"), ("\0" * 9, "no JSON"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_state_is_named(tmp_path, text, said):
    (tmp_path / "drives.json").write_text(text)
    with pytest.raises(EmergenceFailed, match=said) as caught:
        read(tmp_path)
    assert caught.value.details["file"] == str(tmp_path / "drives.json")


def test_a_file_half_written_is_read_again(tmp_path, monkeypatch):
    folder = write(tmp_path, {"CARE": drive()}, {"CARE": {"pressure": 3.0}})
    whole = (folder / "drives-state.json").read_text()
    (folder / "drives-state.json").write_text(whole[:40])
    monkeypatch.setattr(
        "subcortex.drives.emergence.time.sleep",
        lambda _: (folder / "drives-state.json").write_text(whole),
    )
    assert read(folder).drives["CARE"].pressure == 3.0


def test_a_huge_file_a_pipe_and_nothing_at_all_are_refused(tmp_path):
    with pytest.raises(EmergenceFailed, match="no Emergence state"):
        read(tmp_path)
    (tmp_path / "drives.json").write_bytes(b" " * (4 * 2**20 + 1))
    with pytest.raises(EmergenceFailed, match="more than 4 MiB"):
        read(tmp_path)
    (tmp_path / "drives.json").unlink()
    os.mkfifo(tmp_path / "drives.json")
    with pytest.raises(EmergenceFailed, match="no regular file"):
        read(tmp_path)


def test_reading_writes_nothing(tmp_path):
    folder = write(tmp_path, {"CARE": drive()}, {"CARE": {"pressure": 3.0}})
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    folder.chmod(0o500)
    read(folder)
    folder.chmod(0o700)
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before


def test_a_writer_at_work_never_shows_half_a_state(tmp_path):
    folder = write(tmp_path, {"CARE": drive()}, {"CARE": {"pressure": 0.0}})
    done = threading.Event()

    def ticking() -> None:
        for tick in range(300):
            write(folder, {"CARE": drive()}, {"CARE": {"pressure": float(tick)}})
        done.set()

    writer = threading.Thread(target=ticking)
    writer.start()
    seen = [0.0]
    while not done.is_set():
        seen.append(read(folder).drives["CARE"].pressure)
    writer.join()
    assert seen == sorted(seen)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
_KEYS = ("pressure", "threshold", "thresholds", "prompt", "valence", "last_triggered", "thwarting_count")


@given(
    st.dictionaries(st.text(), st.dictionaries(st.sampled_from(_KEYS), json_values), max_size=4), json_values
)
def test_no_json_at_all_breaks_the_reading(tmp_path_factory, drives, triggered):
    folder = Path(tmp_path_factory.getbasetemp()) / "any"
    folder.mkdir(exist_ok=True)
    text = json.dumps({"drives": drives, "triggered_drives": triggered, "last_tick": triggered})
    (folder / "drives.json").write_text(text)
    found = read(folder)
    assert isinstance(found, EmergenceState)
    assert len(found.drives) + len(found.left_out) == len(drives)
    for level in found.levels(NOW):
        assert level.pressure >= 0
    assert all(isinstance(known, Drive) for known in merged({}, found).values())
