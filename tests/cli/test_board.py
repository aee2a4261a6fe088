"""gaps and claims on the command line: lists, one whole, answers, errors, and text that stays inert."""

from __future__ import annotations

import json
from typing import Any

import pytest

from subcortex.journal.diary import Diary
from subcortex.mind.board import note_session
from tests.cli.helpers import invoke
from tests.cli.hostile import PAYLOAD
from tests.conftest import write_config
from tests.journal.board.samples import SESSION, TABLE
from tests.journal.diary.test_board import _SESSION


@pytest.fixture
def file(tmp_path):
    config = write_config(tmp_path)
    with Diary.open(tmp_path / "journal.db") as diary:
        texts = {"5e5510": SESSION, "5e5511": TABLE, "5e5512": f"## Open Questions\n- Why {PAYLOAD}?\n"}
        with diary.transaction() as conn:
            for name, text in texts.items():
                conn.execute(_SESSION, (name, name))
                conn.execute("UPDATE sessions SET text = ? WHERE id = ?", (text, name))
        for name, text in texts.items():
            note_session(diary, name, text)
    return config


def said(*arguments) -> Any:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_gaps_are_listed_shown_answered_and_dropped(file):
    listed = said("gaps", "list", "--session", "5e5510", "--config", file)
    assert (listed["open"], len(listed["gaps"])) == (5, 5)
    first, second = (gap["id"] for gap in listed["gaps"][:2])
    assert said("gaps", "answer", first[:20], "By a third.", "--config", file)["state"] == "answered"
    assert said("gaps", "drop", second, "--reason", "no cards", "--config", file)["answer"] == "no cards"
    shown = invoke("gaps", "show", first, "--config", file).stdout
    assert "interconnect" in shown
    assert "By a third." in shown
    assert said("gaps", "--state", "open", "--session", "5e5510", "--config", file)["open"] == 3
    assert said("gaps", "--kind", "idle_memory", "--config", file)["gaps"][0]["line"] == 32


def test_claims_are_counted_and_shown_with_their_working(file):
    listed = said("claims", "list", "--config", file)
    assert (listed["total"], listed["confirmed"], listed["refuted"], listed["undecided"]) == (14, 9, 2, 3)
    refuted = said("claims", "--state", "refuted", "--config", file)["claims"]
    assert [claim["state"] for claim in refuted] == ["refuted", "refuted"]
    shown = invoke("claims", "show", refuted[1]["id"], "--config", file).stdout
    assert "8.030e9 parameters × 4.89 bits = 4.913 GB" in shown
    table = invoke("claims", "--kind", "fits", "--config", file)
    assert table.stdout.count("confirmed") == 3
    assert "14 claims: 9 confirmed, 2 refuted, 3 undecided" in table.stderr


def test_hostile_text_comes_out_inert(file):
    for arguments in (
        ("gaps",),
        ("gaps", "show", said("gaps", "--session", "5e5512", "--config", file)["gaps"][0]["id"]),
    ):
        shown = invoke(*arguments, "--config", file).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert "␛" in shown


def test_reading_again_by_rules_adds_nothing(file):
    assert len(said("gaps", "find", "5e5510", "--config", file)["gaps"]) == 5


def test_errors_are_typed(file, tmp_path):
    for arguments in (("gaps", "show", "ffff"), ("claims", "show", "ffff"), ("gaps", "--session", "ffff"),
                      ("gaps", "--kind", "weather"), ("gaps", "find", "ffff")):  # fmt: skip
        result = invoke(*arguments, "--json", "--config", file)
        assert result.exit_code == 4, arguments
        assert json.loads(result.stdout)["error"]["code"] == "invalid_request"
    (tmp_path / "empty").mkdir()
    empty = write_config(tmp_path / "empty")
    assert said("claims", "--config", empty)["total"] == 0
    assert said("gaps", "--config", empty)["gaps"] == []
    assert invoke("gaps", "show", "ff", "--config", empty).exit_code == 4
