"""What an engine is asked while it runs, its canary and its beat: vLLM's stand-in, and real llama.cpp."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from subcortex.engines import _questions
from subcortex.engines.canary import TOKENS, differs, implausible
from subcortex.engines.protocol import Engine, Progress
from subcortex.errors import EngineFailed
from tests.engines.conftest import asking
from tests.engines.sleepy_server import switch

Sleepy = Callable[..., Any]
Running = Callable[..., Any]
FAST = Path(__file__).parents[2] / "testbed/models/fast/fast.gguf"


async def grows(engine: Engine, *, limit_s: float = 60.0) -> bool:
    """Return whether the beat grows before the limit."""
    first = await engine.beat()
    assert first is not None
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        now = await engine.beat()
        assert now is not None
        if now > first:
            return True
        await asyncio.sleep(0.01)
    return False


async def stands_still(engine: Engine, looks: int = 5) -> bool:
    """Return whether the beat is the same at every look."""
    await engine.beat()
    seen = set()
    for _ in range(looks):
        seen.add(await engine.beat())
        await asyncio.sleep(0.02)
    return len(seen) == 1


async def test_vllms_beat_goes_with_its_tokens(sleepy: Sleepy) -> None:
    async with sleepy(token_s=0.01) as (engine, _):
        assert await stands_still(engine)
        async with aclosing(engine.generate(asking(max_tokens=10_000))) as stream:
            await anext(stream)
            assert await grows(engine)


async def test_vllms_beat_goes_on_while_a_long_prompt_answers_nothing(sleepy: Sleepy) -> None:
    # Its steps are counted only once a token comes: there is more than one sign of life.
    async with sleepy(prompt_token_s=0.0001) as (engine, _):
        task = asyncio.create_task(anext(aiter(engine.generate(asking("x" * 1_000_000, max_tokens=2)))))
        assert await grows(engine)
        assert await grows(engine)
        assert not task.done()
        task.cancel()


async def test_a_hung_engine_has_no_beat_and_says_that_it_is_well(sleepy: Sleepy) -> None:
    async with (
        sleepy(token_s=0.01) as (engine, program),
        aclosing(engine.generate(asking(max_tokens=10_000))) as stream,
    ):
        await anext(stream)
        switch(program, stuck=True)
        # A token may have been on its way.
        while not await stands_still(engine):
            continue
        assert await stands_still(engine, looks=20)
        assert await engine.healthy()
        switch(program)
        assert await grows(engine)


async def test_a_sleeper_has_no_beat(sleepy: Sleepy) -> None:
    async with sleepy() as (engine, _):
        await engine.sleep(next(iter(engine.rests - {"stop"})))
        assert await stands_still(engine)


async def test_without_metrics_there_is_no_beat(sleepy: Sleepy) -> None:
    async with sleepy(no_metrics=True) as (engine, _):
        assert await engine.beat() is None


async def test_counters_that_do_not_come_are_a_miss(sleepy: Sleepy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_questions, "_COUNTERS_LIMIT_S", 0.2)
    async with sleepy() as (engine, program):
        assert await engine.beat() == 0
        switch(program, hang_metrics=True)
        with pytest.raises(EngineFailed, match=r"did not come within 0\.2 s") as caught:
            await engine.beat()
        assert caught.value.details["transient"] is True
        switch(program, die=True)
        with pytest.raises(EngineFailed, match="cannot be asked for") as caught:
            await engine.beat()
        assert caught.value.details["transient"] is True
    with pytest.raises(EngineFailed, match="is not running"):
        await engine.beat()


@pytest.mark.parametrize("fault", ["no_logprobs", "no_completions"])
async def test_what_tells_no_log_probabilities_has_no_canary(sleepy: Sleepy, fault: str) -> None:
    async with sleepy(**{fault: True}) as (engine, _):
        assert await engine.canary() is None


async def test_a_canary_that_does_not_come_is_an_error(
    sleepy: Sleepy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sleepy() as (engine, program):
        engine._canary_limit_s = 0.2
        switch(program, stuck=True)
        with pytest.raises(EngineFailed, match=r"did not answer its canary within 0\.2 s") as caught:
            await engine.canary()
        assert "Starting vLLM server" in caught.value.details["log_tail"]
        switch(program, die=True)
        with pytest.raises(EngineFailed, match="cannot be asked its canary"):
            await engine.canary()


async def test_the_first_canary_may_take_longer_than_the_next(sleepy: Sleepy) -> None:
    async with sleepy() as (engine, _):
        first = engine._canary_limit_s
        await engine.canary()
        assert (first, engine._canary_limit_s) == (120.0, 30.0)
        await engine.stop()
        await engine.start(Progress())
        assert engine._canary_limit_s == 120.0


async def test_llamacpp_says_the_same_canary_after_a_restart_and_among_others(running: Running) -> None:
    async with running(model=str(FAST), context_tokens=64) as engine:
        first = await engine.canary()
        assert first is not None
        assert implausible(first) is None
        assert len(first.tokens) == TOKENS
        assert None not in first.runners_up
        again = await engine.canary()
    assert again == first
    async with running(model=str(FAST), context_tokens=1024, threads=1, parallel=4) as engine:
        async with aclosing(engine.generate(asking("Count.", max_tokens=500, temperature=0))) as stream:
            await anext(stream)
            among_others = await engine.canary()
        assert differs(first, among_others) is None
        assert differs(first, await engine.canary()) is None


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
async def test_a_hundredth_of_the_weights_lost_is_seen(
    running: Running, tmp_path: Path, share: float
) -> None:
    raw = bytearray(FAST.read_bytes())
    start, size = int(len(raw) * share), len(raw) // 100
    raw[start : start + size] = bytes(size)
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(raw)
    async with running(model=str(FAST), threads=1) as engine:
        sound = await engine.canary()
    async with running(model=str(corrupt), threads=1) as engine:
        assert differs(sound, await engine.canary()) is not None


async def test_llamacpps_beat_goes_with_its_tokens(running: Running) -> None:
    async with running(context_tokens=32_768, parallel=1) as engine:
        assert await stands_still(engine)
        async with aclosing(engine.generate(asking(max_tokens=30_000, temperature=0))) as stream:
            await anext(stream)
            assert await grows(engine)


async def test_llamacpps_beat_goes_on_within_a_step_that_takes_minutes(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its counters stand still while it computes up to 2048 tokens of a prompt, or do not come at all.
    async def silent(*_: Any) -> Any:
        raise EngineFailed("too busy", transient=True, timed_out=True)

    async def still(*_: Any) -> Any:
        return {"llamacpp:n_decode_total": 1.0}

    async with running(context_tokens=32_768, parallel=1) as engine:
        monkeypatch.setattr(_questions, "ask_counters", still)
        assert await stands_still(engine)
        async with aclosing(engine.generate(asking(max_tokens=30_000, temperature=0))) as stream:
            await anext(stream)
            assert await grows(engine)
            monkeypatch.setattr(_questions, "ask_counters", silent)
            beats, end = set[int | None](), time.monotonic() + 60
            while len(beats) < 2:
                assert time.monotonic() < end
                # Time is counted in hundredths of a second: two looks within one show nothing.
                with contextlib.suppress(EngineFailed):
                    beats.add(await engine.beat())
                await asyncio.sleep(0.05)


async def test_looks_do_not_wake_a_llamacpp_that_sleeps_by_itself(running: Running) -> None:
    async def sleeping(engine: Engine) -> bool:
        _, props = await engine._wire.get("http://engine/props")  # type: ignore[attr-defined]
        return bool(props["is_sleeping"])

    async with running(flags=["--sleep-idle-seconds", "1"]) as engine:
        before = await engine.canary()
        end = time.monotonic() + 60
        while not await sleeping(engine):
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert await engine.healthy()
        assert await stands_still(engine)
        assert await sleeping(engine)
        assert await engine.canary() == before
        assert not await sleeping(engine)
