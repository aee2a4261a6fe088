"""A thought: what is asked, where it went, what came back."""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from typing import Any

from pydantic import Field

from subcortex.types._model import Model
from subcortex.types.states import TierState

#: A chat message in OpenAI's shape; unknown keys travel through untouched.
Message = dict[str, Any]


class ThinkRequest(Model):
    """One thought to be had, as it crosses the socket.

    Args:
        messages: Chat messages in OpenAI's shape; at least one, with some text in the last.
        drive: Name of the drive behind the thought (``drives/*.toml``, or an Emergence state's), any case.
        tier: Force this tier; a forced thought never degrades.
        complexity: Override of the scored complexity, 0 to 1.
        response_schema: JSON Schema that the answer must obey, enforced by the engine.
        tools, tool_choice: OpenAI's function tools, passed to the engine.
        deadline_s: Seconds from arrival within which the answer must be complete.
        wait_s: How long the thought may wait, so that one swap serves many; a wait that is over brings its
            tier in. None: it is wanted as soon as can be.
        priority: Higher goes first while thoughts wait.
        session: Free name that groups thoughts in the journal.
        max_tokens, temperature, seed, stop, top_p: Sampling, as in OpenAI's API.
        stream: Send chunks as they come.
    """

    messages: list[Message]
    drive: str | None = None
    tier: str | None = None
    complexity: float | None = Field(default=None, ge=0.0, le=1.0)
    response_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    deadline_s: float | None = Field(default=None, gt=0.0)
    # Infinity would cross the socket as null, which means the opposite.
    wait_s: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)
    priority: int = 0
    session: str | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = None
    stop: list[str] | None = None
    stream: bool = False


class ToolCall(Model):
    """A function the model wants called; ``arguments`` is the JSON text the model wrote."""

    id: str
    name: str
    arguments: str


class Usage(Model):
    """Tokens in and out, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Timing(Model):
    """Where the time went, in seconds.

    ``ttft_s`` runs from the thought's arrival at the daemon to the first token; ``tpot_s`` is
    (generation end - first token) / (tokens - 1), absent below two tokens.
    """

    queued_s: float = 0.0
    load_s: float = 0.0
    ttft_s: float | None = None
    tpot_s: float | None = None
    total_s: float = 0.0


class TierCost(Model):
    """What a tier would have cost this thought: expected seconds, and from how many measurements."""

    tier: str
    state: TierState
    wait_s: float
    ttft_s: float
    total_s: float
    n: int = 0


class Route(Model):
    """Why a thought went where it went.

    Args:
        tier: The tier that served (or would serve) it.
        score: Need for depth, 0 to 1: drive and complexity weighed together.
        complexity: Complexity of the prompt, 0 to 1.
        reasons: The decision in plain words, in the order it was made.
        alternatives: What every tier, the chosen one included, was expected to cost.
        forced: The caller named the tier.
        degraded: A tier other than the chosen one served, for ``degraded_reason``.
    """

    tier: str
    score: float
    complexity: float
    reasons: list[str] = Field(default_factory=list)
    alternatives: list[TierCost] = Field(default_factory=list)
    forced: bool = False
    degraded: bool = False
    degraded_reason: str | None = None


class Thought(Model):
    """A thought that was had: the answer, and everything known about how it came.

    ``str(thought)`` is its text. ``parsed`` is an instance of the schema class given to ``think``.
    """

    id: str
    created_at: datetime
    text: str
    reasoning: str | None = None
    parsed: Any = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tier: str
    model: str
    engine: str
    engine_version: str | None = None
    route: Route
    usage: Usage = Field(default_factory=Usage)
    timing: Timing = Field(default_factory=Timing)
    drive: str | None = None
    session: str | None = None
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.text


class Chunk(Model):
    """A piece of an answer on its way: more text, more reasoning, or both empty at a tool call."""

    text: str = ""
    reasoning: str = ""

    def __str__(self) -> str:
        return self.text


class Notice(Model):
    """Something worth knowing while a thought waits, e.g. how far a model has loaded."""

    text: str

    def __str__(self) -> str:
        return self.text


def new_thought_id() -> str:
    """Return a sortable id: 12 hex digits of Unix milliseconds, then 12 random ones."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(6)}"
