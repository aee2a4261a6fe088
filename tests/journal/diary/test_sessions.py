"""Sessions in the database: added once, opened and ended, rated, listed, found."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.session_records import Added
from subcortex.journal.diary.sessions import Given, add, add_all
from subcortex.journal.sessions import DriveLevel, Reading, parse, read
from subcortex.types import Depth

LEARNING = (
    "# Session: LEARNING\n**Date:** 2026-02-22T15:08:00Z\n**Drive:** LEARNING (137%)\n\n## Depth\n**{}**\n"
)


def reading(text: str, file: str | None = None) -> Reading:
    return read(parse(text), file)


def learning(depth: str = "Moderate", more: str = "") -> str:
    return LEARNING.format(depth) + more


def put(diary: Diary, text: str, file: str = "a.md", **how) -> Added:
    item = Given(text, reading(text, file), file, how.pop("origin", "import"), **how)
    return add_all(diary, [item])[0]


def hour(number: int, drives: str = "LEARNING", more: str = "") -> str:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    return f"---\ndrive: {drives}\ntimestamp: {at.isoformat()}\n---\n\n## Summary\nhour {number} {more}\n"


@pytest.fixture
def diary(tmp_path: Path) -> Iterator[Diary]:
    with Diary.open(tmp_path / "journal.db") as diary:
        yield diary


def integrity(diary: Diary) -> None:
    with diary.transaction() as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
        conn.execute("INSERT INTO sessions_fts (sessions_fts, rank) VALUES ('integrity-check', 1)")


def test_a_session_is_kept_as_it_was_written_and_as_it_was_read(diary):
    added = add(diary, learning(), reading(learning()), file="2026-02-22-1508-LEARNING.md", origin="agent")
    assert (added.new, added.change, added.file) == (True, "new", "2026-02-22-1508-LEARNING.md")
    found = queries.session(diary, added.id[:20])
    assert found is not None
    assert found.text == learning()
    assert found.at == datetime(2026, 2, 22, 15, 8, tzinfo=UTC)
    assert [(drive.name, drive.level_percent) for drive in found.drives] == [("LEARNING", 137.0)]
    assert (found.depth, found.depth_by, found.evidence_depth) == (Depth.MODERATE, "writer", None)
    assert not found.ratings_differ


def test_the_same_text_under_the_same_name_is_added_once(diary):
    first = put(diary, learning(), "2026/a.md", source="/x/2026/a.md")
    assert put(diary, learning(), "2026/a.md", source="/x/2026/a.md") == first._replace(change="known")
    assert put(diary, learning(), "a.md", source="/y/a.md") == first._replace(change="known")
    # Another name may be what says the drive or the date, so it is another session.
    assert put(diary, learning(), "b.md", source="/x/b.md").new
    assert len(queries.sessions(diary)) == 2


def test_a_changed_source_updates_its_row_and_keeps_what_others_said_of_it(diary):
    first = put(diary, learning("Shallow"), source="/x/a.md")
    sessions.rate(diary, first.id, Depth.FULL, "I was there", by="person")
    sessions.rate_by_evidence(diary, first.id, Depth.MODERATE, ["three notes"])
    later = learning("Deep", "zebra\n").replace("15:08", "16:00").replace("LEARNING", "PLAY")
    assert put(diary, later, source="/x/a.md") == first._replace(change="updated")
    found = queries.session(diary, first.id)
    assert found is not None
    assert (found.text, found.at and found.at.hour) == (later, 16)
    assert (found.depth, found.depth_by, found.depth_reason) == (Depth.FULL, "person", "I was there")
    assert (found.evidence_depth, found.evidence_reasons) == (Depth.MODERATE, ["three notes"])
    assert found.ratings_differ
    assert [hit.id for hit in queries.search(diary, "zebra", drive="play")] == [first.id]
    assert queries.sessions(diary, drive="LEARNING") == []
    integrity(diary)


def test_what_was_not_imported_from_there_is_never_overwritten(diary):
    own = add(diary, learning(), reading(learning()), file="a.md", origin="agent")
    other = put(diary, learning("Deep"), "a.md", source="/x/a.md", at_home=True)
    third = put(diary, learning("Full"), "a.md", source="/y/a.md")
    assert [own.file, other.file, third.file] == ["a.md", "a-2.md", "a-3.md"]
    assert other.new
    assert third.new
    kept = queries.session(diary, own.id)
    assert kept is not None
    assert kept.text == learning()


def test_the_face_of_an_imported_session_may_be_edited(diary):
    first = put(diary, learning(), "a.md", source="/x/a.md")
    assert (
        put(diary, learning("Deep"), "a.md", source="/home/sessions/a.md", at_home=True).change == "updated"
    )
    assert put(diary, learning("Deep"), "a.md", source="/x/a.md").id == first.id


def test_many_of_one_name_and_one_minute_are_all_kept(diary):
    texts = [learning(more=f"number {number}\n") for number in range(30)]
    added = [put(diary, text, "x/a.md", source=f"/{number}/a.md") for number, text in enumerate(texts)]
    assert len({item.file for item in added}) == len({item.id for item in added}) == 30
    assert [record.text for record in queries.records(diary, None)] == texts


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a.md", "a/../../b.md", "a//b.md", ".", "", "a\0b.md", "x" * 256, "a/" * 600 + "b"],
)
def test_a_name_that_leads_elsewhere_is_refused(diary, name):
    with pytest.raises(InvalidRequest, match="cannot be the name"):
        add(diary, "x", reading("x"), file=name or "/", origin="agent")
    assert queries.sessions(diary) == []


def test_a_batch_is_all_or_nothing(diary):
    bad = Given("x", reading("x"), "bad.md", "nobody")  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        add_all(diary, [Given("y", reading("y"), "y.md", "import"), bad])
    assert queries.sessions(diary) == []


def test_an_open_session_collects_and_ends(diary):
    drives = [DriveLevel("LEARNING", 137.0), DriveLevel("CARE"), DriveLevel("LEARNING", 1.0)]
    opened = sessions.open_session(diary, drives, topic="TP", pressure_before=30.0)
    assert (opened.state, opened.file, opened.text) == ("open", None, "")
    assert [drive.name for drive in opened.drives] == ["LEARNING", "CARE"]
    sessions.note(diary, opened.id, "a\ud800b", section="What I Noticed")
    sessions.note(diary, opened.id, "019a", kind="thought")
    assert sessions.open_sessions(diary, dead=False) == [opened.id]
    text = learning("Deep")
    ended = sessions.end(diary, opened.id, text, reading(text), file="s.md")
    assert [(e.kind, e.section, e.text) for e in ended.entries] == [
        ("note", "What I Noticed", "a\ufffdb"),
        ("thought", None, "019a"),
    ]
    assert (ended.at, ended.state, ended.file) == (opened.at, "ended", "s.md")
    assert (ended.topic, ended.pressure_before, ended.depth) == ("TP", 30.0, Depth.DEEP)
    # A file's name takes fewer letters than a drive's: the row keeps what the session was opened with.
    assert [(drive.name, drive.level_percent) for drive in ended.drives] == [
        ("LEARNING", 137.0),
        ("CARE", None),
    ]
    for late in (
        lambda: sessions.note(diary, opened.id, "late"),
        lambda: sessions.end(diary, opened.id, "late", reading("late"), file="late.md"),
        lambda: sessions.take_over(diary, opened.id),
    ):
        with pytest.raises(InvalidRequest, match="is over"):
            late()
    with pytest.raises(InvalidRequest, match="there is no session"):
        sessions.note(diary, "nobody", "x")
    assert queries.session(diary, opened.id) == ended
    integrity(diary)


_AGENT = """
import sys
from pathlib import Path
from subcortex.journal.diary import Diary, sessions
diary = Diary.open(Path(sys.argv[1]))
for origin in ("agent", "tick"):
    opened = sessions.open_session(diary, [], origin=origin, topic=origin)
    sessions.note(diary, opened.id, "kept")
print("open", flush=True)
sys.stdin.readline()
"""


def test_sessions_of_a_dead_process_are_told_from_those_of_a_living_one(diary):
    agent = subprocess.Popen(
        [sys.executable, "-c", _AGENT, str(diary.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == "open\n"
    assert sessions.open_sessions(diary, dead=True) == []
    (held,) = sessions.open_sessions(diary, origin="tick")
    with pytest.raises(InvalidRequest, match=f"process {agent.pid}"):
        sessions.take_over(diary, held)
    agent.kill()
    agent.communicate()
    mine = sessions.open_session(diary, [])
    (left,) = sessions.open_sessions(diary, origin="agent", dead=True)
    assert sessions.open_sessions(diary, origin="agent", dead=True, mine=True) == [left, mine.id]
    sessions.take_over(diary, left)
    sessions.end(diary, left, "# Session\nkept\n", reading(""), file="x.md", state="interrupted")
    assert sessions.open_sessions(diary, origin="agent", dead=True) == []
    assert sessions.take_over(diary, held).entries[0].text == "kept"
    assert sessions.open_sessions(diary, dead=False) == [held, mine.id]


def test_lists_are_newest_first_and_narrowed(diary):
    drives = ("LEARNING", "CARE", "[LEARNING (101%), CARE (92%)]")
    for number in (5, 1, 4, 0, 3, 2):
        put(diary, hour(number, drives[number % 3]), f"{number}.md")
    ids = [s.id for s in queries.sessions(diary)]
    times = [s.at for s in queries.sessions(diary) if s.at]
    assert times == sorted(times, reverse=True)
    assert len(times) == 6

    def hours(**filters: Any) -> list[int]:
        return [s.at.hour for s in queries.sessions(diary, **filters) if s.at]

    noon = datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert hours(drive="learning") == [5, 3, 2, 0]
    assert hours(drive="CARE", limit=2) == [5, 4]
    assert hours(since=noon) == [5, 4, 3]
    assert hours(until=noon, drive="CARE") == [2, 1]
    assert hours(before=ids[2]) == [2, 1, 0]
    assert hours(before=ids[0], drive="learning", since=noon) == [3]
    assert hours(limit=0) == []
    assert hours(depth=Depth.DEEP) == []
    sessions.rate(diary, ids[1], Depth.DEEP, None)
    assert hours(depth=Depth.DEEP) == [4]
    assert hours(depth=Depth.DEEP, drive="LEARNING") == []
    assert hours(kind="session", drive="LEARNING") == [5, 3, 2, 0]
    assert hours(kind="deferral") == []
    with pytest.raises(InvalidRequest, match="there is no session"):
        hours(before="nobody")
    with pytest.raises(InvalidRequest, match="several"):
        queries.session(diary, ids[0][:4])


def test_a_session_without_a_time_stands_where_it_came_in_and_in_no_span(diary):
    put(diary, "no date here", "x.txt")
    put(diary, hour(1), "1.md")
    found = queries.sessions(diary)
    assert [s.at is None for s in found] == [True, False]
    assert [s.at is None for s in queries.sessions(diary, since=datetime(2000, 1, 1, tzinfo=UTC))] == [False]


def test_words_are_found_newest_first_with_their_places(diary):
    for number in range(4):
        put(
            diary,
            hour(number, "CARE" if number % 2 else "PLAY", "the «all-reduce» over PCIe"),
            f"{number}.md",
        )
    hits = queries.search(diary, "all-reduce pcie")
    assert [hit.at and hit.at.hour for hit in hits] == [3, 2, 1, 0]
    assert {hits[0].snippet[a:b] for a, b in hits[0].matches} == {"all-reduce", "PCIe"}
    assert [h.at and h.at.hour for h in queries.search(diary, "pcie", drive="care", before=hits[0].id)] == [1]
    assert queries.search(diary, "***") == []
    assert queries.search(diary, "nowhere") == []


def test_marks_in_a_text_are_text(diary):
    put(diary, "\x02zebra\x03 \x1b[31m <b>zebra</b> \x02", "a.md")
    (hit,) = queries.search(diary, "zebra")
    assert hit.snippet == "\x02zebra\x03 \x1b[31m <b>zebra</b> \x02"
    assert [hit.snippet[a:b] for a, b in hit.matches] == ["zebra", "zebra"]


def plans(diary: Diary, call) -> list[str]:
    """Return SQLite's plan of every statement that ``call`` runs on the sessions."""
    statements: list[str] = []
    with diary.reading() as conn:
        conn.set_trace_callback(statements.append)
    call()
    with diary.reading() as conn:
        conn.set_trace_callback(None)
        wanted = [s for s in statements if s.startswith("SELECT") and "LIMIT" in s]
        assert wanted
        return [row["detail"] for s in wanted for row in conn.execute(f"EXPLAIN QUERY PLAN {s}")]


@pytest.mark.parametrize("drive", [None, "CARE"])
@pytest.mark.parametrize("depth", [None, Depth.DEEP])
@pytest.mark.parametrize("kind", [None, "deferral"])
@pytest.mark.parametrize("since", [None, datetime(2026, 1, 1, tzinfo=UTC)])
def test_no_list_sorts_or_reads_the_whole_table(diary, drive, depth, kind, since):
    put(diary, hour(1), "1.md")
    how = {"drive": drive, "depth": depth, "kind": kind, "since": since}
    listed = plans(diary, lambda: queries.sessions(diary, **how))
    found = plans(diary, lambda: queries.search(diary, "hour", **how))
    for plan in (listed, found):
        assert not [step for step in plan if "TEMP B-TREE" in step]
    scans = [step for step in listed if step.startswith("SCAN")]
    # Without any filter the table itself is the order, read from its end until the list is full.
    assert scans == (["SCAN s"] if not any((drive, depth, kind, since)) else [])


words = st.text(st.characters(exclude_categories=()), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, st.sampled_from(["a.md", "b/c.md", "d.txt"])), max_size=8))
def test_whatever_is_written_comes_back_and_twice_adds_nothing(tmp_path_factory, items):
    with Diary.open(tmp_path_factory.mktemp("diary") / "journal.db") as diary:
        for text, file in items:
            put(diary, text, file, origin="agent")
        texts = [record.text for record in queries.records(diary, None)]
        mended = {(_mended(text), file) for text, file in items}
        assert sorted(texts) == sorted(text for text, _ in mended)
        assert [put(diary, text, file, origin="agent").change for text, file in items] == ["known"] * len(
            items
        )
        integrity(diary)


def _mended(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
