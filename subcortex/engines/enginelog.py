"""Keep what an engine prints: in a rotated file, the end of it in memory, each line to who asks."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

ROTATE_BYTES = 10 * 1024 * 1024
KEPT_FILES = 3
_TAIL_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
#: After a full read the pump rests, so that an engine that floods its log is slowed and we are not.
_FLOOD_REST_S = 0.01
#: Between two reads once the engine works; its pipe holds 64 KiB meanwhile.
_REST_S = 0.05

_ESCAPES = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # set the title, make a link
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor, erasing
    r"|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def inert(text: str) -> str:
    """Return ``text`` without escape sequences and control characters, tabs and line breaks aside."""
    return _ESCAPES.sub("", text)


def tail_of_file(path: Path, lines: int) -> str:
    """Return the last lines of a log file, inert for a terminal; none if it cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
        return "\n".join(inert(row.rpartition("\r")[2]) for row in text.splitlines()[-lines:])
    return ""


class LogPump:
    """A thread that carries a child's output from a pipe into its log.

    A thread, not a task: a stalled event loop must not stall the child. Whatever goes wrong with the
    file (a full disk), the pipe is still drained and the tail still kept.
    """

    def __init__(self, path: Path, *, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._size = 0
        self._file: int | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._on_lines: Callable[[list[str]], None] | None = None

    def start(
        self, pipe: int, on_lines: Callable[[list[str]], None] | None = None, *, resume: bool = False
    ) -> None:
        """Read ``pipe`` until its end and close it; ``on_lines`` is called in the thread.

        With ``resume`` the output goes on where another pump left off; otherwise the log begins anew.
        """
        self._on_lines = on_lines
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if resume:
                self._remember(self._end_of_file())
            elif self.path.exists() and self.path.stat().st_size:
                self._rotate()
        self._thread = threading.Thread(
            target=self._run, args=(pipe,), name=f"log {self.path.name}", daemon=True
        )
        self._thread.start()

    def unhook(self) -> None:
        """Stop telling lines: from here on they cost a read and a write."""
        self._on_lines = None

    def join(self, timeout_s: float) -> None:
        """Wait until the last writer has closed the pipe, at most ``timeout_s`` seconds."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def tail(self, lines: int | None = None) -> str:
        """Return the last lines (None: all that are in memory), inert for a terminal."""
        with self._lock:
            raw = b"".join(self._tail)
        # A progress bar rewrites its line: only what stood there last counts.
        text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n")
        rows = [inert(row.rstrip("\r").rpartition("\r")[2]) for row in text.split("\n")]
        while rows and not rows[-1].strip():
            rows.pop()
        return "\n".join(rows[-lines:] if lines else rows)

    def _run(self, pipe: int) -> None:
        held = b""
        try:
            while data := os.read(pipe, _READ_BYTES):
                self._remember(data)
                with contextlib.suppress(OSError):
                    self._write(data)
                if (on_lines := self._on_lines) is not None:
                    *whole, held = (held + data).replace(b"\r", b"\n").split(b"\n")
                    held = held[-_TAIL_BYTES:]
                    if whole:
                        on_lines([inert(row.decode("utf-8", errors="replace")) for row in whole if row])
                if len(data) >= _READ_BYTES // 4:
                    time.sleep(_FLOOD_REST_S)
                elif self._on_lines is None:
                    # Nobody waits for a line: a few wake-ups a second instead of several a request.
                    self._ending.wait(_REST_S)
        finally:
            os.close(pipe)
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _end_of_file(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - _TAIL_BYTES))
            return file.read()

    def _remember(self, data: bytes) -> None:
        data = data[-_TAIL_BYTES:]
        with self._lock:
            self._tail.append(data)
            self._tail_bytes += len(data)
            while self._tail_bytes - len(self._tail[0]) >= _TAIL_BYTES:
                self._tail_bytes -= len(self._tail.popleft())

    def _write(self, data: bytes) -> None:
        if self._size + len(data) > self._rotate_bytes and self._size:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            self._rotate()
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
            self._size = os.fstat(self._file).st_size
        view = memoryview(data)
        while view:
            written = os.write(self._file, view)
            self._size += written
            view = view[written:]

    def _rotated(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotate(self) -> None:
        for number in range(KEPT_FILES, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                self._rotated(number - 1).replace(self._rotated(number))
        with contextlib.suppress(FileNotFoundError):  # a person has deleted it
            self.path.replace(self._rotated(1))
        self._size = 0
