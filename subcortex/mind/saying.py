"""An answer as it builds up: text, counts and the moments that timing is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from subcortex.clock import Clock
from subcortex.engines.protocol import Delta
from subcortex.types import Timing, ToolCall, Usage


@dataclass(slots=True)
class Saying:
    """Collects the deltas of one answer; times are seconds on ``clock``."""

    clock: Clock
    began_s: float
    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    usage: Usage | None = None
    finish_reason: str | None = None
    queued_s: float = 0.0
    load_s: float = 0.0
    asked_s: float = 0.0
    first_s: float | None = None
    last_s: float = 0.0
    tokens: int = 0

    def add(self, delta: Delta) -> tuple[str, str]:
        """Take in one step of the answer; return what it adds to text and reasoning.

        Models put line breaks around their thinking aloud. Those belong to neither part.
        """
        thought_aloud = bool(self.reasonings or delta.reasoning)
        text = delta.text.lstrip() if thought_aloud and not self.texts else delta.text
        reasoning = delta.reasoning if self.reasonings else delta.reasoning.lstrip()
        if text or reasoning or delta.tool_calls:
            self.last_s = self.clock.monotonic_s()
            if self.first_s is None:
                self.first_s = self.last_s
            if text:
                self.texts.append(text)
            if reasoning:
                self.reasonings.append(reasoning)
            self.tool_calls.extend(delta.tool_calls)
        self.tokens += delta.tokens
        if delta.usage:
            self.usage = delta.usage
        if delta.finish_reason:
            self.finish_reason = delta.finish_reason
        return text, reasoning

    @property
    def started(self) -> bool:
        """Whether the caller may have seen something: nothing is retried after that."""
        return self.first_s is not None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        """The thinking aloud so far."""
        return "".join(self.reasonings).rstrip()

    def counted(self) -> Usage:
        """Return the engine's count of tokens, or ours of its chunks where it gave none."""
        return self.usage or Usage(completion_tokens=self.tokens)

    def timing(self) -> Timing:
        """Return where the time went, up to now."""
        n = self.counted().completion_tokens
        tpot_s = None
        # An answer that came in one piece says nothing about the time between its tokens.
        if self.first_s is not None and self.last_s > self.first_s and n > 1:
            tpot_s = (self.last_s - self.first_s) / (n - 1)
        return Timing(
            queued_s=self.queued_s,
            load_s=self.load_s,
            ttft_s=None if self.first_s is None else self.first_s - self.began_s,
            tpot_s=tpot_s,
            total_s=self.clock.monotonic_s() - self.began_s,
        )
