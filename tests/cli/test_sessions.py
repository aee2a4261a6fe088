"""sessions on the command line: in, listed, found, shown safely, rated, out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import invoke, run_on_terminal
from tests.conftest import write_config

HOSTILE = (
    "---\ndrive: PLAY\ntimestamp: 2026-03-01T09:15:22+00:00\nevil: \x1b]0;owned\x07\n---\n\n"
    "# Title &#x1b;[2J &#x202e;txt\n\n**One:** a\n**Two:** \u202eb\n\n"
    "[click](http://evil.example/\x1b[31m) ![picture](http://img.example)\n\n<!-- hidden -->\n<b>shown</b>\n"
    "\n"
    "```\x1b[5m\ncode \x1b]8;;http://evil.example\x07here\x1b]8;;\x07 \x9b31m\n```\n\n[ref]: http://secret.example\n"
    "| a | b |\n|---|---|\n| \x1b[2J | 2 |\n\rover\x08\x7f [bold]markup[/bold] :smile:\n"
)
LEARNING = (
    "# Session: LEARNING\n**Date:** 2026-02-22 15:08\n**Drive:** LEARNING (137%), CARE\n"
    "**Topic:** all-reduce\n\n## Depth\n\n**Moderate** — enough.\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "2026-02-22-1508-LEARNING.md").write_text(LEARNING)
    (folder / "hostile.md").write_bytes(HOSTILE.encode())
    (folder / "empty.txt").write_text("")
    return folder


def ask(config: Path, *arguments: object, code: int = 0) -> Any:
    done = invoke("sessions", *arguments, "--json", "--config", config)
    assert done.exit_code == code, done.output
    assert done.stdout.isascii()
    return json.loads(done.stdout)


def test_before_anything_is_recorded(config, tmp_path):
    done = invoke("sessions", "--config", config)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no sessions yet\n")
    assert ask(config, "list") == []
    assert ask(config, "search", "x") == []
    assert ask(config, "show", "x", code=4)["error"]["code"] == "invalid_request"
    assert ask(config, "rate", "x", "deep", code=4)["error"]["code"] == "invalid_request"
    assert ask(config, "check", code=11)["error"]["code"] == "journal_error"
    assert not (tmp_path / "journal.db").exists()


def test_a_dry_run_says_what_is_understood_and_keeps_nothing(config, notes, tmp_path):
    (notes / "large.md").write_bytes(b"x" * (4 * 2**20 + 1))
    seen = ask(config, "import", "--dry-run", notes)
    assert {
        name: seen[name] for name in ("files", "lossless", "with_drive", "with_timestamp", "with_depth")
    } == {
        "files": 4,
        "lossless": 3,
        "with_drive": 2,
        "with_timestamp": 2,
        "with_depth": 1,
    }
    (left_out,) = seen["unreadable"]
    assert (left_out["file"], "MiB" in left_out["why"]) == (str(notes / "large.md"), True)
    assert not (tmp_path / "journal.db").exists()
    assert (
        "4 files, nothing kept" in invoke("sessions", "import", "--dry-run", notes, "--config", config).stdout
    )


def test_in_twice_and_out_again(config, notes, tmp_path):
    first = ask(config, "import", notes)
    assert [first[name] for name in ("files", "new", "known", "updated", "unreadable")] == [3, 3, 0, 0, []]
    assert {session["change"] for session in first["sessions"]} == {"new"}
    assert ask(config, "import", notes, notes / "hostile.md")["known"] == 3
    (notes / "empty.txt").write_text("no more")
    assert ask(config, "import", notes)["updated"] == 1
    out = ask(config, "export", tmp_path / "out")
    assert len(out["written"]) == 3
    assert {f.name: f.read_bytes() for f in (tmp_path / "out").iterdir()} == {
        f.name: f.read_bytes() for f in notes.iterdir()
    }
    (tmp_path / "out" / "hostile.md").write_text("mine")
    assert ask(config, "export", tmp_path / "out", code=1)["differs"] == ["hostile.md"]
    drift = ask(config, "check", tmp_path / "out", code=1)
    assert (drift["ok"], drift["differing"]) == (False, ["hostile.md"])
    assert ask(config, "export", tmp_path / "out", "--force")["differs"] == []
    assert ask(config, "check", tmp_path / "out")["ok"] is True
    # Without a folder it is the one that the configuration names.
    assert ask(config, "export")["folder"] == str(tmp_path / "sessions")
    large = notes / "large.md"
    large.write_bytes(b"x" * (4 * 2**20 + 1))
    assert ask(config, "import", large, code=1)["unreadable"][0]["file"] == str(large)
    assert invoke("sessions", "import", tmp_path / "nowhere", "--config", config).exit_code == 2


def test_lists_and_searches_are_narrowed(config, notes):
    ask(config, "import", notes)

    def found(*arguments: object) -> list[str]:
        return [session["file"] for session in ask(config, *arguments)]

    learning = "2026-02-22-1508-LEARNING.md"
    assert found("list") == ["empty.txt", "hostile.md", learning]
    assert found("list", "--drive", "care") == [learning]
    assert found("list", "--depth", "moderate") == [learning]
    assert found("list", "--since", "2026-03-01") == ["hostile.md"]
    assert found("list", "--until", "2026-02-23 00:00") == [learning]
    assert found("list", "--limit", "1") == ["empty.txt"]
    before = ask(config, "list")[1]["id"]
    assert found("list", "--before", before[:20]) == [learning]
    assert found("search", "all-reduce", "enough") == [learning]
    (hit,) = ask(config, "search", "enough")
    assert [hit["snippet"][a:b] for a, b in hit["matches"]] == ["enough"]
    assert found("search", "all-reduce", "--drive", "PLAY") == []
    plain = invoke("sessions", "search", "all-reduce", "--config", config).stdout
    assert plain.splitlines()[1].split()[3:5] == ["LEARNING+CARE", "moderate"]
    assert "all-reduce" in plain.splitlines()[2]
    assert invoke("sessions", "--limit", "3", "list").exit_code == 2


def test_a_rating_of_a_person_takes_the_writers_place(config, notes):
    ask(config, "import", notes)
    session = ask(config, "list", "--depth", "moderate")[0]
    done = invoke("sessions", "rate", session["id"][:20], "full", "--reason", "I saw it", "--config", config)
    assert done.stdout == f"{session['id']}: moderate → full\n"
    shown = ask(config, "show", session["id"])
    assert (shown["depth"], shown["depth_by"], shown["depth_reason"]) == ("full", "person", "I saw it")
    assert shown["text"] == LEARNING
    assert ask(config, "list", "--depth", "moderate") == []


def test_nothing_in_a_session_acts_on_a_terminal(config, notes):
    ask(config, "import", notes)
    session = next(s for s in ask(config, "list") if s["file"] == "hostile.md")
    for arguments in (
        ["show", session["id"]],
        ["show", "--raw", session["id"]],
        ["list"],
        ["search", "code"],
    ):
        code, received = run_on_terminal("sessions", *arguments, "--config", config)
        assert code == 0
        # Rich's own styles are all that is left of escapes.
        bare = received.replace("\r\n", "\n")
        while "\x1b[" in bare:
            before, _, after = bare.partition("\x1b[")
            style, _, after = after.partition("m")
            assert style == "" or set(style) <= set("0123456789;"), repr(style)
            bare = before + after
        acting = [
            c for c in bare if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c in "\u202e\u2066"
        ]
        assert acting == []
    plain = invoke("sessions", "show", session["id"], "--config", config).stdout
    assert "\x1b" not in plain


def test_what_is_drawn_hides_nothing(config, notes):
    ask(config, "import", notes)
    session = next(s for s in ask(config, "list") if s["file"] == "hostile.md")
    _, received = run_on_terminal("sessions", "show", session["id"], "--config", config)
    for words in (
        "http://evil.example/",
        "http://img.example",
        "<!-- hidden -->",
        "<b>shown</b>",
        "[ref]: http://secret.example",
        "&#x202e;txt",
        "[bold]markup[/bold] :smile:",
        "␛]0;owned␇",
    ):
        assert words in received, words
    one, two = (line for line in received.splitlines() if "One:" in line or "Two:" in line)
    assert "a" in one
    assert "<U+202E>b" in two
