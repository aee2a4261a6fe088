"""One streamed completion over a Unix socket, read as raw bytes so that many at once cost little. Effects.

An event of the stream is counted where it comes in, not parsed: at 20 000 tokens a second a client that
parses each is slower than the engine. What an event is worth in tokens is known when the answer's usage is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subcortex.errors import EngineFailed

_EVENT, _END = b"data: {", b"data: [DONE]"
_HEAD_BYTES, _BODY_BYTES = 64 * 1024, 16 * 1024
#: Pieces kept of an answer's end; the usage is in its last two events.
_LAST_PIECES = 8


@dataclass(frozen=True, slots=True)
class Streamed:
    """A whole answer, on the monotonic clock.

    Args:
        began_s: When the request was sent.
        first_s, last_s: When its first and its last event came.
        events: How many came.
        tokens, prompt_tokens: As the engine's usage says.
        pieces: What came when, if it was to be kept.
    """

    began_s: float
    first_s: float
    last_s: float
    events: int
    tokens: int
    prompt_tokens: int
    pieces: tuple[tuple[float, bytes], ...] = ()


async def streamed(
    socket: Path,
    body: dict[str, Any],
    *,
    limit_s: float,
    on_events: Callable[[int], None] | None = None,
    keep: bool = False,
) -> Streamed:
    """Ask for a streamed completion and read it to its end; cancelled, it closes the connection at once.

    Args:
        socket: That an OpenAI server listens on.
        body: Of ``/v1/completions``; ``stream`` and the usage are added.
        limit_s: After which it has failed.
        on_events: Told of every read, with how many events came in it.
        keep: Whether to keep all that came, with the time.

    Raises:
        EngineFailed: No connection, a refusal, an answer that broke off or says no usage, or no end in time.
    """
    content = json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}).encode()
    request = _head("POST", "/v1/completions", len(content)) + content
    loop = asyncio.get_running_loop()
    reader = _Reader(request, loop.create_future(), on_events, keep)
    transport: asyncio.BaseTransport | None = None
    try:
        async with asyncio.timeout(limit_s):
            transport, _ = await loop.create_unix_connection(lambda: reader, str(socket))
            await reader.over
    except TimeoutError:
        raise EngineFailed(f"an answer under load was not over within {limit_s:g} s") from None
    except OSError as error:
        raise EngineFailed(f"the engine cannot be reached: {error.strerror or error}") from error
    finally:
        # What the connection's end would say is of no interest to anybody now.
        reader.over.cancel()
        if isinstance(transport, asyncio.Transport):
            transport.abort()
    return reader.result()


async def posted(socket: Path, path: str, body: dict[str, Any], *, limit_s: float = 30.0) -> Any:
    """Return the JSON that a route answers to a POST.

    Raises:
        EngineFailed: As ``streamed``.
    """
    content = json.dumps(body).encode()
    said = await _answered(socket, path, _head("POST", path, len(content)) + content, limit_s)
    try:
        return json.loads(said)
    except ValueError:
        raise EngineFailed(
            f"{path} was answered with no JSON: {said[:300].decode(errors='replace')}"
        ) from None


async def fetched(socket: Path, path: str, *, limit_s: float = 30.0) -> str:
    """Return the text that a route answers to a GET.

    Raises:
        EngineFailed: As ``streamed``.
    """
    return (await _answered(socket, path, _head("GET", path, 0), limit_s)).decode("utf-8", "replace")


async def _answered(socket: Path, path: str, request: bytes, limit_s: float) -> bytes:
    try:
        async with asyncio.timeout(limit_s):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=2**24)
            with contextlib.closing(writer):
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                found = await reader.read()
    except TimeoutError:
        raise EngineFailed(f"{path} was not answered within {limit_s:g} s") from None
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        raise EngineFailed(f"{path} was not answered: {error}") from error
    with contextlib.suppress(ValueError):
        if _status(head) == 200:
            return _unchunked(head, found)
    raise EngineFailed(f"{path} was answered with {_status(head)}: {found[:300].decode(errors='replace')}")


class _Reader(asyncio.Protocol):
    """Counts the events of one answer as they come."""

    def __init__(
        self, request: bytes, over: asyncio.Future[None], on_events: Callable[[int], None] | None, keep: bool
    ) -> None:
        self.over = over
        self._request = request
        self._on_events = on_events
        self._kept: list[tuple[float, bytes]] | None = [] if keep else None
        self._head: bytes | None = b""
        self._status = 0
        self._edge = b""
        self._last: deque[bytes] = deque(maxlen=_LAST_PIECES)
        self._began_s = self._first_s = self._last_s = 0.0
        self._events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._began_s = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if self._head is not None:
            self._head += data
            head, parted, data = self._head.partition(b"\r\n\r\n")
            if not parted:
                if len(head) > _HEAD_BYTES:
                    self._fail("the engine's answer has no end of its head")
                return
            self._head, self._status = None, _status(head)
        self._last.append(data)
        # A mark may lie across two reads; what lies wholly in the former was counted with it.
        joined = self._edge + data
        count = joined.count(_EVENT) - self._edge.count(_EVENT)
        self._edge = joined[1 - len(_END) :]
        if count:
            self._first_s = self._first_s or now_s
            self._last_s = now_s
            self._events += count
            if self._on_events is not None:
                self._on_events(count)
            if self._kept is not None:
                self._kept.append((now_s, data))
        if _END in joined and not self.over.done():
            self.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._status not in (0, 200):
            self._fail(f"the engine answered with {self._status}: {self._said()}")
        else:
            self._fail(f"the engine closed the connection in the middle of an answer{_after(self._said())}")

    def result(self) -> Streamed:
        if self._status != 200:
            raise EngineFailed(f"the engine answered with {self._status}: {self._said()}")
        usage = _usage(b"".join(self._last))
        if usage is None or not self._events:
            raise EngineFailed(f"the engine's answer has no usage{_after(self._said())}")
        return Streamed(
            self._began_s, self._first_s, self._last_s, self._events, *usage, tuple(self._kept or ())
        )

    def _said(self) -> str:
        return b"".join(self._last)[-_BODY_BYTES:].decode("utf-8", "replace").strip()[-500:]

    def _fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(EngineFailed(why))


def events_of(pieces: tuple[tuple[float, bytes], ...]) -> list[tuple[float, dict[str, Any]]]:
    """Return the events that were kept, each with the time of the read that it ended in."""
    found: list[tuple[float, dict[str, Any]]] = []
    rest = b""
    for at_s, data in pieces:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                event = json.loads(line[5:]) if line.startswith(b"data:") else None
                if isinstance(event, dict):
                    found.append((at_s, event))
    return found


def _usage(end: bytes) -> tuple[int, int] | None:
    """Return the tokens generated and those of the prompt, from an answer's last events."""
    for line in reversed(end.split(b"\n")):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            event = json.loads(line.partition(b"data: ")[2])
            usage = event["usage"]
            return int(usage["completion_tokens"]), int(usage["prompt_tokens"])
    return None


def _head(method: str, path: str, length: int) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


def _status(head: bytes) -> int:
    words = head.split(None, 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _unchunked(head: bytes, body: bytes) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            break
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


def _after(said: str) -> str:
    return f": {said}" if said else ""
