"""What a request asks, checked and read: pure functions from a request to what routing needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import PydanticSerializationError

from subcortex.errors import InvalidRequest
from subcortex.types import Message, ThinkRequest

_ROLES = {"system", "developer", "user", "assistant", "tool"}
#: Fields besides the messages that may hold text of any kind.
_BEYOND_TEXT = {"session", "drive", "stop", "tools", "tool_choice", "response_schema"}
_HELP = "See help(subcortex.think), or OpenAI's chat completions."


def check(request: ThinkRequest) -> None:
    """Refuse what no engine could answer.

    Raises:
        InvalidRequest: Naming the part that is wrong.
    """
    if not request.messages:
        raise InvalidRequest("there is no message in the thought", hint=_HELP, param="messages")
    for place, message in enumerate(request.messages):
        _check_message(place, message)
    if not prompt_text(request.messages).strip():
        raise InvalidRequest(
            "the prompt is empty (0 characters that are not white space)",
            hint="Ask something.",
            param="messages",
        )
    if _BEYOND_TEXT & request.model_fields_set:
        _check_text(request)
    for place, tool in enumerate(request.tools or []):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict) or not function.get("name"):
            raise InvalidRequest(
                f"tools[{place}] is not {{'type': 'function', 'function': {{'name': …}}}}",
                hint=_HELP,
                param="tools",
            )


def _check_message(place: int, message: Message) -> None:
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidRequest(
            f"messages[{place}] has the role {role!r}",
            hint=f"One of: {', '.join(sorted(_ROLES))}.",
            param="messages",
        )
    for text in (*_texts(message), str(message.get("name") or "")):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"messages[{place}] is not text: a lone surrogate at character {error.start}",
                hint="Decode the bytes it came from as UTF-8, with errors='replace' if need be.",
                param="messages",
            ) from None


def _check_text(request: ThinkRequest) -> None:
    """Refuse lone surrogates wherever they stand: session, tools, schema, names."""
    try:
        request.model_dump_json(exclude_defaults=True)
    except PydanticSerializationError as error:
        raise InvalidRequest(
            f"the request is not text: {error}",
            hint="Decode the bytes it came from as UTF-8, with errors='replace' if need be.",
        ) from None


def prompt_text(messages: Iterable[Message]) -> str:
    """Return the text of the last message that is not the model's own."""
    for message in reversed(list(messages)):
        if message.get("role") != "assistant":
            return "\n".join(_texts(message))
    return ""


def _texts(message: Message) -> list[str]:
    content: Any = message.get("content")
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        return [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return []


def params(request: ThinkRequest) -> dict[str, Any]:
    """Return the sampling parameters that were given, for the record."""
    sampling = ("max_tokens", "temperature", "top_p", "seed", "stop")
    names = (*sampling, "priority", "deadline_s", "wait_s", "complexity")
    given = request.model_fields_set
    kept = {name: getattr(request, name) for name in names if name in given}
    if request.response_schema is not None:
        kept["schema"] = request.response_schema
    if request.tools:
        kept["tools"] = [tool["function"]["name"] for tool in request.tools]
    return kept
