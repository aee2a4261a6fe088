"""Killed while sessions are added, told, ended and exported: what was acknowledged is there, and whole.

Ten kills; ``SUBCORTEX_KILLS=100`` makes it a hundred by hand.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from subcortex.journal.diary import Diary
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.folder import check, export

KILLS = int(os.environ.get("SUBCORTEX_KILLS", "10"))

# Says what was acknowledged, after it was: a(dded) id, o(pened) id, n(oted) id number, e(nded) id, x file.
_CHILD = """
import sys
from pathlib import Path
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.folder import export
from subcortex.journal.sessions import parse, read

diary, home, run = Diary.open(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]

def say(*words):
    print(*words, flush=True)

say("ready")
number = 0
while True:
    number += 1
    text = f"# Session: CARE\\n**Topic:** run {run} number {number}\\n\\n"
    text += "long " * (number % 50 * 100) + "\\nend\\n"
    added = sessions.add(diary, text, read(parse(text)), file=f"{run}/added-{number}.md", origin="agent")
    say("a", added.id)
    opened = sessions.open_session(diary, [], topic="open")
    say("o", opened.id)
    for count in range(3):
        sessions.note(diary, opened.id, f"note {count} of {opened.id}")
        say("n", opened.id, count)
    text = f"# Session\\n\\nended {opened.id}\\n" + "x" * (number % 7 * 3000) + "\\nend\\n"
    sessions.end(diary, opened.id, text, read(parse(text)), file=f"ended-{run}-{number}.md")
    say("e", opened.id)
    for file in export(diary, home, ids=[added.id, opened.id]).written:
        say("x", file)
"""


def killed(path: Path, home: Path, run: int, lines: int) -> list[list[str]]:
    """Let a writer acknowledge some lines, kill it, and return all that it has acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), str(home), str(run)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    said = [child.stdout.readline() for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    # A line cut in two by the kill was not an acknowledgement.
    said += [line for line in child.stdout if line.endswith("\n")]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return [line.split() for line in said]


def test_kills_lose_nothing_acknowledged_and_leave_no_half_file(tmp_path: Path) -> None:
    path, home = tmp_path / "journal.db", tmp_path / "sessions"
    rng = random.Random(5)
    acknowledged: list[list[str]] = []
    for run in range(KILLS):
        acknowledged += killed(path, home, run, rng.randrange(1, 60))
        raw = sqlite3.connect(path)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        raw.execute("INSERT INTO sessions_fts (sessions_fts, rank) VALUES ('integrity-check', 1)")
        raw.rollback()
        raw.close()
    with Diary.open(path) as diary:
        records = {record.id: record for record in queries.records(diary, None)}
        for what, name, *rest in acknowledged:
            if what == "a":
                assert records[name].text.endswith("\nend\n")
            elif what == "n":
                assert f"note {rest[0]} of {name}" in {entry.text for entry in records[name].entries}
            elif what == "e":
                assert (records[name].state, records[name].text.split()[3]) == ("ended", name)
            elif what == "o":
                assert records[name].topic == "open"
        committed = {record.file: record.content for record in records.values() if record.file}
        written = {name for what, name, *_ in acknowledged if what == "x"}
        files = {str(file.relative_to(home)): file for file in home.rglob("*.md")}
        assert written <= set(files)
        assert {name for name, file in files.items() if file.read_bytes() != committed[name]} == set()
        # What was not acknowledged may be missing as a file; one export heals that, half files included.
        export(diary, home)
        assert check(diary, home).none
        assert [file for file in home.rglob("*") if file.is_file() and file.suffix != ".md"] == []
    assert len([1 for what, *_ in acknowledged if what == "x"]) > 2 * KILLS
