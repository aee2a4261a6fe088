"""Headers read before: one small JSON file each in the user's cache folder, best effort throughout.

A header stands for a file of a certain path, device, inode, size and times of change; whatever else is found
there (damaged, another schema, somebody else's) is passed over and written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

SCHEMA = 1
#: Files kept; the oldest go first.
MOST_FILES = 128
MOST_TOTAL_BYTES = 64 * 2**20
#: A larger answer is not kept; DeepSeek-V3's 163 shards make one of 10 MB.
MOST_BYTES = 16 * 2**20


def folder() -> Path:
    """Return the folder of remembered headers."""
    return platformdirs.user_cache_path("subcortex") / "headers"


def get(key: list[list[Any]]) -> bytes | None:
    """Return the answer remembered under ``key``, None if there is none that can be trusted."""
    start = _start(key)
    try:
        with _path(key).open("rb") as file:
            found = os.fstat(file.fileno())
            mine = found.st_uid == os.getuid() and not found.st_mode & 0o022
            if not mine or not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES + len(start) + 1:
                return None
            text = file.read()
    except OSError:
        return None
    if not text.startswith(start) or not text.endswith(b"}"):
        return None
    return text[len(start) : -1]


def put(key: list[list[Any]], answer: bytes) -> None:
    """Remember ``answer`` under ``key``; a folder that cannot be written to is no error."""
    if len(answer) > MOST_BYTES:
        return
    with contextlib.suppress(OSError):
        home = folder()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=home, suffix=".new")  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_start(key) + answer + b"}")
            Path(name).replace(_path(key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _forget_oldest(home)


def _start(key: list[list[Any]]) -> bytes:
    """Return how a file of this key begins; compared as it stands, so that only the answer is parsed."""
    return f'{{"schema":{SCHEMA},"key":{json.dumps(key)},"answer":'.encode()


def _path(key: list[list[Any]]) -> Path:
    return folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"


def _forget_oldest(home: Path) -> None:
    """Keep the newest files, up to both bounds; leftovers of a writer that was killed count as well."""
    dated = []
    for path in home.iterdir():
        with contextlib.suppress(OSError):
            found = path.stat()
            dated.append((found.st_mtime_ns, found.st_size, path))
    total = 0
    for number, (_, size, path) in enumerate(sorted(dated, reverse=True), start=1):
        total += size
        if number > MOST_FILES or total > MOST_TOTAL_BYTES:
            path.unlink(missing_ok=True)
