"""Real vLLM on the CPU, booted once: a random model whose weights it makes up.

All tests share one engine, since a boot takes twenty seconds; the last one kills it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from subcortex.engines import create
from subcortex.engines.canary import TOKENS, differs, implausible
from subcortex.engines.protocol import Delta, Engine, Progress
from subcortex.errors import DoesNotFit, EngineFailed, InvalidRequest
from subcortex.types import Rest
from tests.engines import tiny_vllm
from tests.engines.conftest import VLLM_ENV, VLLM_FLAGS, asking, config_in

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

BOOT_LIMIT_S = 300.0


async def collected(engine: Engine, **request: Any) -> list[Delta]:
    return [delta async for delta in engine.generate(asking(**request))]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory, vllm_python: str
) -> AsyncIterator[tuple[Engine, list[str]]]:
    folder = tmp_path_factory.mktemp("vllm")
    config = config_in(
        folder,
        {
            "engine": "vllm",
            "model": str(tiny_vllm.write(folder / "model")),
            "python": vllm_python,
            "context_tokens": tiny_vllm.CONTEXT_TOKENS,
            # Long prompts are taken in many steps, as on a real card.
            "flags": [*VLLM_FLAGS, "--max-num-batched-tokens", "128"],
            "env": VLLM_ENV,
            "start_timeout_s": BOOT_LIMIT_S,
        },
    )
    engine = create(config.tiers[0], config=config)
    told: list[str] = []
    try:
        await engine.start(Progress(listeners=[told.append]))
        yield engine, told
    finally:
        await engine.stop()


@pytest.fixture
def engine(served: tuple[Engine, list[str]]) -> Engine:
    return served[0]


async def test_its_boot_is_told_in_stages(served: tuple[Engine, list[str]]) -> None:
    engine, told = served
    assert "loading weights" in told
    assert any(text.startswith("KV cache of ") for text in told)
    assert told[-1] == "ready"
    assert engine.version is not None
    assert engine.version.startswith("vllm ")
    assert await engine.healthy()


async def test_its_boot_says_what_it_set_aside(engine: Engine) -> None:
    figures = engine.boot_figures()
    assert figures is not None
    assert figures.host is not None
    assert (figures.devices, figures.host.kv_pool_mib) == ([], 1024.0)
    # 2 layers, keys and values of 64 elements of four bytes.
    assert figures.kv_tokens == 2**30 // (2 * 2 * 64 * 4)
    assert f"vllm {figures.version}" == engine.version


async def test_it_streams(engine: Engine) -> None:
    deltas = await collected(engine, max_tokens=20, seed=1)
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 20
    assert len(deltas) > 2
    assert text_of(deltas)


async def test_one_token_comes_whole(engine: Engine) -> None:
    (delta,) = await collected(engine, max_tokens=1, temperature=0)
    assert delta.usage is not None
    assert delta.usage.completion_tokens == 1


async def test_its_canary_is_the_same_each_time(engine: Engine) -> None:
    first = await engine.canary()
    assert first is not None
    assert implausible(first) is None
    assert len(first.tokens) == TOKENS
    assert all(re.fullmatch(r"token_id:\d+", token) for token in first.tokens)
    assert None not in first.runners_up
    again = await engine.canary()
    assert again is not None
    assert differs(first, again) is None


async def test_its_beat_goes_on_through_a_prompt_of_many_steps_and_rests_when_idle(engine: Engine) -> None:
    async def rests() -> bool:
        return len({await engine.beat() for _ in range(5)}) == 1

    assert await engine.beat() is not None
    stream = engine.generate(asking("x" * 3900, max_tokens=50, temperature=0))
    first = asyncio.ensure_future(anext(stream))
    beats, tokens = set(), await metric(engine, "vllm:generation_tokens_total")
    while await metric(engine, "vllm:generation_tokens_total") == tokens:
        beats.add(await engine.beat())
    # Its own count of steps stands still until the first token.
    assert len(beats) > 3
    await first
    rest = [delta async for delta in stream]
    assert rest[-1].finish_reason == "length"
    assert (await engine.beat() or 0) > max(one or 0 for one in beats)
    async with asyncio.timeout(60):
        while not await rests():
            await asyncio.sleep(0.02)


async def test_it_sleeps_only_where_it_was_started_for_it(engine: Engine) -> None:
    assert engine.rests == {Rest.STOP}
    with pytest.raises(EngineFailed, match="knows no sleep_1"):
        await engine.sleep(Rest.SLEEP_1)


async def test_many_at_once(engine: Engine) -> None:
    answers = await asyncio.gather(*(collected(engine, max_tokens=10) for _ in range(12)))
    assert all(deltas[-1].finish_reason for deltas in answers)


async def test_a_schema_is_obeyed(engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer = json.loads(text_of(await collected(engine, max_tokens=400, response_schema=schema, seed=1)))
    assert answer.keys() == {"n"}
    assert answer["n"] in range(10)


@pytest.mark.parametrize(
    "wrong", [{"response_schema": {"type": "nope"}}, {"temperature": -3.0}, {"tool_choice": "sometimes"}]
)
async def test_what_it_refuses_is_an_invalid_request(engine: Engine, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await collected(engine, max_tokens=5, **wrong)
    assert await engine.healthy()


async def test_a_prompt_that_is_too_long_says_both_figures(engine: Engine) -> None:
    with pytest.raises(DoesNotFit) as caught:
        await collected(engine, text="x" * 5000, max_tokens=5)
    assert caught.value.details["context_tokens"] == tiny_vllm.CONTEXT_TOKENS
    assert caught.value.details["prompt_tokens"] > tiny_vllm.CONTEXT_TOKENS


async def test_closing_a_stream_stops_the_engine(engine: Engine) -> None:
    asked, before = 3900, await metric(engine, "vllm:generation_tokens_total")
    stream = engine.generate(asking(max_tokens=asked, seed=1))
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(60):
        while await running_requests(engine):
            await asyncio.sleep(0.02)
    generated = await metric(engine, "vllm:generation_tokens_total") - before
    assert 0 < generated < asked / 2


async def test_a_killed_server_takes_its_core_with_it(engine: Engine) -> None:
    assert engine.process is not None
    family = [
        psutil.Process(engine.process.pid),
        *psutil.Process(engine.process.pid).children(recursive=True),
    ]
    assert len(family) > 1
    os.kill(engine.process.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        assert "SIGKILL" in await engine.exited()
    with pytest.raises(EngineFailed):
        await collected(engine, max_tokens=5)
    await engine.stop()
    # An orphan stays a zombie where no init collects it: dead, and holding nothing.
    left = [
        process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]
    assert left == []


async def metric(engine: Engine, name: str) -> float:
    status, text = await engine._wire.get("http://engine/metrics")  # type: ignore[attr-defined]
    assert status == 200
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def running_requests(engine: Engine) -> float:
    return await metric(engine, "vllm:num_requests_running")
