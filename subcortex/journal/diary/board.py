"""The board written down: gaps and claims of a session, answers, facts, and what facts decide.

Each function is one transaction on a ``Diary``, durable once it returns. Reading is in ``board_queries``.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence

from subcortex.errors import InvalidRequest
from subcortex.journal.board import Claim, Figure, Gap, comparable, in_base
from subcortex.journal.diary import board_queries as queries
from subcortex.journal.diary.access import Diary
from subcortex.journal.diary.board_records import (
    ClaimRecord,
    FactRecord,
    GapRecord,
    NewFact,
    Recorded,
    Verdict,
)
from subcortex.journal.rows import storable, timestamp
from subcortex.types import new_thought_id

# The place of what is known may move when the text around it is edited; what became of it stays.
_INSERT_GAP = """
INSERT INTO gaps (id, key, at, question, topic, kind, state, found_by, session_id, section, line)
VALUES (?, ?, ?, ?, ?, ?, 'open', ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET line = excluded.line, kind = coalesce(gaps.kind, excluded.kind)"""
_INSERT_CLAIM = """
INSERT INTO claims (id, key, at, statement, kind, topic, state, found_by, session_id, section, line)
VALUES (?, ?, ?, ?, ?, ?, 'claimed', ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET line = excluded.line"""
_INSERT_FIGURE = """
INSERT INTO claim_figures (claim_id, place, written, quantity, subject, value, low, high, unit)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_FACT = """
INSERT INTO facts (id, at, source, quantity, subject, value, low, high, unit, n, statement, working,
    provenance, session_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_DECIDE = "UPDATE claims SET state = ?, decided_at = ?, fact_id = ? WHERE id = ?"
#: Figures of claims that nothing has decided, of one quantity and subject.
_UNDECIDED = """
SELECT c.id, f.low, f.high, f.value, f.unit,
    (SELECT count(*) FROM claim_figures o WHERE o.claim_id = c.id AND o.quantity IS NOT NULL) AS figures
FROM claim_figures f JOIN claims c ON c.id = f.claim_id
WHERE f.quantity = ? AND f.subject = ? AND c.state = 'claimed' ORDER BY c.seq, f.place"""


def record(
    diary: Diary,
    session_id: str | None,
    gaps: Sequence[Gap],
    claims: Sequence[Claim],
    findings: Mapping[int, tuple[Verdict, NewFact]] | None = None,
) -> Recorded:
    """Put what was found in a session on the board; what is there already stays as it is.

    Args:
        diary: The journal's database.
        session_id: The session, which must be there; None for what belongs to none.
        gaps: Its questions.
        claims: Its statements.
        findings: Index in ``claims`` → what decides it, and the fact; a claim that is decided keeps its fact.

    Raises:
        InvalidRequest: There is no such session.
        JournalError: The database cannot be written.
    """
    owner = session_id or ""
    with diary.transaction() as conn:
        at = timestamp(diary.clock.now())
        if session_id is not None:
            _known_session(conn, session_id)
        # Most imports come twice: what is there is looked up at once.
        there = _there(conn, session_id)
        new_gaps = sum(_put_gap(conn, gap, gap.key(owner), session_id, at, there) for gap in gaps)
        new_claims = settled = 0
        for index, claim in enumerate(claims):
            key = claim.key(owner)
            new_claims += _put_claim(conn, claim, key, session_id, at, there)
            if findings and index in findings:
                settled += _settle(conn, key, *findings[index], session_id, at)
    return Recorded(len(gaps), len(claims), new_gaps, new_claims, settled)


def answer(
    diary: Diary, gap_id: str, text: str, *, session_id: str | None = None, fact_id: str | None = None
) -> GapRecord:
    """Answer a question; a planned one too.

    Args:
        diary: The journal's database.
        gap_id: Its id, or a unique beginning of it.
        text: The answer.
        session_id: The session that closed it.
        fact_id: The fact behind it.

    Raises:
        InvalidRequest: No such question, or several; it is closed already; the answer is empty; no such fact
            or session.
    """
    return _close(diary, gap_id, "answered", text, session_id, fact_id)


def drop(diary: Diary, gap_id: str, reason: str, *, session_id: str | None = None) -> GapRecord:
    """Give a question up, and keep why; InvalidRequest as for `answer`."""
    return _close(diary, gap_id, "dropped", reason, session_id, None)


def plan(diary: Diary, gap_id: str) -> GapRecord:
    """Note that an experiment is to answer a question; InvalidRequest if it is not an open one."""
    with diary.transaction() as conn:
        found = queries.whole_gap(conn, gap_id)
        if found.state not in ("open", "planned"):
            raise _closed(found)
        conn.execute("UPDATE gaps SET state = 'planned' WHERE id = ?", (found.id,))
        return queries.whole_gap(conn, found.id)


def add_fact(diary: Diary, fact: NewFact, *, session_id: str | None = None) -> FactRecord:
    """Write a fact down; the same one of the same source is not written twice.

    Raises:
        InvalidRequest: There is no such session; a number is not finite.
    """
    with diary.transaction() as conn:
        if session_id is not None:
            _known_session(conn, session_id)
        fact_id = _put_fact(conn, fact, session_id, timestamp(diary.clock.now()))
        return queries.whole_fact(conn, fact_id)


def decide(diary: Diary, claim_id: str, fact_id: str, verdict: Verdict) -> ClaimRecord:
    """Say what a fact makes of a claim, by whoever knows that they are about the same.

    Raises:
        InvalidRequest: No such claim or fact, or several.
    """
    with diary.transaction() as conn:
        found, fact = queries.whole_claim(conn, claim_id), queries.whole_fact(conn, fact_id)
        conn.execute(_DECIDE, (verdict, timestamp(diary.clock.now()), fact.id, found.id))
        return queries.whole_claim(conn, found.id)


def decide_by_fact(diary: Diary, fact_id: str) -> list[ClaimRecord]:
    """Let a fact decide the undecided claims that have a figure of its quantity and subject.

    One whose figure has no value in common with the fact's interval is refuted. One whose only figure has is
    confirmed; a claim with further figures stays claimed, as they may be wrong still. Nothing else changes:
    not claims of another subject, not those in a unit that does not compare, not those that are decided.

    Raises:
        InvalidRequest: No such fact, or it is expired or no number.
    """
    with diary.transaction() as conn:
        fact = queries.whole_fact(conn, fact_id)
        if fact.value is None or fact.expired_at is not None:
            raise InvalidRequest(
                f"the fact {fact.id} {'is expired' if fact.expired_at else 'is no number'}",
                hint="Decide the claim by its id.",
                param="fact",
            )
        verdicts: dict[str, Verdict] = {}
        for row in conn.execute(_UNDECIDED, (fact.quantity, fact.subject)).fetchall():
            if not comparable(row["unit"], fact.unit):
                continue
            if not _overlap(row, fact):
                verdicts[row["id"]] = "refuted"
            elif row["figures"] == 1:
                verdicts.setdefault(row["id"], "confirmed")
        at = timestamp(diary.clock.now())
        for claim_id, verdict in verdicts.items():
            conn.execute(_DECIDE, (verdict, at, fact.id, claim_id))
        return [queries.whole_claim(conn, claim_id) for claim_id in verdicts]


def expire(diary: Diary, fact_id: str, why: str) -> list[ClaimRecord]:
    """Take a fact back, as when the machine it was measured on has changed; what it decided expires with it.

    Raises:
        InvalidRequest: No such fact.
    """
    with diary.transaction() as conn:
        fact = queries.whole_fact(conn, fact_id)
        at = timestamp(diary.clock.now())
        conn.execute(
            "UPDATE facts SET expired_at = ?, expired_why = ? WHERE id = ?", (at, storable(why), fact.id)
        )
        ids = [row["id"] for row in conn.execute("SELECT id FROM claims WHERE fact_id = ?", (fact.id,))]
        conn.execute("UPDATE claims SET state = 'expired', decided_at = ? WHERE fact_id = ?", (at, fact.id))
        return [queries.whole_claim(conn, claim_id) for claim_id in ids]


def _overlap(row: sqlite3.Row, fact: FactRecord) -> bool:
    assert fact.value is not None
    low = fact.value if fact.low is None else fact.low
    high = fact.value if fact.high is None else fact.high
    ends = (-math.inf if row["low"] is None else row["low"], math.inf if row["high"] is None else row["high"])
    slack = 1e-9 * max(abs(in_base(row["value"], row["unit"])), 1e-12)
    below = in_base(low, fact.unit) <= in_base(ends[1], row["unit"]) + slack
    return below and in_base(high, fact.unit) >= in_base(ends[0], row["unit"]) - slack


def _known_session(conn: sqlite3.Connection, session_id: str) -> None:
    if conn.execute("SELECT 1 FROM sessions WHERE id = ?", (session_id,)).fetchone() is None:
        raise InvalidRequest(
            f"there is no session {session_id!r}", hint="`subcortex sessions` lists them.", param="session"
        )


def _there(conn: sqlite3.Connection, session_id: str | None) -> dict[str, str]:
    """Return the keys of what a session has on the board, and their ids."""
    where = "session_id IS ?"
    sql = f"SELECT key, id FROM gaps WHERE {where} UNION ALL SELECT key, id FROM claims WHERE {where}"  # noqa: S608
    return {row["key"]: row["id"] for row in conn.execute(sql, (session_id, session_id))}


def _put_gap(
    conn: sqlite3.Connection, gap: Gap, key: str, session_id: str | None, at: str, there: Mapping[str, str]
) -> bool:
    values = (storable(gap.question), _text(gap.topic), gap.kind, gap.found_by, session_id)
    gap_id = new_thought_id()
    conn.execute(_INSERT_GAP, (gap_id, key, at, *values, _text(gap.section), gap.line))
    if key in there:
        return False
    found = conn.execute("SELECT id FROM gaps WHERE key = ?", (key,)).fetchone()["id"]
    if found != gap_id:
        conn.execute("UPDATE gaps SET session_id = ? WHERE id = ?", (session_id, found))
    return bool(found == gap_id)


def _put_claim(
    conn: sqlite3.Connection,
    claim: Claim,
    key: str,
    session_id: str | None,
    at: str,
    there: Mapping[str, str],
) -> bool:
    claim_id = new_thought_id()
    values = (storable(claim.statement), claim.kind, _text(claim.topic), claim.found_by, session_id)
    conn.execute(_INSERT_CLAIM, (claim_id, key, at, *values, _text(claim.section), claim.line))
    if key in there:
        return False
    found = conn.execute("SELECT id FROM claims WHERE key = ?", (key,)).fetchone()["id"]
    if found != claim_id:
        # The session was taken away and came again: its claim is there without it.
        conn.execute("UPDATE claims SET session_id = ? WHERE id = ?", (session_id, found))
        return False
    rows = [_figure_row(claim_id, place, figure) for place, figure in enumerate(claim.figures)]
    conn.executemany(_INSERT_FIGURE, rows)
    return True


def _figure_row(claim_id: str, place: int, figure: Figure) -> tuple[object, ...]:
    ends = (_finite(figure.low), _finite(figure.high))
    named = (storable(figure.written), figure.quantity, _text(figure.subject))
    return (claim_id, place, *named, figure.value, *ends, figure.unit)


def _settle(
    conn: sqlite3.Connection, key: str, verdict: Verdict, fact: NewFact, session_id: str | None, at: str
) -> bool:
    found = conn.execute("SELECT id, state FROM claims WHERE key = ?", (key,)).fetchone()
    if found["state"] != "claimed":
        return False
    conn.execute(_DECIDE, (verdict, at, _put_fact(conn, fact, session_id, at), found["id"]))
    return True


def _put_fact(conn: sqlite3.Connection, fact: NewFact, session_id: str | None, at: str) -> str:
    numbers = (fact.value, fact.low, fact.high)
    if not all(number is None or math.isfinite(number) for number in numbers):
        raise InvalidRequest(f"a fact's number is not finite: {numbers}", param="value")
    provenance = storable(json.dumps(fact.provenance, ensure_ascii=False, sort_keys=True))
    same = (fact.source, fact.quantity, storable(fact.subject), storable(fact.statement), _text(fact.working))
    there = conn.execute(
        "SELECT id FROM facts WHERE source = ? AND quantity = ? AND subject = ? AND statement = ?"
        " AND working IS ? AND provenance = ? AND expired_at IS NULL",
        (*same, provenance),
    ).fetchone()
    if there is not None:
        return str(there["id"])
    fact_id = new_thought_id()
    row = (fact_id, at, *same[:3], *numbers, fact.unit, fact.n, *same[3:], provenance, session_id)
    conn.execute(_INSERT_FACT, row)
    return fact_id


def _close(
    diary: Diary, gap_id: str, state: str, words: str, session_id: str | None, fact_id: str | None
) -> GapRecord:
    if not words.strip():
        what = "an answer" if state == "answered" else "a reason"
        raise InvalidRequest(f"{what} with no words in it", hint="Say it in a sentence.", param="text")
    with diary.transaction() as conn:
        found = queries.whole_gap(conn, gap_id)
        if found.state not in ("open", "planned"):
            raise _closed(found)
        if session_id is not None:
            _known_session(conn, session_id)
        fact = None if fact_id is None else queries.whole_fact(conn, fact_id).id
        conn.execute(
            "UPDATE gaps SET state = ?, answer = ?, closed_at = ?, closed_by = ?, fact_id = ? WHERE id = ?",
            (state, storable(words), timestamp(diary.clock.now()), session_id, fact, found.id),
        )
        return queries.whole_gap(conn, found.id)


def _closed(gap: GapRecord) -> InvalidRequest:
    return InvalidRequest(
        f"the question {gap.id} is {gap.state} already",
        hint=f"`subcortex gaps show {gap.id[:16]}` shows how.",
        param="id",
    )


def _text(text: str | None) -> str | None:
    return None if not text else storable(text)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
