"""A made-up journal: words as rare and as common as words are, sessions in four shapes, and thoughts."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from subcortex.journal.diary.session_rows import digest_of, microseconds
from subcortex.journal.rows import timestamp

DRIVES = ("LEARNING", "CURIOSITY", "CREATIVE", "SOCIAL", "CARE", "MAINTENANCE", "REST", "WANDER", "PLAY")
#: As often as an agent has them: a few each day, some once a month.
_WEIGHTS = (30, 25, 12, 10, 8, 6, 4, 3, 2)
DEPTHS = ("shallow", "moderate", "deep", "full", None)
_BEGAN = datetime(2016, 1, 1, tzinfo=UTC)
#: So that 100 000 sessions are ten years.
_STEP = timedelta(minutes=53)
_SYLLABLES = (
    "ta",
    "ri",
    "mo",
    "ne",
    "ku",
    "sel",
    "pan",
    "dor",
    "vi",
    "lex",
    "shu",
    "bram",
    "qui",
    "zo",
    "fen",
)
_BATCH = 5000


class Words:
    """Text whose words occur as often as words do (the n-th a share of 1/n)."""

    def __init__(self, seed: int, vocabulary: int = 20_000) -> None:
        self._rng = random.Random(seed)
        self.known = [self._word(place) for place in range(vocabulary)]
        weights = [1 / (place + 3) for place in range(vocabulary)]
        self._stream = self._rng.choices(self.known, weights, k=2_000_000)

    def some(self, count: int) -> str:
        """Return ``count`` words that follow each other somewhere."""
        start = self._rng.randrange(len(self._stream) - count)
        return " ".join(self._stream[start : start + count])

    def _word(self, place: int) -> str:
        parts = []
        while True:
            place, digit = divmod(place, len(_SYLLABLES))
            parts.append(_SYLLABLES[digit])
            if place == 0:
                return "".join(parts)
            place -= 1


def session_text(words: Words, rng: random.Random, at: datetime, drives: list[str], depth: str | None) -> str:
    """Return a session in one of the four shapes, about 200 words long."""
    shape = rng.randrange(10)
    body = "\n\n".join(
        f"## {words.some(3).title()}\n\n- {words.some(25)}\n- {words.some(30)}" for _ in range(3)
    )
    if shape < 5:
        said = f"\n\n## Depth\n\n**{depth.title()}** — {words.some(12)}." if depth else ""
        return (
            f"# Session: {drives[0]}\n**Date:** {at:%Y-%m-%d %H:%M}\n"
            f"**Drive:** {', '.join(f'{d} ({rng.randrange(80, 180)}%)' for d in drives)}\n"
            f"**Topic:** {words.some(6)}\n\n{body}{said}\n"
        )
    if shape < 8:
        return (
            f"---\ndrive: [{', '.join(drives)}]\ntimestamp: {at.isoformat()}\npressure: 29.1/30\n"
            f"{f'depth: {depth}' if depth else 'trigger: drive'}\n---\n\n"
            f"## Summary\n{words.some(40)}\n\n{body}\n"
        )
    if shape < 9:
        return (
            f"---\ndrive: {drives[0]}\ndepth: {depth or 'shallow'}\ntype: satisfaction\n"
            f"pressure_before: 30.4\npressure_after: 15.2\ntimestamp: {at.isoformat()}\n---\n\n"
            f"**Reason:** {words.some(30)}\n"
        )
    return (
        f"---\ntype: deferral\ntimestamp: {at.isoformat()}\ndrives_triggered: [{', '.join(drives)}]\n---\n\n"
        f"# Deferral Note\n\n**Why deferring:**\n{words.some(40)}\n"
    )


def some_drives(rng: random.Random) -> list[str]:
    """Return one drive, or now and then two."""
    return list(dict.fromkeys(rng.choices(DRIVES, _WEIGHTS, k=1 if rng.random() < 0.85 else 2)))


def files(folder: Path, count: int, words: Words, rng: random.Random) -> None:
    """Write ``count`` sessions as files of agents."""
    folder.mkdir()
    for number in range(count):
        at = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(minutes=rng.randrange(10**6))
        drives = some_drives(rng)
        text = session_text(words, rng, at, drives, rng.choice(DEPTHS))
        (folder / f"{at:%Y-%m-%d-%H%M}-{'-'.join(drives)}-{number}.md").write_text(text)


def fill(path: Path, sessions: int, thoughts: int, words: Words, rng: random.Random) -> None:
    """Write rows into the real tables; their triggers keep the indexes of words."""
    conn = sqlite3.connect(path, isolation_level=None)
    # It is thrown away if the machine goes down.
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("PRAGMA cache_size = -262144")
    conn.execute(
        "INSERT INTO daemon_runs (id, started_at, pid, version)"
        " VALUES ('run', '2016-01-01T00:00:00.000000Z', 1, '0')"
    )
    _in_batches(conn, _SESSION, _DRIVE, _session_rows(sessions, words, rng))
    _in_batches(conn, _THOUGHT, None, _thought_rows(thoughts, sessions, words, rng))
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()


_SESSION = """
INSERT INTO sessions (seq, id, at, kind, shape, origin, state, drive, title, topic, depth, depth_by, file,
    digest, text) VALUES (?, ?, ?, ?, 'fields', 'import', 'ended', ?, ?, ?, ?, 'writer', ?, ?, ?)"""
_DRIVE = "INSERT INTO session_drives VALUES (?, ?, ?, ?, ?)"
_THOUGHT = """
INSERT INTO thoughts (id, run_id, status, created_at, ended_at, drive, session, tier, model, engine, score,
    complexity, route, params, prompt_tokens, completion_tokens, ttft_s, tpot_s, total_s, recorded,
    prompt_chars, answer_chars, prompt, messages, answer)
VALUES (?, 'run', ?, ?, ?, ?, ?, ?, 'a-model-of-7b', 'vllm', 0.3, 0.2, ?, '{}', 200, 60, 0.05, 0.01, 0.7,
    'full', ?, ?, ?, '[]', ?)"""
_ROUTE = '{"tier": "fast", "score": 0.3, "complexity": 0.2}'

_Row = tuple[object, ...]


def _session_rows(count: int, words: Words, rng: random.Random) -> Iterator[tuple[_Row, list[_Row]]]:
    for number in range(count):
        at, session_id = _BEGAN + number * _STEP, f"{number:024x}"
        drives, depth, seq = some_drives(rng), rng.choice(DEPTHS), microseconds(_BEGAN + number * _STEP)
        kind = rng.choices(("session", "satisfaction", "deferral", "note"), (70, 15, 5, 10))[0]
        text = session_text(words, rng, at, drives, depth)
        row = (seq, session_id, timestamp(at), kind, drives[0], f"Session: {drives[0]}", words.some(6), depth)
        yield (
            (*row, f"{at:%Y-%m-%d-%H%M}-{drives[0]}.md", digest_of(text.encode()), text),
            [(session_id, place, drive, 101.0, seq) for place, drive in enumerate(drives)],
        )


def _thought_rows(
    count: int, sessions: int, words: Words, rng: random.Random
) -> Iterator[tuple[_Row, list[_Row]]]:
    for number in range(count):
        at = _BEGAN + number * _STEP * (sessions / max(count, 1))
        prompt, answer = words.some(12), words.some(18)
        status = "completed" if rng.random() < 0.98 else "failed"
        tier = "fast" if rng.random() < 0.9 else "deep"
        session = f"{rng.randrange(max(sessions, 1)):024x}" if rng.random() < 0.3 else None
        drive = rng.choices(DRIVES, _WEIGHTS)[0] if rng.random() < 0.7 else None
        when = timestamp(at)
        row = (f"t{number:023x}", status, when, when, drive, session, tier, _ROUTE)
        yield (*row, len(prompt), len(answer), prompt, answer), []


def _in_batches(
    conn: sqlite3.Connection, sql: str, more: str | None, rows: Iterator[tuple[_Row, list[_Row]]]
) -> None:
    going = True
    while going:
        batch = [row for _, row in zip(range(_BATCH), rows, strict=False)]
        going = len(batch) == _BATCH
        conn.execute("BEGIN")
        conn.executemany(sql, [row for row, _ in batch])
        if more:
            conn.executemany(more, [one for _, below in batch for one in below])
        conn.execute("COMMIT")
