"""The client against a server that misbehaves in every way a server can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from subcortex.engines.protocol import Delta, GenerateRequest
from subcortex.engines.wire import Wire
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, InvalidRequest, Overloaded
from tests.engines.conftest import asking
from tests.engines.test_answer import DONE, USAGE, event

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(folder: Path, handler: Handler, **wire: Any) -> AsyncIterator[Wire]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    socket = folder / "s.sock"
    await web.UnixSite(runner, str(socket)).start()
    client = Wire("http://engine/v1", model="m", socket=socket, log_tail=lambda: "the log's end", **wire)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def streaming(*writes: bytes, hang: bool = False, cut: bool = False) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for data in writes:
            await response.write(data)
            await asyncio.sleep(0)
        if hang:
            await asyncio.Event().wait()
        if cut:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response

    return handle


def answering(status: int, body: Any, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers=headers)

    return handle


async def collected(wire: Wire, request: GenerateRequest | None = None) -> list[Delta]:
    async with asyncio.timeout(30):
        return [delta async for delta in wire.generate(request or asking())]


async def test_an_answer_comes_piece_by_piece(tmp_path: Path) -> None:
    whole = event(content="a") + event(content="b") + event("stop") + USAGE + DONE
    async with serving(tmp_path, streaming(whole)) as wire:
        deltas = await collected(wire)
    assert "".join(delta.text for delta in deltas) == "ab"
    assert sum(delta.tokens for delta in deltas) == 2
    assert deltas[-1].finish_reason == "stop"


async def test_the_request_says_what_was_asked_and_nothing_else(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await streaming(event(content="a") + event("stop") + DONE)(request)

    schema = {"type": "object", "additionalProperties": False}
    async with serving(tmp_path, handle) as wire:
        await collected(wire)
        await collected(
            wire,
            asking(
                max_tokens=5,
                temperature=0.0,
                top_p=0.5,
                seed=3,
                stop=["\n"],
                response_schema=schema,
                tools=[{"x": 1}],
            ),
        )
    assert bodies[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "Say something."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert bodies[1] == bodies[0] | {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 3,
        "stop": ["\n"],
        "tools": [{"x": 1}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    }


async def test_an_open_schema_is_not_called_strict(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await streaming(event("stop") + DONE)(request)

    async with serving(tmp_path, handle) as wire:
        await collected(wire, asking(response_schema={"type": "object"}))
    assert bodies[0]["response_format"]["json_schema"]["strict"] is False


async def test_one_token_is_asked_for_without_a_stream(tmp_path: Path) -> None:
    bodies: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        choice = {"message": {"content": "4"}, "finish_reason": "length"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})

    async with serving(tmp_path, handle) as wire:
        (delta,) = await collected(wire, asking(max_tokens=1))
    assert "stream" not in bodies[0]
    assert (delta.text, delta.tokens, delta.finish_reason) == ("4", 1, "length")


@pytest.mark.parametrize("reuse", [True, False])
async def test_connections_are_kept_only_where_the_server_keeps_them(tmp_path: Path, reuse: bool) -> None:
    transports = set()

    async def handle(request: web.Request) -> web.StreamResponse:
        transports.add(request.transport)
        return await streaming(event(content="a") + event("stop") + DONE)(request)

    async with serving(tmp_path, handle, reuse_streams=reuse) as wire:
        for _ in range(5):
            await collected(wire)
    assert len(transports) == (1 if reuse else 5)


async def test_closing_the_iterator_hangs_up(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await streaming(event(content="a"), hang=True)(request)
        except asyncio.CancelledError:
            hung_up.set()
            raise

    async with serving(tmp_path, handle) as wire:
        stream = wire.generate(asking())
        assert (await anext(stream)).text == "a"
        await stream.aclose()
        async with asyncio.timeout(30):
            await hung_up.wait()


async def test_cancelling_the_reader_hangs_up(tmp_path: Path) -> None:
    hung_up = asyncio.Event()
    began = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            hung_up.set()
        raise AssertionError

    async with serving(tmp_path, handle) as wire:
        task = asyncio.create_task(collected(wire))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            await hung_up.wait()


@pytest.mark.parametrize(
    "handler",
    [
        streaming(event(content="half"), cut=True),
        streaming(event(content="half")),
        streaming(event(content="half") + DONE),
        streaming(b"<html>not a stream</html>"),
        streaming(),
    ],
    ids=["reset", "eof", "done without a reason", "html", "empty"],
)
async def test_a_broken_answer_is_an_error_with_the_log(tmp_path: Path, handler: Handler) -> None:
    async with serving(tmp_path, handler) as wire:
        with pytest.raises(EngineFailed) as caught:
            await collected(wire)
    assert caught.value.details["log_tail"] == "the log's end"


async def test_what_was_said_before_the_break_is_delivered(tmp_path: Path) -> None:
    async def listen(wire: Wire, said: list[str]) -> None:
        async for delta in wire.generate(asking()):
            said.append(delta.text)

    said: list[str] = []
    async with serving(tmp_path, streaming(event(content="half"), cut=True)) as wire:
        with pytest.raises(EngineFailed, match="in the middle of the answer"):
            await listen(wire, said)
    assert said == ["half"]


async def test_an_answer_that_comes_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    text = "".join(f"llamacpp:figure_{number} {number}\n" for number in range(5000))

    async def in_pieces(request: web.Request) -> web.StreamResponse:
        assert await request.json() == {"asked": True}
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(text), 1000):
            await response.write(text[start : start + 1000].encode())
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    async with serving(tmp_path, in_pieces) as wire:
        assert await wire.post("http://engine/v1/chat/completions", {"asked": True}) == (200, text)


async def test_an_endless_answer_to_a_probe_is_cut(tmp_path: Path) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with serving(tmp_path, endless) as wire:
        status, text = await wire.post("http://engine/v1/chat/completions")
    assert (status, len(text)) == (200, 2**20)


async def test_an_engine_that_is_not_there_says_so(tmp_path: Path) -> None:
    wire = Wire("http://engine/v1", model="m", socket=tmp_path / "none.sock")
    with pytest.raises(EngineFailed, match="cannot be reached: No such file"):
        await collected(wire)
    await wire.close()


async def test_a_request_that_takes_too_long_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, streaming(event(content="a"), hang=True), timeout_s=0.2) as wire:
        with pytest.raises(EngineFailed, match="in time"):
            await collected(wire)


@pytest.mark.parametrize("max_tokens", [1, 5])
async def test_refusals_are_typed(tmp_path: Path, max_tokens: int) -> None:
    cases: list[tuple[Handler, type[Exception], str]] = [
        (answering(400, {"error": {"message": "bad schema"}}), InvalidRequest, "bad schema"),
        (
            answering(400, {"error": {"message": "x", "n_prompt_tokens": 9, "n_ctx": 5}}),
            DoesNotFit,
            "9 tokens",
        ),
        (answering(401, "no"), ConfigError, "KEY_OF_M"),
        (answering(429, "busy", **{"Retry-After": "3"}), Overloaded, "3 s"),
        (answering(500, {"error": {"message": "dead"}}), EngineFailed, "the log's end"),
    ]
    for handler, kind, words in cases:
        async with serving(tmp_path, handler, api_key_env="KEY_OF_M") as wire:
            with pytest.raises(kind) as caught:
                await collected(wire, asking(max_tokens=max_tokens))
        assert words in str(caught.value)


async def test_a_refusal_inside_the_stream_is_typed_too(tmp_path: Path) -> None:
    refused = b'data: {"error":{"message":"Grammar error","code":400}}\n\n' + DONE
    async with serving(tmp_path, streaming(refused)) as wire:
        with pytest.raises(InvalidRequest, match="Grammar error"):
            await collected(wire)


async def test_one_token_of_nonsense_is_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, answering(200, "<html>")) as wire:
        with pytest.raises(EngineFailed, match="no chat completion"):
            await collected(wire, asking(max_tokens=1))


async def test_the_key_goes_into_the_header_and_nowhere_else(tmp_path: Path) -> None:
    seen: list[str | None] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=500, text="boom")

    async with serving(tmp_path, handle, api_key="s3cret") as wire:
        with pytest.raises(EngineFailed) as caught:
            await collected(wire)
    assert seen == ["Bearer s3cret"]
    assert "s3cret" not in str(caught.value) + repr(caught.value.details)


async def test_many_streams_at_once_stay_apart(tmp_path: Path) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        name = (await request.json())["messages"][0]["content"]
        pieces = [event(content=f"{name}{i} ") for i in range(20)]
        return await streaming(*pieces, event("stop") + DONE)(request)

    async with serving(tmp_path, handle) as wire:
        answers = await asyncio.gather(*(collected(wire, asking(f"{n}-")) for n in range(40)))
    for n, deltas in enumerate(answers):
        assert "".join(delta.text for delta in deltas) == "".join(f"{n}-{i} " for i in range(20))
