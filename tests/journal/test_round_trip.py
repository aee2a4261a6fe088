"""Any text at all survives the way to disk and back."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.journal import Failure, Journal, Reader
from subcortex.types import Route, ThoughtStatus, Timing, ToolCall, Usage
from tests.journal.samples import end, start

# Everything a Python string can hold: NUL, controls, lone surrogates, all planes.
texts = st.text(st.characters(exclude_categories=()), max_size=200)
seconds = st.floats(min_value=0, max_value=1e9, allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
routes = st.builds(
    Route,
    tier=texts,
    score=st.floats(0, 1),
    complexity=st.floats(0, 1),
    reasons=st.lists(texts, max_size=3),
    forced=st.booleans(),
    degraded=st.booleans(),
    degraded_reason=st.none() | texts,
)
starts = st.builds(
    start,
    prompt=texts,
    messages=st.lists(st.fixed_dictionaries({"role": texts, "content": json_values}), min_size=1, max_size=3),
    tier=texts,
    model=texts,
    drive=st.none() | texts,
    session=st.none() | texts,
    engine_version=st.none() | texts,
    route=routes,
    params=st.dictionaries(texts, json_values, max_size=3),
)
ends = st.fixed_dictionaries(
    {
        "text": texts,
        "reasoning": st.none() | texts,
        "status": st.sampled_from([s for s in ThoughtStatus if s is not ThoughtStatus.RUNNING]),
        "tier": texts,
        "route": routes,
        "tool_calls": st.lists(st.builds(ToolCall, id=texts, name=texts, arguments=texts), max_size=2),
        "usage": st.builds(
            Usage, prompt_tokens=st.integers(0, 10**9), completion_tokens=st.integers(0, 10**9)
        ),
        "timing": st.builds(
            Timing,
            queued_s=seconds,
            load_s=seconds,
            ttft_s=st.none() | seconds,
            tpot_s=st.none() | seconds,
            total_s=seconds,
        ),
        "finish_reason": st.none() | texts,
        "error": st.none()
        | st.builds(Failure, code=st.sampled_from(["engine_failed", "cancelled"]), message=texts),
    }
)


def mended(value: Any) -> Any:
    """Return ``value`` with lone surrogates replaced, as the journal documents."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, dict):
        return {mended(key): mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mended(item) for item in value]
    return value


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(starts, ends), min_size=1, max_size=4))
def test_what_was_recorded_is_what_is_read(thoughts) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"

        async def record() -> None:
            async with Journal.open(path) as journal:
                await asyncio.gather(*(journal.begin(begun) for begun, _ in thoughts))
                await asyncio.gather(*(journal.complete(end(begun.id, **ended)) for begun, ended in thoughts))

        asyncio.run(record())
        with Reader.open(path) as reader:
            for begun, ended in thoughts:
                found = reader.thought(begun.id)
                assert found is not None
                given_route = ended["route"].model_dump()
                assert found.model_dump(mode="json")["route"] == mended(given_route)
                assert {
                    "messages": found.messages,
                    "prompt": found.prompt,
                    "params": found.params,
                    "drive": found.drive,
                    "session": found.session,
                    "text": found.text,
                    "text_chars": found.text_chars,
                    "reasoning": found.reasoning,
                    "status": found.status,
                    "tier": found.tier,
                    "tool_calls": [call.model_dump() for call in found.tool_calls],
                    "usage": found.usage,
                    "timing": found.timing,
                    "finish_reason": found.finish_reason,
                    "error": found.error,
                } == {
                    "messages": mended(begun.messages),
                    "prompt": mended(begun.prompt_text),
                    "params": mended(begun.params),
                    "drive": mended(begun.drive),
                    "session": mended(begun.session),
                    "text": mended(ended["text"]),
                    "text_chars": len(ended["text"]),
                    "reasoning": mended(ended["reasoning"]),
                    "status": ended["status"],
                    "tier": mended(ended["tier"]),
                    "tool_calls": mended([call.model_dump() for call in ended["tool_calls"]]),
                    "usage": ended["usage"],
                    "timing": ended["timing"],
                    "finish_reason": mended(ended["finish_reason"]),
                    "error": ended["error"] and Failure(ended["error"].code, mended(ended["error"].message)),
                }
                assert found.model_dump_json()


def test_replaced_characters_are_counted(tmp_path: Path) -> None:
    begun = start(prompt="a\ud800b", drive=None)

    async def record() -> None:
        async with Journal.open(tmp_path / "journal.db") as journal:
            await journal.begin(begun)
            await journal.complete(end(begun.id, "\udfff\udfff!"))

    asyncio.run(record())
    with Reader.open(tmp_path / "journal.db") as reader:
        found = reader.thought(begun.id)
    assert found is not None
    assert (found.prompt, found.text, found.replaced_characters) == ("a\ufffdb", "\ufffd\ufffd!", 3)
