"""Reads GGUF headers, with no rights: run as a script in a process of its own, never on trusted ground.

Takes the numbers of open file descriptors and prints one JSON line: an object for each file, or what is
wrong with the first bad one. Standard library alone, so that ``python -I -S`` can start it in a few
milliseconds. What it refuses, llama.cpp's ``gguf.cpp`` refuses too, or no real file comes near.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from typing import Any

MEMORY_BYTES = 160 * 2**20
CPU_S = 1
#: Real headers: 4 to 20 MB, nearly all of it the vocabulary.
HEADER_BYTES = 64 * 2**20
#: Real files: up to 262,144 tokens and 515,000 merges.
ALL_STRINGS = 4_000_000
KEYS = 10_000
TENSORS = 20_000  # real files: up to 2,000
KEY_BYTES = 65_535  # GGUF's specification
NAME_BYTES = 255  # llama.cpp stops at 63
#: Of keys, names and values that are told; longer values are counted.
KEPT_BYTES = 8 * 2**20
KEPT_STRING_BYTES = 64 * 2**10
KEPT_NUMBERS = 1024
DIMENSIONS = 4
_WINDOW_BYTES = 2**20
_SHOWN_CHARS = 80

_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS: dict[int, tuple[str, str]] = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    _BOOL: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Refused(Exception):
    """The file is no GGUF file that can be used; the message says why."""


class _Reader:
    """The bytes of a header, read window by window, never past its bounds."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.limit = min(self.size, HEADER_BYTES)
        self.at = 0
        self.doing = "the header"
        self.strings = 0
        self.kept = 0
        self._base = 0
        self._window = b""

    def check(self, count: int) -> None:
        """Refuse if fewer than ``count`` bytes are left."""
        if self.at + count <= self.limit:
            return
        if self.at + count <= self.size:
            raise Refused(f"its header has more than {HEADER_BYTES} bytes at {self.doing}")
        raise Refused(
            f"{self.doing} should take {count} bytes from byte {self.at} on; the file ends at {self.size}"
        )

    def take(self, count: int) -> bytes:
        self.check(count)
        start = self.at - self._base
        if start < 0 or start + count > len(self._window):
            self._base, start = self.at, 0
            self._window = os.pread(self.descriptor, max(count, _WINDOW_BYTES), self.at)
            if len(self._window) < count:
                raise Refused(f"the file got shorter while being read, at {self.doing}")
        self.at += count
        return self._window[start : start + count]

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def keep(self, count: int) -> None:
        self.kept += count
        if self.kept > KEPT_BYTES:
            raise Refused(f"its names and values take more than {KEPT_BYTES} bytes at {self.doing}")

    def name(self, most: int) -> str:
        length = self.u64()
        if not 0 < length <= most:
            self.check(length)
            raise Refused(f"{self.doing} has {length} bytes, not 1 to {most}")
        raw = self.take(length)
        self.keep(length)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise Refused(f"{self.doing} is not UTF-8: {raw[:_SHOWN_CHARS]!r}") from None

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings; the loop that a vocabulary's reading time is made of."""
        self.check(8 * count)
        self.strings += count
        if self.strings > ALL_STRINGS:
            raise Refused(f"it holds more than {ALL_STRINGS} strings at {self.doing}")
        unpack = _U64.unpack_from
        while count:
            self.take(8)
            self.at -= 8
            window, at = self._window, self.at - self._base
            last = len(window) - 8
            while count and at <= last:
                at += 8 + unpack(window, at)[0]
                count -= 1
            self.at = self._base + at
            self.check(0)


def _value(reader: _Reader) -> list[Any]:
    """Return [type, value], or [type, None, length] of one that is counted, not kept."""
    kind = reader.u32()
    if kind in _NUMBERS:
        name, code = _NUMBERS[kind]
        return [name, _numbers(reader, code, 1)[0]]
    if kind == _STRING:
        length = reader.u64()
        if length > KEPT_STRING_BYTES:
            reader.check(length)
            reader.at += length
            return ["string", None, length]
        reader.keep(length)
        return ["string", reader.take(length).decode(errors="replace")]
    if kind != _ARRAY:
        raise Refused(f"{reader.doing} is of the unknown type {kind}")
    inner, count = reader.u32(), reader.u64()
    if inner == _STRING:
        reader.skip_strings(count)
        return ["string[]", None, count]
    if inner == _ARRAY:
        raise Refused(f"{reader.doing} is an array of arrays, which llama.cpp does not read")
    if inner not in _NUMBERS:
        raise Refused(f"{reader.doing} is an array of the unknown type {inner}")
    name, code = _NUMBERS[inner]
    if count <= KEPT_NUMBERS:
        reader.keep(8 * count)
        return [f"{name}[]", _numbers(reader, code, count)]
    length = count * struct.calcsize(f"<{code}")
    reader.check(length)
    reader.at += length
    return [f"{name}[]", None, count]


def _numbers(reader: _Reader, code: str, count: int) -> list[Any]:
    pattern = struct.Struct(f"<{count}{code}")
    return list(pattern.unpack(reader.take(pattern.size)))


def _metadata(reader: _Reader, count: int) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for number in range(count):
        reader.doing = f"the name of metadata key {number + 1} of {count}"
        key = reader.name(KEY_BYTES)
        reader.doing = f"the value of {key[:_SHOWN_CHARS]!r}"
        if key in found:
            raise Refused(f"the metadata key {key[:_SHOWN_CHARS]!r} stands in it twice")
        found[key] = _value(reader)
    return found


def _tensors(reader: _Reader, count: int) -> list[list[Any]]:
    found: dict[str, list[Any]] = {}
    for number in range(count):
        reader.doing = f"the name of tensor {number + 1} of {count}"
        name = reader.name(NAME_BYTES)
        reader.doing = f"tensor {name!r}"
        if name in found:
            raise Refused(f"the tensor {name!r} stands in it twice")
        dimensions = reader.u32()
        if dimensions > DIMENSIONS:
            raise Refused(f"tensor {name!r} has {dimensions} dimensions; ggml knows {DIMENSIONS} at most")
        ne: list[int] = []
        product = 1
        for _ in range(dimensions):
            size = reader.u64()
            product *= size
            if not 0 < product < 2**63:
                raise Refused(f"tensor {name!r} has the sizes {[*ne, size]}, which are no sizes")
            ne.append(size)
        found[name] = [name, ne, reader.u32(), reader.u64()]
    return list(found.values())


def parse(descriptor: int) -> dict[str, Any]:
    """Return what the header of an open GGUF file says.

    Raises:
        Refused: It is none, is damaged, or goes beyond every real one.
    """
    reader = _Reader(descriptor)
    if reader.take(4) != b"GGUF":
        raise Refused("it does not begin with GGUF")
    version = reader.u32()
    if version and version & 0xFFFF == 0:
        raise Refused("it is a big-endian GGUF file, which this machine's llama.cpp cannot load")
    if version not in (2, 3):
        raise Refused(f"it is GGUF of version {version}; 2 and 3 are read")
    tensors, keys = reader.u64(), reader.u64()
    for what, count, most, least_bytes in (("tensors", tensors, TENSORS, 24), ("keys", keys, KEYS, 13)):
        reader.doing = f"the list of {count} {what}"
        reader.check(count * least_bytes)
        if count > most:
            raise Refused(f"it tells of {count} {what}; {most} are read at most")
    metadata = _metadata(reader, keys)
    infos = _tensors(reader, tensors)
    return {"version": version, "metadata": metadata, "tensors": infos, "header_bytes": reader.at}


def answer(descriptors: list[int]) -> str:
    """Return the JSON that the parent reads: ``{"headers": […]}`` or ``{"refused": why, "part": index}``."""
    headers = []
    for index, descriptor in enumerate(descriptors):
        try:
            headers.append(parse(descriptor))
        except Refused as refused:
            return json.dumps({"refused": str(refused), "part": index})
        except MemoryError:
            headers.clear()
            return json.dumps({"refused": "its header does not fit into the reader's memory", "part": index})
    return json.dumps({"headers": headers}, ensure_ascii=False, separators=(",", ":"))


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
    _give_up_rights()
    sys.stdout.buffer.write(answer([int(number) for number in sys.argv[1:]]).encode())
