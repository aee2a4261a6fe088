"""The complexity of prompts: bounded, explained, monotone, and in the order that a person would put them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.routing import Complexity, Features, Scorer, complexity, features
from subcortex.routing.scoring import WEIGHTS


def score(text: str) -> float:
    return complexity(features([{"role": "user", "content": text}])).score


NOTHING = ["", "hi", "thanks", "Thank you!", "ok", "hola", "你好", "good morning"]
LOW = [
    "what time is it",
    "What is 7 + 5?",
    "12 x 7",
    "Name the capital of France.",
    "How many bits are in 3 bytes?",
    "weights of 8B at 16 bits?",
    "Turn the light off.",
    "Ist die Tür zu?",
    "今天几点？",
]
HIGH = [
    "Multiply 4821 by 377",
    "Sort 83, 12, 95, 7, 31, 64, 22, 18, 90, 45, 3, 77, 58, 29",
    "KV cache a token for 80 layers, 8 kv heads, head size 128 at 2 bytes?",
    "Prove that there are infinitely many primes.",
    "Plan the migration, compare the two options and explain why one is better.",
    "Debug why the daemon deadlocks when two clients reconnect at once, then propose a fix.",
    "为什么天空是蓝色的？请解释并证明。",
    "Beweise, dass die Wurzel aus 2 irrational ist.",
]


@pytest.mark.parametrize("text", NOTHING)
def test_small_talk_needs_next_to_nothing(text: str):
    assert score(text) < 0.02


@pytest.mark.parametrize("text", LOW)
def test_easy_prompts_stay_below_the_middle(text: str):
    assert score(text) < 0.4


@pytest.mark.parametrize("text", HIGH)
def test_hard_prompts_pass_the_middle(text: str):
    assert score(text) > 0.5


@pytest.mark.parametrize(
    "texts",
    [
        ["What is 7 + 5?", "What is 47 + 85?", "What is 4711 + 8522?", "What is 47118522 + 85229137?"],
        ["9 * 8", "99 * 88", "999 * 888", "9999 * 8888"],
        ["Sort 3, 1, 2", "Sort 31, 12, 25, 77, 61", "Sort 310, 125, 251, 770, 611, 418, 904, 533"],
        [
            "How many r are in tar?",
            "How many r are in strawberry?",
            "How many r are in strawberry carrot horror?",
        ],
        ["Explain it.", "Explain and compare them.", "Explain, compare and evaluate them."],
    ],
)
def test_more_of_the_same_work_scores_higher(texts: list[str]):
    scores = [score(text) for text in texts]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)


def test_a_long_paste_that_asks_for_little_is_not_complex():
    log = "".join(f"2026-11-21 10:00:{i % 60:02d} INFO request {i} took 12 ms\n" for i in range(5_000))
    assert score("Anything odd here?\n" + log) < 0.4
    assert score("Keep this for later: " + "QUJD" * 100_000) < 0.1


def test_reasons_name_the_heaviest_parts_with_their_figures():
    found = complexity(features([{"role": "user", "content": "Multiply 4821 by 377"}]))
    assert found.reasons[0] == "single-digit steps of arithmetic: 12 (+0.83)"
    assert len(found.reasons) <= 4
    assert complexity(Features()).reasons == ("nothing in it asks for much",)
    assert complexity(Features(small_talk=True)).reasons == ("nothing but small talk",)


_COUNTS = [field.name for field in dataclasses.fields(Features) if field.type == "int"]
_ANY = st.builds(
    Features,
    **dict.fromkeys(_COUNTS, st.integers(0, 10**6)),
    tools=st.booleans(),
    schema=st.booleans(),
)


@given(_ANY)
def test_the_score_lies_between_0_and_1(found: Features):
    result = complexity(found)
    assert 0.0 <= result.score <= 1.0
    assert result.reasons
    assert result == complexity(found)


@given(_ANY, st.sampled_from(_COUNTS), st.integers(1, 1000))
def test_more_of_anything_never_lowers_the_score(found: Features, name: str, more: int):
    raised = dataclasses.replace(found, **{name: getattr(found, name) + more})
    assert complexity(raised).score >= complexity(found).score


def test_the_score_is_1_minus_exp_of_the_sum():
    assert complexity(Features(words=100)).score == pytest.approx(1 - math.exp(-0.3))
    assert complexity(Features(words=200, numbers=8)).score == pytest.approx(1 - math.exp(-0.95))


def test_every_weight_counts():
    assert all(weight.full > 0 and weight.most > 0 for weight in WEIGHTS)
    counts: dict[str, Any] = dict.fromkeys(_COUNTS, 10**6)
    full = Features(**counts, tools=True, schema=True)
    assert all(weight.value(full) >= weight.full for weight in WEIGHTS)


def test_the_documented_table_is_the_one_in_force():
    rows = [f"| {weight.label} | {weight.full:,g} | {weight.most:.2f} |" for weight in WEIGHTS]
    page = (Path(__file__).parents[2] / "docs" / "routing.md").read_text("utf-8")
    assert "\n".join(rows) in page


def test_anything_of_the_right_shape_is_a_scorer():
    def by_length(found: Features, /) -> Complexity:
        return Complexity(min(1.0, found.chars / 1000))

    scorers: list[Scorer] = [complexity, by_length]
    found = features([{"role": "user", "content": "x" * 500}])
    assert scorers[1](found).score == 0.5
