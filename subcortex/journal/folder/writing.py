"""Files written whole: beside their place first, then moved into it; never outside their folder."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from subcortex.journal.folder.files import bounded

Outcome = Literal["written", "unchanged", "differs"]

#: A file under way; the number is the process's. A killed one leaves it, and the next writer clears it away.
_UNDER_WAY = re.compile(r"\.subcortex-([0-9]{1,10})-[0-9a-f]{16}\.tmp")


class Refused(Exception):
    """The name leads out of the folder, or something that is no folder stands in its way."""


class Folder:
    """A folder to write sessions into, held open so that nobody can put another in its place meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, making it (0700) if need be.

        Raises:
            OSError: It cannot be made or opened.
        """
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._touched: set[str] = set()
        self._cleared: set[tuple[str, ...]] = set()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            for name in self._touched:
                with self._below(name, make=False) as (folder, _):
                    os.fsync(folder)
        os.close(self._number)

    def read(self, name: str) -> bytes | None:
        """Return what lies under ``name``, up to a byte more than a session may have; None if nothing does.

        Raises:
            Refused: ``name`` leads out of the folder, or what lies there is no regular file.
            OSError: It cannot be read.
        """
        try:
            with self._below(name, make=False) as (folder, last):
                return _read(folder, last)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes, *, force: bool = False) -> Outcome:
        """Write ``content`` under ``name`` (parts joined by ``/``), mode 0600; readers see all or nothing.

        What lies there already is replaced only with ``force``.

        Raises:
            Refused: ``name`` leads out of the folder, or what stands there is no regular file.
            OSError: It cannot be written.
        """
        with self._below(name, make=True) as (folder, last):
            there = _read(folder, last)
            if there == content:
                return "unchanged"
            if there is not None and not force:
                return "differs"
            under_way = f".subcortex-{os.getpid()}-{secrets.token_hex(8)}.tmp"
            try:
                _write(folder, under_way, content)
                if force or not _linked(folder, under_way, last):
                    os.rename(under_way, last, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                return "differs"
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(under_way, dir_fd=folder)
            self._touched.add(name)
            return "written"

    @contextlib.contextmanager
    def _below(self, name: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Give the open folder that ``name`` lies in, and its last part; no link is followed on the way."""
        *parts, last = name.split("/")
        if "\0" in name or any(part in ("", ".", "..") for part in (*parts, last)):
            raise Refused("it is no name below a folder")
        number = os.dup(self._number)
        try:
            for part in parts:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, mode=0o700, dir_fd=number)
                try:
                    inner = os.open(
                        part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=number
                    )
                except OSError as error:
                    if error.errno in (errno.ENOTDIR, errno.ELOOP):
                        raise Refused(f"{part!r} on its way is no folder") from None
                    raise
                os.close(number)
                number = inner
            if make and tuple(parts) not in self._cleared:
                self._cleared.add(tuple(parts))
                _clear(number)
            yield number, last
        finally:
            os.close(number)


def _read(folder: int, name: str) -> bytes | None:
    try:
        number = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Refused("what stands there is no regular file") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise Refused("what stands there is no regular file")
        return bounded(number)
    finally:
        os.close(number)


def _linked(folder: int, name: str, to: str) -> bool:
    """Give a file its name if nobody has taken it meanwhile, as a rename would not ask; False: no links here.

    Raises:
        FileExistsError: Somebody has.
    """
    try:
        os.link(name, to, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            return False
        raise
    return True


def _write(folder: int, name: str, content: bytes) -> None:
    number = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with os.fdopen(number, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(number)


def _clear(folder: int) -> None:
    """Remove what writers that are gone have left."""
    for name in os.listdir(folder):
        match = _UNDER_WAY.fullmatch(name)
        if match and not Path(f"/proc/{match[1]}").exists():
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
