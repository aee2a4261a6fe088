"""A server elsewhere: checked when it is taken on, never owned."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from subcortex.config import Config
from subcortex.engines import create
from subcortex.engines.protocol import Engine, Progress
from subcortex.errors import ConfigError, EngineFailed
from tests.engines.conftest import asking
from tests.engines.test_answer import DONE, USAGE, event
from tests.engines.test_wire import streaming


@asynccontextmanager
async def server(*, key: str | None = None, models: Any = None, status: int = 200) -> AsyncIterator[str]:
    def refused(request: web.Request) -> bool:
        return key is not None and request.headers.get("Authorization") != f"Bearer {key}"

    async def listed(request: web.Request) -> web.StreamResponse:
        if refused(request):
            return web.json_response({"error": {"message": "Incorrect API key"}}, status=401)
        return web.json_response(models or {"object": "list", "data": [{"id": "big"}]}, status=status)

    async def completed(request: web.Request) -> web.StreamResponse:
        if refused(request):
            return web.json_response({"error": {"message": "Incorrect API key"}}, status=401)
        assert (await request.json())["model"] == "big"
        return await streaming(event(content="from afar") + event("stop") + USAGE + DONE)(request)

    app = web.Application()
    app.router.add_get("/v1/models", listed)
    app.router.add_post("/v1/chat/completions", completed)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@pytest.fixture
async def remote(make_config: Callable[..., Config]) -> AsyncIterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(url: str, **tier: Any) -> Engine:
        config = make_config(engine="remote", url=url, **({"model": "big"} | tier))
        engines.append(create(config.tiers[0], config=config))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.stop()


async def test_it_answers_and_has_no_process(
    remote: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", "s3cret")
    async with server(key="s3cret") as url:
        engine = remote(url + "/", api_key_env="FAR_KEY")
        await engine.start(Progress())
        deltas = [delta async for delta in engine.generate(asking())]
        assert "".join(delta.text for delta in deltas) == "from afar"
        assert await engine.healthy()
        assert engine.process is None
        assert engine.log_tail() == ""


async def test_it_never_exits_by_itself(remote: Callable[..., Engine]) -> None:
    async with server() as url:
        engine = remote(url)
        await engine.start(Progress())
        waiting = asyncio.create_task(engine.exited())
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        waiting.cancel()


async def test_a_missing_key_names_the_variable(
    remote: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAR_KEY", raising=False)
    engine = remote("http://127.0.0.1:9/v1", api_key_env="FAR_KEY")
    with pytest.raises(ConfigError, match="FAR_KEY is not set"):
        await engine.start(Progress())


async def test_a_wrong_key_names_the_variable_not_the_key(
    remote: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", "wrong-key")
    async with server(key="right-key") as url:
        with pytest.raises(ConfigError) as caught:
            await remote(url, api_key_env="FAR_KEY").start(Progress())
    assert "FAR_KEY" in str(caught.value)
    assert "wrong-key" not in str(caught.value) + repr(caught.value.details)


async def test_a_model_that_is_not_served_lists_those_that_are(remote: Callable[..., Engine]) -> None:
    async with server(models={"data": [{"id": "small"}, {"id": "medium"}]}) as url:
        with pytest.raises(ConfigError) as caught:
            await remote(url).start(Progress())
    assert caught.value.details["served"] == ["small", "medium"]
    assert "small, medium" in str(caught.value)


@pytest.mark.parametrize("models", [{"data": "nonsense"}, ["x"], {"models": []}])
async def test_a_list_that_cannot_be_read_is_not_held_against_it(
    remote: Callable[..., Engine], models: Any
) -> None:
    async with server(models=models) as url:
        await remote(url).start(Progress())


async def test_a_server_without_a_list_is_taken_at_its_word(remote: Callable[..., Engine]) -> None:
    async with server(status=404) as url:
        engine = remote(url)
        await engine.start(Progress())
        assert (await anext(engine.generate(asking()))).text == "from afar"


async def test_a_server_that_fails_is_not_ready(remote: Callable[..., Engine]) -> None:
    async with server(status=500) as url:
        with pytest.raises(EngineFailed, match="HTTP 500"):
            await remote(url).start(Progress())


async def test_nobody_there(remote: Callable[..., Engine]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take it either
        engine = remote(f"http://127.0.0.1:{held.getsockname()[1]}/v1")
        with pytest.raises(EngineFailed, match="refused"):
            await engine.start(Progress())
        assert not await engine.healthy()
