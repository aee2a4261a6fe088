"""Snapshots: a machine written to a file, and read back on another."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subcortex.errors import InvalidRequest
from subcortex.hardware.model import SCHEMA_VERSION, Hardware

_LARGEST_BYTES = 16 * 2**20


def save_snapshot(hardware: Hardware, file: Path) -> None:
    """Write a machine, whole or not at all, readable by its owner alone.

    Names of processes and paths of interpreters are in it.

    Raises:
        InvalidRequest: It cannot be written.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(hardware.model_dump_json(indent=2) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise InvalidRequest(
            f"cannot write {file}: {error.strerror}", hint="Name a file in a folder that you may write to."
        ) from None


def load_snapshot(file: Path) -> Hardware:
    """Read a machine that ``save_snapshot`` wrote, or a command's ``--json`` with one under ``hardware``.

    Raises:
        InvalidRequest: The file is not there, is no such snapshot, or is of a newer Subcortex.
    """
    data = _read(file)
    if isinstance(data, dict) and isinstance(data.get("hardware"), dict):
        data = data["hardware"]
    version = data.get("schema_version", 1) if isinstance(data, dict) else 1
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidRequest(
            f"{file} is a hardware snapshot of schema {version}; this Subcortex reads up to {SCHEMA_VERSION}",
            hint="Update Subcortex, or take the snapshot with this version.",
        )
    try:
        return Hardware.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        why = f"{where}: {first['msg']}"
        if first["type"] == "too_long":
            found, most = first["ctx"]["actual_length"], first["ctx"]["max_length"]
            why = f"{where} has {found} entries, and at most {most} are read"
        raise _no_snapshot(file, why) from None


def _read(file: Path) -> Any:
    try:
        # A pipe that nobody writes to would be waited for without end.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise _no_snapshot(file, "it is no regular file")
            content = stream.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}", hint="Name a snapshot file.") from None
    if len(content) > _LARGEST_BYTES:
        raise _no_snapshot(file, f"it has more than {_LARGEST_BYTES} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _no_snapshot(file, f"it is not JSON: {error}") from None


def _no_snapshot(file: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{file} is no hardware snapshot: {why}", hint="`subcortex hardware --save FILE` writes one."
    )
