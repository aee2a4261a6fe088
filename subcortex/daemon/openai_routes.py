"""OpenAI's chat completions over the same mind, for programs that speak only that.

``model`` is ``auto`` (routed) or a tier's name (forced). An object ``subcortex`` in the body carries
``drive``, ``complexity``, ``deadline_s``, ``wait_s``, ``priority`` and ``session``; the answer carries
the route in it.
"""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web

from subcortex.daemon.keys import MIND
from subcortex.daemon.replies import read_json, validated
from subcortex.errors import InvalidRequest, SubcortexError
from subcortex.mind import Subcortex
from subcortex.types import Chunk, Notice, ThinkRequest, Thought

AUTO = "auto"
_OURS = {"drive", "complexity", "deadline_s", "wait_s", "priority", "session"}
_SAMPLING = {"temperature", "top_p", "seed", "tools", "tool_choice"}
#: Accepted and without effect here, so that common clients work unchanged.
_IGNORED = {"n", "user", "stream_options", "store", "metadata", "parallel_tool_calls", "logprobs"}


async def _completions(request: web.Request) -> web.StreamResponse:
    body = await read_json(request)
    asked = think_request(body)
    mind = request.app[MIND]
    if not asked.stream:
        return web.json_response(completion(await mind.think(asked)))
    options = body.get("stream_options")
    with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
    return await _streaming(request, mind, asked, with_usage)


async def _models(request: web.Request) -> web.Response:
    names = [AUTO, *(tier.name for tier in request.app[MIND].config.tiers)]
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "subcortex"} for name in names]
    return web.json_response({"object": "list", "data": listed})


ROUTES = [web.post("/v1/chat/completions", _completions), web.get("/v1/models", _models)]


def think_request(body: dict[str, Any]) -> ThinkRequest:
    """Return OpenAI's request as ours.

    Raises:
        InvalidRequest: A field we do not know, or ``n`` above 1.
    """
    known = {"model", "messages", "max_tokens", "max_completion_tokens", "stop", "stream", "response_format"}
    unknown = sorted(set(body) - known - _SAMPLING - _IGNORED - {"subcortex"})
    if unknown or body.get("n") not in (None, 1):
        what = f"unknown field {unknown[0]!r}" if unknown else f"n is {body['n']}"
        raise InvalidRequest(what, hint="docs/http.md lists what is understood.", param=(unknown or ["n"])[0])
    ours = body.get("subcortex") or {}
    if not isinstance(ours, dict) or set(ours) - _OURS:
        raise InvalidRequest(
            f"subcortex: {ours!r}", hint=f"An object with: {', '.join(sorted(_OURS))}.", param="subcortex"
        )
    fields = {name: body[name] for name in _SAMPLING if body.get(name) is not None} | ours
    model = body.get("model") or AUTO
    stop = body.get("stop")
    fields |= {
        "messages": body.get("messages", []),
        "tier": None if model == AUTO else model,
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        "stop": [stop] if isinstance(stop, str) else stop,
        "stream": bool(body.get("stream")),
        "response_schema": _schema(body.get("response_format")),
    }
    return validated(ThinkRequest, fields)


def _schema(response_format: Any) -> dict[str, Any] | None:
    if response_format is None or response_format == {"type": "text"}:
        return None
    if isinstance(response_format, dict):
        if response_format.get("type") == "json_object":
            return {"type": "object"}
        wrapper = response_format.get("json_schema")
        if isinstance(wrapper, dict) and isinstance(wrapper.get("schema"), dict):
            return dict(wrapper["schema"])
    raise InvalidRequest(
        f"response_format: {str(response_format)[:80]}",
        hint="Use json_schema with a schema, json_object, or text.",
        param="response_format",
    )


def completion(thought: Thought) -> dict[str, Any]:
    """Return a thought in the shape of ``openai.types.chat.ChatCompletion``."""
    message: dict[str, Any] = {"role": "assistant", "content": thought.text}
    if thought.reasoning:
        message["reasoning_content"] = thought.reasoning
    if thought.tool_calls:
        message["tool_calls"] = _tool_calls(thought)
    return {
        **_head(thought, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": thought.finish_reason or "stop"}],
        "usage": _usage(thought),
        "subcortex": _extra(thought),
    }


async def _streaming(
    request: web.Request, mind: Subcortex, asked: ThinkRequest, with_usage: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    head = {"id": "chatcmpl-pending", "object": "chat.completion.chunk", "created": int(time.time())}
    head["model"] = asked.tier or AUTO

    async def send(event: dict[str, Any]) -> None:
        if not response.prepared:
            await response.prepare(request)
        await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    async def emit(event: Chunk | Notice) -> None:
        if isinstance(event, Notice):
            return
        parts = (("content", event.text), ("reasoning_content", event.reasoning))
        delta = {"role": "assistant"} | {name: text for name, text in parts if text}
        await send({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    try:
        thought = await mind.think(asked, emit)
    except SubcortexError as error:
        if not response.prepared:
            raise
        await send({"error": error.to_wire()})
        return response
    delta = {"tool_calls": _tool_calls(thought)} if thought.tool_calls else {}
    end = {"index": 0, "delta": delta, "finish_reason": thought.finish_reason or "stop"}
    head |= _head(thought, "chat.completion.chunk")
    await send({**head, "choices": [end], "subcortex": _extra(thought)})
    if with_usage:
        await send({**head, "choices": [], "usage": _usage(thought)})
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


def _head(thought: Thought, kind: str) -> dict[str, Any]:
    created = int(thought.created_at.timestamp())
    return {"id": f"chatcmpl-{thought.id}", "object": kind, "created": created, "model": thought.tier}


def _tool_calls(thought: Thought) -> list[dict[str, Any]]:
    return [
        {
            "index": place,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for place, call in enumerate(thought.tool_calls)
    ]


def _usage(thought: Thought) -> dict[str, int]:
    return {**thought.usage.model_dump(), "total_tokens": thought.usage.total_tokens}


def _extra(thought: Thought) -> dict[str, Any]:
    route, timing = thought.route.model_dump(mode="json"), thought.timing.model_dump()
    return {"id": thought.id, "route": route, "timing": timing, "drive": thought.drive}
