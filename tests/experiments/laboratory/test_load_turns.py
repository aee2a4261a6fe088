"""When a load has settled and a window is over: against a server whose answers begin and end on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from subcortex.experiments.laboratory import load as load_module
from subcortex.experiments.laboratory.load import Endpoint, Load

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\ndata: [DONE]\n\n'


class Server:
    """Requests in the order that they came in; each is begun to be answered at once unless it waits."""

    def __init__(self, *waiting: int) -> None:
        self._waiting = waiting
        self.requests: list[asyncio.StreamWriter] = []
        self.gone: list[int] = []
        self._changed = asyncio.Condition()

    async def reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        number = len(self.requests)
        self.requests.append(writer)
        if number not in self._waiting:
            writer.write(HEAD + TOKEN)
        async with self._changed:
            self._changed.notify_all()
        await reader.read()
        self.gone.append(number)
        async with self._changed:
            self._changed.notify_all()
        writer.close()

    def end(self, number: int) -> None:
        self.requests[number].write(TOKEN + END)

    async def came(self, number: int) -> None:
        """Wait until so many requests have come in."""
        await self._until(lambda: len(self.requests) >= number)

    async def left(self, number: int) -> list[int]:
        """Wait until so many requests are left, and return which."""
        await self._until(lambda: len(self.requests) - len(self.gone) == number)
        return [one for one in range(len(self.requests)) if one not in self.gone]

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(true)


@asynccontextmanager
async def loaded(folder: Path, server: Server) -> AsyncIterator[Load]:
    async with await asyncio.start_unix_server(server.reply, str(folder / "server")):
        endpoint = Endpoint(folder / "server", "any", tuple(range(12)))
        async with Load.on(endpoint, prompt_tokens=4, max_tokens=8) as load:
            yield load


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "_SETTLED_S", 0.0)


async def kept(load: Load, server: Server, concurrency: int) -> list[int]:
    """Have a load settle, and return the requests that are being answered then."""
    keeping = asyncio.create_task(load.keep(concurrency))
    await server.came(concurrency)
    ended = 0
    while not keeping.done():
        server.end(ended)
        ended += 1
        await server.came(concurrency + ended)
    return list(range(ended, ended + concurrency))


async def test_it_has_settled_when_half_as_many_answers_have_ended(folder: Path):
    server = Server()
    async with loaded(folder, server) as load:
        await kept(load, server, 6)
        keeping = asyncio.create_task(load.keep(4))
        first, second, *_ = await server.left(4)
        server.end(first)
        await server.came(len(server.requests) + 1)
        assert not keeping.done()
        server.end(second)
        await keeping
        assert load.concurrency == 4


async def test_it_waits_for_nobody_longer_than_it_may(folder: Path):
    async with loaded(folder, server := Server(0, 1, 2)) as load:
        await load.keep(3, most_s=0.1)
        await server.came(3)
        assert load.concurrency == 3


async def test_a_window_lasts_until_as_many_answers_have_ended_as_there_are_requests(folder: Path):
    server = Server()
    async with loaded(folder, server) as load:
        first, second, third = await kept(load, server, 3)
        looking = asyncio.create_task(load.window(0.01))
        await asyncio.sleep(0)
        for number in (first, third):
            server.end(number)
            await server.came(len(server.requests) + 1)
        assert not looking.done()
        server.end(second)
        window = await looking
        assert (window.whole, window.concurrency) == (True, 3)
        # Of three that ended and two that began anew.
        assert window.tok_s * window.seconds >= 3


async def test_a_window_is_cut_by_the_time_that_it_has(folder: Path):
    server = Server()
    async with loaded(folder, server) as load:
        first, _ = await kept(load, server, 2)
        server.end(first)
        window = await load.window(0.02, most_s=0.2)
        assert not window.whole
        assert window.seconds >= 0.2


async def test_what_waits_is_let_go_of_before_what_is_being_answered(folder: Path):
    server = Server(0, 1, 4)
    async with loaded(folder, server) as load:
        await load.keep(6, most_s=0.2)
        await server.came(6)
        # Those that wait first, the latest of them before the others; then the latest of all.
        for numbers in ([0, 1, 2, 3, 5], [2, 3, 5], [2, 3]):
            await load.keep(len(numbers), most_s=0.1)
            assert await server.left(len(numbers)) == numbers
