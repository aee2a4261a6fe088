"""A configuration with three drives, and a journal whose clock stands still."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from subcortex.config import Config, parse
from subcortex.journal.diary import Diary
from tests.mind.agent.helpers import DRIVE, Clock


@pytest.fixture
def config(tmp_path: Path) -> Config:
    folder = tmp_path / "drives"
    folder.mkdir()
    (folder / "learning.toml").write_text(DRIVE.format(name="LEARNING", more='satisfied_by = "gap"'))
    (folder / "care.toml").write_text(DRIVE.format(name="CARE", more="min_interval_h = 2.0"))
    (folder / "rest.toml").write_text(DRIVE.format(name="REST", more="activity_driven = true"))
    data = {
        "daemon": {"runtime_dir": str(tmp_path / "run")},
        "journal": {"database": str(tmp_path / "journal.db"), "sessions_dir": str(tmp_path / "sessions")},
        "drives": {"dir": str(folder), "emergence": "off"},
        "agent": {"idle_s": 0, "quiet_hours": ["02:00-03:00"]},
        "tiers": [{"name": "deep", "engine": "llama.cpp", "model": "deep.gguf"}],
    }
    return parse(data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def diary(config: Config, clock: Clock) -> Iterator[Diary]:
    with Diary.open(config.database_path, clock=clock) as diary:
        yield diary
