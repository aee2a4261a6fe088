"""A clock to set, thoughts that come as a test decides, and a tick on a journal of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from subcortex.config import Config
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.sessions import parse, read
from subcortex.mind.agent import Agent, Outcome
from subcortex.mind.agent.finding import Finder
from subcortex.mind.board import note_session
from subcortex.types import Route, ThinkRequest, Thought, Timing, Usage, new_thought_id

DRIVE = """
description = "{name} for a test."
prompt = "Think about {name}."
threshold = 10.0
rate_per_hour = 1.0
{more}
"""
NOTES = """# Session: LEARNING
**Date:** 2026-02-22 15:08

## What I Already Know

- PCIe 4.0 x16 carries 64 GB/s each direction

## What I Need to Learn

1. **PCIe:** How much of the bandwidth of PCIe 4.0 x16 does a copy reach?
"""


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()


class Thinker:
    """Answers in turn what it was told to, or raises it."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[ThinkRequest] = []

    def __call__(self, request: ThinkRequest) -> Thought:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else "I have nothing to add."
        if isinstance(answer, Exception):
            raise answer
        return Thought(
            id=new_thought_id(),
            created_at=datetime(2026, 3, 2, tzinfo=UTC),
            text=answer,
            tier="deep",
            model="m",
            engine="e",
            route=Route(tier="deep", score=1.0, complexity=1.0),
            usage=Usage(),
            timing=Timing(),
        )


def tick(
    config: Config,
    diary: Diary,
    think: Thinker | None = None,
    busy: str | None = None,
    finder: Finder | None = None,
) -> Outcome:
    return Agent(config, diary, think or Thinker(), lambda: busy, finder).tick()


def grown(config: Config, diary: Diary, clock: Clock, hours: float) -> None:
    """Let the drives build up: growth begins at the first tick."""
    tick(config, diary)
    clock.at += timedelta(hours=hours)


def pressure(diary: Diary, drive: str) -> float:
    return kept.levels(diary)[drive].pressure


def whole(diary: Diary, outcome: Outcome):
    record = queries.session(diary, outcome.session_id or "")
    assert record is not None
    return record


def imported(diary: Diary, text: str = NOTES) -> None:
    file = "2026-02-22-1508-LEARNING.md"
    added = sessions.add(diary, text, read(parse(text), file), file=file, origin="import")
    note_session(diary, added.id, text)


def only(config: Config, *names: str) -> None:
    for file in config.drives_dir.iterdir():
        if file.stem not in names:
            file.unlink()
