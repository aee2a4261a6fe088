"""``think`` and its kin: the four calls most programs need."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from pydantic import BaseModel, ValidationError

from subcortex import config as configuration
from subcortex.client import sessions
from subcortex.client.client import Client
from subcortex.config import Config
from subcortex.errors import EngineFailed, InvalidRequest, JournalError
from subcortex.types import Chunk, Message, Notice, ThinkRequest, Thought

if TYPE_CHECKING:
    from openai import OpenAI

Prompt = str | Sequence[Message]


class Options(TypedDict, total=False):
    """What may accompany a prompt; see ``think``."""

    drive: str | None
    tier: str | None
    complexity: float | None
    schema: type[BaseModel] | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    deadline: float | None
    wait_s: float | None
    priority: int
    session: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: str | list[str] | None
    client: Client | None


def think(prompt: Prompt, **options: Unpack[Options]) -> Thought:
    """Have a thought: the right tier answers, and the journal keeps it.

    Args:
        prompt: A string, or chat messages (``[{"role": "user", "content": …}, …]``).
        **options: ``drive`` (a name from ``drives/``), ``tier`` (force one), ``complexity`` (0 to 1,
            instead of the scored one), ``schema`` (a pydantic class; the engine's structured output
            obeys it and ``thought.parsed`` is an instance), ``tools`` and ``tool_choice`` (OpenAI's),
            ``deadline`` (seconds until the answer must be whole), ``wait_s`` (seconds that the thought
            may wait for its tier, so that one swap serves many), ``priority`` (higher first),
            ``session`` (a name that groups thoughts; inside ``with session(…)`` it is that one, and so is
            the drive), ``max_tokens``, ``temperature``, ``top_p``,
            ``seed``, ``stop``, and ``client`` (another daemon's than the default configuration's).

    Returns:
        The finished ``Thought``; ``str(thought)`` is its text.

    Raises:
        InvalidRequest: Empty prompt, unknown drive or tier, a schema the engine refuses.
        DoesNotFit: The prompt exceeds every tier's context, or the forced tier's memory.
        EngineFailed: No tier could answer, or one broke off after its first token.
        DeadlineExceeded: The answer was not whole in time.
        Overloaded: Too many thoughts wait.
        DaemonUnreachable: No daemon is up and none could be started.
        ConfigError: The configuration is wrong.
    """
    client, request, schema = _request(prompt, options)
    return _parsed(client.think(request), schema)


def stream(prompt: Prompt, **options: Unpack[Options]) -> Iterator[Chunk | Thought]:
    """Have a thought and yield it as it comes: chunks, then the finished Thought.

    Arguments and errors are those of ``think``. Closing the iterator stops the engine's work on it.
    """
    client, request, schema = _request(prompt, options)
    for event in client.stream(request):
        if not isinstance(event, Notice):
            yield _parsed(event, schema) if isinstance(event, Thought) else event


async def athink(prompt: Prompt, **options: Unpack[Options]) -> Thought:
    """``think`` for asyncio; cancelling the task stops the engine's work on it."""
    client, request, schema = _request(prompt, options)
    return _parsed(await client.athink(request), schema)


async def astream(prompt: Prompt, **options: Unpack[Options]) -> AsyncIterator[Chunk | Thought]:
    """``stream`` for asyncio."""
    client, request, schema = _request(prompt, options)
    async for event in client.astream(request):
        if not isinstance(event, Notice):
            yield _parsed(event, schema) if isinstance(event, Thought) else event


def openai_client(config: Config | None = None) -> OpenAI:
    """Return an ``openai.OpenAI`` that speaks to the daemon, for programs written against that SDK.

    ``model`` is ``"auto"`` (routed) or a tier's name (forced); ``extra_body={"subcortex": {"drive": …}}``
    carries what OpenAI's API has no word for.
    """
    from subcortex.client.sdk import openai_client as make

    return make(_default_client() if config is None else Client(config))


_lock = threading.Lock()
_clients: dict[str, Client] = {}


def _default_client() -> Client:
    file = str(configuration.find())
    client = _clients.get(file)
    if client is None:
        with _lock:
            client = _clients.setdefault(file, Client(configuration.load(file)))
    return client


def _request(
    prompt: Prompt, options: Mapping[str, Any]
) -> tuple[Client, ThinkRequest, type[BaseModel] | None]:
    fields = dict(options)
    client = fields.pop("client", None) or _default_client()
    schema: type[BaseModel] | None = fields.pop("schema", None)
    held = sessions.current()
    if held is not None and fields.get("session") is None:
        fields["session"] = held.id
        fields["drive"] = fields.get("drive") or held.drive
    if "deadline" in fields:
        fields["deadline_s"] = fields.pop("deadline")
    if isinstance(fields.get("stop"), str):
        fields["stop"] = [fields["stop"]]
    if schema is not None:
        fields["response_schema"] = {"title": schema.__name__, **schema.model_json_schema()}
    if not isinstance(prompt, str | Sequence):
        raise InvalidRequest(
            f"the prompt is a {type(prompt).__name__}", hint="A string, or a list of chat messages."
        )
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    try:
        return client, ThinkRequest(messages=messages, **fields), schema
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidRequest(
            f"{name}: {first['msg']} (it is {first['input']!r:.80})",
            hint="help(subcortex.think) lists what a thought may carry.",
            param=name,
        ) from None


def _parsed(thought: Thought, schema: type[BaseModel] | None) -> Thought:
    held = sessions.current()
    if held is not None and thought.session == held.id:
        # The answer is worth more than its place in the session, and its row names the session anyhow.
        with suppress(JournalError, InvalidRequest):
            held.collect(thought.id)
    if schema is None or thought.tool_calls:
        return thought
    try:
        thought.parsed = schema.model_validate_json(thought.text)
    except ValidationError as error:
        cut = thought.finish_reason == "length"
        raise EngineFailed(
            f"the answer of {thought.tier} is not a {schema.__name__}: {error.errors()[0]['msg']}",
            hint="It was cut at max_tokens; raise it."
            if cut
            else "Ask the deep tier, or simplify the schema.",
            thought_id=thought.id,
            text=thought.text[:500],
        ) from None
    return thought
