"""How quick a journal of 100 000 sessions and 1 000 000 thoughts is.

    python bench/journal.py --json

The journal is made up in a temporary folder, in the real tables with their triggers (some minutes). Then, in
milliseconds at the 95th percentile: ``search_p95_ms``, the newest twenty sessions or thoughts that have the
words, from common to rare, alone and together, narrowed or not; ``list_p95_ms``, the newest twenty by drive,
depth, kind and date; ``append_p95_ms``, the slowest of a session added whole, a note on an open one, and a
thought begun and completed. ``import_300_s`` is the median of imports of 300 varied files each,
what they ask and claim put on the board, as ``sessions import`` does.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from _bench import arguments, finish, machine, percentile, spread
from _journal_made import DEPTHS, DRIVES, Words, files, fill, session_text, some_drives

from subcortex.journal import Journal, Reader
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.folder import import_files
from subcortex.journal.sessions import parse, read
from subcortex.mind.board import note_imported
from subcortex.types import Depth

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.journal.samples import think  # noqa: E402

_GOALS = {"search_p95_ms": 50, "list_p95_ms": 30, "append_p95_ms": 2, "import_300_s": 3}


def timed(call: Callable[[], object]) -> float:
    """Return the milliseconds that a call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def a_query(words: Words, rng: random.Random) -> str:
    """Return what a person might look for: common words, rare ones, several, a phrase, a beginning."""
    # Ranks fall evenly on a scale of logarithms: as many of the ten commonest as of the next hundred.
    some = [words.known[int(len(words.known) ** rng.random()) - 1] for _ in range(rng.choice((1, 1, 2, 3)))]
    kind = rng.randrange(6)
    if kind == 0:
        return f'"{words.some(2)}"'
    return " ".join(some) + ("*" if kind == 1 else "")


def filters(rng: random.Random, *, wide: bool) -> dict[str, Any]:
    """Return how a list is narrowed, if it is."""
    how: dict[str, Any] = {}
    if rng.random() < 0.5:
        how["drive"] = rng.choice(DRIVES)
    if rng.random() < 0.3:
        how["depth"] = Depth(rng.choice([depth for depth in DEPTHS if depth]))
    if rng.random() < 0.2:
        how["kind"] = rng.choice(("session", "satisfaction", "deferral", "note"))
    if wide and rng.random() < 0.3:
        how["until"] = datetime(2016, 1, 1, tzinfo=UTC) + timedelta(days=rng.randrange(3650))
    return how


def reads(path: Path, n: int, words: Words, rng: random.Random) -> tuple[dict[str, list[float]], ...]:
    """Return the milliseconds of searches and of lists, by what was looked through."""
    searches: dict[str, list[float]] = {"sessions": [], "sessions_narrowed": [], "thoughts": []}
    lists: dict[str, list[float]] = {"sessions": [], "thoughts": []}
    with Diary.open(path) as diary, Reader.open(path) as reader:
        for _ in range(n):
            query, how = a_query(words, rng), filters(rng, wide=True)
            of_thoughts = {"drive": rng.choice(DRIVES)} if rng.random() < 0.3 else {}
            searches["sessions"].append(timed(lambda q=query: queries.search(diary, q)))  # type: ignore[misc]
            searches["sessions_narrowed"].append(
                timed(lambda q=query, how=how: queries.search(diary, q, **how))  # type: ignore[misc]
            )
            searches["thoughts"].append(
                timed(lambda q=query, how=of_thoughts: reader.thoughts(query=q, **how))  # type: ignore[misc]
            )
            lists["sessions"].append(timed(lambda how=how: queries.sessions(diary, **how)))  # type: ignore[misc]
            lists["thoughts"].append(timed(lambda how=of_thoughts: reader.thoughts(**how)))  # type: ignore[misc]
    return searches, lists


def appends(path: Path, n: int, words: Words, rng: random.Random) -> dict[str, list[float]]:
    """Return the milliseconds of what is written one at a time."""
    taken: dict[str, list[float]] = {"session": [], "note": [], "thought": []}
    at = datetime(2031, 1, 1, tzinfo=UTC)
    with Diary.open(path) as diary:
        opened = sessions.open_session(diary, [])
        for number in range(n):
            drives = some_drives(rng)
            text = session_text(words, rng, at + timedelta(minutes=number), drives, "deep")
            reading, file = read(parse(text)), f"bench-{number}.md"
            taken["session"].append(
                timed(lambda t=text, r=reading, f=file: sessions.add(diary, t, r, file=f, origin="agent"))  # type: ignore[misc]
            )
            said = words.some(30)
            taken["note"].append(timed(lambda said=said: sessions.note(diary, opened.id, said)))  # type: ignore[misc]

    async def thoughts() -> None:
        async with Journal.open(path) as journal:
            for _ in range(n):
                began = time.perf_counter()
                await think(journal, words.some(12), words.some(18))
                taken["thought"].append((time.perf_counter() - began) * 1e3)

    asyncio.run(thoughts())
    return taken


def imports(folder: Path, path: Path, n: int, words: Words, rng: random.Random) -> list[float]:
    """Return the seconds that each import of 300 files takes."""
    taken = []
    for number in range(n):
        files(folder / f"files{number}", 300, words, rng)
        with Diary.open(path) as diary:
            began = time.perf_counter()
            done = import_files(diary, [folder / f"files{number}"])
            note_imported(diary, done.added)
            taken.append(time.perf_counter() - began)
        assert done.count("new") == 300, done
    return taken


def main() -> None:
    parser = arguments("How quick a large journal is.")
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--thoughts", type=int, default=1_000_000)
    parser.add_argument("--n", type=int, default=400, help="searches, lists and appends")
    given = parser.parse_args()
    rng, words = random.Random(1), Words(2)
    with tempfile.TemporaryDirectory(prefix="subcortex-bench-") as folder:
        path = Path(folder) / "journal.db"
        Diary.open(path).close()
        began = time.perf_counter()
        fill(path, given.sessions, given.thoughts, words, rng)
        built_s, size_mib = time.perf_counter() - began, path.stat().st_size / 2**20
        searches, lists = reads(path, given.n, words, rng)
        appended = appends(path, given.n, words, rng)
        imported_s = imports(Path(folder), path, 5, words, rng)
    every = {"search": searches, "list": lists, "append": appended}
    p95 = {
        name: {of: percentile(values, 0.95) for of, values in taken.items()} for name, taken in every.items()
    }
    # The slowest of what is searched, listed or written stands for it: a mean would hide it.
    result: dict[str, Any] = {f"{name}_p95_ms": round(max(of.values()), 3) for name, of in p95.items()}
    result["import_300_s"] = round(statistics.median(imported_s), 3)
    result["passed"] = all(result[name] <= goal for name, goal in _GOALS.items())
    result["goals"] = _GOALS
    result["spread_ms"] = {
        name: {of: {**spread(values), "p95": round(p95[name][of], 3)} for of, values in taken.items()}
        for name, taken in every.items()
    }
    result["import_300_spread_s"] = spread(imported_s)
    result["journal"] = {
        "sessions": given.sessions,
        "thoughts": given.thoughts,
        "size_mib": round(size_mib),
        "built_s": round(built_s, 1),
    }
    result["machine"] = machine()
    finish(result, given.json)


if __name__ == "__main__":
    main()
