"""The client that measures a served model: against a real engine, its counters, and at its own limit."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from subcortex.errors import EngineFailed, InvalidRequest
from subcortex.experiments.laboratory.ceiling import ceiling
from subcortex.experiments.laboratory.engines import Served
from subcortex.experiments.laboratory.lab import Lab
from subcortex.experiments.laboratory.load import Endpoint, Load, answer
from subcortex.experiments.laboratory.streams import events_of, streamed
from tests.experiments.harness import config_for, lab_for, scene_for


@asynccontextmanager
async def serving(folder: Path, **changes: object) -> AsyncIterator[tuple[Lab, Served]]:
    config = config_for(folder)
    async with lab_for(scene_for(config)) as (lab, _):
        tier = config.tiers[0].model_copy(update={"parallel": 8, "context_tokens": 256} | changes)
        async with lab.engine(tier) as served:
            yield lab, served


async def counter(served: Served, name: str) -> float:
    """Return what the engine itself has counted."""
    reader, writer = await asyncio.open_unix_connection(str(served.socket))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


async def test_an_answer_alone_has_the_length_asked_for_and_times_that_add_up(folder: Path):
    async with serving(folder) as (_, served):
        endpoint = await Endpoint.of(served)
        for _ in range(2):
            before_s = time.monotonic()
            found = await answer(endpoint, prompt_tokens=100, max_tokens=40, seed=1)
            took_s = time.monotonic() - before_s
            assert (found.prompt_tokens, found.tokens) == (100, 40)
            # On a busy machine one read may bring it all.
            assert 0 < found.ttft_s <= found.latency_s <= took_s
            assert found.tpot_s == pytest.approx((found.latency_s - found.ttft_s) / 39)
            assert sum(found.itl_s) == pytest.approx(found.latency_s - found.ttft_s, abs=1e-6)
            # The word that it is over may come in a read of its own.
            assert len(found.itl_s) <= 40
        # The very same words twice, and both times all of them read anew.
        assert await counter(served, "llamacpp:prompt_tokens_total") == 200


async def test_a_load_gives_what_the_engine_counts(folder: Path):
    async with serving(folder) as (_, served):
        async with Load.on(served, prompt_tokens=16, max_tokens=32, seed=2) as load:
            assert load.concurrency == 0
            await load.keep(3)
            assert load.concurrency == 3
            tokens = await counter(served, "llamacpp:tokens_predicted_total")
            windows = [await load.window(0.4) for _ in range(3)]
            took_s = sum(one.seconds for one in windows)
            tokens = await counter(served, "llamacpp:tokens_predicted_total") - tokens
        came = sum(one.tok_s * one.seconds for one in windows)
        # The engine counts an answer when it has ended: at either end it may be off by three of them.
        assert abs(came - tokens) <= 0.05 * tokens + 3 * 32
        assert took_s >= 1.2
        timings = [one for window in windows for one in window.timings]
        # Of several lengths, so that places do not go in step.
        lengths = {one.tokens for one in timings}
        assert len(lengths) > 3
        assert 16 <= min(lengths) < max(lengths) <= 32
        assert {one.prompt_tokens for one in timings} == {16}
        assert [one.concurrency for one in windows] == [3, 3, 3]


async def test_as_many_requests_are_at_work_as_are_kept_and_none_is_left(folder: Path):
    async with serving(folder) as (_, served):

        async def at_work() -> float:
            return await counter(served, "llamacpp:requests_processing")

        async with Load.on(served, prompt_tokens=16, max_tokens=200) as load:
            for concurrency in (2, 5, 1):
                await load.keep(concurrency)
                # Between one answer and the next a place is empty for a moment.
                await until(at_work, concurrency)
        await until(at_work, 0)


async def until(look: Callable[[], object], wanted: float) -> None:
    async with asyncio.timeout(20):
        while await look() != wanted:  # type: ignore[misc]
            await asyncio.sleep(0)


async def test_an_engine_that_dies_under_load_is_an_error_at_once(folder: Path):
    async with serving(folder) as (_, served):

        async def bereft() -> None:
            async with Load.on(served, prompt_tokens=16, max_tokens=200) as load:
                await load.keep(2)
                assert served.engine.process is not None
                os.kill(served.engine.process.pid, signal.SIGKILL)
                await load.window(60.0)

        with pytest.raises(EngineFailed, match="connection|reached"):
            await bereft()


async def test_a_refusal_is_an_error_with_the_engines_words(folder: Path):
    async with serving(folder) as (_, served):
        with pytest.raises(EngineFailed, match=r"answered with 400.*context"):
            await answer(served, prompt_tokens=2000, max_tokens=2)
        with pytest.raises(EngineFailed, match="400"):
            async with Load.on(served, prompt_tokens=2000, max_tokens=2) as load:
                await load.keep(1)
        with pytest.raises(InvalidRequest):
            await answer(served, prompt_tokens=5, max_tokens=1)


async def test_a_cancelled_load_leaves_no_request_behind(folder: Path):
    async with serving(folder) as (_, served):

        async def loading() -> None:
            async with Load.on(served, prompt_tokens=16, max_tokens=200) as load:
                await load.keep(4)
                begun.set()
                await load.window(600.0)

        begun = asyncio.Event()
        task = asyncio.create_task(loading())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: counter(served, "llamacpp:requests_processing"), 0)


async def test_the_clients_own_ceiling_is_far_above_what_engines_give():
    assert await ceiling(8) > 5000


async def stand_in(folder: Path, *parts: bytes) -> tuple[Path, asyncio.Server]:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)  # each a read of its own
        writer.close()

    path = folder / "stand-in"
    return path, await asyncio.start_unix_server(reply, str(path))


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}\n\n'


@pytest.mark.parametrize("cut", [1, 5, 6, 9, 30])
async def test_an_event_cut_in_two_is_counted_once(folder: Path, cut: int):
    pieces = (HEAD[:9], HEAD[9:] + TOKEN[:cut], TOKEN[cut:] + TOKEN, TOKEN, USAGE + b"data: [DO", b"NE]\n\n")
    path, server = await stand_in(folder, *pieces)
    async with server:
        counts: list[int] = []
        found = await streamed(path, {}, limit_s=10, on_events=counts.append, keep=True)
    assert (found.events, found.tokens, found.prompt_tokens) == (4, 5, 7)
    assert sum(counts) == 4
    assert found.first_s < found.last_s
    assert sum(bool(event["choices"]) for _, event in events_of(found.pieces)) in (2, 3)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((HEAD, TOKEN), "middle of an answer"),
        ((HEAD, TOKEN, b"data: [DONE]\n\n"), "no usage"),
        ((b"HTTP/1.1 503 Busy\r\n\r\n", b"come back later"), "503: come back later"),
        ((HEAD, b'data: {"error":{"message":"out of pages"}}\n\n', b"data: [DONE]\n\n"), "out of pages"),
        ((), "middle of an answer"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error(folder: Path, parts: tuple[bytes, ...], words: str):
    path, server = await stand_in(folder, *parts)
    async with server:
        with pytest.raises(EngineFailed, match=words):
            await streamed(path, {}, limit_s=10)


async def test_what_never_ends_fails_in_time_and_what_is_not_there_at_once(folder: Path):
    path, server = await stand_in(folder, HEAD, TOKEN * 50, *[TOKEN] * 2000)
    async with server:
        with pytest.raises(EngineFailed, match=r"not over within 0\.2 s"):
            await streamed(path, {}, limit_s=0.2)
    with pytest.raises(EngineFailed, match="cannot be reached"):
        await streamed(folder / "nothing", {}, limit_s=10)
