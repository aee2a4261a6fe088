"""Files of sessions, found and read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

#: No session is longer; what is, is something else.
LARGEST_BYTES = 4 * 2**20
SUFFIXES = (".md", ".txt")

#: Tried in turn on what is not UTF-8; one is taken if it gives the very bytes back, as Latin-1 always does.
_MARKED = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_SINGLE_BYTE = ("cp1252", "latin-1")


class Unreadable(NamedTuple):
    """A file that was left out, and why."""

    file: str
    why: str


class Found(NamedTuple):
    """A file to read, and its name below the folder that it was found under (parts joined by ``/``)."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class TextFile:
    """What a file says: ``text.encode(encoding)`` is ``content``."""

    found: Found
    content: bytes
    text: str
    encoding: str


def find(paths: Sequence[Path]) -> Iterator[Found | Unreadable]:
    """Yield files given by name, and every ``*.md`` and ``*.txt`` below folders, each once, sorted by name.

    What begins with a dot is passed over below a folder. Links are followed, and no folder is entered twice.
    """
    entered: set[tuple[int, int]] = set()
    given: set[str] = set()
    for path in paths:
        below = _below(path, "", entered) if path.is_dir() else iter([Found(path, path.name)])
        for found in below:
            if isinstance(found, Found):
                real = os.path.realpath(found.path)
                if real in given:
                    continue
                given.add(real)
            yield found


def _below(folder: Path, prefix: str, entered: set[tuple[int, int]]) -> Iterator[Found | Unreadable]:
    # A list instead of recursion: folders may lie deeper than Python's stack.
    waiting: list[tuple[Path, str]] = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in entered:
                continue
            entered.add((state.st_dev, state.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield Unreadable(str(folder), _why(error))
            continue
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif entry.name.lower().endswith(SUFFIXES):
                yield Found(Path(entry.path), f"{prefix}{entry.name}")
        waiting += reversed(folders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def read(found: Found) -> TextFile | Unreadable:
    """Return what a file says, or why it is left out."""
    try:
        # A pipe without a writer must not hold us, nor a device give bytes for ever.
        number = os.open(found.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            state = os.fstat(number)
            if not stat.S_ISREG(state.st_mode):
                return Unreadable(str(found.path), "it is no regular file")
            content = bounded(number)
        finally:
            os.close(number)
    except OSError as error:
        return Unreadable(str(found.path), _why(error))
    if len(content) > LARGEST_BYTES:
        mib = max(state.st_size, len(content)) / 2**20
        return Unreadable(
            str(found.path), f"it has {mib:.1f} MiB; a session has {LARGEST_BYTES >> 20} at most"
        )
    text, encoding = decoded(content)
    return TextFile(found, content, text, encoding)


def bounded(number: int) -> bytes:
    """Return what an open file holds, up to a byte more than a session may have."""
    with os.fdopen(number, "rb", closefd=False) as file:
        return file.read(LARGEST_BYTES + 1)


def decoded(content: bytes) -> tuple[str, str]:
    """Return the text of ``content`` and the encoding that gives the very bytes back."""
    marked = [name for mark, name in _MARKED if content.startswith(mark)]
    for encoding in ("utf-8", *marked, *_SINGLE_BYTE):
        try:
            text = content.decode(encoding)
            if text.encode(encoding) == content:
                return text, encoding
        except UnicodeError:
            continue
    raise AssertionError("latin-1 takes every byte")


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
