"""gaps and claims on the command line: lists, one whole, answers, errors, and text that stays inert."""

from __future__ import annotations

import json
from typing import Any

import pytest

from subcortex.cli import gaps
from subcortex.journal.diary import Diary
from subcortex.mind.board import Question, Questions, note_session
from tests.cli.helpers import invoke
from tests.cli.hostile import PAYLOAD
from tests.conftest import write_config
from tests.journal.board.samples import SESSION, TABLE
from tests.journal.diary.test_board import _SESSION

SECRET = "sk-0123456789abcdef"


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


def test_figures_are_of_all_questions_and_not_of_those_listed(file):
    listed = said("gaps", "-n", 2, "--session", "5e5510", "--config", file)
    assert (listed["open"], len(listed["gaps"])) == (5, 2)
    assert "2 of 5 questions" in invoke("gaps", "-n", 2, "--session", "5e5510", "--config", file).stderr
    assert " of " not in invoke("gaps", "--session", "5e5510", "--config", file).stderr
    assert "the first 3" in invoke("claims", "-n", 3, "--config", file).stderr
    assert "the first" not in invoke("claims", "--config", file).stderr


@pytest.fixture
def thought(file, tmp_path, monkeypatch):
    """A session in which the rules find no question, and a model that finds one with a secret in it."""
    with Diary.open(tmp_path / "journal.db") as diary, diary.transaction() as conn:
        conn.execute(_SESSION, ("5e5513", "5e5513"))
        conn.execute("UPDATE sessions SET text = 'I do not know how fast the disk is.' WHERE id = '5e5513'")
    asked: list[str] = []

    def answer(_config, text: str, _tier) -> Questions:
        asked.append(text)
        return Questions(questions=[Question(question=f"How fast is the disk of {SECRET}?")])

    monkeypatch.setattr(gaps, "_thought", answer)
    return asked


def test_a_model_is_asked_where_the_rules_find_nothing_and_what_it_finds_is_marked(file, thought):
    assert said("gaps", "find", "5e5513", "--config", file)["gaps"] == []
    assert said("gaps", "find", "5e5510", "--think", "--config", file)["open"] == 5
    assert thought == []
    (gap,) = said("gaps", "find", "5e5513", "--think", "--config", file)["gaps"]
    assert (gap["found_by"], gap["question"]) == ("thought", f"How fast is the disk of {SECRET}?")
    assert len(thought) == 1


@pytest.mark.parametrize(
    ("policy", "question"), [("redacted", "How fast is the disk of [redacted]"), ("none", None)]
)
def test_what_a_model_finds_is_kept_as_far_as_texts_of_thoughts_are(file, thought, policy, question):
    env = {"SUBCORTEX_JOURNAL__RECORD": policy}
    result = invoke("gaps", "find", "5e5513", "--think", "--json", "--config", file, env=env)
    if question is None:
        assert (result.exit_code, thought) == (4, [])
        assert "holds texts of thoughts back" in result.stdout
    else:
        assert json.loads(result.stdout)["gaps"][0]["question"].startswith(question)


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
