"""Features are exact on plain prompts, sane on odd ones, and cost bounded work on huge ones."""

from __future__ import annotations

import base64
import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as sre_parser  # type: ignore[import-not-found]
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.routing import Features, complexity, features, prompt
from subcortex.routing.words import KIND_OF, UNSPACED, Kind

PATTERNS = {name: value for name, value in vars(prompt).items() if isinstance(value, re.Pattern)}


def read(text: str, **options: bool) -> Features:
    return features([{"role": "user", "content": text}], **options)


def test_a_product_is_read_to_the_digit():
    found = read("Multiply 4821 by 377")
    assert (found.words, found.numbers, found.longest_number, found.digits) == (2, 2, 4, 7)
    assert (found.digit_steps, found.operators, found.products) == (12, 1, 1)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("What is 7 + 5?", 2),
        ("47+85", 4),
        ("12 x 7", 2),
        ("12 * 34 + 56", 6),
        ("509×5 equals?", 3),
        ("Product of 1,762 and 252.5", 16),
        ("Sort 83, 12, 95, 7", 4),
        ("I was born in 1984 and have 3 cats", 0),
        ("What happened on 2026-11-21 at 10:45:00?", 0),
        ("Open https://example.org/a/1-2/3*4 and /var/log/1/2-3", 0),
        ("Call 127.0.0.1 about 550e8400-e29b-41d4-a716-446655440000", 0),
    ],
)
def test_digit_steps_follow_the_arithmetic_asked(text: str, steps: int):
    assert steps == read(text).digit_steps


def test_words_of_a_kind_are_counted_once_however_often_they_stand_there():
    once = read("Explain it.")
    assert once.reasoning_words == 1
    assert read("Explain explain EXPLAIN it.").reasoning_words == 1
    assert read("Compare both, explain why.").reasoning_words == 3
    assert read("Prove the theorem.").deep_words == 2


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("How many r's are in strawberry?", True),
        ('How often does the letter "k" occur in kayak?', True),
        ("How many a are in banana?", True),
        ("How many apples does a farmer need?", False),
        ("How many GB does a 14 B model take?", False),
        ("Why is it so?", False),
    ],
)
def test_letters_are_counted_through_only_when_a_letter_is_asked_for(text: str, asked: bool):
    assert asked == (read(text).spelled_letters > 0)


@pytest.mark.parametrize("text", ["", " ", "\n\t\n", "\u200b", "\ud800", "\x00", "🙂🙂", "…"])
def test_next_to_nothing_reads_as_nothing(text: str):
    found = read(text)
    assert (found.words, found.sentences, found.numbers, found.operators) == (0, 0, 0, 0)
    assert complexity(found).score < 0.05


def test_scripts_without_spaces_are_counted_by_characters():
    chinese = read("为什么天空是蓝色的？请解释。")
    assert chinese.words == 6
    assert chinese.reasoning_words == 2
    assert chinese.questions == 1
    mixed = read("Explain 量子纠缠 in English please")
    assert (mixed.words, mixed.reasoning_words) == (4 + 2, 1)
    assert read("하늘은 왜 파란가요?").words == 3


def test_other_languages_with_spaces_find_their_words():
    assert read("Beweise, dass die Wurzel irrational ist.").deep_words == 1
    assert read("Pourquoi le ciel est-il bleu ?").reasoning_words == 1
    assert read("Докажи теорему").deep_words == 1


def test_base64_is_left_out_and_long_numbers_are_not():
    blob = base64.b64encode(bytes(range(256))).decode()
    with_blob = read(f"What is this? {blob}")
    assert with_blob.blobs == 1
    assert read("What is this? ").words == with_blob.words
    assert with_blob.digits == 0
    assert read("7" * 60 + " + 1").longest_number == 60


def test_log_lines_are_left_out_and_the_question_around_them_kept():
    log = "".join(
        f"2026-11-21 10:00:{i:02d} ERROR worker {i} died - 12 * 4, why? must retry\n" for i in range(40)
    )
    found = read(f"Name the service below.\n{log}\nAnswer in one word.")
    assert found.log_lines >= 30
    assert found.digit_steps == 0
    assert complexity(found).score < 0.5


def test_a_stack_trace_is_left_out():
    trace = 'Traceback (most recent call last):\n  File "a.py", line 3, in f\n    at com.x.Y.z(Y.java:12)\n'
    assert read(trace).log_lines == 3


def test_only_the_last_user_message_is_the_ask():
    hard = "Prove the theorem, compare 4821 * 377 with 12, explain why."
    long_ago: list[dict[str, Any]] = [{"role": "system", "content": hard}, {"role": "user", "content": hard}]
    thanks = features(
        [*long_ago, {"role": "assistant", "content": hard}, {"role": "user", "content": "thanks"}]
    )
    assert thanks.small_talk
    assert thanks.deep_words == 0
    assert 3 * len(hard) == thanks.context_chars
    assert thanks.turns == 4


def test_a_trivial_first_message_does_not_make_a_hard_second_one_cheap():
    hard = "Prove that there are infinitely many primes, and explain each step."
    alone = complexity(read(hard)).score
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": hard},
    ]
    assert complexity(features(messages)).score >= alone > 0.5


def test_a_tool_result_at_the_end_leaves_the_users_ask_in_charge():
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Prove it."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "1 2 3", "tool_call_id": "1"},
    ]
    assert features(messages, tools=True).deep_words == 1
    assert features(messages, tools=True).tools


@pytest.mark.parametrize(
    "content", [None, 7, {"text": "x"}, [None, 3, {}, {"text": 4}], [], b"bytes", {"a": ["b"]}]
)
def test_odd_content_is_no_text(content: Any):
    assert features([{"role": "user", "content": content}]).words == 0


def test_parts_are_read_as_text_and_counted_as_images():
    found = features(
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Explain"},
                    {"type": "image_url", "image_url": {"url": "data:…"}},
                    {"type": "text", "text": "this picture"},
                ],
            }
        ]
    )
    assert (found.images, found.words, found.reasoning_words) == (1, 3, 1)


def test_no_messages_is_no_ask():
    assert Features(tools=True, schema=True) == features([], tools=True, schema=True)


def test_the_question_is_found_at_either_end_of_a_huge_prompt():
    filler = "the cat sat on the mat. " * 50_000
    for text in (f"Prove it. {filler}", f"{filler} Prove it."):
        found = read(text)
        assert found.deep_words == 1
        assert len(text) == found.chars
        assert found.seen_chars <= prompt.HEAD_CHARS + prompt.TAIL_CHARS + 1


class _Counting:
    """Stands in for a pattern and counts the characters that it is given."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern
        self.chars = 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Any:
            self.chars += len(args[-1])
            return getattr(self.pattern, name)(*args)

        return call


ADVERSARIAL = [
    "a",
    "1",
    "1.",
    "a-",
    "'",
    " ",
    "\n",
    "\n ",
    "/",
    "/a/",
    "http://",
    "1 + ",
    "at a",
    "0-",
    "why? ",
    "A" * 47 + " ",
    "为什么",
    "2026-11-21 ",
    "{;",
    "- ",
]


@pytest.mark.parametrize("seed", ADVERSARIAL)
def test_work_does_not_grow_with_the_prompt(seed: str, monkeypatch: pytest.MonkeyPatch):
    def work(size: int) -> int:
        counters = []
        with monkeypatch.context() as patch:
            for name, pattern in PATTERNS.items():
                counter = _Counting(pattern)
                counters.append(counter)
                patch.setattr(prompt, name, counter)
            read((seed * (size // len(seed) + 1))[:size])
        return sum(counter.chars for counter in counters)

    view = prompt.HEAD_CHARS + prompt.TAIL_CHARS + 1
    assert work(1 << 20) <= 2 * len(PATTERNS) * view
    assert work(1 << 20) <= work(1 << 22) + view


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_no_pattern_can_backtrack_without_bound(name: str):
    """Unbounded repeats are possessive and never nested, so that each try is linear at worst."""

    def check(node: Any, within: bool) -> None:
        if isinstance(node, sre_parser.SubPattern):
            for operation, argument in node:
                unbounded = False
                if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
                    unbounded = argument[1] is sre.MAXREPEAT
                    assert not (unbounded and within), f"{name} nests unbounded repeats"
                    assert not unbounded or operation is sre.POSSESSIVE_REPEAT, f"{name} may backtrack"
                check(argument, within or unbounded)
        elif isinstance(node, (tuple, list)):
            for part in node:
                check(part, within)

    pattern = PATTERNS[name]
    check(sre_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE), False)


def test_many_messages_and_many_parts_cost_no_more():
    class Watched(dict[str, Any]):
        seen = 0

        def get(self, key: str, default: Any = None) -> Any:
            Watched.seen += 1
            return super().get(key, default)

    many = [Watched(role="assistant", content="why") for _ in range(10_000)]
    found = features(many)
    assert found.turns == 10_000
    assert Watched.seen <= 3 * prompt.MESSAGES_SEEN
    parts = [{"type": "text", "text": "why?"}] * 10_000
    assert features([{"role": "user", "content": parts}]).chars == 4 * 2 * prompt.PARTS_SEEN


@given(st.text(), st.booleans(), st.booleans())
def test_any_text_has_sane_features(text: str, tools: bool, schema: bool):
    found = read(text, tools=tools, schema=schema)
    assert len(text) == found.chars
    assert 0 <= found.words <= len(text)
    assert found.longest_number <= found.digits <= len(text)
    assert found.products <= found.operators
    assert read(text, tools=tools, schema=schema) == found


_ROLES = st.sampled_from(["user", "assistant", "system", "tool"])
_CONTENTS = st.one_of(
    st.none(), st.text(), st.lists(st.dictionaries(st.sampled_from(["type", "text"]), st.text()), max_size=40)
)


@given(st.lists(st.fixed_dictionaries({"role": _ROLES, "content": _CONTENTS}), max_size=8))
def test_any_conversation_is_read(messages: list[dict[str, Any]]):
    assert len(messages) == features(messages).turns


def test_the_words_are_written_as_they_are_looked_up():
    assert [word for word in KIND_OF if word != word.lower()] == []
    assert all(len(prompt._WORD.findall(word)) == 1 for word in KIND_OF if word.isalpha())
    assert {Kind.REASONING, Kind.DEEP} <= set(UNSPACED.values())
