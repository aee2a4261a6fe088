"""A thought for a drive that an Emergence state brought a moment ago."""

from __future__ import annotations

import pytest

from subcortex.errors import InvalidRequest
from subcortex.journal import Reader
from tests.drives.emergence_state import drive, write
from tests.fakes import ScriptedEngine
from tests.mind.test_think import ask, mind_of


async def test_it_is_thought_and_found_again_by_the_name_that_the_state_has(folder, monkeypatch):
    monkeypatch.setenv("EMERGENCE_STATE", str(folder / "state"))
    engines = {"fast": ScriptedEngine("fast.gguf"), "deep": ScriptedEngine("deep.gguf")}
    async with mind_of(folder, engines) as mind:
        with pytest.raises(InvalidRequest, match="NOVELTY"):
            await mind.think(ask(drive="NOVELTY"))

        write(folder / "state", {"NOVELTY": drive(), "好奇心 at Night": drive()}, {})
        assert (await mind.think(ask(drive="novelty"))).drive == "NOVELTY"
        assert (await mind.think(ask(drive="好奇心_at_night"))).drive == "好奇心 at Night"
        assert (await mind.think(ask(drive="learning"))).drive == "LEARNING"

    reader = Reader.open(folder / "journal.db")
    for asked, found in (
        ("novelty", "NOVELTY"),
        ("好奇心 at Night", "好奇心 at Night"),
        ("Learning", "LEARNING"),
    ):
        assert [record.drive for record in reader.thoughts(drive=asked)] == [found]
