"""Files found and read: every byte comes back, and nothing odd holds an import up."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from subcortex.journal.folder.files import LARGEST_BYTES, Found, TextFile, Unreadable, decoded, find, read
from subcortex.journal.folder.writing import Folder, Refused


def names(*paths: Path) -> list[str]:
    return [found.name for found in find(paths) if isinstance(found, Found)]


def listed(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_markdown_and_text_below_folders_are_found_once_in_order(tmp_path):
    for name in ("b.md", "a.TXT", "c.pdf", ".hidden.md", ".git/x.md", "2026/03/d.md", "2026/e.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert names(tmp_path) == ["a.TXT", "b.md", "2026/e.md", "2026/03/d.md"]
    assert names(tmp_path / "2026", tmp_path) == ["e.md", "03/d.md", "a.TXT", "b.md"]
    assert names(tmp_path / "c.pdf") == ["c.pdf"]


def test_links_that_go_round_are_walked_once(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.md").write_text("a")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "in")
    (tmp_path / "b.md").symlink_to(tmp_path / "in" / "a.md")
    (tmp_path / "loop.md").symlink_to("loop.md")
    found = list(find([tmp_path]))
    assert len([item for item in found if isinstance(item, Found)]) == 2
    reads = [read(item) for item in found if isinstance(item, Found)]
    assert [type(item) for item in reads] == [TextFile, Unreadable]


def test_folders_deeper_than_the_stack_are_walked(tmp_path):
    deepest = os.open(tmp_path, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=deepest)
        inner = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = inner
    os.close(os.open("a.md", os.O_CREAT | os.O_WRONLY, dir_fd=deepest))
    os.close(deepest)
    assert [len(name) for name in names(tmp_path)] == [804]


def test_what_is_no_session_is_left_out_and_says_why(tmp_path):
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "large.md").write_bytes(b"x" * (LARGEST_BYTES + 1))
    (tmp_path / "largest.md").write_bytes(b"x" * LARGEST_BYTES)
    found = {item.name: read(item) for item in find([tmp_path]) if isinstance(item, Found)}
    assert isinstance(found["largest.md"], TextFile)
    pipe, large = found["pipe.md"], found["large.md"]
    assert isinstance(pipe, Unreadable)
    assert isinstance(large, Unreadable)
    assert "no regular file" in pipe.why
    assert "4.0 MiB" in large.why
    gone = read(Found(tmp_path / "gone.md", "gone.md"))
    assert isinstance(gone, Unreadable)
    assert "No such file" in gone.why


@given(st.binary(max_size=300) | st.text().map(lambda text: text.encode("utf-16")))
@example(b"\xef\xbb\xbf# BOM\r\n")
@example(b"caf\xe9 \x93quoted\x94")
@example(b"\x81\x8d")
@example(b"\xff\xfe\x00\xd8")
@example(b"a\x00b\r\n\r\n")
def test_every_byte_comes_back_whatever_the_encoding(content):
    text, encoding = decoded(content)
    assert text.encode(encoding) == content
    assert not any("\ud800" <= char <= "\udfff" for char in text)


def test_the_usual_encodings_are_told_apart():
    assert decoded("é".encode()) == ("é", "utf-8")
    assert decoded(b"caf\xe9 \x93x\x94") == ("café “x”", "cp1252")
    assert decoded("\ufeffé".encode("utf-16-le")) == ("\ufeffé", "utf-16-le")
    assert decoded(b"\x81")[1] == "latin-1"


def test_a_file_is_written_whole_private_and_only_once(tmp_path):
    with Folder(tmp_path / "out") as folder:
        assert folder.write("a/b.md", b"one") == "written"
        assert folder.write("a/b.md", b"one") == "unchanged"
        assert folder.write("a/b.md", b"two") == "differs"
        assert folder.read("a/b.md") == b"one"
        assert folder.write("a/b.md", b"two", force=True) == "written"
        assert folder.read("nowhere/b.md") is None
    file = tmp_path / "out" / "a" / "b.md"
    assert file.read_bytes() == b"two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert listed(file.parent) == ["b.md"]


@pytest.mark.parametrize(
    "name", ["../x.md", "/x.md", "a/../../x.md", "", "a//b", "x\0.md", "link/x.md", "pipe", "away"]
)
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_outside_or_over_what_is_no_file(tmp_path, name, force):
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to(tmp_path / "elsewhere")
    (out / "away").symlink_to(tmp_path / "elsewhere" / "x.md")
    os.mkfifo(out / "pipe")
    with Folder(out) as folder, pytest.raises(Refused):
        folder.write(name, b"x", force=force)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert listed(tmp_path) == ["elsewhere", "out"]


def test_two_writers_of_one_name_do_not_overwrite_each_other(tmp_path):
    outcomes = []

    def write(content: bytes) -> None:
        with Folder(tmp_path) as folder:
            outcomes.append((folder.write("a.md", content), content))

    threads = [threading.Thread(target=write, args=(str(n).encode() * 100_000,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (won,) = [content for outcome, content in outcomes if outcome == "written"]
    assert (tmp_path / "a.md").read_bytes() == won


def test_what_a_killed_writer_left_is_cleared_away(tmp_path):
    gone, living = (
        ".subcortex-999999999-0123456789abcdef.tmp",
        f".subcortex-{os.getpid()}-0123456789abcdef.tmp",
    )
    for name in (gone, living, ".subcortex-x.tmp"):
        (tmp_path / name).write_text("half")
    with Folder(tmp_path) as folder:
        folder.write("a.md", b"x")
    assert listed(tmp_path) == sorted(["a.md", living, ".subcortex-x.tmp"])
