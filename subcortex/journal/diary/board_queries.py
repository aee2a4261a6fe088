"""The board read back: questions, claims with what decided them, facts."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from subcortex.errors import InvalidRequest
from subcortex.journal.diary.access import Diary
from subcortex.journal.diary.board_records import (
    ClaimRecord,
    ClaimState,
    Counts,
    FactRecord,
    FigureRecord,
    GapRecord,
    GapState,
)

#: Questions that are still asked come first, then by when they came up.
_GAPS = "SELECT * FROM gaps WHERE {where} ORDER BY state IN ('answered', 'dropped'), seq LIMIT :limit"
_CLAIMS = "SELECT c.* FROM claims c WHERE {where} ORDER BY c.seq LIMIT :limit"
_SEVERAL = 100


def gaps(
    diary: Diary,
    *,
    state: GapState | None = None,
    kind: str | None = None,
    session_id: str | None = None,
    limit: int = 1000,
) -> list[GapRecord]:
    """Return questions, those still asked first, then in the order that they came up.

    Args:
        diary: The journal's database.
        state: Only those that stand so.
        kind: Only of this kind (``journal.board.KINDS``), for the experiment that can answer it.
        session_id: Only those that this session raised.
        limit: How many at most.
    """
    where, values = _where("", state=state, kind=kind, session_id=session_id)
    with diary.reading() as conn:
        found = conn.execute(_GAPS.format(where=where), {**values, "limit": limit})
        return [_gap(row) for row in found]


def gap_counts(
    diary: Diary, *, state: GapState | None = None, kind: str | None = None, session_id: str | None = None
) -> dict[str, int]:
    """Return how many questions stand how, of those that the filters of ``gaps`` let through."""
    where, values = _where("", state=state, kind=kind, session_id=session_id)
    sql = f"SELECT state, count(*) FROM gaps WHERE {where} GROUP BY state"  # noqa: S608
    with diary.reading() as conn:
        return {row[0]: row[1] for row in conn.execute(sql, values)}


def gap(diary: Diary, gap_id: str) -> GapRecord:
    """Return the question of this id, or of an id that begins so; InvalidRequest for none, or several."""
    with diary.reading() as conn:
        return whole_gap(conn, gap_id)


def claims(
    diary: Diary,
    *,
    state: ClaimState | None = None,
    kind: str | None = None,
    session_id: str | None = None,
    quantity: str | None = None,
    limit: int = 1000,
) -> list[ClaimRecord]:
    """Return claims with their figures and what decided them, in the order that they came in.

    Args:
        diary: The journal's database.
        state: Only those that stand so.
        kind: ``statement``, ``figure``, ``fits`` or ``result``.
        session_id: Only those that this session made.
        quantity: Only those with a figure of this quantity.
        limit: How many at most.
    """
    where, values = _where("c.", state=state, kind=kind, session_id=session_id)
    if quantity is not None:
        where += " AND c.id IN (SELECT claim_id FROM claim_figures WHERE quantity = :quantity)"
        values["quantity"] = quantity
    with diary.reading() as conn:
        found = conn.execute(_CLAIMS.format(where=where), {**values, "limit": limit}).fetchall()
        return _claims(conn, found)


def claim(diary: Diary, claim_id: str) -> ClaimRecord:
    """Return the claim of this id, or of an id that begins so; InvalidRequest for none, or several."""
    with diary.reading() as conn:
        return whole_claim(conn, claim_id)


def counts(diary: Diary, *, session_id: str | None = None) -> Counts:
    """Return how many claims stand how, of one session or of all."""
    where, values = _where("", session_id=session_id)
    sql = f"SELECT state, count(*) AS many FROM claims WHERE {where} GROUP BY state"  # noqa: S608
    with diary.reading() as conn:
        found = {row["state"]: row["many"] for row in conn.execute(sql, values)}
    return Counts(
        confirmed=found.get("confirmed", 0),
        refuted=found.get("refuted", 0),
        undecided=found.get("claimed", 0),
        expired=found.get("expired", 0),
    )


def on_board(diary: Diary, session_id: str) -> bool:
    """Return whether a session has brought any question or claim."""
    sql = (
        "SELECT EXISTS (SELECT 1 FROM gaps WHERE session_id = :id)"
        " OR EXISTS (SELECT 1 FROM claims WHERE session_id = :id)"
    )
    with diary.reading() as conn:
        return bool(conn.execute(sql, {"id": session_id}).fetchone()[0])


def fact(diary: Diary, fact_id: str) -> FactRecord:
    """Return the fact of this id, or of an id that begins so; InvalidRequest for none, or several."""
    with diary.reading() as conn:
        return whole_fact(conn, fact_id)


def facts(diary: Diary, *, quantity: str, subject: str, expired: bool = False) -> list[FactRecord]:
    """Return the facts of a quantity and a subject, the newest first."""
    sql = (
        "SELECT * FROM facts WHERE quantity = ? AND subject = ? AND (? OR expired_at IS NULL)"
        " ORDER BY seq DESC"
    )
    with diary.reading() as conn:
        return [_fact(row) for row in conn.execute(sql, (quantity, subject, expired))]


def facts_of(diary: Diary, session_id: str) -> list[FactRecord]:
    """Return the facts that a session found out, expired ones included, in their order."""
    with diary.reading() as conn:
        found = conn.execute("SELECT * FROM facts WHERE session_id = ? ORDER BY seq", (session_id,))
        return [_fact(row) for row in found]


def measured_facts(diary: Diary) -> list[FactRecord]:
    """Return the facts of measurements that can be relied on, the newest first."""
    sql = "SELECT * FROM facts WHERE source = 'measurement' AND expired_at IS NULL ORDER BY seq DESC"
    with diary.reading() as conn:
        return [_fact(row) for row in conn.execute(sql)]


def closed_by(diary: Diary, session_id: str) -> list[GapRecord]:
    """Return the questions that a session answered, in the order that they came up."""
    sql = "SELECT * FROM gaps WHERE closed_by = ? AND state = 'answered' ORDER BY seq"
    with diary.reading() as conn:
        return [_gap(row) for row in conn.execute(sql, (session_id,))]


def decided_by(diary: Diary, session_id: str) -> list[ClaimRecord]:
    """Return the claims that facts of a session decided, in the order that they came in."""
    sql = (
        "SELECT c.* FROM claims c JOIN facts f ON f.id = c.fact_id"
        " WHERE f.session_id = ? AND c.state <> 'claimed' ORDER BY c.seq"
    )
    with diary.reading() as conn:
        return _claims(conn, conn.execute(sql, (session_id,)).fetchall())


def whole_gap(conn: sqlite3.Connection, gap_id: str) -> GapRecord:
    """Return a question within a transaction."""
    return _gap(_one(conn, "gaps", gap_id, "question", "`subcortex gaps` lists them."))


def whole_claim(conn: sqlite3.Connection, claim_id: str) -> ClaimRecord:
    """Return a claim within a transaction."""
    return _claims(conn, [_one(conn, "claims", claim_id, "claim", "`subcortex claims` lists them.")])[0]


def whole_fact(conn: sqlite3.Connection, fact_id: str) -> FactRecord:
    """Return a fact within a transaction."""
    return _fact(_one(conn, "facts", fact_id, "fact", "`subcortex claims show` names those that decided."))


def _one(conn: sqlite3.Connection, table: str, row_id: str, what: str, hint: str) -> sqlite3.Row:
    # Ids are hexadecimal digits: all that begin so lie between it and it with the last letter behind.
    sql = f"SELECT * FROM {table} WHERE id >= ? AND id < ? || 'g' ORDER BY id LIMIT 3"  # noqa: S608
    found: list[sqlite3.Row] = conn.execute(sql, (row_id, row_id)).fetchall() if _is_id(row_id) else []
    exact = [row for row in found if row["id"] == row_id]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if found:
        raise InvalidRequest(
            f"several ids of a {what} begin with {row_id!r}",
            hint=f"Write more of it: {', '.join(row['id'][:16] for row in found)}{', …' * (len(found) > 2)}",
            param="id",
        )
    raise InvalidRequest(f"there is no {what} {row_id[:64]!r}", hint=hint, param="id")


def _is_id(text: str) -> bool:
    return 0 < len(text) <= 64 and all(letter in "0123456789abcdef" for letter in text)


def _where(table: str, **wanted: Any) -> tuple[str, dict[str, Any]]:
    given = {name: value for name, value in wanted.items() if value is not None}
    return " AND ".join(["1", *(f"{table}{name} = :{name}" for name in given)]), given


def _gap(row: sqlite3.Row) -> GapRecord:
    values = {name: row[name] for name in row.keys() if name != "key"}  # noqa: SIM118
    return GapRecord(**_times(values, "at", "closed_at"))


def _fact(row: sqlite3.Row) -> FactRecord:
    values = dict(row)
    values["provenance"] = json.loads(values["provenance"])
    return FactRecord(**_times(values, "at", "expired_at"))


def _claims(conn: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[ClaimRecord]:
    figures = defaultdict(list)
    decided: dict[str, FactRecord] = {}
    for some in (rows[start : start + _SEVERAL] for start in range(0, len(rows), _SEVERAL)):
        for one in _of(conn, "claim_figures", "claim_id", [row["id"] for row in some], "claim_id, place"):
            figures[one["claim_id"]].append(_figure(one))
        ids = sorted({row["fact_id"] for row in some if row["fact_id"]})
        decided |= {one["id"]: _fact(one) for one in _of(conn, "facts", "id", ids, "id")}
    found = []
    for row in rows:
        values = _times({name: row[name] for name in row.keys() if name != "key"}, "at", "decided_at")  # noqa: SIM118
        found.append(
            ClaimRecord(**values, figures=tuple(figures[row["id"]]), fact=decided.get(row["fact_id"] or ""))
        )
    return found


def _of(
    conn: sqlite3.Connection, table: str, column: str, ids: Sequence[str], order: str
) -> list[sqlite3.Row]:
    marks = ", ".join("?" * len(ids))
    sql = f"SELECT * FROM {table} WHERE {column} IN ({marks}) ORDER BY {order}"  # noqa: S608
    return conn.execute(sql, list(ids)).fetchall()


def _figure(row: sqlite3.Row) -> FigureRecord:
    return FigureRecord(**{name: row[name] for name in row.keys() if name not in ("claim_id", "place")})  # noqa: SIM118


def _times(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    read = {name: datetime.fromisoformat(values[name]) for name in names if values[name]}
    return {**values, **read}
