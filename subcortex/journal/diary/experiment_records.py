"""Runs of experiments as callers see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

#: ``queued`` waits for the machine, ``yielded`` gave way and goes on later, ``measured`` has its report but
#: nothing has followed from it yet, ``settled`` is over: facts, claims, session and drive are in the journal.
RunState = Literal["queued", "running", "yielded", "measured", "settled", "failed", "cancelled"]
AskedBy = Literal["person", "schedule", "agent"]
#: What is not over.
OPEN_STATES: tuple[RunState, ...] = ("queued", "running", "yielded", "measured")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of an experiment.

    Args:
        seq: Its place in the order of asking.
        inquiry: What it would find out (``experiments.experiment.Inquiry``, as JSON).
        asked_by: A person, the schedule, or an agent's tick.
        gap_id: The question on the board it was run for, None for one of the machine's own.
        drive: The drive that raised it.
        seconds: What it may take.
        digest: Of what its answer depends on; the memo goes by it.
        gpu_minutes: Spent so far, in all its lives.
        progress, share: How far it has come: words, and a share of the whole or None.
        report: What it came to (``experiments.experiment.Report``, as JSON).
        provenance: The birth certificate of its answers.
        error: Why it failed, as ``SubcortexError.to_wire``; why it gave way, under ``yielded``.
        session_id: The session that it was written up as.
        lives: How often it was begun.
        losses: How many of these ended with a process that died.
        owner_pid, owner_started_s: The process that runs it, and when that started (Unix seconds).
        heard_at: Its last sign of life.
        expired_at, expired_why: From when its answer counts for nothing.
    """

    seq: int
    id: str
    at: datetime
    experiment: str
    subject: str
    state: RunState
    inquiry: dict[str, Any]
    asked_by: AskedBy
    gap_id: str | None
    drive: str | None
    seconds: float
    digest: str
    started_at: datetime | None
    ended_at: datetime | None
    gpu_minutes: float
    progress: str
    share: float | None
    report: dict[str, Any] | None
    provenance: dict[str, Any] | None
    error: dict[str, Any] | None
    session_id: str | None
    lives: int = 0
    losses: int = 0
    owner_pid: int | None = None
    owner_started_s: float | None = None
    heard_at: datetime | None = None
    expired_at: datetime | None = None
    expired_why: str | None = None


@dataclass(frozen=True, slots=True)
class ReadingRecord:
    """A raw sample (``experiments.laboratory.lab.Reading``), and the run's life (1, 2, …) it was taken in."""

    metric: str
    value: float
    unit: str
    arm: str
    block: int
    at_s: float
    facts: dict[str, Any]
    readings: dict[str, Any]
    life: int


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command as it was run, and the version of its program."""

    words: list[str]
    version: str | None


@dataclass(frozen=True, slots=True)
class TrialBootRecord:
    """A start of an engine by an experiment: settings, seconds, what its log said of memory, or its error."""

    facts: dict[str, Any]
