"""The way of a thought, with engines that fail at exact moments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from subcortex.config import Config, parse
from subcortex.engines.protocol import Delta, GenerateRequest
from subcortex.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    DoesNotFit,
    EngineFailed,
    InvalidRequest,
    Overloaded,
)
from subcortex.journal import Reader
from subcortex.mind import Subcortex
from subcortex.types import Chunk, Notice, ThinkRequest, Thought, ThoughtStatus, TierState
from tests.fakes import ScriptedEngine


def config(folder, **tiers) -> Config:
    names = {"fast": {}, "deep": {}} | tiers
    return parse(
        {
            "daemon": {"runtime_dir": str(folder / "run")},
            "journal": {"database": str(folder / "journal.db")},
            "tiers": [
                {"name": name, "engine": "llama.cpp", "model": f"{name}.gguf", "max_restarts": 1, **extra}
                for name, extra in names.items()
            ],
        }
    )


@asynccontextmanager
async def mind_of(folder, engines: dict[str, ScriptedEngine], **tiers) -> AsyncGenerator[Subcortex, None]:
    async with Subcortex.open(config(folder, **tiers), create=lambda tier: engines[tier.name]) as mind:
        async with asyncio.timeout(5):
            while any(
                mind.fleet.state(name) not in (TierState.READY, TierState.FAILED)
                for name, tier in engines.items()
                if tier.may_start.is_set()
            ):
                await asyncio.sleep(0.001)
        yield mind


@pytest.fixture
def engines() -> dict[str, ScriptedEngine]:
    return {"fast": ScriptedEngine("fast.gguf"), "deep": ScriptedEngine("deep.gguf")}


def ask(text="one two three", **fields) -> ThinkRequest:
    return ThinkRequest(messages=[{"role": "user", "content": text}], **fields)


def failing(error, *, after: int = 0):
    async def script(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        for i in range(after):
            yield Delta(text=f"word{i} ")
        raise error

    return script


def record(mind: Subcortex, thought_id: str | None = None):
    reader = Reader.open(mind.config.database_path)
    return reader.thought(thought_id) if thought_id else reader.thoughts()[0]


async def test_a_thought_is_answered_recorded_and_timed(tmp_path, engines):
    async with mind_of(tmp_path, engines) as mind:
        thought = await mind.think(ask(tier="fast", session="s", drive="maintenance", seed=7))
        assert thought.text == "one two three "
        assert (thought.tier, thought.model, thought.drive) == ("fast", "fast.gguf", "MAINTENANCE")
        assert thought.usage.completion_tokens == 3
        assert thought.timing.ttft_s is not None
        assert 0 < thought.timing.ttft_s <= thought.timing.total_s
        assert thought.timing.tpot_s is not None
        assert engines["fast"].requests[0].seed == 7
        kept = record(mind, thought.id)
        assert kept.status is ThoughtStatus.COMPLETED
        assert kept.text == thought.text
        assert kept.route == thought.route
        assert kept.params["seed"] == 7
        assert mind.costs.cost("fast").n == 1


async def test_the_complexity_given_decides(tmp_path, engines):
    async with mind_of(tmp_path, engines) as mind:
        assert (await mind.think(ask(complexity=0.0))).tier == "fast"
        assert (await mind.think(ask(complexity=1.0))).tier == "deep"
        assert mind.route(ask(complexity=1.0)).tier == "deep"
        assert mind.route(ask(complexity=1.0, tier="fast")).forced


async def test_the_next_best_serves_when_the_chosen_one_cannot(tmp_path, engines):
    engines["deep"].script = failing(EngineFailed("connection reset"))
    async with mind_of(tmp_path, engines) as mind:
        thought = await mind.think(ask(complexity=1.0))
        assert thought.tier == "fast"
        assert thought.route.degraded
        assert "connection reset" in (thought.route.degraded_reason or "")
        assert record(mind, thought.id).tier == "fast"


async def test_a_forced_tier_fails_with_its_own_error(tmp_path, engines):
    engines["deep"].script = failing(EngineFailed("connection reset"))
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(EngineFailed, match="connection reset") as caught:
            await mind.think(ask(tier="deep"))
        assert not engines["fast"].requests
        kept = record(mind, caught.value.details["thought_id"])
        assert kept.status is ThoughtStatus.FAILED
        assert kept.error.code == "engine_failed"


async def test_when_nobody_can_the_chosen_tiers_error_is_raised(tmp_path, engines):
    engines["deep"].script = failing(DoesNotFit("prompt of 9000 tokens, context of 4096"))
    engines["fast"].script = failing(DoesNotFit("prompt of 9000 tokens, context of 1024"))
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(DoesNotFit, match="4096"):
            await mind.think(ask(complexity=1.0))


async def test_after_the_first_token_nothing_is_retried(tmp_path, engines):
    engines["deep"].script = failing(EngineFailed("killed", transient=True), after=2)
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(EngineFailed, match="killed"):
            await mind.think(ask(complexity=1.0))
        assert len(engines["deep"].requests) == 1
        assert not engines["fast"].requests
        kept = record(mind)
        assert (kept.status, kept.text) == (ThoughtStatus.FAILED, "word0 word1 ")


async def test_before_the_first_token_a_passing_fault_is_retried(tmp_path, engines):
    calls = 0

    async def script(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise Overloaded("429", transient=True)
        yield Delta(text="at last", finish_reason="stop")

    engines["deep"].script = script
    async with mind_of(tmp_path, engines) as mind:
        thought = await mind.think(ask(tier="deep"))
        assert (thought.text, calls) == ("at last", 3)
        assert not thought.route.degraded


async def test_a_fault_that_nobody_foresaw_is_typed_and_recorded(tmp_path, engines):
    engines["fast"].script = failing(AttributeError("'str' object has no attribute 'get'"))
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(EngineFailed, match="AttributeError"):
            await mind.think(ask(tier="fast"))
        assert record(mind).status is ThoughtStatus.FAILED


async def test_what_is_not_passing_is_not_retried(tmp_path, engines):
    engines["deep"].script = failing(InvalidRequest("schema refused"))
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(InvalidRequest, match="schema refused"):
            await mind.think(ask(complexity=1.0))
        assert len(engines["deep"].requests) == 1
        assert not engines["fast"].requests, "another tier would be asked the same wrong thing"


async def test_a_deadline_ends_an_answer_and_says_how_far_it_came(tmp_path, engines):
    async def script(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(text="so far")
        await asyncio.Event().wait()

    engines["fast"].script = script
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(DeadlineExceeded) as caught:
            await mind.think(ask(tier="fast", deadline_s=0.05))
        assert caught.value.details["text"] == "so far"
        assert engines["fast"].closed_early == 1
        assert record(mind).text == "so far"


async def test_a_tier_that_is_not_up_in_time_hands_over_to_one_that_is(tmp_path, engines):
    engines["deep"].may_start.clear()
    slow = {"nominal_load_s": 0.01, "nominal_ttft_s": 0.01, "nominal_tpot_s": 0.0001}
    quick = {"nominal_ttft_s": 0.01, "nominal_tpot_s": 0.0001}
    async with mind_of(tmp_path, engines, deep=slow, fast=quick) as mind:
        thought = await mind.think(ask(complexity=1.0, deadline_s=0.4))
        assert thought.tier == "fast"
        assert thought.route.degraded
        assert thought.route.degraded_reason
        engines["deep"].may_start.set()


async def test_a_slow_tier_is_not_left_for_one_that_is_expected_to_be_slower_still(tmp_path, engines):
    """With no time to spare by anybody's figures, the quickest goes on: they may be wrong."""

    async def script(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.sleep(0.2)
        yield Delta(text="done")

    async def never(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.Event().wait()
        yield Delta(text="never")

    engines["fast"].script, engines["deep"].script = script, never
    figures = {"fast": {"nominal_tpot_s": 0.1}, "deep": {"nominal_tpot_s": 0.2}}
    async with mind_of(tmp_path, engines, **figures) as mind:
        thought = await mind.think(ask(complexity=1.0, deadline_s=5.0))
        assert (thought.tier, thought.text) == ("fast", "done")
        assert len(thought.route.alternatives) == 2


async def test_a_tier_with_no_model_is_passed_over_and_named_when_forced(tmp_path, engines):
    engines["deep"].starts = [ConfigError("there is no model file deep.gguf")]
    async with mind_of(tmp_path, engines) as mind:
        thought = await mind.think(ask(complexity=1.0))
        assert thought.tier == "fast"
        assert thought.route.degraded
        with pytest.raises(ConfigError, match="deep.gguf"):
            await mind.think(ask(tier="deep"))


async def test_cancelling_stops_the_engine_and_is_recorded(tmp_path, engines):
    async def script(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(text="begun")
        await asyncio.Event().wait()

    engines["fast"].script = script
    async with mind_of(tmp_path, engines) as mind:
        chunks: list[Chunk | Notice] = []
        seen = asyncio.Event()

        async def emit(event: Chunk | Notice) -> None:
            chunks.append(event)
            seen.set()

        task = asyncio.create_task(mind.think(ask(tier="fast"), emit))
        await asyncio.wait_for(seen.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engines["fast"].closed_early == 1
        assert mind.active == 0
    kept = Reader.open(tmp_path / "journal.db").thoughts()[0]
    assert (kept.status, kept.text) == (ThoughtStatus.CANCELLED, "begun")


async def test_closing_interrupts_thoughts_with_a_typed_error(tmp_path, engines):
    begun = asyncio.Event()

    async def script(request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        yield Delta(text="begun")
        begun.set()
        await asyncio.Event().wait()

    engines["fast"].script = script
    async with mind_of(tmp_path, engines) as mind:
        task = asyncio.create_task(mind.think(ask(tier="fast")))
        await asyncio.wait_for(begun.wait(), 5)
        await mind.close()
        with pytest.raises(Cancelled):
            await task
        with pytest.raises(Cancelled):
            await mind.think(ask())
    assert Reader.open(tmp_path / "journal.db").thoughts()[0].status is ThoughtStatus.INTERRUPTED


async def test_streaming_gives_notices_while_loading_then_chunks_then_the_thought(tmp_path, engines):
    engines["deep"].may_start.clear()
    async with mind_of(tmp_path, engines) as mind:
        events = []
        async for event in mind.stream(ask(tier="deep")):
            events.append(event)
            engines["deep"].may_start.set()
        kinds = [type(event) for event in events]
        assert kinds[0] is Notice
        assert kinds[-1] is Thought
        thought = events[-1]
        assert isinstance(thought, Thought)
        assert "".join(e.text for e in events if isinstance(e, Chunk)) == thought.text
        assert thought.timing.load_s > 0


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (ask(""), "empty"),
        (ask(" \n\t "), "empty"),
        (ThinkRequest(messages=[]), "no message"),
        (ask("hi", drive="HUNGER"), "HUNGER"),
        (ask("hi", tier="medium"), "medium"),
        (ask("bad \ud800 text"), "character 4"),
        (ThinkRequest(messages=[{"role": "robot", "content": "hi"}]), "robot"),
        (ask("hi", tools=[{"type": "function"}]), "tools\\[0\\]"),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_recorded(
    tmp_path, engines, request_, named
):
    async with mind_of(tmp_path, engines) as mind:
        with pytest.raises(InvalidRequest, match=named):
            await mind.think(request_)
        assert Reader.open(mind.config.database_path).thoughts() == []
