"""An engine's output is kept, bounded, and never blocks the engine."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from subcortex.engines.enginelog import KEPT_FILES, LogPump, inert


def pumped(pump: LogPump, data: bytes, lines: list[str] | None = None) -> None:
    read_end, write_end = os.pipe()
    pump.start(read_end, None if lines is None else lines.extend)
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(data)
    pump.join(10)


def test_all_of_it_is_in_the_file_and_the_end_in_memory(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "logs" / "fast.log")
    lines: list[str] = []
    pumped(pump, b"".join(b"line %d\n" % i for i in range(100)), lines)
    assert (tmp_path / "logs" / "fast.log").read_text().splitlines() == [f"line {i}" for i in range(100)]
    assert pump.tail(3) == "line 97\nline 98\nline 99"
    assert lines == [f"line {i}" for i in range(100)]


def test_the_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "fast.log")
    pumped(pump, b"words\n")
    assert (tmp_path / "fast.log").stat().st_mode & 0o077 == 0


def test_a_flood_keeps_the_newest_and_bounds_the_rest(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "fast.log", rotate_bytes=50_000)
    rows = [b"%06d %s\n" % (i, b"x" * 90) for i in range(8_000)]
    pumped(pump, b"".join(rows))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["fast.log", *(f"fast.log.{i + 1}" for i in range(KEPT_FILES))]
    kept = b"".join((tmp_path / f"fast.log{end}").read_bytes() for end in (".3", ".2", ".1", ""))
    assert b"".join(rows).endswith(kept)
    assert len(kept) < 8_000 * 98
    assert pump.tail(1).startswith("007999 ")


def test_a_new_start_begins_a_new_file_and_keeps_the_old(tmp_path: Path) -> None:
    pumped(LogPump(tmp_path / "fast.log"), b"first life\n")
    pumped(LogPump(tmp_path / "fast.log"), b"second life\n")
    assert (tmp_path / "fast.log").read_text() == "second life\n"
    assert (tmp_path / "fast.log.1").read_text() == "first life\n"


def test_a_file_that_cannot_be_written_blocks_nobody(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "fast.log")
    (tmp_path / "fast.log").mkdir()
    (tmp_path / "fast.log" / "in the way").touch()
    (tmp_path / "fast.log.1").touch()
    read_end, write_end = os.pipe()
    pump.start(read_end)
    done = threading.Event()

    def write() -> None:
        # Far more than a pipe holds: it returns only if somebody reads.
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(b"y" * 2_000_000 + b"\nthe end\n")
        done.set()

    threading.Thread(target=write, daemon=True).start()
    assert done.wait(30)
    pump.join(10)
    assert pump.tail(1) == "the end"


def test_a_progress_bar_shows_what_it_last_said(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "fast.log")
    pumped(pump, b"loading 1%\rloading 50%\rloading 100%\ndone\r\n")
    assert pump.tail() == "loading 100%\ndone"


def test_lines_are_told_until_it_is_unhooked(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "fast.log")
    lines: list[str] = []
    heard = threading.Event()

    def listen(batch: list[str]) -> None:
        lines.extend(batch)
        heard.set()

    read_end, write_end = os.pipe()
    pump.start(read_end, listen)
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        pipe.write(b"loading\n")
        assert heard.wait(10)
        pump.unhook()
        pipe.write(b"serving\n")
    pump.join(10)
    assert lines == ["loading"]
    assert pump.tail() == "loading\nserving"


def test_nothing_in_a_log_can_drive_a_terminal() -> None:
    hostile = "\x1b]0;title\x07red \x1b[31mtext\x1b[0m\x9b2J \x1bc bell\x07\ttab \x1b]8;;http://x\x1b\\link"
    assert inert(hostile) == "red text  bell\ttab link"


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    pump = LogPump(tmp_path / "fast.log")
    pumped(pump, b"caf\xe9\n")
    assert pump.tail() == "caf\ufffd"
