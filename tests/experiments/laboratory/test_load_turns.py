"""When a load has settled and a window is over: against a server whose answers begin and end on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from subcortex.experiments.laboratory import load as load_module
from subcortex.experiments.laboratory.load import Endpoint, Load

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"text":"a"}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'


class Server:
    """Requests in the order that they came in; each is begun to be answered at once unless it waits."""

    def __init__(self, *waiting: int) -> None:
        self._waiting = waiting
        self.requests: list[asyncio.StreamWriter] = []
        self.gone: list[int] = []
        self._begun: set[int] = set()
        self._changed = asyncio.Condition()

    async def reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        number = len(self.requests)
        self.requests.append(writer)
        if number not in self._waiting:
            writer.write(HEAD + TOKEN)
            self._begun.add(number)
        async with self._changed:
            self._changed.notify_all()
        with suppress(ConnectionError):
            await reader.read()
        self.gone.append(number)
        async with self._changed:
            self._changed.notify_all()
        writer.close()

    def end(self, number: int, tokens: int = 2) -> None:
        """End an answer, in its third event, with so many tokens in all."""
        begun = b"" if number in self._begun else HEAD + TOKEN
        self.requests[number].write(begun + TOKEN + END % tokens)

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
    """Have a load of nothing settle, and return the requests that are being answered then."""
    keeping = asyncio.create_task(load.keep(concurrency))
    await server.came(concurrency)
    ended = 0
    while not keeping.done():
        server.end(ended)
        ended += 1
        await server.came(concurrency + ended)
    return list(range(ended, ended + concurrency))


async def turned() -> None:
    """Let the loop do whatever it can without time."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_it_grows_by_one_with_each_answer_that_ends(folder: Path):
    server = Server()
    async with loaded(folder, server) as load:
        working = await kept(load, server, 2)
        keeping = asyncio.create_task(load.keep(5))
        for grown in (3, 4, 5):
            came = len(server.requests)
            server.end(working.pop(0))
            # The answer's own next request, and one more.
            await server.came(came + 2)
            working += [came, came + 1]
            assert await server.left(grown) == working
        assert load.concurrency == 5
        # Three have ended since it began to grow, half of five, and one is to end since it has grown.
        await turned()
        assert not keeping.done()
        server.end(working[0])
        await keeping
        assert await server.left(5) == [*working[1:], len(server.requests) - 1]


async def test_it_shrinks_by_not_following_answers_and_breaks_none_off(folder: Path):
    server = Server()
    async with loaded(folder, server) as load:
        working = await kept(load, server, 6)
        keeping = asyncio.create_task(load.keep(4))
        came = len(server.requests)
        for number in (working[3], working[1]):
            server.end(number)
        assert await server.left(4) == [working[0], working[2], *working[4:]]
        assert (load.concurrency, len(server.requests)) == (4, came)
        await turned()
        assert not keeping.done()
        server.end(working[0])
        await keeping
        await server.came(came + 1)
        assert await server.left(4) == [working[2], *working[4:], came]


async def test_half_as_many_answers_end_however_little_it_changes(folder: Path):
    server = Server()
    async with loaded(folder, server) as load:
        working = await kept(load, server, 12)
        keeping = asyncio.create_task(load.keep(11))
        for number in working[:5]:
            await turned()
            assert not keeping.done()
            came = len(server.requests)
            server.end(number)
            await (server.left(11) if number == working[0] else server.came(came + 1))
        await keeping


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2)])
async def test_it_has_its_size_when_time_is_over(folder: Path, before: int, after: int):
    server = Server()
    async with loaded(folder, server) as load:
        await kept(load, server, before)
        await load.keep(after, most_s=0.1)
        assert load.concurrency == after
        assert len(await server.left(after)) == after


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
        await turned()
        assert not looking.done()
        server.end(second)
        window = await looking
        assert (window.whole, window.concurrency) == (True, 3)
        # Of three that ended and two that began anew.
        assert window.tok_s * window.seconds >= 3


async def test_a_window_holds_whole_turns(folder: Path, monkeypatch: pytest.MonkeyPatch):
    server, over, sleep = Server(), asyncio.Event(), asyncio.sleep

    async def until_over(seconds: float) -> None:
        await (over.wait() if seconds == 3600 else sleep(seconds))

    monkeypatch.setattr(asyncio, "sleep", until_over)
    async with loaded(folder, server) as load:
        working = await kept(load, server, 3)
        numbers = range(working[0], working[0] + 6)
        looking = asyncio.create_task(load.window(3600))
        for number in numbers[:4]:
            server.end(number)
            await server.came(len(server.requests) + 1)
        over.set()
        # Four answers in the time that was asked for: six are two turns.
        for number in numbers[4:]:
            await turned()
            assert not looking.done()
            server.end(number)
            await server.came(len(server.requests) + 1)
        window = await looking
        # Of a place's first answer nothing is told.
        assert (window.whole, len(window.timings)) == (True, sum(one >= 3 for one in numbers))


async def test_what_an_event_brings_is_known_from_the_answers_of_the_window(folder: Path):
    server = Server(*range(100))
    async with loaded(folder, server) as load:
        one = (await kept(load, server, 1))[0]
        for tokens in (2, 40, 6):
            looking = asyncio.create_task(load.window(0.01))
            await turned()
            server.end(one, tokens)
            one += 1
            await server.came(one + 1)
            window = await looking
            assert window.tok_s * window.seconds == pytest.approx(tokens)


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
