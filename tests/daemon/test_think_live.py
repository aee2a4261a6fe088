"""The main job, whole: think() through a real daemon to two real models on llama.cpp."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from subcortex import (
    Chunk,
    Client,
    DoesNotFit,
    InvalidRequest,
    Reader,
    Thought,
    astream,
    athink,
    stream,
    think,
)
from subcortex.client.sdk import openai_client
from subcortex.types import ThoughtStatus


class Answer(BaseModel):
    answer: int


def test_drive_and_complexity_choose_the_tier_and_both_models_answer(running: Client):
    easy = think("What is 7 + 5?", drive="MAINTENANCE", temperature=0.0, client=running)
    assert (easy.tier, easy.route.degraded) == ("fast", False)
    assert "12" in easy.text
    assert easy.reasoning is None
    hard = think("What is 4812 + 7399? Explain each step.", drive="LEARNING", temperature=0.0, client=running)
    assert hard.tier == "deep"
    assert "12211" in hard.text
    assert "<think>" not in hard.text
    assert hard.reasoning
    assert "4812" in hard.reasoning
    assert str(hard) == hard.text == hard.text.strip()
    assert hard.engine == "llama.cpp"
    assert hard.engine_version
    assert hard.usage.completion_tokens > 20
    assert hard.timing.ttft_s is not None
    assert hard.timing.tpot_s is not None
    assert 0 < hard.timing.ttft_s < hard.timing.total_s
    assert {cost.tier for cost in hard.route.alternatives} == {"fast", "deep"}


def test_what_was_thought_is_on_record_and_searchable(running: Client):
    thought = think(
        "Count the letter r in strawberry please", tier="fast", session="berries", client=running, seed=3
    )
    reader = Reader.open(running.config.database_path)
    (kept,) = reader.thoughts(query="strawberry", session="berries")
    assert kept.id == thought.id
    assert kept.status is ThoughtStatus.COMPLETED
    assert kept.text == thought.text
    assert kept.timing.ttft_s == pytest.approx(thought.timing.ttft_s)
    assert kept.params["seed"] == 3


def test_a_stream_gives_chunks_and_then_the_same_thought(running: Client):
    *chunks, thought = stream("What is 4812 * 377?", tier="deep", temperature=0.0, client=running)
    assert isinstance(thought, Thought)
    assert all(isinstance(chunk, Chunk) for chunk in chunks)
    assert len(chunks) > 1
    assert "".join(c.text for c in chunks if isinstance(c, Chunk)) == thought.text
    assert "".join(c.reasoning for c in chunks if isinstance(c, Chunk)).rstrip() == thought.reasoning


async def test_async_calls_run_side_by_side(running: Client):
    asks = [athink(f"What is {n} + 5?", tier="fast", temperature=0.0, client=running) for n in range(10, 22)]
    thoughts = await asyncio.gather(*asks)
    right = sum(str(n + 5) in thought.text for n, thought in zip(range(10, 22), thoughts, strict=True))
    assert right >= 11
    pieces = [piece async for piece in astream("hi", tier="fast", client=running)]
    assert isinstance(pieces[-1], Thought)


def test_a_schema_is_obeyed_by_the_engine(running: Client):
    thought = think(
        "What is 7 + 5? Answer as JSON with the key answer.",
        tier="fast",
        schema=Answer,
        temperature=0.0,
        client=running,
    )
    assert thought.parsed == Answer(answer=12)
    assert json.loads(thought.text) == {"answer": 12}


def test_a_prompt_too_long_for_every_tier_says_both_figures(running: Client):
    with pytest.raises(DoesNotFit) as caught:
        think("word " * 200_000, client=running)  # a million characters
    assert caught.value.details["context_tokens"] == 1024
    assert caught.value.details["prompt_tokens"] > 100_000


def test_a_schema_the_engine_refuses_is_the_callers_error(running: Client):
    class Odd(BaseModel):
        @classmethod
        def model_json_schema(cls, *args, **kwargs):
            return {"type": "no such type"}

    with pytest.raises(InvalidRequest, match="schema|refused"):
        think("hi", tier="fast", schema=Odd, client=running)


@pytest.mark.parametrize(
    ("prompt", "options", "named"),
    [
        ("", {}, "empty"),
        ("hi", {"drive": "HUNGER"}, "HUNGER"),
        ("hi", {"tier": "medium"}, "medium"),
        ("hi", {"complexity": 3.0}, "complexity"),
        ("hi", {"deadline": -1}, "deadline_s"),
        ("bad \udcff", {}, "position 4"),
    ],
)
def test_what_cannot_be_asked_is_named(running: Client, prompt, options, named):
    with pytest.raises(InvalidRequest, match=named):
        think(prompt, client=running, **options)


def test_the_openai_sdk_speaks_to_the_daemon(running: Client):
    sdk = openai_client(running)
    assert {model.id for model in sdk.models.list()} == {"auto", "fast", "deep"}
    ask: Any = [{"role": "user", "content": "What is 7 + 5?"}]
    completion = sdk.chat.completions.create(
        model="auto",
        messages=ask,
        temperature=0,
        extra_body={"subcortex": {"drive": "MAINTENANCE"}},
    )
    assert completion.model == "fast"
    assert "12" in (completion.choices[0].message.content or "")
    assert completion.usage is not None
    assert completion.usage.total_tokens > completion.usage.completion_tokens > 0
    pieces = list(
        sdk.chat.completions.create(
            model="deep",
            messages=ask,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert "12" in said
    assert pieces[-1].usage is not None
    sdk.close()
