"""Starts and ends of thoughts, and what the tests of the journal do with them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from subcortex.journal import Journal, Reader, ThoughtEnd, ThoughtRecord, ThoughtStart
from subcortex.types import Route, ThoughtStatus, TierCost, TierState, Timing, Usage, new_thought_id

AT = datetime(2026, 2, 22, 15, 8, 7, 123456, tzinfo=UTC)
ROUTE = Route(
    tier="fast",
    score=0.25,
    complexity=0.125,
    reasons=["complexity 0.13: 5 words", "fast is ready"],
    alternatives=[TierCost(tier="fast", state=TierState.READY, wait_s=0.0, ttft_s=0.02, total_s=0.3, n=9)],
)


def start(thought_id: str | None = None, prompt: str = "What is 7 + 5?", **changes: Any) -> ThoughtStart:
    base = ThoughtStart(
        id=thought_id or new_thought_id(),
        created_at=AT,
        messages=[{"role": "user", "content": prompt}],
        prompt_text=prompt,
        tier="fast",
        model="tiny",
        engine="llama.cpp",
        engine_version="llama.cpp b6000",
        route=ROUTE,
        drive="LEARNING",
        session="s1",
        params={"temperature": 0.5},
    )
    return dataclasses.replace(base, **changes)


def end(thought_id: str, text: str = "12", **changes: Any) -> ThoughtEnd:
    base = ThoughtEnd(
        id=thought_id,
        status=ThoughtStatus.COMPLETED,
        tier="fast",
        model="tiny",
        engine="llama.cpp",
        route=ROUTE,
        text=text,
        usage=Usage(prompt_tokens=9, completion_tokens=2),
        timing=Timing(queued_s=0.001, ttft_s=0.02, tpot_s=0.003, total_s=0.05),
        finish_reason="stop",
    )
    return dataclasses.replace(base, **changes)


async def think(journal: Journal, prompt: str = "What is 7 + 5?", text: str = "12", **changes: Any) -> str:
    """Record a whole thought and return its id."""
    begun = start(prompt=prompt, **changes)
    await journal.begin(begun)
    ended = {key: changes[key] for key in ("tier", "model") if key in changes}
    await journal.complete(end(begun.id, text, **ended))
    return begun.id


def read(path: Path, thought_id: str) -> ThoughtRecord:
    with Reader.open(path) as reader:
        record = reader.thought(thought_id)
    assert record is not None
    return record


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread brings about; the suite's own time limit is the only one."""
    while not condition():
        await asyncio.sleep(0.005)
