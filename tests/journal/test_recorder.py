"""What a redacted journal may hold."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.journal import Failure, Journal, Limits, Reader, Recorder
from subcortex.types import ToolCall
from tests.journal.samples import ROUTE, end, read, start, until

SECRETS = [
    "sk-abcdefghijklmnop1234",
    "sk-proj-Abc_def-0123456789",
    "Bearer abc.def-ghi_123",
    "bearer   0123456789abcdef",
    "Authorization: Basic dXNlcjpwYXNz",
    "ghp_0123456789abcdefABCDEF0123456789abcd",
    "github_pat_11ABCDEFG0123456789_abcdef",
    "glpat-0123456789abcdefghij",
    "hf_abcdefghijklmnopqrstuvwxyz",
    "xoxb-1234567890-abcdef",
    "AKIAIOSFODNN7EXAMPLE",
    "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "password = hunter2!",
    'api_key: "0a1b2c3d4e"',
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nmore\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nstill being sai",
]


@pytest.mark.parametrize("secret", SECRETS)
@given(before=st.text(max_size=20), after=st.text(max_size=20))
@settings(max_examples=25, deadline=None)
def test_keys_and_tokens_are_masked_wherever_they_stand(secret: str, before: str, after: str) -> None:
    masked = Recorder("redacted").text(f"{before}\n{secret}\n{after}")
    assert masked is not None
    assert secret not in masked
    assert "[redacted]" in masked


@pytest.mark.parametrize(
    "text",
    [
        "Does tensor parallelism cost VRAM?",
        "a task-oriented-dialogue-system-of-ours",
        "the bearer of news",
        "risk_assessment_of_everything",
        "The secret of good coffee",
        "eyJ",
    ],
)
def test_ordinary_words_are_left_alone(text: str) -> None:
    assert Recorder("redacted").text(text) == text


def test_the_users_patterns_are_masked_besides() -> None:
    recorder = Recorder("redacted", [r"\d{4} \d{4}", r"(?i)project \w+"])
    assert recorder.text("call 1234 5678 about PROJECT Zebra") == "call [redacted] about [redacted]"


def test_full_masks_nothing_and_none_keeps_nothing() -> None:
    assert Recorder("full", ["a"]).text("a" + SECRETS[0]) == "a" + SECRETS[0]
    assert Recorder("none").text("a") is None
    assert Recorder("none").data([{"a": 1}]) is None


@pytest.mark.parametrize(
    ("pattern", "word"), [("(", "not a regular expression"), ("x*", "empty text"), ("", "empty")]
)
def test_a_bad_pattern_names_the_key_and_itself(pattern: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        Recorder("redacted", [pattern])
    assert caught.value.details["key"] == "journal.redact"
    assert repr(pattern) in caught.value.message


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.booleans() | st.none())))
def test_data_without_texts_is_left_as_it_is(value: list[dict[str, int | None]]) -> None:
    assert Recorder("redacted", ["."]).data(value) == value


def has_said(path: Path, thought_id: str, chars: int) -> bool:
    return read(path, thought_id).text_chars == chars


async def test_no_byte_of_a_secret_reaches_the_disk_by_any_way(tmp_path: Path) -> None:
    secret, path = "sk-0123456789abcdefSECRET", tmp_path / "journal.db"
    route = ROUTE.model_copy(update={"reasons": [f"it has {secret}"], "degraded_reason": f"no {secret}"})
    begun = start(
        prompt=f"my key is {secret}",
        messages=[{"role": "user", "content": [{"type": "text", "text": f"my key is {secret}"}]}],
        params={"stop": [secret]},
        route=route,
    )
    async with Journal.open(
        path, recorder=Recorder("redacted"), limits=Limits(say_interval_s=0.01)
    ) as journal:
        await journal.begin(begun)
        # Half a key is no key yet: it waits until it is whole or was none.
        for said in (f"{'x' * 200} {secret[:12]}", f"{'y' * 300} {secret}{' z' * 100}"):
            journal.say(begun.id, said, said)
            await until(partial(has_said, path, begun.id, len(said)))
            saved = read(path, begun.id)
            assert saved.text
            assert set(saved.text) <= set("xyz []redacted")
        journal.event("fast", "crashed", log_tail=f"tail {secret}")
        await journal.complete(
            end(
                begun.id,
                f"Your key: {secret}",
                reasoning=secret,
                route=route,
                tool_calls=[ToolCall(id="1", name="f", arguments=f'{{"key": "{secret}"}}')],
                error=Failure("engine_failed", f"refused {secret}"),
            )
        )
        log = (tmp_path / "journal.db-wal").read_bytes()
    everything = log + path.read_bytes()
    for length in (12, 25):
        assert secret[:length].encode() not in everything
    record = read(path, begun.id)
    assert record.prompt == "my key is [redacted]"
    assert record.text == "Your key: [redacted]"
    assert record.tool_calls[0].arguments == '{"key": "[redacted]"}'
    assert record.error == Failure("engine_failed", "refused [redacted]")
    assert record.prompt_chars == len(f"my key is {secret}")
    assert record.recorded == "redacted"
    with Reader.open(path) as reader:
        assert reader.thoughts(query=secret) == []
        assert [found.id for found in reader.thoughts(query="redacted key")] == [begun.id]
