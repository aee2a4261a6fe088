"""config suggest: what was measured against what is configured, as a diff, and written into the file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from subcortex.config import load
from subcortex.config.editing import toml
from subcortex.experiments.experiment import Answer, Report
from subcortex.journal.diary import Diary, board, experiments
from subcortex.mind.experimenting.following import follow
from tests.cli.helpers import invoke
from tests.cli.test_experiments import inquiry, measured
from tests.conftest import write_config


def report(knee: float = 6.0) -> Report:
    answer = Answer(
        quantity="requests",
        about="fast",
        unit="requests",
        outcome="measured",
        statement=f"fast gains no more from {knee:g} requests at once on",
        value=knee,
        low=knee - 1,
        high=knee + 1.5,
        tier="fast",
        details={"knee": knee, "knee_low": knee - 1, "knee_high": knee + 1.5},
    )
    return Report((answer,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = write_config(tmp_path, fast="max_concurrent = 24  # at once")
    with Diary.open(load(file, {}).database_path) as diary:
        settle(diary, file)
    return file


def settle(diary: Diary, file: Path, knee: float = 6.0, **more: Any) -> str:
    """Put a settled run of saturation into the journal; returns the id of its fact."""
    config = load(file, {})
    depends = {"model": {"path": str(config.resolve(config.tier("fast").model))}, "at": knee}
    asked = inquiry(**{"depends_on": depends, **more})
    return follow(diary, config, measured(diary, asked, report(knee)).id).facts[0].id


def said(file: Path, *arguments: str) -> Any:
    result = invoke("config", "suggest", "--config", file, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_suggestion_has_its_figures_its_run_and_its_fact(file):
    found = said(file)
    [one] = found["suggestions"]
    assert (one["tier"], one["key"], one["old"], one["new"]) == ("fast", "max_concurrent", 24, 6)
    assert "from 6 requests at once on (5 to 7.5)" in one["reason"]
    with Diary.open(load(file, {}).database_path) as diary:
        [run] = experiments.runs(diary)
    assert one["run_ids"] == [run.id]
    assert len(one["fact_ids"]) == 1
    assert not found["applied"]
    assert tomllib.loads(file.read_text())["tiers"][0]["max_concurrent"] == 24


def test_reasons_stand_before_the_diff_so_that_patch_takes_it(file):
    before = file.read_text()
    result = invoke("config", "suggest", "--config", file)
    assert "-max_concurrent = 24  # at once\n+max_concurrent = 6  # at once\n" in result.stdout
    assert result.stdout.startswith("# fast: max_concurrent = 24 → 6\n#   ")
    assert "--apply writes it" in result.stderr
    assert file.read_text() == before
    marks = [line[:3] for line in result.stdout.splitlines()]
    assert marks[2:5] == ["---", "+++", "@@ "]
    assert set(marks[5:]) <= {"-ma", "+ma"} | {mark for mark in marks if mark.startswith(" ")}


def test_applied_it_says_what_was_meant_and_nothing_else_changes(file):
    file.chmod(0o640)
    before = file.read_text()
    assert said(file, "--apply")["applied"]
    assert file.read_text() == before.replace("max_concurrent = 24  #", "max_concurrent = 6  #")
    backup = file.with_name("config.toml.bak")
    assert backup.read_text() == before
    assert [path.stat().st_mode & 0o777 for path in (file, backup)] == [0o640, 0o640]
    assert load(file, {}).tier("fast").max_concurrent == 6
    assert said(file, "--apply") == {
        "file": str(file.resolve()),
        "suggestions": [],
        "diff": None,
        "applied": False,
    }
    assert backup.read_text() == before


def test_through_a_link_the_file_itself_is_changed(file, tmp_path):
    kept = tmp_path / "elsewhere" / "kept.toml"
    kept.parent.mkdir()
    file.rename(kept)
    file.symlink_to(kept)
    assert said(file, "--apply")["applied"]
    assert file.is_symlink()
    assert "max_concurrent = 6 " in kept.read_text()
    assert kept.with_name("kept.toml.bak").exists()


def test_what_has_expired_or_is_of_another_model_does_not_count(file):
    with Diary.open(load(file, {}).database_path) as diary:
        [run] = experiments.runs(diary)
        other = {"model": {"path": "/another.gguf"}}
        settle(diary, file, 3.0, depends_on=other)
        assert [one["new"] for one in said(file)["suggestions"]] == [6]
        settings = {"threads": 7, "max_concurrent": 99, "parallel": 16, "flags": ["--max-num-seqs", "3"]}
        model = {"name": str(load(file, {}).tier("fast").model)}
        settle(diary, file, 4.0, depends_on={"model": model, "settings": settings})
        assert [one["new"] for one in said(file)["suggestions"]] == [6]
        settle(diary, file, 5.0, depends_on={"model": model, "settings": {**settings, "threads": 1}})
        assert [one["new"] for one in said(file)["suggestions"]] == [5]
        fact = settle(diary, file, 8.0)
        assert [one["new"] for one in said(file)["suggestions"]] == [8]
        board.expire(diary, fact, "the driver is another")
        assert said(file)["suggestions"] == []
        experiments.expire(diary, experiments.runs(diary)[-1].id, "the driver is another")
        assert [one["new"] for one in said(file)["suggestions"]] == [5]
        assert run.expired_at is None


def test_without_a_journal_nothing_speaks_against_it(tmp_path):
    result = invoke("config", "suggest", "--config", write_config(tmp_path), "--apply")
    assert result.exit_code == 0
    assert "nothing that counts today has been measured" in result.stderr
    assert not (tmp_path / "config.toml.bak").exists()


def test_a_file_that_cannot_be_changed_is_left_alone_and_its_keys_are_told(tmp_path):
    file = write_config(tmp_path)
    tiers = tomllib.loads(file.read_text())["tiers"]
    text = f"tiers = {toml(tiers)}\n{file.read_text().partition('[[tiers]]')[0]}"
    file.write_text(text)
    with Diary.open(load(file, {}).database_path) as diary:
        settle(diary, file)
    result = invoke("config", "suggest", "--config", file)
    assert result.stdout.startswith("# fast: max_concurrent = (unset) → 6")
    assert "by hand" in result.stderr
    refused = invoke("config", "suggest", "--config", file, "--apply")
    assert refused.exit_code == 3
    assert "max_concurrent = 6" in refused.stderr
    assert file.read_text() == text


def test_a_variable_is_no_fault_of_the_file(file, monkeypatch):
    monkeypatch.setenv("SUBCORTEX_TIERS__FAST__MAX_CONCURRENT", "6")
    assert [one["old"] for one in said(file)["suggestions"]] == [24]
