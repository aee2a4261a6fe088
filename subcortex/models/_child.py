"""Reads the headers of model files in a process without rights, and remembers what they said.

Model files come from strangers. The parent opens them (regular files only, so that nothing blocks), a child
with bounded memory and time reads them through the open descriptors, and the parent believes nothing of its
answer that it has not checked.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from subcortex.errors import ConfigError, SubcortexError
from subcortex.models import _header_cache

#: A safeguard for slow disks; what a file says cannot use it up: the child's CPU time is bounded too.
WALL_S = 10.0
ANSWER_BYTES = 32 * 2**20
#: Open at once; DeepSeek-V3 has 163.
PARTS = 500
_CHUNK_BYTES = 2**18
LFS_SIGN = b"version https://git-lfs"
_SIGNS = (
    (b"GGUF", "a GGUF file"),
    (b"PK\x03\x04", "a zip archive, such as PyTorch's .bin and .pt"),
    *((bytes((0x80, protocol)), "a Python pickle") for protocol in range(2, 6)),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"lmgg", "a GGML file of before GGUF"),
    (b"tjgg", "a GGJT file of before GGUF"),
    (b"FUGG", "a big-endian GGUF file"),
    (b"{", "JSON"),
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file, open for reading; ``identity`` changes when its content does."""

    path: Path
    descriptor: int
    size: int
    identity: tuple[str, int, int, int, int, int]


class ChildRefused(Exception):
    """What the child has against a file; ``part`` is its index."""

    def __init__(self, why: str, part: int) -> None:
        super().__init__(why)
        self.why = why
        self.part = part


def load(
    script: Path, paths: Sequence[Path], parse: Callable[[bytes, Sequence[OpenFile]], T], *, mark: str = ""
) -> T:
    """Return what ``parse`` makes of the child's answer on these files, from the cache if it is there.

    Args:
        script: The child's source file.
        paths: The files, all parts of one model.
        parse: Checks the answer and makes something of it; raises `ChildRefused`, ConfigError or pydantic's
            ValidationError at what it does not believe.
        mark: Put before each descriptor's number, for a child that reads more than one kind of file.

    Raises:
        ConfigError: A file is missing, is not one, cannot be opened, is refused, or changed meanwhile.
    """
    if len(paths) > PARTS:
        raise ConfigError(
            f"{paths[0]} is one of {len(paths)} files; {PARTS} are read at most", file=str(paths[0])
        )
    with opened(paths) as files:
        key = [list(file.identity) for file in files]
        remembered = _header_cache.get(key)
        if remembered is not None:
            with contextlib.suppress(ChildRefused, SubcortexError, ValidationError):
                return parse(remembered, files)
        answer = _run(script, files, mark)
        for file in files:
            _unchanged(file)
        try:
            parsed = parse(answer, files)
        except ChildRefused as refused:
            part = min(refused.part, len(files) - 1)
            raise refused_file(files[part], refused.why) from None
        except ValidationError:
            raise refused_file(files[0], "the reader's answer on its header makes no sense") from None
        _header_cache.put(key, answer)
        return parsed


@contextlib.contextmanager
def opened(paths: Sequence[Path]) -> Iterator[tuple[OpenFile, ...]]:
    """Open regular files for reading, and close them again.

    Raises:
        ConfigError: One of them is missing, is no regular file, is empty, a Git LFS pointer, or cannot be
            opened.
    """
    with contextlib.ExitStack() as stack:
        files = []
        for path in paths:
            file = _open(path)
            stack.callback(os.close, file.descriptor)
            files.append(file)
        yield tuple(files)


def exists(path: Path) -> bool:
    """Return whether there is something at ``path`` that can be looked at; never raises."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def _open(path: Path) -> OpenFile:
    try:
        _regular(path, path.stat())
        # A pipe that took its place in between must not block; for regular files the flag means nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}", hint="Check the path, or download the model again.", file=str(path)
        ) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be opened: {why}", file=str(path)) from None
    try:
        found = os.fstat(descriptor)
        _regular(path, found)
        name = str(path.resolve())
        if os.pread(descriptor, len(LFS_SIGN), 0) == LFS_SIGN:
            raise lfs_pointer(path)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFile(path, descriptor, found.st_size, (name, *_marks(found)))


def lfs_pointer(path: Path | str) -> ConfigError:
    """Return the error for a Git LFS pointer that stands where a file should."""
    return ConfigError(
        f"{path} is a Git LFS pointer, not the file itself",
        hint="Fetch the file: git lfs pull, or hf download.",
        file=str(path),
    )


def _marks(found: os.stat_result) -> tuple[int, int, int, int, int]:
    # A time of change of the content can be set back, that of the inode cannot.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _regular(path: Path, found: os.stat_result) -> None:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    for is_kind, what in kinds:
        if is_kind(found.st_mode):
            raise ConfigError(f"{path} is {what}, not a model file", file=str(path))
    if not found.st_size:
        raise ConfigError(f"{path} is empty", hint="Download the model again.", file=str(path))


def _unchanged(file: OpenFile) -> None:
    try:
        now = {_marks(os.fstat(file.descriptor)), _marks(file.path.stat())}
    except OSError:
        now = set()
    if now != {file.identity[1:]}:
        raise ConfigError(
            f"{file.path} changed while it was read",
            hint="Wait until its download has finished.",
            file=str(file.path),
        )


def refused_file(file: OpenFile, why: str) -> ConfigError:
    """Return the error for a file whose content is refused, naming what it looks like instead."""
    head = os.pread(file.descriptor, 32, 0)
    looks = next((what for sign, what in _SIGNS if head.startswith(sign)), None)
    if looks is None and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.size:
        looks = "a safetensors file"
    hint = "It may be damaged or cut short: download it again."
    if looks is not None and looks not in ("a GGUF file", "a safetensors file"):
        hint = f"It looks like {looks}."
    elif looks is not None and not file.path.name.endswith(looks.split()[1].lower()):
        hint = f"It looks like {looks}, though its name says something else."
    return ConfigError(f"{file.path} cannot be used: {why}", hint=hint, file=str(file.path))


def _run(script: Path, files: Sequence[OpenFile], mark: str) -> bytes:
    """Return what the child says of the files; every way in which it can fail is a typed error."""
    numbers = [file.descriptor for file in files]
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(script), *(f"{mark}{number}" for number in numbers)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=numbers,
        env={},
        cwd="/",
        process_group=0,
    )
    try:
        answer = _read(child, time.monotonic() + WALL_S)
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        assert child.stdout is not None
        child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1)
    if answer is None:
        raise refused_file(
            files[0],
            f"reading its header took more than {WALL_S:.0f} s or told more than {ANSWER_BYTES} bytes",
        )
    if child.returncode != 0:
        raise refused_file(files[0], f"reading its header ended with {_ending(child.returncode)}")
    return answer


def _ending(code: int | None) -> str:
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "its CPU time used up"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _read(child: subprocess.Popen[bytes], until: float) -> bytes | None:
    """Return all that the child prints until it ends, None if that is too much or takes too long."""
    assert child.stdout is not None
    answer = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(left):
                break
            chunk = os.read(child.stdout.fileno(), _CHUNK_BYTES)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.1, until - time.monotonic()))
                return bytes(answer)
            answer += chunk
            if len(answer) > ANSWER_BYTES:
                break
    return None
