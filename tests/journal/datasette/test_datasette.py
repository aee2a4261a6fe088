"""The journal in the real Datasette: views, facets, labels; read-only, on loopback, and scripts inert."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from subcortex.errors import ConfigError
from subcortex.journal.datasette import command, metadata
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.sessions import parse, read
from tests.cli.helpers import COMMAND, invoke
from tests.conftest import write_config
from tests.journal.test_migrations import insert

SCRIPT = "<script>alert(1)</script>"
TEXT = f"# Session: LEARNING\n**Date:** 2026-02-22T15:08:00Z\n**Topic:** {SCRIPT}\n\n{SCRIPT} zebra\n"


def fill(path: Path) -> str:
    """Write a session, a thought, a gap, a decided claim and a drive; return the session's id."""
    with Diary.open(path) as diary:
        session_id = sessions.add(diary, TEXT, read(parse(TEXT)), file="a.md", origin="agent").id
        with diary.transaction() as conn:
            conn.execute("INSERT INTO daemon_runs VALUES ('run', '2026', 1, NULL, '0.1', NULL)")
            insert(conn, "thought", "completed")
            at = "2026-02-22T15:08:00.000000Z"
            conn.execute(
                "INSERT INTO facts (id, at, source, quantity, subject, statement, provenance)"
                " VALUES ('f', ?, 'arithmetic', 'memory', '70B', '35 GB of weights', '{}')",
                (at,),
            )
            conn.execute(
                "INSERT INTO gaps (id, key, at, question, state, found_by, session_id)"
                " VALUES ('g', 'g', ?, ?, 'open', 'rule', ?)",
                (at, f"How slow? {SCRIPT}", session_id),
            )
            conn.execute(
                "INSERT INTO claims (id, key, at, kind, statement, state, found_by, session_id, fact_id)"
                " VALUES ('c', 'c', ?, 'statement', '70B Q4 is 35 GB', 'confirmed', 'rule', ?, 'f')",
                (at, session_id),
            )
            conn.execute(
                "INSERT INTO claim_figures VALUES ('c', 0, '35 GB', 'memory', '70B', 35, 34, 36, 'GB')"
            )
            conn.execute("INSERT INTO drive_states VALUES ('LEARNING', 12.5, ?, NULL, 2)", (at,))
    return session_id


class Served:
    """A journal in Datasette, and the way to ask it."""

    def __init__(self, folder: Path, url: str, session_id: str) -> None:
        self.folder = folder
        self.url = url
        self.session_id = session_id

    def page(self, path: str, **headers: str) -> str:
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        with urllib.request.urlopen(request) as answer:
            return str(answer.read(), "utf-8")

    def data(self, path: str) -> dict[str, Any]:
        return dict(json.loads(self.page(path)))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("datasette")
    session_id = fill(folder / "journal.db")
    config = write_config(folder)
    said = folder / "said.log"
    with said.open("w") as log:
        # A pipe that nobody reads would fill up and hold the server.
        child = subprocess.Popen(
            [*COMMAND, "datasette", "--port", "0", "--config", str(config)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", said.read_text())):
        assert child.poll() is None, said.read_text()
        time.sleep(0.01)
    yield Served(folder, found[0], session_id)
    child.terminate()
    child.wait()


def test_every_view_answers_under_its_title(served):
    seen = {}
    for view in ("session_list", "thought_list", "open_gaps", "claims_with_figures", "drive_pressures"):
        seen[view] = served.data(f"/journal/{view}.json?_shape=objects")["rows"]
    (session,) = seen["session_list"]
    assert (session["drives"], session["topic"], session["file"]) == ("LEARNING", SCRIPT, "a.md")
    assert "text" not in session
    assert [thought["id"] for thought in seen["thought_list"]] == ["thought"]
    (gap,) = seen["open_gaps"]
    assert (gap["session_id"], gap["session_drive"]) == (served.session_id, "LEARNING")
    (claim,) = seen["claims_with_figures"]
    assert (claim["value"], claim["unit"], claim["decided_by"]) == (35.0, "GB", "35 GB of weights")
    (drive,) = seen["drive_pressures"]
    assert (drive["pressure"], drive["thwarted"], drive["satisfactions"]) == (12.5, 2, 0)
    assert served.data("/journal/engine_starts.json")["rows"] == []
    assert "What is not known yet" in served.page("/journal/open_gaps")


def test_facets_and_words_work(served):
    facets = served.data("/journal/session_list.json")["facet_results"]
    assert set(facets) == {"kind", "depth", "state", "origin"}
    assert [found["value"] for found in facets["origin"]["results"]] == ["agent"]
    assert served.data("/journal/sessions.json?_search=zebra")["filtered_table_rows_count"] == 1
    assert served.data("/journal/sessions.json?_search=nowhere")["filtered_table_rows_count"] == 0


def test_foreign_keys_have_labels_and_lead_to_their_rows(served):
    (gap,) = served.data("/journal/gaps.json?_labels=on&_shape=objects")["rows"]
    assert gap["session_id"] == {"value": served.session_id, "label": "a.md"}
    page = served.page("/journal/gaps")
    (link,) = set(re.findall(r'<a href="([^"]*)">a\.md</a>', page))
    assert "zebra" in served.page(link.replace("&amp;", "&"))
    claims = served.page("/journal/claims")
    assert re.search(r'<a href="/journal/facts\?id__exact=f">35 GB of weights</a>', claims)


def test_scripts_come_out_as_text(served):
    seq = served.data("/journal/sessions.json?_shape=objects")["rows"][0]["seq"]
    for path in (
        "/journal/sessions",
        f"/journal/sessions/{seq}",
        "/journal/session_list",
        "/journal/open_gaps",
    ):
        page = served.page(path)
        assert "alert(1)" in page
        assert SCRIPT not in page
        assert "&lt;script&gt;alert(1)" in page


def test_only_this_machine_may_ask_and_nobody_may_write(served):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        served.page("/journal.json", Host="evil.example")
    assert served.page("/journal.json", Host="localhost:1")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        served.page("/journal.db")
    for statement in ("delete+from+sessions", "pragma+journal_mode=delete"):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            served.page(f"/journal.json?sql={statement}")
    conn = sqlite3.connect(served.folder / "journal.db")
    assert conn.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    conn.close()


def test_what_is_written_meanwhile_is_seen(served):
    text = "# Session: PLAY\n"
    with Diary.open(served.folder / "journal.db") as diary:
        added = sessions.add(diary, text, read(parse(text)), file="later.md", origin="agent")
        seen = served.data(f"/journal/session_list.json?id={added.id}")["filtered_table_rows_count"]
        with diary.transaction() as conn:
            conn.execute("DELETE FROM sessions WHERE id = ?", (added.id,))
    assert seen == 1


def test_metadata_speaks_of_what_is_there(tmp_path):
    Diary.open(tmp_path / "other.db").close()
    told = metadata(tmp_path / "other.db")["databases"]["other"]["tables"]
    conn = sqlite3.connect(tmp_path / "other.db")
    for name, about in told.items():
        columns = {row[1] for row in conn.execute(f"PRAGMA table_info({name})")}
        assert columns, name
        named = {
            about.get("sort_desc"),
            about.get("label_column"),
            *about.get("facets", ()),
            *about.get("units", ()),
        }
        assert named | set(about.get("columns", ())) <= columns | {None}, name
    views = {row[0] for row in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")}
    conn.close()
    assert views <= set(told)
    assert not [key for about in told.values() for key in about if key.endswith("_html")]


def test_without_datasette_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="not installed") as caught:
        command(tmp_path / "journal.db", tmp_path / "m.json", 8001)
    assert "pip install datasette" in (caught.value.hint or "")
    beside = tmp_path / "datasette"
    beside.touch(mode=0o755)
    assert command(tmp_path / "journal.db", tmp_path / "m.json", 0)[0] == str(beside)


def test_without_a_journal_it_says_so(tmp_path):
    done = invoke("datasette", "--config", write_config(tmp_path))
    assert done.exit_code == 11
    assert "there is no journal" in done.stderr
