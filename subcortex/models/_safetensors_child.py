"""Reads safetensors headers and shard indexes, with no rights: run as a script in a process of its own.

Takes the numbers of open file descriptors, ``i`` before that of an index, and prints one JSON line like
``_gguf_child.py``. Their JSON is small in honest files, but a few MB of ``[],[],`` become hundreds of MB of
objects: hence a process whose memory is bounded.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from typing import Any

MEMORY_BYTES = 180 * 2**20
#: The 163 headers of DeepSeek-V3, 92,000 tensors, take 0.5 s of a fast core: 1 s could refuse them on an old
#: one.
CPU_S = 2
#: The format allows 100 MB. Real headers have 0.1 MB, DeepSeek-V3's index of 163 shards 9 MB.
JSON_BYTES = 16 * 2**20
TENSORS = 500_000
FILES = 500
NAME_CHARS = 512
_SHOWN_CHARS = 80


class Refused(Exception):
    """The file is not what it should be; the message says why."""


class _Twice(ValueError):
    """A key stands twice in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


def _parse(raw: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_object)
    except RecursionError:
        raise Refused(f"{what} is nested too deep") from None
    except _Twice:
        raise Refused(f"{what} names something twice") from None
    except ValueError as error:
        raise Refused(f"{what} is no JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise Refused(f"{what} is no JSON object")
    return found


def _read(descriptor: int, count: int, at: int) -> bytes:
    raw = os.pread(descriptor, count, at)
    if len(raw) < count:
        raise Refused("the file got shorter while being read")
    return raw


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def header(descriptor: int) -> dict[str, Any]:
    """Return the tensors of one safetensors file as [name, dtype, shape, begin, end], and its data's place.

    Raises:
        Refused: The header is damaged, or goes beyond every real one.
    """
    size = os.fstat(descriptor).st_size
    if size < 8:
        raise Refused(f"it has {size} bytes, too few for a safetensors header")
    length = int.from_bytes(_read(descriptor, 8, 0), "little")
    if length > size - 8:
        raise Refused(f"its header should take {length} bytes, and the file has {size}")
    if length > JSON_BYTES:
        raise Refused(f"its header takes {length} bytes; {JSON_BYTES} are read at most")
    found = _parse(_read(descriptor, length, 8), "its header")
    found.pop("__metadata__", None)
    if len(found) > TENSORS:
        raise Refused(f"it tells of {len(found)} tensors; {TENSORS} are read at most")
    return {"tensors": [_entry(name, entry) for name, entry in found.items()], "data_at": 8 + length}


def _entry(name: str, entry: Any) -> list[Any]:
    shown = repr(name[:_SHOWN_CHARS])
    if not 0 < len(name) <= NAME_CHARS:
        raise Refused(f"a tensor's name has {len(name)} characters, not 1 to {NAME_CHARS}: {shown}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"tensor {shown} is not told by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or len(dtype) > 20:
        raise Refused(f"tensor {shown} has no sound dtype")
    if not isinstance(shape, list) or len(shape) > 16 or not all(map(_whole, shape)):
        raise Refused(f"tensor {shown} has no sound shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_whole, offsets)):
        raise Refused(f"tensor {shown} has no sound data_offsets")
    return [name, dtype, shape, *offsets]


def index(descriptor: int) -> dict[str, Any]:
    """Return which files an index names, and how many tensors it puts into each.

    Raises:
        Refused: It is damaged, or goes beyond every real one.
    """
    size = os.fstat(descriptor).st_size
    if size > JSON_BYTES:
        raise Refused(f"it has {size} bytes; {JSON_BYTES} are read at most")
    weights = _parse(_read(descriptor, size, 0), "it").get("weight_map")
    if not isinstance(weights, dict):
        raise Refused("it has no weight_map")
    shards: dict[str, int] = {}
    for name, shard in weights.items():
        if not isinstance(shard, str) or not 0 < len(shard) <= NAME_CHARS:
            raise Refused(f"it puts {name[:_SHOWN_CHARS]!r} into no sound file name")
        shards[shard] = shards.get(shard, 0) + 1
        if len(shards) > FILES:
            raise Refused(f"it names more than {FILES} files")
    return {"shards": shards}


def answer(arguments: list[str]) -> str:
    """Return the JSON that the parent reads: ``{"headers": […]}`` or ``{"refused": why, "part": index}``."""
    headers = []
    for number, argument in enumerate(arguments):
        try:
            if argument.startswith("i"):
                headers.append(index(int(argument[1:])))
            else:
                headers.append(header(int(argument)))
        except Refused as refused:
            return json.dumps({"refused": str(refused), "part": number})
        except MemoryError:
            headers.clear()
            return json.dumps({"refused": "its JSON does not fit into the reader's memory", "part": number})
    return json.dumps({"headers": headers}, separators=(",", ":"))


def _give_up_rights() -> None:
    """Bound memory and time, write no file, leave no core: whatever the file says."""
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    gc.disable()  # there are no cycles to find, and looking for them doubles the time
    _give_up_rights()
    sys.stdout.buffer.write(answer(sys.argv[1:]).encode())
