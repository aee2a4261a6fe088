"""What the journal takes in and gives back: a thought's start, its end, and the whole of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from subcortex.types import BootFigures, Message, Route, ThoughtStatus, Timing, ToolCall, Usage

Policy = Literal["full", "redacted", "none"]


class Failure(NamedTuple):
    """Why a thought did not end well: the error's stable code and its message."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ThoughtStart:
    """What is known of a thought before it goes to an engine.

    Args:
        id: As ``subcortex.types.new_thought_id`` makes it.
        prompt_text: Text of the last user message, for lists and for search.
        params: Sampling parameters and the like; anything JSON can hold.
    """

    id: str
    created_at: datetime
    messages: Sequence[Message]
    prompt_text: str
    tier: str
    model: str
    engine: str
    route: Route
    drive: str | None = None
    session: str | None = None
    engine_version: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ThoughtEnd:
    """How a thought ended. Tier, model, engine and route are those that served it.

    Args:
        status: Anything but ``running``.
        error: Why it failed or was cancelled; None when it completed.
    """

    id: str
    status: ThoughtStatus
    tier: str
    model: str
    engine: str
    route: Route
    text: str = ""
    reasoning: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    engine_version: str | None = None
    finish_reason: str | None = None
    error: Failure | None = None


class ThoughtRecord(BaseModel):
    """A recorded thought, whole.

    Texts are None where the policy held them back (``recorded`` is ``none``) or where there was
    none; their lengths, in characters, are kept either way. A running thought has the text saved so
    far.

    Args:
        run_id: The daemon run that had the thought.
        recorded: The policy it was written under.
        replaced_characters: Lone surrogates, which UTF-8 cannot hold, replaced by U+FFFD.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    id: str
    run_id: str
    status: ThoughtStatus
    created_at: datetime
    ended_at: datetime | None = None
    drive: str | None = None
    session: str | None = None
    tier: str
    model: str
    engine: str
    engine_version: str | None = None
    route: Route
    params: dict[str, Any] = Field(default_factory=dict)
    prompt: str | None = None
    prompt_chars: int = 0
    messages: list[Message] | None = None
    text: str | None = None
    text_chars: int = 0
    reasoning: str | None = None
    reasoning_chars: int = 0
    tool_calls: list[ToolCall] = Field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage = Field(default_factory=Usage)
    timing: Timing = Field(default_factory=Timing)
    error: Failure | None = None
    recorded: Policy = "full"
    replaced_characters: int = 0


@dataclass(frozen=True, slots=True)
class BootStart:
    """What is known of an engine's start before it happens; the prediction is part of it.

    Args:
        id: As ``subcortex.types.new_thought_id`` makes it.
        architecture: Of the model, as its files name it.
        gpus: Name and UUID of each GPU that it may use, in its order.
        setup: Its settings, anything JSON can hold.
        predicted: What it was expected to take; None if nobody could tell.
        hardware: Digest that ``Journal.save_hardware`` gave for the machine.
    """

    id: str
    at: datetime
    tier: str
    engine: str
    model: str
    architecture: str | None = None
    gpus: Sequence[tuple[str, str | None]] = ()
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    setup: Mapping[str, Any] | None = None
    predicted: Mapping[str, Any] | None = None
    hardware: str | None = None


@dataclass(frozen=True, slots=True)
class BootEnd:
    """How an engine's start ended, and what it took.

    Args:
        measured: What the engine said; of a start that failed, as far as it came.
        residuals: Measured less predicted, anything JSON can hold.
        error: Why it failed.
    """

    id: str
    outcome: Literal["ready", "failed"]
    engine_version: str | None = None
    measured: BootFigures | None = None
    residuals: Sequence[Mapping[str, Any]] | None = None
    error: Failure | None = None


class BootRecord(BaseModel):
    """A recorded start of an engine; fields as in ``BootStart`` and ``BootEnd``.

    ``outcome`` is None while the engine starts, and for ever if the daemon ended first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    id: str
    at: datetime
    run_id: str
    tier: str
    engine: str
    engine_version: str | None = None
    model: str
    architecture: str | None = None
    gpus: list[tuple[str, str | None]] = Field(default_factory=list)
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    setup: dict[str, Any] | None = None
    predicted: dict[str, Any] | None = None
    hardware: str | None = None
    ended_at: datetime | None = None
    outcome: Literal["ready", "failed"] | None = None
    measured: BootFigures | None = None
    residuals: list[dict[str, Any]] | None = None
    error: Failure | None = None


class EventRecord(BaseModel):
    """Something that happened to an engine, or to the journal itself (``tier`` is None then)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: datetime
    run_id: str
    tier: str | None
    kind: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TierMeasured:
    """What a tier cost lately, told from the record; seconds, medians.

    Args:
        n: Warm thoughts behind ``ttft_s`` (completed, and no load was waited for).
        ttft_s: First token after the tier was free; queueing is taken off.
        tpot_s: A token after the first.
        prefill_s_per_token: Slope of ``ttft_s`` over prompt tokens; None where prompts were too
            alike to tell.
        load_s: From stopped to ready; None if no start is on record.
        n_loads: Starts behind ``load_s``.
    """

    n: int
    ttft_s: float | None
    tpot_s: float | None
    prefill_s_per_token: float | None
    load_s: float | None
    n_loads: int


@dataclass(frozen=True, slots=True)
class JournalHealth:
    """Whether what is written reaches the disk.

    Args:
        state: ``degraded`` while rows wait in memory because the database takes none.
        reason: What the database said, in words; None when ok.
        held_rows: Writes that wait in memory.
        held_bytes: Their size, about.
        since: When it became degraded.
        lost_rows: Rows of this run that found no room in memory either: thoughts, events, starts of engines.
    """

    state: Literal["ok", "degraded"] = "ok"
    reason: str | None = None
    held_rows: int = 0
    held_bytes: int = 0
    since: datetime | None = None
    lost_rows: int = 0

    def __str__(self) -> str:
        lost = f"; {self.lost_rows} rows are lost" if self.lost_rows else ""
        if self.state == "ok":
            return f"ok{lost}"
        return f"degraded: {self.reason}; {self.held_rows} rows wait in memory{lost}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the writer.

    Args:
        held_rows, held_mib: What may wait in memory while the database takes nothing. Beyond it
            thoughts go on and are not recorded; ``JournalHealth.lost_rows`` counts them.
        busy_timeout_s: How long a write waits for another program's lock before it waits in memory.
        open_timeout_s: The same while opening and migrating.
        say_interval_s: How often what is being said is saved.
        retry_first_s, retry_max_s: First and longest pause between tries while degraded.
        checkpoint_rows, checkpoint_mib: Writes after which the log is folded into the database.
    """

    held_rows: int = 2000
    held_mib: float = 64.0
    busy_timeout_s: float = 0.5
    open_timeout_s: float = 10.0
    say_interval_s: float = 0.5
    retry_first_s: float = 0.1
    retry_max_s: float = 5.0
    checkpoint_rows: int = 1000
    checkpoint_mib: float = 16.0
