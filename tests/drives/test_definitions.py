"""Drives as their files define them, and what a person is told when one is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.drives import Drive, find, load_drives
from subcortex.errors import ConfigError, InvalidRequest

SHIPPED = Path(__file__).parent.parent.parent / "drives"
GOOD = 'description = "d"\nprompt = "p"\n'


def test_the_drives_that_come_with_it() -> None:
    drives = load_drives(SHIPPED)
    leans = {name: drive.lean for name, drive in drives.items()}
    assert list(leans) == [
        "CARE", "CREATIVE", "CURIOSITY", "LEARNING", "MAINTENANCE", "PLAY", "READING", "REST", "SOCIAL"
    ]  # fmt: skip
    assert leans["LEARNING"] == max(leans.values()) >= 0.5
    assert 0 < leans["CURIOSITY"] < leans["LEARNING"]
    assert leans["SOCIAL"] <= -0.3
    assert leans["MAINTENANCE"] <= -0.3
    assert drives["REST"].activity_driven
    assert [name for name, drive in drives.items() if drive.satisfied_by == "gap"] == [
        "CURIOSITY", "LEARNING"
    ]  # fmt: skip


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_each_file_gives_every_key_and_explains_itself(file: Path) -> None:
    text = file.read_text()
    assert set(tomllib.loads(text)) == set(Drive.model_fields)
    assert text.count("\n#") >= 5
    assert file.stem.upper() == tomllib.loads(text)["name"]


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_what_a_file_leaves_out_has_a_default_and_the_file_names_the_drive(tmp_path: Path) -> None:
    write(tmp_path, "wander.toml", GOOD)
    write(tmp_path, "notes.txt", "not a drive")
    drives = load_drives(tmp_path)
    assert drives == {"WANDER": Drive(name="WANDER", description="d", prompt="p")}
    assert (drives["WANDER"].lean, drives["WANDER"].floor) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "key", "said", "hint"),
    [
        (GOOD + "laen = 0.5", "laen", "unknown key", "'lean'"),
        (GOOD + "colour = 1", "colour", "unknown key", "rate_per_hour"),
        (GOOD + "lean = 1.5", "lean", "1.5", "from -1 (fast) to 1 (deep)"),
        (GOOD + 'lean = "deep"', "lean", "'deep'", "a number"),
        (GOOD + "floor = -0.1", "floor", "-0.1", "0 to 1"),
        (GOOD + 'valence = "good"', "valence", "'good'", '"aversive"'),
        (GOOD + 'satisfied_by = "praise"', "satisfied_by", "'praise'", '"gap" or "prompt"'),
        (GOOD + "threshold = 0", "threshold", "(it is 0", "above 0"),
        (GOOD + "rate_per_hour = nan", "rate_per_hour", "nan", "0 or more"),
        (GOOD + "min_interval_h = inf", "min_interval_h", "inf", "hours"),
        (GOOD + "activity_driven = 1", "activity_driven", "(it is 1)", "true or false"),
        (GOOD + 'name = "two words"', "name", "'TWO WORDS'", "letters"),
        (GOOD + "name = 7", "name", "7", "letters"),
        ('description = "d"', "prompt", "missing", "'prompt'"),
        ('description = ""\nprompt = "p"', "description", "(it is '')", "sentence"),
    ],
)
def test_a_wrong_key_is_named_with_its_file_and_what_to_write(
    tmp_path: Path, text: str, key: str, said: str, hint: str
) -> None:
    file = write(tmp_path, "wander.toml", text)
    with pytest.raises(ConfigError) as caught:
        load_drives(tmp_path)
    assert (caught.value.details["file"], caught.value.details["key"]) == (str(file), key)
    assert str(file) in caught.value.message
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, "wander.toml", "lean = 3\nfloor = 3")
    with pytest.raises(ConfigError) as caught:
        load_drives(tmp_path)
    assert {problem["key"] for problem in caught.value.details["problems"]} == {
        "description", "prompt", "lean", "floor"
    }  # fmt: skip


def test_a_file_that_is_not_toml_or_not_text_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, "wander.toml", "lean = = 1")
    with pytest.raises(ConfigError, match="not TOML"):
        load_drives(tmp_path)
    file.write_bytes(b'description = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_drives(tmp_path)


def test_two_files_for_one_drive_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.toml", GOOD + 'name = "care"')
    write(tmp_path, "care.toml", GOOD)
    with pytest.raises(ConfigError, match=r"CARE is defined in a\.toml"):
        load_drives(tmp_path)


def test_a_missing_folder_names_the_config_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_drives(tmp_path / "none")
    assert caught.value.details["key"] == "drives.dir"


@pytest.mark.parametrize("name", ["LEARNING", "learning", " Learning "])
def test_a_drive_is_found_by_its_name_in_any_case(name: str) -> None:
    assert find(load_drives(SHIPPED), name).name == "LEARNING"


def test_an_unknown_drive_names_the_nearest_and_all() -> None:
    with pytest.raises(InvalidRequest, match="'lerning'") as caught:
        find(load_drives(SHIPPED), "lerning")
    assert caught.value.details["nearest"] == "LEARNING"
    assert "Did you mean LEARNING?" in (caught.value.hint or "")
    assert "SOCIAL" in (caught.value.hint or "")
    with pytest.raises(InvalidRequest) as caught:
        find(load_drives(SHIPPED), "xyzzy")
    assert caught.value.details["nearest"] is None


@given(st.text())
def test_any_name_is_found_or_refused(name: str) -> None:
    drives = {"CARE": Drive(name="CARE", description="d", prompt="p")}
    if name.strip().upper() == "CARE":
        assert find(drives, name) is drives["CARE"]
    else:
        with pytest.raises(InvalidRequest):
            find(drives, name)
