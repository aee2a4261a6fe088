"""The face every engine shows: what the fleet starts and stops, and the mind sends thoughts to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from subcortex.types import BootFigures, Message, Rest, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """What an engine is asked to say; fields as in ``ThinkRequest``."""

    messages: list[Message]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """One step of an answer. Text and reasoning are increments; the rest comes with the last one."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """The engine's own process, for the pid file and for ``ps``; start time in seconds since the epoch."""

    pid: int
    start_time_s: float


@dataclass(frozen=True, slots=True)
class Canary:
    """What an engine says to a fixed prompt at temperature 0: tokens, and the log-probability of each.

    Args:
        runners_up: Log-probability of the second best token at each place, where the engine tells.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    runners_up: tuple[float | None, ...] = ()


@dataclass(slots=True)
class Progress:
    """Where a start has come to, in the engine's own words."""

    text: str = ""
    listeners: list[Callable[[str], None]] = field(default_factory=list)

    def report(self, text: str) -> None:
        """Keep the latest line and tell whoever listens."""
        self.text = text
        for listener in self.listeners:
            listener(text)


class Engine(Protocol):
    """One model served by one backend.

    The caller (the fleet's owner task) never calls ``start`` twice at once, and calls ``stop`` exactly
    once for every ``start``, whatever came of it.
    """

    kind: str
    """``llama.cpp``, ``vllm`` or ``remote``."""
    model: str
    """What the engine serves, as the config names it."""

    @property
    def version(self) -> str | None:
        """The backend's version once known, e.g. ``vllm 0.26.0``."""
        ...

    @property
    def process(self) -> ProcessInfo | None:
        """The engine's main process while there is one; None for a remote."""
        ...

    async def start(self, progress: Progress) -> None:
        """Launch and wait until the engine has answered its health route.

        Raises:
            EngineFailed: It exited or did not get ready in time; carries the end of its log.
            DoesNotFit: Its log says that memory ran out; carries the figures it gave.
            ConfigError: Its files or interpreter are not there.
        """
        ...

    async def adopt(self, progress: Progress) -> bool:
        """Take over what a former daemon left running; False if nothing of it answers rightly.

        After False whatever was left is gone, and ``start`` may be called. After True it is as if ``start``
        had returned.
        """
        ...

    @property
    def rests(self) -> frozenset[Rest]:
        """How it can leave its GPU: ``STOP``, and sleep where that was switched on at its start."""
        ...

    async def sleep(self, rest: Rest) -> None:
        """Give the GPU's memory back and keep the process; returns once the engine says that it sleeps.

        No request may be at work. Not for ``Rest.STOP``. It may take as long as a start.

        Raises:
            EngineFailed: It would not, or not in time; only a stop helps then.
        """
        ...

    async def wake(self) -> None:
        """Undo ``sleep``; returns once the engine says that it is awake.

        After either error only a stop helps: some of the memory may be back, and some not.

        Raises:
            EngineFailed: It would not, or not in time.
            DoesNotFit: The memory is not there.
        """
        ...

    async def canary(self) -> Canary | None:
        """Return its answer to a fixed prompt; None if this engine tells no log-probabilities.

        ``engines.canary`` says whether it is plausible, and whether two of them agree.

        Raises:
            EngineFailed: No answer within 30 s (the first after a start: 120 s, since kernels may be compiled
                for it), or no completion.
        """
        ...

    async def beat(self) -> int | None:
        """Return a count that has grown since the last call if it worked on requests; None if it tells none.

        It stands still while the engine is idle, asleep or hung. The first call only looks.

        Raises:
            EngineFailed: No answer within 5 s, or a broken connection: a miss, as if it stood still.
        """
        ...

    def shrink(self) -> str | None:
        """Have later starts ask for less of what the config leaves open; say what, None if nothing helps.

        Goes by why the last start failed, so it does something once a start that raised DoesNotFit. What was
        lowered stays so as long as this object lives: a start that takes minutes and fails is worse than a
        smaller cache. The next daemon asks for all of it again.
        """
        ...

    def boot_figures(self) -> BootFigures | None:
        """Return what the last start's log said of its memory, of a failed start too; None if nothing."""
        ...

    async def stop(self, grace_s: float = 10.0) -> None:
        """Ask, then kill; return when the whole process tree, its socket and its port are gone."""
        ...

    async def exited(self) -> str:
        """Wait until the engine dies by itself, and return why in words (a remote never returns)."""
        ...

    async def healthy(self) -> bool:
        """Return whether the health route answers now."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Stream an answer; closing the iterator aborts the request in the engine.

        Raises:
            InvalidRequest: The engine refused the request (schema, prompt too long, …).
            DoesNotFit: The prompt exceeds the context; says both in tokens.
            EngineFailed: The connection broke or the engine answered with an error.
        """
        ...

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines of the engine's log, inert for a terminal."""
        ...
