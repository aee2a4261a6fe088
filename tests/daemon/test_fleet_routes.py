"""Yield and events over real sockets, with a mind that only remembers what it was told."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientSession, UnixConnector, web

from subcortex.client import Client
from subcortex.config import Config, parse
from subcortex.daemon.app import build
from subcortex.daemon.keys import Service
from subcortex.daemon.serve import _close_mind, _until_stopped
from subcortex.errors import DaemonUnreachable, InvalidRequest, Overloaded
from subcortex.journal import JournalHealth
from subcortex.mind import Subcortex
from subcortex.mind.broadcast import Broadcaster
from subcortex.types import DeviceLedger, Ledger, TierEvent, TierState, TierStatus, Yielded
from tests.fakes import FakeClock


class FakeMind:
    """What the routes see of a mind."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = FakeClock()
        self.journal = self
        self.health = JournalHealth()
        self.changes: Broadcaster[TierEvent] = Broadcaster(buffered=8)
        self.told: list[object] = []
        self.gpus = [0, 1]
        self.silent_driver = False
        self.active = 0
        self.busy = False
        self.last_active_s = 0.0

    def status(self) -> list[TierStatus]:
        return [TierStatus(name="deep", rank=0, engine="vllm", model="m", state=TierState.READY)]

    def ledger(self) -> Ledger:
        if self.silent_driver:
            return Ledger()
        gpus = [DeviceLedger(name="H", gpu_index=index, total_mib=1, used_mib=0) for index in self.gpus]
        return Ledger(devices=[*gpus, DeviceLedger(name="host memory", total_mib=1, used_mib=0)])

    def yield_gpus(self, for_s: float | None, gpus: list[int] | None) -> None:
        self.told.append((for_s, gpus))

    def resume(self) -> None:
        self.told.append("resume")

    def event(self, state: TierState, **facts: Any) -> TierEvent:
        return TierEvent(at=self.clock.now(), tier="deep", state=state, facts=facts)

    async def events(self) -> AsyncIterator[TierEvent]:
        with self.changes.listening() as heard:
            yield self.event(TierState.READY)
            async for event in heard:
                yield event

    async def close(self, drain_s: float) -> None:
        self.changes.tell(self.event(TierState.STOPPED))
        self.changes.close()


class Served:
    """A daemon's socket over a fake mind, and the real client's calls in threads."""

    def __init__(self, mind: FakeMind, service: Service) -> None:
        self.mind, self.service = mind, service
        self.client = Client(mind.config)

    async def call(self, do: Callable[..., Any], *given: Any) -> Any:
        return await asyncio.to_thread(do, *given)

    async def raw(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        connector = UnixConnector(path=str(self.mind.config.socket_path))
        async with (
            ClientSession(connector=connector) as session,
            session.request(method, f"http://localhost{path}", data=body) as answer,
        ):
            return answer.status, await answer.json()

    async def close(self) -> None:
        await _close_mind(cast(Subcortex, self.mind), self.service)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Served]:
    tiers = [{"name": "deep", "engine": "vllm", "model": "m"}]
    config = parse({"daemon": {"runtime_dir": str(folder), "idle_stop_s": 5.0}, "tiers": tiers})
    mind = FakeMind(config)
    service = Service(mind.clock.now(), 0.0)
    runner = web.AppRunner(build(cast(Subcortex, mind), service), handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(config.socket_path)).start()
    served = Served(mind, service)
    try:
        yield served
    finally:
        await served.close()
        await runner.cleanup()
        served.client.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_a_yield_is_told_to_the_mind_and_stands_in_the_status_until_it_is_over(folder):
    async with serving(folder) as served:
        mind, client = served.mind, served.client
        status = await served.call(client.yield_gpus, 90.0, [1, 0, 1])
        assert mind.told == [(90.0, [0, 1])]
        until_at = mind.clock.now() + timedelta(seconds=90)
        assert status.daemon.yielded == [Yielded(gpus=[0, 1], until=until_at)]
        mind.clock.advance(60)
        await served.call(client.yield_gpus)
        found = (await served.call(client.status)).daemon.yielded
        assert found == [Yielded(gpus=[0, 1], until=until_at), Yielded(gpus=None, until=None)]
        mind.clock.advance(31)
        assert (await served.call(client.status)).daemon.yielded == [Yielded()]
        assert (await served.call(client.resume)).daemon.yielded == []
        assert mind.told[1:] == [(None, None), "resume"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"for_s": 0}', "for_s"),
        (b'{"for_s": -5}', "for_s"),
        (b'{"for_s": "2h"}', "for_s"),
        (b'{"for_s": true}', "for_s"),
        (b'{"for_s": Infinity}', "for_s"),
        (b'{"for_s": NaN}', "for_s"),
        (b'{"for_s": 1e300}', "for_s"),
        (b'{"gpus": []}', "gpus"),
        (b'{"gpus": [-1]}', "gpus.0"),
        (b'{"gpus": [true]}', "gpus.0"),
        (b'{"gpus": ["0"]}', "gpus.0"),
        (b'{"gpus": 0}', "gpus"),
        (b'{"gpus": [0, 7]}', "gpus"),
        (b'{"for": 9}', "for"),
        (b"[]", "JSON list"),
    ],
)
async def test_a_yield_that_is_nonsense_is_a_typed_error_and_changes_nothing(folder, body, named):
    async with serving(folder) as served:
        status, answer = await served.raw("POST", "/v1/yield", body)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")
        assert named in (answer["error"]["param"] or answer["error"]["message"])
        assert served.mind.told == []
        assert (await served.raw("GET", "/v1/status"))[1]["daemon"]["yielded"] == []


async def test_the_client_refuses_nonsense_by_name_before_it_asks(config):
    for for_s, gpus, named in ((-1.0, None, "for_s"), (None, [-3], "gpus.0"), (None, [], "gpus")):
        with pytest.raises(InvalidRequest) as caught:
            Client(config).yield_gpus(for_s, gpus)
        assert caught.value.details["param"] == named


async def test_a_gpu_that_is_not_there_is_named_with_those_that_are(folder):
    async with serving(folder) as served:
        with pytest.raises(InvalidRequest, match="there is no GPU 3") as caught:
            await served.call(served.client.yield_gpus, None, [0, 3])
        assert caught.value.hint == "This machine has: 0, 1."
        served.mind.gpus = []
        with pytest.raises(InvalidRequest) as caught:
            await served.call(served.client.yield_gpus, None, [0])
        assert caught.value.hint == "This machine has none."
        served.mind.silent_driver = True
        await served.call(served.client.yield_gpus, None, [0])
        assert served.mind.told == [(None, [0])], "a driver in trouble must not forbid making way"


async def test_a_daemon_whose_gpus_are_on_loan_does_not_stop_for_idleness(folder):
    async with serving(folder) as served:
        mind, service = served.mind, served.service
        await served.call(served.client.yield_gpus, 60.0)
        mind.clock.advance(30)
        waiting = asyncio.create_task(_until_stopped(cast(Subcortex, mind), service))
        await asyncio.sleep(0)
        assert not waiting.done(), "idle for 30 of 5 s, but a loan runs"
        waiting.cancel()
        mind.clock.advance(31)
        await asyncio.wait_for(_until_stopped(cast(Subcortex, mind), service), 5)


async def test_events_begin_with_how_things_stand_and_end_with_the_daemon(folder):
    async with serving(folder) as served:
        mind, heard = served.mind, list[TierEvent]()

        def listen() -> None:
            heard.extend(served.client.events())

        listening = asyncio.create_task(asyncio.to_thread(listen))
        await until(lambda: bool(served.service.listening) and bool(mind.changes._listeners))
        mind.changes.tell(mind.event(TierState.DRAINING, rest="sleep_1"))
        await served.close()
        await listening
        assert [event.state for event in heard] == [TierState.READY, TierState.DRAINING, TierState.STOPPED]
        assert heard[1].facts == {"rest": "sleep_1"}
        await until(lambda: not served.service.listening)


async def test_events_are_ndjson_with_iso_times_and_a_last_line(folder):
    async with serving(folder) as served:
        reader, writer = await asyncio.open_unix_connection(str(served.mind.config.socket_path))
        writer.write(b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await until(lambda: bool(served.mind.changes._listeners))
        await served.close()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b"application/x-ndjson" in head
        lines = [json.loads(line) for line in body.splitlines()]
        assert lines[0] == {"at": "2026-03-01T00:00:00Z", "tier": "deep", "state": "ready", "facts": {}}
        assert lines[-1] == {"end": "the daemon stops"}


async def test_a_slow_reader_is_cut_off_with_a_last_line_and_slows_nobody(folder):
    async with serving(folder) as served:
        mind = served.mind
        sleepy = socket.socket(socket.AF_UNIX)
        sleepy.connect(str(mind.config.socket_path))
        sleepy.send(b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await until(lambda: bool(mind.changes._listeners))
        for number in range(2000):
            mind.changes.tell(mind.event(TierState.READY, number=number, ballast="x" * 4000))
            await asyncio.sleep(0)
        assert (await served.raw("GET", "/health"))[1]["ok"] is True
        body = await asyncio.to_thread(_all_of, sleepy)
        lines = [json.loads(line) for line in body.partition(b"\r\n\r\n")[2].splitlines()]
        numbers = [line["facts"]["number"] for line in lines[1:-1]]
        assert numbers == list(range(len(numbers)))
        assert 8 <= len(numbers) < 2000
        assert lines[-1]["error"]["code"] == Overloaded.code


async def test_a_reader_who_sleeps_does_not_hold_up_the_end(folder):
    async with serving(folder) as served:
        mind = served.mind
        sleepy = socket.socket(socket.AF_UNIX)
        sleepy.connect(str(mind.config.socket_path))
        sleepy.send(b"GET /v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await until(lambda: bool(mind.changes._listeners))
        for _ in range(2000):
            mind.changes.tell(mind.event(TierState.READY, ballast="x" * 4000))
            await asyncio.sleep(0)
        await served.close()
        await until(lambda: not served.service.listening)
        sleepy.close()


async def test_a_daemon_that_dies_in_the_middle_is_no_end(folder):
    path = folder / "subcortex.sock"

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        line = b'{"at": "2026-03-01T00:00:00Z", "tier": "deep", "state": "ready"}\n{"at": "20'
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + line)
        writer.close()

    tiers = [{"name": "deep", "engine": "vllm", "model": "m"}]
    client = Client(parse({"daemon": {"runtime_dir": str(folder)}, "tiers": tiers}))
    async with await asyncio.start_unix_server(half, str(path)):
        heard: list[TierEvent] = []

        def listen() -> None:
            for event in client.events():
                heard.append(event)

        with pytest.raises(DaemonUnreachable, match="went away"):
            await asyncio.to_thread(listen)
    assert [event.state for event in heard] == [TierState.READY]


def _all_of(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    connection.close()
    return received
