"""What travels between the rooms, and over the socket: requests, thoughts and their parts.

Durations are seconds, sizes are tokens unless a name says otherwise.
"""

from __future__ import annotations

import secrets
import time
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: A chat message in OpenAI's shape; unknown keys travel through untouched.
Message = dict[str, Any]


class TierState(StrEnum):
    """Where a tier's engine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    FAILED = "failed"


class Rest(StrEnum):
    """How an engine leaves its GPU: its process ends, its weights go to host memory, or they are dropped."""

    STOP = "stop"
    SLEEP_1 = "sleep_1"
    SLEEP_2 = "sleep_2"


class ThoughtStatus(StrEnum):
    """How far a recorded thought came."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Depth(StrEnum):
    """How deep a session went, by its writer's word or by its evidence; from least to most."""

    NONE = "none"
    SHALLOW = "shallow"
    MODERATE = "moderate"
    DEEP = "deep"
    FULL = "full"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ThinkRequest(_Model):
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


class ToolCall(_Model):
    """A function the model wants called; ``arguments`` is the JSON text the model wrote."""

    id: str
    name: str
    arguments: str


class Usage(_Model):
    """Tokens in and out, as the engine counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


class Timing(_Model):
    """Where the time went, in seconds.

    ``ttft_s`` runs from the thought's arrival at the daemon to the first token; ``tpot_s`` is
    (generation end - first token) / (tokens - 1), absent below two tokens.
    """

    queued_s: float = 0.0
    load_s: float = 0.0
    ttft_s: float | None = None
    tpot_s: float | None = None
    total_s: float = 0.0


class TierCost(_Model):
    """What a tier would have cost this thought: expected seconds, and from how many measurements."""

    tier: str
    state: TierState
    wait_s: float
    ttft_s: float
    total_s: float
    n: int = 0


class Route(_Model):
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


class Thought(_Model):
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


class Chunk(_Model):
    """A piece of an answer on its way: more text, more reasoning, or both empty at a tool call."""

    text: str = ""
    reasoning: str = ""

    def __str__(self) -> str:
        return self.text


class TierStatus(_Model):
    """One row of ``subcortex ps``.

    Args:
        load_s: Expected or measured seconds from stopped to ready.
        memory_mib: Resident host memory of the engine's process tree, MiB.
        rest: How it went to sleep, while it sleeps.
        waits_for: Why it is not up although thoughts wait for it, or why it must rest.
        error: Why the tier is backing off or failed; ``error_code`` is the error's stable code.
    """

    name: str
    rank: int
    engine: str
    model: str
    state: TierState
    pid: int | None = None
    in_flight: int = 0
    queued: int = 0
    served: int = 0
    restarts: int = 0
    uptime_s: float | None = None
    load_s: float | None = None
    progress: str | None = None
    memory_mib: float | None = None
    rest: Rest | None = None
    waits_for: str | None = None
    engine_version: str | None = None
    error: str | None = None
    error_code: str | None = None


class TierEvent(_Model):
    """What became of a tier: one line of ``subcortex ps --watch``.

    Args:
        state: The state that it is in now.
        was: The one before; None where this only says how things stand.
        why: What brought it about, where that is known.
        facts: What else is known of it, anything JSON can hold (``load_s``, ``version``, …).
    """

    at: datetime
    tier: str
    state: TierState
    was: TierState | None = None
    why: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class DeviceFigures(_Model):
    """What an engine said it takes of one device, MiB; what it did not say is absent or None.

    Args:
        device: As the engine names it: ``GPU 0`` (its first rank's), ``CUDA0``, ``CPU``.
        components: By the names of ``vram.footprint.Component``, the KV pool aside; ``mapped`` are pages of
            a mapped file of weights.
        other_mib: Outside its own allocator since ``free_at_start_mib`` was read: what is left of the CUDA
            context, communication and libraries' buffers, which it does not tell apart.
        kv_pool_mib: Set aside for keys and values.
        free_at_start_mib: Free on the device at the engine's first reading. By then the context exists and,
            with several ranks, NCCL does too.
        total_mib: The whole device, as the engine sees it.
        taken_mib: By all of its processes once it was ready, as the driver or the kernel counts; never the
            engine's own word.
    """

    device: str
    components: dict[str, float] = Field(default_factory=dict)
    other_mib: float | None = None
    kv_pool_mib: float | None = None
    free_at_start_mib: float | None = None
    total_mib: float | None = None
    taken_mib: float | None = None


class BootFigures(_Model):
    """What an engine said of its own memory while it started.

    Args:
        devices: GPUs in the engine's order; none for an engine on the CPU.
        host: Host memory, None where it said nothing of it.
        kv_tokens: Tokens that the KV pool holds.
        max_concurrency: Requests of full length that the pool holds.
        kv_pinned: The pool has the size it was told to have. Otherwise it is what the rest left over, and
            says nothing that the rest does not.
        context_tokens: Longest request.
        max_batched_tokens: Tokens in one step.
        gpu_memory_utilization: Share of the card that it was to take.
        resolution_mib: Step that its figures are rounded to.
    """

    engine: str
    version: str | None = None
    devices: list[DeviceFigures] = Field(default_factory=list)
    host: DeviceFigures | None = None
    kv_tokens: int | None = None
    max_concurrency: float | None = None
    kv_pinned: bool = True
    kv_dtype: str | None = None
    context_tokens: int | None = None
    max_batched_tokens: int | None = None
    chunked_prefill: bool | None = None
    gpu_memory_utilization: float | None = None
    resolution_mib: float = 0.0


class TierShare(_Model):
    """What a tier has of one device, MiB.

    Args:
        planned_mib: What the plan gives it; None without a plan.
        taken_mib: What its processes hold now; None if that cannot be told.
        assumed: ``taken_mib`` is inferred: the driver lists processes that cannot be matched with ours.
    """

    tier: str
    planned_mib: float | None = None
    taken_mib: float | None = None
    assumed: bool = False

    @property
    def difference_mib(self) -> float | None:
        """Taken less planned; None unless both are known."""
        if self.planned_mib is None or self.taken_mib is None:
            return None
        return self.taken_mib - self.planned_mib


class ForeignProcess(_Model):
    """A process that is not ours and holds memory of a GPU; ``mib`` is None where the driver hides it."""

    pid: int
    name: str | None = None
    mib: float | None = None


class DeviceLedger(_Model):
    """Who holds one device's memory, MiB. Tiers, foreign, unexplained and free sum to the total.

    Args:
        gpu_index: As NVML counts; None for host memory.
        foreign_mib: By processes that are not ours. Host memory: all that is used and not ours.
        unexplained_mib: Used and by no process that is shown: the driver, firmware, hidden processes.
            Slightly negative where processes share pages that each is charged for.
        reserve_mib: Kept free by every plan.
        plannable_mib: What a plan may give another engine: what others and the driver leave, less the reserve
            and what tiers may still grow to. 0 on a card in MIG mode.
    """

    name: str
    gpu_index: int | None = None
    total_mib: float
    used_mib: float
    tiers: list[TierShare] = Field(default_factory=list)
    foreign: list[ForeignProcess] = Field(default_factory=list)
    foreign_mib: float = 0.0
    unexplained_mib: float = 0.0
    reserve_mib: float = 0.0
    plannable_mib: float = 0.0
    counted_mib: float | None = None

    @property
    def free_mib(self) -> float:
        """Total less used."""
        return self.total_mib - self.used_mib


class Ledger(_Model):
    """Who holds the memory of this machine: GPU by GPU, or host memory where there are none."""

    devices: list[DeviceLedger] = Field(default_factory=list)


class Notice(_Model):
    """Something worth knowing while a thought waits, e.g. how far a model has loaded."""

    text: str

    def __str__(self) -> str:
        return self.text


class YieldRequest(_Model):
    """What ``subcortex yield`` asks: GPUs for other programs.

    Args:
        for_s: Seconds, a year at most; None: until somebody says so.
        gpus: By NVML's index; None: all that tiers have, and tiers without a GPU rest too.
    """

    for_s: float | None = Field(default=None, gt=0.0, le=366 * 86400.0, strict=True)
    gpus: list[Annotated[int, Field(ge=0, strict=True)]] | None = Field(default=None, min_length=1)


class Yielded(_Model):
    """GPUs left to other programs.

    Args:
        gpus: By NVML's index; None: all that tiers have.
        until: None: until somebody says so.
    """

    gpus: list[int] | None = None
    until: datetime | None = None


class DaemonInfo(_Model):
    """The daemon itself, as ``subcortex ps`` shows it.

    Args:
        journal: ``ok``, or ``degraded: `` with why and how many rows wait in memory.
        yielded: What ``subcortex yield`` asked for and has not ended yet.
    """

    pid: int
    version: str
    started_at: datetime
    uptime_s: float
    socket: str
    tcp: str | None = None
    config: str | None = None
    database: str
    journal: str = "ok"
    idle_stop_s: float = 0.0
    yielded: list[Yielded] = Field(default_factory=list)


class Status(_Model):
    """The daemon, its tiers and who holds the memory, at one moment."""

    daemon: DaemonInfo
    tiers: list[TierStatus]
    ledger: Ledger = Field(default_factory=Ledger)


Durability = Literal["process", "power"]


def new_thought_id() -> str:
    """Return a sortable id: 12 hex digits of Unix milliseconds, then 12 random ones."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(6)}"
