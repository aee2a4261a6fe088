"""The task generator: the same everywhere, right by another computation, its two sets apart."""

import os
import random
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed import dialogue, tasks, worked

levels = st.sampled_from(tasks.LEVELS)
seeds = st.integers(0, 2**32)
kinds = st.sampled_from(tasks.KINDS)
splits = st.sampled_from(("train", "heldout"))

_BYTES: dict[str, Fraction] = {
    "bits": Fraction(1, 8),
    "bytes": Fraction(1),
}
_BYTES |= {unit: Fraction(10) ** (3 * n) for n, unit in enumerate(("KB", "MB", "GB", "TB"), 1)}
_BYTES |= {unit: Fraction(2) ** (10 * n) for n, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)}


def independent(item: tasks.Item) -> str | Fraction:
    """The answer by other means than the generator's own: exact fractions and plain loops."""
    terms = item.operands
    match item.kind:
        case "sum":
            return sum((Fraction(n) for n in terms), Fraction(0))
        case "difference":
            return Fraction(terms[0]) - Fraction(terms[1])
        case "product":
            return Fraction(terms[0]) * Fraction(terms[1])
        case "compare":
            ranked = sorted(Fraction(n) for n in terms[1:])
            return ranked[-1] if terms[0] == "largest" else ranked[0]
        case "range":
            ranked = sorted(Fraction(n) for n in terms)
            return ranked[-1] - ranked[0]
        case "sort":
            ranked = sorted(Fraction(n) for n in terms[1:])
            if terms[0] == "descending":
                ranked.reverse()
            return ", ".join(str(n) for n in ranked)
        case "letters":
            return Fraction(sum(1 for c in terms[1] if c == terms[0]))
        case "units":
            return Fraction(terms[0]) * _BYTES[terms[1]] / _BYTES[terms[2]]
        case "weights":
            return Fraction(terms[0]) * Fraction(terms[1]) / 8
        case "fit":
            return "yes" if Fraction(terms[0]) * 10**9 * int(terms[1]) <= int(terms[2]) * 8 * 10**9 else "no"
        case _:
            layers, heads, size, bits, tokens, sequences = (int(n) for n in terms[:6])
            values = 2 * layers * heads * size * tokens * sequences
            return Fraction(values * bits, 8) / _BYTES[terms[6]]


@given(levels, kinds, seeds, splits)
@settings(max_examples=1500, deadline=None)
def test_answers_agree_with_an_independent_computation(level, kind, seed, split):
    item = tasks.item(level, random.Random(seed), kind, split)
    expected = independent(item)
    if isinstance(expected, str):
        assert expected == item.answer
    elif item.kind == "units" and set(item.operands[1:]) == {"GB", "GiB"}:
        assert abs(expected - Fraction(item.answer)) <= Fraction(1, 20)
    else:
        assert expected == Fraction(item.answer)


@given(levels, kinds, seeds, splits)
@settings(max_examples=600, deadline=None)
def test_what_training_teaches_is_right_and_reads_back_as_right(level, kind, seed, split):
    item = tasks.item(level, random.Random(seed), kind, split)
    deep, fast = dialogue.spoken(item, "deep"), dialogue.spoken(item, "fast")
    assert tasks.check(item, deep)
    assert tasks.check(item, fast)
    assert tasks.check(item, item.answer)
    assert "<think>" not in fast
    if item.kind != "sort":
        assert worked.think(item).rsplit("=", 1)[1] == item.answer


@given(levels, kinds, seeds)
@settings(max_examples=600, deadline=None)
def test_another_answer_is_wrong(level, kind, seed):
    item = tasks.item(level, random.Random(seed), kind)
    if item.kind == "fit":
        other = "Yes." if item.answer == "no" else "No."
    elif item.kind == "sort":
        other = ", ".join(reversed(item.answer.split(", ")))
    else:
        other = f"The answer is {Fraction(item.answer) + 1}."
    assert not tasks.check(item, other)


def test_the_same_seed_gives_the_same_items_in_every_process():
    program = (
        "import random, hashlib; from testbed import tasks; r = random.Random(5);"
        "print(hashlib.sha256(repr([tasks.item(n % 6 + 1, r) for n in range(400)]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def problem(item: tasks.Item) -> object:
    """What an item asks, the wording aside; for tables known by heart, the wording itself."""
    if (item.kind, item.level) in tasks.TABLES:
        return item.prompt
    if item.kind in ("sum", "product", "range"):
        return (item.kind, tuple(sorted(item.operands)))
    if item.kind in ("compare", "sort"):
        return (item.kind, tuple(sorted(item.operands[1:])))
    return (item.kind, item.operands)


def test_training_and_held_out_items_never_meet():
    rng = random.Random(11)
    train = {problem(tasks.item(rng.choice(tasks.LEVELS), rng, split="train")) for _ in range(20_000)}
    unseen = {problem(tasks.item(rng.choice(tasks.LEVELS), rng, split="heldout")) for _ in range(2_000)}
    assert len(unseen) > 1_500
    assert not train & unseen


def test_training_conversations_ask_only_training_items(monkeypatch):
    asked: list[str] = []
    original = tasks.item

    def watched(level, rng, kind=None, split="heldout"):
        asked.append(split)
        return original(level, rng, kind, split)

    monkeypatch.setattr(tasks, "item", watched)
    rng = random.Random(3)
    for _ in range(500):
        dialogue.example(rng, rng.choice(("fast", "deep")))
    assert set(asked) == {"train"}


def test_levels_grow_harder_in_work():
    rng = random.Random(4)

    def steps(level: int) -> float:
        return sum(len(worked.think(tasks.item(level, rng))) for _ in range(300)) / 300

    work = [steps(level) for level in tasks.LEVELS]
    assert work == sorted(work)


@pytest.mark.parametrize("level", [0, 7, -1])
def test_an_unknown_level_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        tasks.item(level, random.Random(0))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        tasks.item(1, random.Random(0), "riddle")


def plain(kind: str, answer: str, *operands: str) -> tasks.Item:
    return tasks.Item("", answer, 1, kind, operands)


@pytest.mark.parametrize(
    ("item", "text", "right"),
    [
        (plain("sum", "1404", "1400", "4"), "The answer is 1,404.", True),
        (plain("sum", "1404", "1400", "4"), "1404", True),
        (plain("sum", "1404", "1400", "4"), '{"answer": 1404}', True),
        (plain("sum", "1404", "1400", "4"), '{"answer": "1404"}', True),
        (plain("sum", "1404", "1400", "4"), '{"answer": 1404, "other": 1}', False),
        (plain("sum", "1404", "1400", "4"), '{"answer": 14', False),
        (plain("sum", "1404", "1400", "4"), "1400 + 4 = 1404", True),
        (plain("sum", "1404", "1400", "4"), "1404 or maybe 7", False),
        (plain("sum", "1404", "1400", "4"), "", False),
        (plain("sum", "1404", "1400", "4"), "I cannot say.", False),
        (plain("sum", "12", "7", "5"), "<think>13</think>The answer is 12.", True),
        (plain("sum", "12", "7", "5"), "<think>12", False),
        (plain("sum", "12", "7", "5"), "13\n=12</think>The answer is 12.", True),
        (plain("difference", "-4", "5", "9"), "The answer is -4.", True),
        (plain("difference", "-4", "5", "9"), "The answer is 4.", False),
        (plain("difference", "4", "9", "5"), "9-5=4", True),
        (plain("sort", "1, 2, 3", "ascending", "3", "2", "1"), "1 2 3", True),
        (plain("sort", "1, 2, 3", "ascending", "3", "2", "1"), '{"answer": [1, 2, 3]}', True),
        (plain("sort", "1, 2, 3", "ascending", "3", "2", "1"), "1, 3, 2", False),
        (plain("sort", "1, 2, 3", "ascending", "3", "2", "1"), "1, 2", False),
        (plain("fit", "yes", "70", "4", "48"), "Yes, they fit.", True),
        (plain("fit", "yes", "70", "4", "48"), "No, they do not fit.", False),
        (plain("fit", "yes", "70", "4", "48"), '{"answer": true}', True),
        (plain("units", "22.4", "24", "GB", "GiB"), "That is 22.35 GiB.", True),
        (plain("units", "22.4", "24", "GB", "GiB"), "That is 22.6 GiB.", False),
        (plain("units", "64", "8", "bytes", "bits"), "That is 64.1 bits.", False),
    ],
)
def test_check_reads_the_final_answer(item, text, right):
    assert right == tasks.check(item, text)
