"""Read a streamed chat completion: server-sent events in, deltas out. Pure."""

from __future__ import annotations

import json
from typing import Any

from subcortex.engines.protocol import Delta
from subcortex.engines.reasoning import ReasoningSplitter
from subcortex.types import ToolCall, Usage

_DONE = b"[DONE]"


class MalformedAnswer(Exception):
    """What came is no chat completion; says how it begins."""


class Answer:
    """What one answer's stream has said so far.

    Attributes:
        done: The stream has said that it is over.
        error: The error that the engine put into the stream, as it came; None if there is none.
        error_status: The HTTP status that it would have been, had the stream not begun; 500 if unsaid.
    """

    __slots__ = (
        "_buffer",
        "_calls",
        "_finish_reason",
        "_splitter",
        "_usage",
        "done",
        "error",
        "error_status",
    )

    def __init__(self) -> None:
        self.done = False
        self.error: dict[str, Any] | None = None
        self.error_status = 500
        self._buffer = b""
        self._splitter: ReasoningSplitter | None = ReasoningSplitter()
        self._calls: dict[int, list[str]] = {}
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    @property
    def ended(self) -> bool:
        """Whether the model came to an end of its own, as against a connection that broke."""
        return self._finish_reason is not None

    def feed(self, data: bytes) -> Delta | None:
        """Take the bytes of one read; return what they add to the answer, None if nothing."""
        text = reasoning = ""
        tokens = 0
        lines = (self._buffer + data if self._buffer else data).split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            if not line.startswith(b"data:"):
                if line.startswith(b"error:"):
                    self._fail(line[6:])
                continue
            payload = line[5:]
            if len(payload) < 10 and payload.strip() == _DONE:
                self.done = True
                break
            event = _parsed(payload)
            if event is None:
                self._fail(payload)
                break
            if event.get("error"):
                self._fail(payload)
                break
            if usage := event.get("usage"):
                self._usage = Usage.model_construct(
                    prompt_tokens=usage.get("prompt_tokens") or 0,
                    completion_tokens=usage.get("completion_tokens") or 0,
                )
            choices = event.get("choices")
            if not choices:
                continue
            choice = choices[0]
            delta = choice.get("delta")
            if delta:
                said = False
                if content := delta.get("content"):
                    said = True
                    if self._splitter is None:
                        text += content
                    else:
                        thought, content = self._split(content)
                        reasoning += thought
                        text += content
                if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                    said = True
                    reasoning += thought
                if calls := delta.get("tool_calls"):
                    said = True
                    self._collect(calls)
                tokens += said
            if reason := choice.get("finish_reason"):
                self._finish_reason = reason
        if tokens == 0 and not text and not reasoning:
            return None
        return Delta(text=text, reasoning=reasoning, tokens=tokens)

    def last(self) -> Delta:
        """Return the end of the answer: what was held back, tool calls, reason and usage."""
        reasoning, text = self._splitter.finish() if self._splitter else ("", "")
        calls = tuple(
            ToolCall(id=call[0] or f"call_{index}", name=call[1], arguments=call[2])
            for index, call in sorted(self._calls.items())
        )
        return Delta(
            text=text,
            reasoning=reasoning,
            tool_calls=calls,
            finish_reason=self._finish_reason,
            usage=self._usage,
            tokens=0,
        )

    def _split(self, content: str) -> tuple[str, str]:
        assert self._splitter is not None
        parts = self._splitter.feed(content)
        if self._splitter.transparent:
            self._splitter = None
        return parts

    def _collect(self, calls: list[dict[str, Any]]) -> None:
        for call in calls:
            kept = self._calls.setdefault(call.get("index") or 0, ["", "", ""])
            function = call.get("function") or {}
            # Id and name come whole, once or again with each piece; the arguments come in pieces.
            kept[0] = call.get("id") or kept[0]
            kept[1] = function.get("name") or kept[1]
            kept[2] += function.get("arguments") or ""

    def _fail(self, payload: bytes) -> None:
        self.done = True
        event = _parsed(payload) or {"error": payload.decode("utf-8", errors="replace").strip()}
        error = event.get("error", event)
        self.error = error if isinstance(error, dict) else {"message": str(error)}
        code = self.error.get("code")
        if isinstance(code, int) and 400 <= code < 600:
            self.error_status = code


def whole_answer(body: Any) -> Delta:
    """Return an unstreamed chat completion as its one and last delta.

    Raises:
        MalformedAnswer: ``body`` (parsed JSON, or text) is something else.
    """
    try:
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage") or {}
        splitter = ReasoningSplitter()
        first, then = splitter.feed(message.get("content") or ""), splitter.finish()
        thought = message.get("reasoning_content") or message.get("reasoning") or ""
        completion_tokens = usage.get("completion_tokens") or 0
        calls = [call["function"] | {"id": call.get("id")} for call in message.get("tool_calls") or ()]
        return Delta(
            text=_sound(first[1] + then[1]),
            reasoning=_sound(thought + first[0] + then[0]),
            tool_calls=tuple(
                ToolCall(id=call["id"] or f"call_{i}", name=call["name"], arguments=call["arguments"] or "")
                for i, call in enumerate(calls)
            ),
            finish_reason=choice.get("finish_reason"),
            usage=Usage(prompt_tokens=usage.get("prompt_tokens") or 0, completion_tokens=completion_tokens),
            tokens=completion_tokens or 1,
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise MalformedAnswer(str(body)[:200]) from error


def _parsed(payload: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(payload)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    # Half of a surrogate pair is no text that can be stored or sent on.
    return _whole(event) if b"\\ud" in payload or b"\\uD" in payload else event


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _sound(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def _sound(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
