"""The one client of OpenAI-shaped routes, for every engine: a request out, an answer in as it comes.

The hot path: every token of every thought passes here. So no models are validated, one read is one
pass, and what came in one read goes out as one ``Delta``.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from subcortex.engines import _refusals
from subcortex.engines._answer import Answer, MalformedAnswer, whole_answer
from subcortex.engines.protocol import Delta, GenerateRequest
from subcortex.errors import EngineFailed

#: Both llama-server and uvicorn close a connection after 5 idle seconds; ours must do it first.
_KEEPALIVE_S = 3.0
_CONNECT_S = 10.0
_PROBE_S = 5.0
_ERROR_BYTES = 64 * 1024
_PROBE_BYTES = 1024 * 1024
_READ_BYTES = 1024 * 1024
_BROKEN_OFF = "the engine closed the connection in the middle of the answer"
_HEADERS = {"Accept-Encoding": "identity", "Content-Type": "application/json"}


class Wire:
    """Connections to one engine's server.

    Args:
        base: URL that ``/chat/completions`` is appended to, without a slash at its end.
        socket: Unix socket to reach it by; None for TCP.
        model: The name in every request.
        api_key: Sent as a bearer token.
        api_key_env: Where the key is from, for error messages.
        timeout_s: Limit of a whole request in seconds; None for none.
        reuse_streams: Whether a connection may carry another request after a streamed answer.
        log_tail: Gives the end of the engine's log, for errors.
    """

    def __init__(
        self,
        base: str,
        *,
        model: str,
        socket: Path | None = None,
        api_key: str | None = None,
        api_key_env: str | None = None,
        timeout_s: float | None = None,
        reuse_streams: bool = True,
        log_tail: Callable[[], str] = lambda: "",
    ) -> None:
        self._base = base
        self._socket = socket
        self._model = model
        self._api_key_env = api_key_env
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        self._reuse_streams = reuse_streams
        self._log_tail = log_tail
        self._headers = _HEADERS | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._answering: set[aiohttp.ClientResponse] = set()

    def break_off(self) -> None:
        """Have the requests whose answers have begun end with EngineFailed now."""
        for response in self._answering:
            response.content.set_exception(aiohttp.ServerDisconnectedError())

    async def close(self) -> None:
        """Close all connections.

        Those that wait for the first byte of an answer are not told: end their server first, or ask nothing.
        """
        self.break_off()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    async def get(self, url: str, *, timeout_s: float = _PROBE_S) -> tuple[int, Any]:
        """Return status and body (JSON if it is, else text) of a GET of ``url``.

        Raises:
            OSError, TimeoutError, aiohttp.ClientError: As they come; it is a probe.
        """
        return await self._probe("GET", url, None, timeout_s)

    async def post(
        self, url: str, body: dict[str, Any] | None = None, *, timeout_s: float = _PROBE_S
    ) -> tuple[int, Any]:
        """Return status and answer of a POST of ``body`` (JSON; None: empty), as ``get`` does."""
        return await self._probe("POST", url, None if body is None else json.dumps(body).encode(), timeout_s)

    async def _probe(self, method: str, url: str, data: bytes | None, timeout_s: float) -> tuple[int, Any]:
        limit = aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S)
        async with self._opened().request(
            method, url, data=data, headers=self._headers, timeout=limit
        ) as response:
            return response.status, _json_or_text(await _at_most(response, _PROBE_BYTES))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Stream the answer; closing the iterator closes the connection, which aborts the request.

        Raises:
            InvalidRequest, DoesNotFit, Overloaded, ConfigError: The engine refused.
            EngineFailed: It cannot be reached, broke off, or answered with an error of its own.
        """
        # One token needs no stream: without one it is there 0.2 ms sooner, and the connection is kept.
        streamed = request.max_tokens != 1
        response: aiohttp.ClientResponse | None = None
        complete = False
        try:
            response = await self._opened(streamed).post(
                f"{self._base}/chat/completions",
                data=json.dumps(self._body(request, streamed)).encode(),
                headers=self._headers,
                timeout=self._timeout,
            )
            self._answering.add(response)
            if response.status != 200:
                raise await self._refusal(response)
            if not streamed:
                yield whole_answer(_json_or_text(await response.read()))
                complete = True
                return
            answer = Answer()
            async for data in response.content.iter_any():
                if (delta := answer.feed(data)) is not None:
                    yield delta
                if answer.done:
                    break
            if answer.error is not None:
                raise self._refused(answer.error_status, {"error": answer.error})
            if not answer.ended:
                raise self._failed(_BROKEN_OFF, transient=True)
            yield answer.last()
            if self._reuse_streams:
                # Nothing may be left to read on a connection that is used again.
                complete = await response.content.read(1) == b""
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed(_connection_words(error), transient=not _timed_out(error)) from error
        except (MalformedAnswer, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # Whatever shape a server makes up, it is its answer that is wrong, and wrong again next time.
            raise self._failed(f"the engine's answer is no chat completion: {error}") from error
        finally:
            if response is not None:
                self._answering.discard(response)
                response.release() if complete else response.close()

    def _body(self, request: GenerateRequest, streamed: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "messages": request.messages}
        if streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        for name in ("max_tokens", "temperature", "top_p", "seed", "stop", "tools", "tool_choice"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        schema = request.response_schema
        if schema is not None:
            # OpenAI's strict form refuses schemas that leave objects open; the others enforce either.
            strict = schema.get("additionalProperties") is False
            named = {"name": "answer", "schema": schema, "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    def _opened(self, streamed: bool = False) -> aiohttp.ClientSession:
        once = streamed and not self._reuse_streams
        session = self._sessions.get(once)
        if session is None:
            options: dict[str, Any] = {"limit": 0}
            options |= {"force_close": True} if once else {"keepalive_timeout": _KEEPALIVE_S}
            session = self._sessions[once] = aiohttp.ClientSession(
                connector=(
                    aiohttp.TCPConnector(**options)
                    if self._socket is None
                    else aiohttp.UnixConnector(str(self._socket), **options)
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BYTES,
            )
        return session

    async def _refusal(self, response: aiohttp.ClientResponse) -> Exception:
        body = _json_or_text(await _at_most(response, _ERROR_BYTES))
        return self._refused(response.status, body, response.headers.get("Retry-After"))

    def _refused(self, status: int, body: Any, retry_after: str | None = None) -> Exception:
        return _refusals.refusal(
            status,
            body,
            model=self._model,
            api_key_env=self._api_key_env,
            retry_after=retry_after,
            log_tail=self._log_tail(),
        )

    def _failed(self, message: str, *, transient: bool = False) -> EngineFailed:
        # A connection that breaks says nothing of the request: before its first token it may be sent again.
        return EngineFailed(message, log_tail=self._log_tail(), transient=transient)


async def _at_most(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    # A single read gives what has arrived so far, not what comes.
    parts, size = [], 0
    while size < limit_bytes and (part := await response.content.read(limit_bytes - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _timed_out(error: Exception) -> bool:
    return isinstance(error, TimeoutError)


def _connection_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the engine did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the engine cannot be reached: {connect_words(error)}"
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, ConnectionError)):
        return _BROKEN_OFF
    return f"the engine cannot be talked to: {error or type(error).__name__}"


def connect_words(error: aiohttp.ClientConnectorError) -> str:
    """Return why a connection could not be made, e.g. ``Connection refused``."""
    # asyncio puts a sentence of its own, with the address, where the system's words should be.
    number = error.os_error.errno
    return os.strerror(number) if number else str(error.os_error)


def _json_or_text(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", errors="replace")
