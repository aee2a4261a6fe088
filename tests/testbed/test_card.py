"""The model card says what was measured, and what was measured meets the aim."""

import json
import re

import pytest

from testbed import accuracy, tasks

RECORD = json.loads(accuracy.RECORD.read_text())
CARD = (accuracy.HERE / "MODEL_CARD.md").read_text()


def test_the_card_holds_the_recorded_table():
    assert accuracy.card_with(CARD, RECORD) == CARD


def test_every_engine_was_measured_at_every_level():
    names = {"fast llama.cpp", "deep llama.cpp", "fast vllm TP=1", "deep vllm TP=2"}
    assert names == set(RECORD["runs"])
    for found in RECORD["runs"].values():
        assert [str(level) for level in tasks.LEVELS] == list(found["levels"])
        assert found["items"] == RECORD["items_per_level"] * len(tasks.LEVELS)


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm TP=1"])
def test_fast_is_right_where_it_is_easy_and_wrong_where_it_is_hard(engine):
    levels = RECORD["runs"][f"fast {engine}"]["levels"]
    assert min(levels["1"], levels["2"]) >= 0.95
    assert max(levels["5"], levels["6"]) <= 0.40


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm TP=2"])
def test_deep_is_right_on_most(engine):
    found = RECORD["runs"][f"deep {engine}"]
    assert min(found["levels"][level] for level in "123") >= 0.95
    assert min(found["levels"][level] for level in "45") >= 0.80
    assert found["mean_tokens"]["5"] < 250


def test_a_card_with_other_figures_is_noticed():
    figure = re.search(r"\d+\.\d %", CARD)
    assert figure is not None
    other = CARD.replace(figure[0], "12.3 %", 1)
    assert accuracy.card_with(other, RECORD) != other
