"""Reading the record back: for the command line and the router, with or without a daemon."""

from __future__ import annotations

import json
import sqlite3
import statistics
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from subcortex.errors import InvalidRequest, JournalError
from subcortex.journal import boots, rows, search
from subcortex.journal.database import connect_reader, explained
from subcortex.journal.migrations import LATEST, checked_version
from subcortex.journal.records import BootRecord, EventRecord, ThoughtRecord, TierMeasured
from subcortex.types import ThoughtStatus

if TYPE_CHECKING:
    from sqlite_utils import Database

_BUSY_TIMEOUT_S = 5.0
#: Below these a slope of time over prompt length says more about noise than about prefill.
_SLOPE_MIN_THOUGHTS = 8
_SLOPE_MIN_RATIO = 3.0
#: A tier's model may have changed lately, so more of its thoughts are looked through than are wanted.
_MODELS = 5


class Reader:
    """A read-only view of the journal; sees what was committed when each call began.

    Calls from several threads take turns.
    """

    def __init__(self, conn: sqlite3.Connection, path: Path) -> None:
        """Private: use ``open``."""
        from sqlite_utils import Database

        self.path = path
        self._db: Database = Database(conn)
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Reader:
        """Open the journal at ``path`` for reading; needs no daemon.

        Raises:
            JournalError: There is none, it cannot be read, or its version is another one.
        """
        if not path.is_file():
            raise JournalError(
                f"there is no journal at {path} yet",
                hint="It is made with the first thought; or name another in journal.database.",
                file=str(path),
            )
        conn: sqlite3.Connection | None = None
        try:
            conn = connect_reader(path, _BUSY_TIMEOUT_S)
            version = checked_version(conn, path)
            if version < LATEST:
                raise JournalError(
                    f"{path} has journal version {version}; this program reads version {LATEST}",
                    hint="Start the daemon once (`subcortex up`); it migrates the journal.",
                    file=str(path),
                )
            return cls(conn, path)
        except BaseException as error:
            if conn is not None:
                conn.close()
            if isinstance(error, sqlite3.Error):
                raise explained(error, path, "read the journal") from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._db.conn.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def thoughts(
        self,
        *,
        query: str | None = None,
        drive: str | None = None,
        tier: str | None = None,
        session: str | None = None,
        status: str | None = None,
        limit: int = 20,
        before: str | None = None,
    ) -> list[ThoughtRecord]:
        """Return thoughts, newest first.

        Args:
            query: Words that must all occur in prompt, answer or reasoning; ``"a phrase"`` in double
                quotes, ``begin*`` for a beginning. Nothing in it is an error. Thoughts still running
                are not found by words.
            drive: Name of the drive; any case where its own is upper case.
            tier, session, status: Exact names.
            limit: How many at most.
            before: Only thoughts that came before the one of this id (or unique beginning of an id):
                the last of one page gives the next.

        Raises:
            InvalidRequest: ``before`` names no thought, or several.
            JournalError: The database cannot be read.
        """
        if limit <= 0:
            return []
        wheres, values = _filters("t", drive=drive, tier=tier, session=session, status=status)
        sql = rows.SELECT_RECORD
        if query is not None:
            expression = search.expression(query)
            if expression is None:
                return []
            sql += " JOIN thoughts_fts ON thoughts_fts.rowid = t.seq"
            wheres.append("thoughts_fts MATCH :query")
            values["query"] = expression
        with self._lock:
            if before is not None:
                found = self._seq(before)
                if found is None:
                    raise InvalidRequest(f"there is no thought {before!r}", param="before")
                wheres.append("t.seq < :before")
                values["before"] = found
            where = f" WHERE {' AND '.join(wheres)}" if wheres else ""
            order = "thoughts_fts.rowid" if query is not None else "t.seq"
            return self._records(
                f"{sql}{where} ORDER BY {order} DESC LIMIT :limit", {**values, "limit": limit}
            )

    def thought(self, thought_id: str) -> ThoughtRecord | None:
        """Return the thought of this id, or of an id that begins so; None if there is none.

        Raises:
            InvalidRequest: Several ids begin so.
            JournalError: The database cannot be read.
        """
        with self._lock:
            seq = self._seq(thought_id)
            if seq is None:
                return None
            return self._records(f"{rows.SELECT_RECORD} WHERE t.seq = :seq", {"seq": seq})[0]

    def boots(
        self, *, limit: int = 1000, tier: str | None = None, engine: str | None = None
    ) -> list[BootRecord]:
        """Return starts of engines, newest first: what was predicted of each and what came.

        Rows that cannot be read, being damaged or of a newer program, are left out.

        Raises:
            JournalError: The database cannot be read.
        """
        wanted = {"tier": tier, "engine": engine}
        given = {column: rows.storable(value) for column, value in wanted.items() if value is not None}
        where = " AND ".join(f"{column} = :{column}" for column in given) or "1"
        sql = f"SELECT * FROM boots WHERE {where} ORDER BY seq DESC LIMIT :limit"  # noqa: S608
        with self._lock:
            found = self._query(sql, {**given, "limit": limit})
        return [record for row in found if (record := boots.readable(row)) is not None]

    def events(
        self, *, limit: int = 1000, tier: str | None = None, kind: str | None = None
    ) -> list[EventRecord]:
        """Return what happened to engines, newest first: each change of state, with its facts.

        Raises:
            JournalError: The database cannot be read.
        """
        wheres, values = _filters("e", tier=tier, kind=kind)
        sql = f"SELECT e.* FROM events e WHERE {' AND '.join(wheres) or '1'} ORDER BY e.seq DESC LIMIT :limit"  # noqa: S608
        with self._lock:
            found = self._query(sql, {**values, "limit": limit})
        return [
            EventRecord(
                at=datetime.fromisoformat(row["at"]),
                run_id=row["run_id"],
                tier=row["tier"],
                kind=row["kind"],
                detail=json.loads(row["detail"]),
            )
            for row in found
        ]

    def hardware(self, digest: str) -> dict[str, Any] | None:
        """Return the machine that ``Journal.save_hardware`` gave this digest for; None if there is none.

        Raises:
            JournalError: The database cannot be read.
        """
        with self._lock:
            sql = "SELECT snapshot FROM hardware_snapshots WHERE digest = :digest"
            found = self._query(sql, {"digest": rows.storable(digest)})
        return dict(json.loads(found[0]["snapshot"])) if found else None

    def tier_costs(self, last: int = 200) -> dict[tuple[str, str], TierMeasured]:
        """Return what each (tier, model) on record cost over its last ``last`` warm thoughts.

        Raises:
            JournalError: The database cannot be read.
        """
        with self._lock:
            tiers = [row["tier"] for row in self._query("SELECT DISTINCT tier FROM thoughts", {})]
            warm = [
                row for tier in tiers for row in self._query(_WARM, {"tier": tier, "last": _MODELS * last})
            ]
            ready = self._query(_READY, {"last": last})
        thoughts: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for row in warm:
            if len(of_model := thoughts[row["tier"], row["model"]]) < last:
                of_model.append(row)
        loads = _loads(ready)
        for tier, model in loads:
            if model is not None:
                thoughts.setdefault((tier, model), [])
        return {
            key: _measured(found, loads.get(key) or loads.get((key[0], None)) or [])
            for key, found in thoughts.items()
        }

    def _seq(self, thought_id: str) -> int | None:
        if not thought_id:
            return None
        # "\x7f" sorts behind every character of an id, so this is the range of all that begin so.
        found = self._query(
            "SELECT id, seq FROM thoughts WHERE id >= :first AND id < :last ORDER BY id LIMIT 2",
            {"first": rows.storable(thought_id), "last": rows.storable(thought_id) + "\x7f"},
        )
        if len(found) > 1 and found[0]["id"] != thought_id:
            raise InvalidRequest(
                f"several thoughts begin with {thought_id!r}", hint="Give more of the id.", param="id"
            )
        return int(found[0]["seq"]) if found else None

    def _records(self, sql: str, values: Mapping[str, Any]) -> list[ThoughtRecord]:
        return [rows.record_of(row) for row in self._query(sql, values)]

    def _query(self, sql: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return list(self._db.query(sql, dict(values)))
        except sqlite3.Error as error:
            raise explained(error, self.path, "read the journal") from error


_WARM = """
SELECT tier, model, ttft_s, queued_s, tpot_s, prompt_tokens FROM thoughts
WHERE tier = :tier AND status = 'completed' AND coalesce(load_s, 0) = 0
ORDER BY seq DESC LIMIT :last"""
_READY = "SELECT tier, detail FROM events WHERE kind = 'ready' ORDER BY seq DESC LIMIT :last"


def _filters(table: str, **wanted: str | None) -> tuple[list[str], dict[str, Any]]:
    """Return WHERE terms and their values for the filters that are given."""
    wheres, values = [], {}
    for column, value in wanted.items():
        if value is not None:
            values[column] = rows.storable(value)
            wheres.append(f"{table}.{column} = :{column}")
            if column == "drive" and value != value.upper():
                # Ours are upper case; those of an Emergence state are as it has them.
                wheres[-1] = f"{table}.drive IN (:drive, :drive_upper)"
                values["drive_upper"] = values[column].upper()
    if wanted.get("status") not in (None, ThoughtStatus.COMPLETED):
        # Said as a constant, since the index of what did not complete cannot be used otherwise.
        wheres.append("t.status <> 'completed'")
    return wheres, values


def _loads(events: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str | None], list[float]]:
    """Return the load seconds on record by tier and model (None where the event names no model)."""
    loads: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for event in events:
        detail = json.loads(event["detail"])
        load_s = detail.get("load_s")
        if isinstance(load_s, int | float) and event["tier"] is not None:
            loads[event["tier"], detail.get("model")].append(float(load_s))
    return loads


def _measured(warm: Sequence[Mapping[str, Any]], loads_s: Sequence[float]) -> TierMeasured:
    points = [
        (row["prompt_tokens"] or 0, row["ttft_s"] - (row["queued_s"] or 0.0))
        for row in warm
        if row["ttft_s"] is not None
    ]
    return TierMeasured(
        n=len(points),
        ttft_s=_median([ttft_s for _, ttft_s in points]),
        tpot_s=_median([row["tpot_s"] for row in warm if row["tpot_s"] is not None]),
        prefill_s_per_token=_slope(points),
        load_s=_median(loads_s),
        n_loads=len(loads_s),
    )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _slope(points: Sequence[tuple[int, float]]) -> float | None:
    """Return the median slope between all pairs of points (Theil and Sen's estimator), if one can be told."""
    tokens = sorted(n for n, _ in points if n > 0)
    if len(tokens) < _SLOPE_MIN_THOUGHTS or tokens[-1] < _SLOPE_MIN_RATIO * tokens[0]:
        return None
    slopes = [(b_s - a_s) / (b - a) for (a, a_s), (b, b_s) in combinations(points, 2) if a != b]
    slope = statistics.median(slopes)
    return slope if slope > 0 else None
