"""What of a file the system keeps in memory, and having it forget. Effects.

Linux drops the clean pages of a file when it is told that nobody needs them (posix_fadvise); pages that a
process has mapped stay. What is there is asked by mincore, which answers truly only for files that one owns
or may write; of others it says that all is there.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

#: More of a file than this still in memory is no cold start.
COLD_SHARE = 0.05
#: A process that has just ended may have pages mapped for a moment yet.
_TRIES, _AGAIN_S = 3, 0.2


def cached_share(files: Iterable[Path]) -> float | None:
    """Return which share of the files' pages is in memory, 0 to 1; None where it cannot be told."""
    there = pages = 0
    for file in files:
        try:
            found = _resident(file)
        except (OSError, ValueError):
            return None
        if found is None:
            return None
        there, pages = there + found[0], pages + found[1]
    return there / pages if pages else None


def drop(files: Iterable[Path]) -> None:
    """Have the system forget the files' pages; whether it did, ``cached_share`` says. Files are not changed.

    Raises:
        OSError: One cannot be opened.
    """
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            # Pages that are not on disk yet would stay.
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


async def forget(files: Sequence[Path]) -> float | None:
    """Have the system forget files, a few times if need be; return the share that stayed, None if unknown."""
    share = None
    for _ in range(_TRIES):
        with suppress(OSError):
            await asyncio.to_thread(drop, files)
            share = await asyncio.to_thread(cached_share, files)
        if share is not None and share <= COLD_SHARE:
            break
        await asyncio.sleep(_AGAIN_S)
    return share


def read_through(files: Iterable[Path]) -> None:
    """Read files from beginning to end, so that all of them is in memory if there is room.

    Raises:
        OSError: One cannot be read.
    """
    buffer = bytearray(8 * 2**20)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass


def _resident(file: Path) -> tuple[int, int] | None:
    handle = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(handle).st_size
        if not size:
            return 0, 0
        pages = -(-size // mmap.PAGESIZE)
        # Private and writable, since Python gives the address of no other mapping; nothing is written.
        with mmap.mmap(handle, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
            flags = (ctypes.c_ubyte * pages)()
            first = ctypes.c_char.from_buffer(mapped)
            libc = ctypes.CDLL(None, use_errno=True)
            failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), flags)
            del first
        return None if failed else (sum(bytes(flags).translate(_LOWEST_BIT)), pages)
    finally:
        os.close(handle)


_LOWEST_BIT = bytes(value & 1 for value in range(256))
