"""GGUF and safetensors bytes written by hand, so that they can lie."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

UINT8, UINT16, INT32, UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 0, 2, 5, 4, 6, 7, 8, 9, 10
_CODES = {UINT8: "B", UINT16: "H", UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?", UINT64: "Q"}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: Any) -> bytes:
    body = text(value) if kind == STRING else struct.pack(f"<{_CODES[kind]}", value)
    return struct.pack("<I", kind) + body


def array(kind: int, values: list[Any], *, count: int | None = None) -> bytes:
    body = b"".join(scalar(kind, value)[4:] for value in values)
    return struct.pack("<IIQ", ARRAY, kind, len(values) if count is None else count) + body


def tensor(
    name: str | bytes, ne: list[int], kind: int, offset: int, *, dimensions: int | None = None
) -> bytes:
    count = len(ne) if dimensions is None else dimensions
    sizes = b"".join(struct.pack("<Q", size) for size in ne)
    return text(name) + struct.pack("<I", count) + sizes + struct.pack("<IQ", kind, offset)


def gguf_bytes(
    keys: Sequence[tuple[str | bytes, bytes]],
    tensors: list[bytes],
    *,
    data: int = 0,
    version: int = 3,
    key_count: int | None = None,
    tensor_count: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file of these keys and tensors, with ``data`` bytes behind; the counts may lie."""
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head += b"".join(text(key) + value for key, value in keys) + b"".join(tensors)
    return head + bytes(-len(head) % alignment + data)


#: 3 tensors, one of each kind of value; 100 + 32·… bytes.
KEYS: Sequence[tuple[str | bytes, bytes]] = [
    ("general.architecture", scalar(STRING, "llama")),
    ("llama.block_count", scalar(UINT32, 1)),
    ("llama.rope.freq_base", scalar(FLOAT32, 1e4)),
    ("llama.use_parallel_residual", scalar(BOOL, True)),
    ("llama.attention.head_count_kv", array(INT32, [2, 0, 2])),
    ("tokenizer.ggml.tokens", array(STRING, ["a", "b", "ü"])),
]
TENSORS = [
    tensor("token_embd.weight", [32, 3], 8, 0),  # Q8_0: 3 rows of 34 bytes, padded to 128
    tensor("output_norm.weight", [32], 0, 128),  # F32: 128 bytes
    tensor("blk.0.scale", [], 0, 256),  # a scalar: 4 bytes
]
SMALL = gguf_bytes(KEYS, TENSORS, data=260)


def safetensors_bytes(header: Any, data: int = 0, *, length: int | None = None) -> bytes:
    """A file of this header (bytes as they are, anything else as JSON); the length may lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data)


def sparse(path: Path, head: bytes, size: int) -> Path:
    """A file that begins with ``head`` and is a hole up to ``size``."""
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


# What getrusage says of a process itself counts the pages of its starter too; the kernel's mark does not.
_PROBE = """
import re, resource, sys
from pathlib import Path
from subcortex.errors import ConfigError
from subcortex.models.gguf import read_gguf
from subcortex.models.safetensors import read_safetensors
try:
    globals()[sys.argv[1]](sys.argv[2])
    said = "read"
except ConfigError as error:
    said = error.message
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
print(said)
"""


def peaks(function: str, path: Path) -> tuple[int, int, str]:
    """The most memory that reading takes, in MiB (the child's, the parent's), and what came of it."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, function, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    child_mib, parent_mib, said = done.stdout.split("\n", 2)
    return int(child_mib), int(parent_mib), said
