"""The board as callers see it: gaps, claims with their figures, and the facts that decide them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

GapState = Literal["open", "planned", "answered", "dropped"]
ClaimState = Literal["claimed", "confirmed", "refuted", "expired"]
Verdict = Literal["confirmed", "refuted"]
FactSource = Literal["arithmetic", "measurement", "person"]


@dataclass(frozen=True, slots=True)
class GapRecord:
    """A question that nobody has answered yet, or that was.

    Args:
        seq: Its place in the order of finding.
        kind: Which of the machine's questions it is; None where its words do not tell.
        found_by: ``rule``, ``thought``, ``person`` or ``experiment``.
        session_id: The session that raised it; None once that is gone.
        closed_by: The session that closed it.
        answer: What answered it; of a dropped one, why it was dropped.
        fact_id: The fact behind the answer.
    """

    seq: int
    id: str
    at: datetime
    question: str
    topic: str | None
    kind: str | None
    state: GapState
    found_by: str
    session_id: str | None
    section: str | None
    line: int | None
    closed_at: datetime | None
    closed_by: str | None
    fact_id: str | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class FigureRecord:
    """A figure of a claim; ``low`` and ``high`` have its rounding in them, None is unbounded."""

    written: str
    quantity: str | None
    subject: str | None
    value: float
    low: float | None
    high: float | None
    unit: str | None


@dataclass(frozen=True, slots=True)
class NewFact:
    """Something that was found out.

    Args:
        source: ``arithmetic``, ``measurement`` or ``person``.
        quantity, subject: Of what, as the board's figures name them.
        statement: In words.
        provenance: What it rests on, enough to find out again: program, version, rule, machine, run.
        value, unit: The number; None where it is none.
        low, high: Its interval; None: the value alone.
        n: Measurements behind it.
        working: How it comes about, with all figures and units.
    """

    source: FactSource
    quantity: str
    subject: str
    statement: str
    provenance: dict[str, Any]
    value: float | None = None
    unit: str | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    working: str | None = None


@dataclass(frozen=True, slots=True)
class FactRecord:
    """A fact as it is kept; see `NewFact`. After ``expired_at`` it is not to be relied on."""

    seq: int
    id: str
    at: datetime
    source: FactSource
    quantity: str
    subject: str
    value: float | None
    low: float | None
    high: float | None
    unit: str | None
    n: int | None
    statement: str
    working: str | None
    provenance: dict[str, Any]
    session_id: str | None
    expired_at: datetime | None
    expired_why: str | None


@dataclass(frozen=True, slots=True)
class ClaimRecord:
    """Something that was said to be so, and what became of it.

    Args:
        kind: ``statement``, ``figure``, ``fits`` or ``result``.
        state: ``claimed`` until something decides it.
        fact: What decided it, None while nothing has.
    """

    seq: int
    id: str
    at: datetime
    statement: str
    kind: str
    topic: str | None
    state: ClaimState
    found_by: str
    session_id: str | None
    section: str | None
    line: int | None
    decided_at: datetime | None
    fact_id: str | None
    figures: tuple[FigureRecord, ...] = field(default=())
    fact: FactRecord | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many claims stand how."""

    confirmed: int = 0
    refuted: int = 0
    undecided: int = 0
    expired: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.confirmed + self.refuted + self.undecided + self.expired


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a text brought to the board.

    Args:
        gaps, claims: Found in it, those that were there already included.
        new_gaps, new_claims: Of them, those that are new.
        settled: Claims that were decided at once.
    """

    gaps: int
    claims: int
    new_gaps: int
    new_claims: int
    settled: int
