"""In and out: what is imported is exported byte for byte, and drift is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subcortex.errors import InvalidRequest
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.folder import check, export, import_files, survey
from subcortex.journal.sessions import parse, read

FIELDS = (
    b"# Session: LEARNING\n**Date:** 2026-02-22 15:08\n**Drive:** LEARNING (137%)\n\n"
    b"## Depth\n\n**Deep** \xe2\x80\x94 x\n"
)
FRONT = (
    b"---\r\ndrive: [SOCIAL (112%), CARE (92%)]\r\ntimestamp: 2026-03-01T09:15:22+00:00\r\n---\r\n"
    b"\r\n## Summary\r\nx"
)
FILES = {
    "2026-02-22-1508-LEARNING.md": FIELDS,
    "march/front.md": FRONT,
    "march/2026-03-01-2210-deferral.md": b"---\ntype: deferral\n---\n\n# Deferral Note\n\n\n\n",
    "broken.md": b"---\ndrive: [LEARNING\n: :\n\tx\n",
    "latin.txt": b"caf\xe9 \x93x\x94\r",
    "empty.md": b"",
    "nul.md": b"a\x00b\xef\xbb\xbf",
    "other/empty.md": b"\n",
}


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return written(tmp_path / "journal", FILES)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def diary_in(folder: Path) -> Diary:
    return Diary.open(folder / "journal.db")


def test_what_comes_in_goes_out_byte_for_byte(tmp_path, journal):
    with diary_in(tmp_path) as diary:
        first = import_files(diary, [journal])
        assert (first.files, first.count("new"), first.unreadable) == (8, 8, [])
        assert import_files(diary, [journal]).count("known") == 8
        assert import_files(diary, [journal / "march"]).count("known") == 2
        done = export(diary, tmp_path / "out")
        assert sorted(done.written) == sorted(FILES)
        assert contents(tmp_path / "out") == FILES
        again = export(diary, tmp_path / "out")
        assert (again.written, again.unchanged) == ([], 8)
        assert import_files(diary, [tmp_path / "out"]).count("known") == 8


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["a.md", "b.txt", "c/a.md", "c/d/b.md"]), st.binary(max_size=200)))
def test_any_bytes_come_back(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("x")
    (folder / "in").mkdir()
    written(folder / "in", files)
    with diary_in(folder) as diary:
        added = import_files(diary, [folder / "in"])
        export(diary, folder / "out")
        out = contents(folder / "out")
        # The same bytes under the same last name are one session.
        assert {(name.rsplit("/", 1)[-1], content) for name, content in out.items()} == {
            (name.rsplit("/", 1)[-1], content) for name, content in files.items()
        }
        assert len(added.added) == len(files)


def test_a_survey_counts_and_keeps_nothing(tmp_path, journal):
    (journal / "large.md").write_bytes(b"x" * (4 * 2**20 + 1))
    seen = survey([journal])
    assert (seen.files, seen.lossless, seen.lossy) == (9, 8, [])
    assert [item.file for item in seen.unreadable] == [str(journal / "large.md")]
    assert (seen.with_depth, seen.kinds["deferral"]) == (1, 1)
    # The broken one and both that a file name or a field says it of.
    assert seen.with_timestamp >= 3
    assert seen.with_drive >= 2


def test_a_changed_file_updates_its_session(tmp_path, journal):
    with diary_in(tmp_path) as diary:
        ids = {item.file: item.id for item in import_files(diary, [journal]).added}
        (journal / "march/front.md").write_bytes(FRONT + b"\r\nmore")
        done = import_files(diary, [journal])
        assert (done.count("updated"), done.count("known"), done.count("new")) == (1, 7, 0)
        record = queries.session(diary, ids["march/front.md"])
        assert record is not None
        assert record.content == FRONT + b"\r\nmore"
        out = export(diary, tmp_path / "out", ids=[record.id])
        assert out.written == ["march/front.md"]
        with pytest.raises(InvalidRequest, match="there is no session"):
            export(diary, tmp_path / "out", ids=["nobody"])


def test_an_export_leaves_other_files_alone_unless_forced(tmp_path, journal):
    with diary_in(tmp_path) as diary:
        import_files(diary, [journal])
        out = written(tmp_path / "out", {"broken.md": b"mine"})
        assert export(diary, out).differs == ["broken.md"]
        assert (out / "broken.md").read_bytes() == b"mine"
        assert export(diary, out, force=True).differs == []
        assert contents(out) == FILES


def test_a_row_that_names_a_place_outside_is_not_written(tmp_path, journal):
    with diary_in(tmp_path) as diary:
        import_files(diary, [journal / "broken.md"])
        with diary.transaction() as conn:
            conn.execute("UPDATE sessions SET file = '../evil.md'")
        done = export(diary, tmp_path / "out")
        assert [item.file for item in done.refused] == ["../evil.md"]
        assert check(diary, tmp_path / "out").unreadable[0].file == "../evil.md"
    assert not (tmp_path / "evil.md").exists()


def test_drift_is_found_on_both_sides(tmp_path, journal):
    home = tmp_path / "sessions"
    with diary_in(tmp_path) as diary:
        import_files(diary, [journal], home=home)
        # Where they came from is their file as well.
        assert check(diary, home).none
        export(diary, home)
        drift = check(diary, home)
        assert (drift.none, drift.sessions, drift.files) == (True, 8, 8)
        text = "# Session: CARE\n"
        sessions.add(diary, text, read(parse(text)), file="own.md", origin="agent")
        (home / "broken.md").write_bytes(b"edited")
        (home / "stranger.md").write_bytes(b"x")
        (home / "large.md").write_bytes(b"x" * (4 * 2**20 + 1))
        (journal / "latin.txt").unlink()
        (home / "latin.txt").unlink()
        with diary.transaction() as conn:
            conn.execute("UPDATE sessions SET text = 'other' WHERE file = 'empty.md'")
        drift = check(diary, home)
        assert sorted(drift.without_file) == ["latin.txt", "own.md"]
        assert drift.without_row == ["stranger.md"]
        assert drift.differing == ["broken.md"]
        assert [item.file for item in drift.unreadable] == [str(home / "large.md")]
        assert len(drift.damaged) == 1
        assert not drift.none


def test_an_edit_of_an_imported_sessions_own_file_is_that_sessions(tmp_path, journal):
    home = tmp_path / "sessions"
    with diary_in(tmp_path) as diary:
        import_files(diary, [journal], home=home)
        text = "# Session: CARE\n"
        sessions.add(diary, text, read(parse(text)), file="own.md", origin="agent")
        export(diary, home)
        (home / "march/front.md").write_bytes(b"edited")
        (home / "own.md").write_bytes(b"edited")
        done = import_files(diary, [home], home=home)
        assert (done.count("updated"), done.count("new"), done.count("known")) == (1, 1, 7)
        assert [item.file for item in done.added if item.new] == ["own-2.md"]
