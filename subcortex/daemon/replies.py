"""Turning requests into ``ThinkRequest`` and errors into JSON, the same way on every route."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from subcortex.daemon.keys import MIND
from subcortex.errors import Cancelled, InvalidRequest, SubcortexError

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Shape = TypeVar("_Shape", bound=BaseModel)
_log = structlog.get_logger("daemon")


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the request's body as a JSON object.

    Raises:
        InvalidRequest: Too large, not UTF-8, not JSON, or not an object; with the figure.
    """
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        largest_mib = request.app[MIND].config.daemon.max_prompt_mib
        raise InvalidRequest(
            f"the request is larger than {largest_mib:g} MiB",
            hint="Shorten the prompt, or raise daemon.max_prompt_mib.",
        ) from None
    try:
        value = json.loads(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"the request is not UTF-8: byte {error.start} of {len(body)}", hint="Encode it as UTF-8."
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is not JSON: {error}", hint="Send a JSON object.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"the request is a JSON {type(value).__name__}", hint="Send a JSON object.")
    return value


def validated(shape: type[_Shape], value: dict[str, Any]) -> _Shape:
    """Return ``value`` as ``shape``, or say which field is wrong."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        shown = repr(first["input"])[:80]
        raise InvalidRequest(
            f"{name}: {first['msg']} (it is {shown})", hint="See docs/http.md for the fields.", param=name
        ) from None


def error_response(error: SubcortexError) -> web.Response:
    """Return an error as OpenAI's error object with its HTTP status."""
    headers = {}
    retry_after_s = error.details.get("retry_after_s")
    if isinstance(retry_after_s, int | float):
        headers["Retry-After"] = str(math.ceil(retry_after_s))
    return web.json_response({"error": error.to_wire()}, status=error.http_status, headers=headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer typed errors as they are, and anything else as an internal error without a traceback."""
    try:
        return await handler(request)
    except SubcortexError as error:
        return error_response(error)
    except web.HTTPException as error:
        return error_response(_NoSuchRoute(f"{request.method} {request.path}: {error.reason}", error.status))
    except ConnectionResetError:
        # Whoever asked has gone away, which is no fault of ours. What is returned reaches nobody; raised, it
        # would be logged by the server.
        return web.Response(status=Cancelled.http_status)
    except Exception as error:
        _log.exception("request failed", path=request.path)
        return error_response(SubcortexError(f"internal error: {type(error).__name__}", hint="See the log."))


@web.middleware
async def refuse_browsers(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse what a web page could send to a loopback port: foreign hosts and cross-site requests."""
    host = request.host.rsplit(":", 1)[0].strip("[]")
    if host not in ("localhost", "127.0.0.1", "::1") or "Origin" in request.headers:
        return error_response(
            InvalidRequest(f"requests for host {request.host!r} are refused", hint="Use 127.0.0.1.")
        )
    return await handler(request)


class _NoSuchRoute(SubcortexError):
    """The route or method does not exist."""

    code = "not_found"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, hint="docs/http.md lists the routes.")
        self.http_status = status  # type: ignore[misc]
