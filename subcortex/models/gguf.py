"""What a GGUF file holds: its metadata, and each tensor's type, place and exact bytes.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is read by
``_gguf_child.py`` in a process without rights; its answer is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from subcortex.errors import ConfigError
from subcortex.models import _child
from subcortex.models._child import ChildRefused, OpenFile
from subcortex.models.gguf_types import BY_ID, FILE_TYPES, GgmlType
from subcortex.models.stored import StoredTensor

_SCRIPT = Path(__file__).with_name("_gguf_child.py")
_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.DOTALL | re.ASCII)
_DEFAULT_ALIGNMENT = 32
_MOST_ALIGNMENT = 2**20

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Counted:
    """A value that is not kept, only measured: the tokens of a vocabulary, a very long text.

    Args:
        type: As GGUF names it: ``string[]``, ``float32[]``, ``string``.
        length: Elements of an array, bytes of a string.
    """

    type: str
    length: int


Value = Scalar | tuple[Scalar, ...] | Counted


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor.

    Args:
        name: E.g. ``blk.0.ffn_down.weight``.
        ne: Its sizes as ggml writes them, the length of a row first.
        type: Its ggml type.
        offset: Where its data begin, in bytes from the start of the file of its part.
        bytes: Bytes of its data, without padding.
        part: Which file it lies in, from 0.
    """

    name: str
    ne: tuple[int, ...]
    type: GgmlType
    offset: int
    bytes: int
    part: int = 0


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A model in GGUF, all its parts together.

    Args:
        paths: Its files, in order.
        version: Of the format, 2 or 3.
        metadata: Of the first part. Strings up to 64 KiB and arrays of up to 1024 numbers are kept.
        tensors: Of all parts, in their order.
        file_bytes: Of all parts.
    """

    paths: tuple[Path, ...]
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]
    file_bytes: int

    @property
    def parts(self) -> int:
        """Return how many files it is split into."""
        return len(self.paths)

    @property
    def architecture(self) -> str | None:
        """Return llama.cpp's name of the architecture, e.g. ``llama`` or ``qwen3moe``."""
        found = self.metadata.get("general.architecture")
        return found if isinstance(found, str) else None

    @property
    def file_type(self) -> str | None:
        """Return the mixture's name that the file says of itself, e.g. ``Q4_K_M``."""
        found = self.metadata.get("general.file_type")
        return FILE_TYPES.get(found) if isinstance(found, int) else None

    @property
    def tensor_bytes(self) -> int:
        """Return the bytes of all tensors, without padding."""
        return sum(tensor.bytes for tensor in self.tensors)

    def get(self, key: str) -> Value | None:
        """Return the value of the architecture's own ``key``: ``block_count`` of ``llama.block_count``."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def stored(self) -> tuple[StoredTensor, ...]:
        """Return the tensors with row-major shapes, as safetensors has them."""
        return tuple(
            StoredTensor(tensor.name, tensor.ne[::-1], tensor.type.name, tensor.bytes)
            for tensor in self.tensors
        )


_Name = Annotated[str, Field(min_length=1, max_length=65_535)]
_Size = Annotated[int, Field(ge=0, lt=2**64)]
_Kept = tuple[Annotated[str, Field(max_length=16)], Scalar | list[bool | int | float]]
_NotKept = tuple[Annotated[str, Field(max_length=16)], None, _Size]


class _Header(BaseModel):
    """One file's header as the child tells it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    version: int = Field(ge=2, le=3)
    metadata: dict[_Name, _Kept | _NotKept]
    tensors: list[tuple[_Name, Annotated[list[_Size], Field(max_length=4)], _Size, _Size]]
    header_bytes: _Size


class _Answer(BaseModel):
    """All that the child says."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    headers: list[_Header] = []
    refused: str | None = Field(default=None, max_length=2000)
    part: int = Field(default=0, ge=0)


def read_gguf(path: Path | str) -> GgufFile:
    """Read a GGUF file's header, or those of all parts of a split one.

    Costs one process of some 25 ms (70 ms with a vocabulary of 150,000 tokens) the first time, and about a
    millisecond while the file stays as it is.

    Args:
        path: The file; of a split model (``NAME-00001-of-00003.gguf``) any part.

    Raises:
        ConfigError: A part is missing, is no GGUF file, is damaged or cut short, or goes beyond what real
            files hold. Reading takes a second and 160 MB at most, whatever the file says.
    """
    return _child.load(_SCRIPT, _parts(Path(path)), _parse)


def _parts(path: Path) -> tuple[Path, ...]:
    """Return all files of a split model; that they are there is seen to when they are opened."""
    found = _PART.match(path.name)
    if not found:
        return (path,)
    count = int(found["count"])
    if not 1 <= int(found["number"]) <= count:
        raise ConfigError(f"{path} calls itself part {int(found['number'])} of {count}", file=str(path))
    if count > _child.PARTS:
        raise ConfigError(
            f"{path} calls itself one of {count} parts; {_child.PARTS} are read at most", file=str(path)
        )
    parts = [path.with_name(f"{found['stem']}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1)]
    missing = [part.name for part in parts if not _child.exists(part)]
    if missing and len(missing) < count:
        named = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise ConfigError(
            f"{path} is split into {count} files, and {len(missing)} of them are missing: {named}",
            hint=f"Download them into {path.parent}.",
            file=str(path),
        )
    return tuple(parts)


def _parse(text: bytes, files: Sequence[OpenFile]) -> GgufFile:
    answer = _Answer.model_validate_json(text)
    if answer.refused is not None:
        raise ChildRefused(answer.refused, answer.part)
    if len(answer.headers) != len(files):
        raise ChildRefused("the reader left parts of it out", 0)
    tensors: list[GgufTensor] = []
    for part, (header, file) in enumerate(zip(answer.headers, files, strict=True)):
        tensors += _tensors(header, file, part)
    names = {tensor.name for tensor in tensors}
    if len(names) < len(tensors):
        raise ChildRefused("two of its parts hold a tensor of the same name", 0)
    first = answer.headers[0]
    _check_split([_metadata(header) for header in answer.headers], len(tensors))
    return GgufFile(
        paths=tuple(file.path for file in files),
        version=first.version,
        metadata=_metadata(first),
        tensors=tuple(tensors),
        file_bytes=sum(file.size for file in files),
    )


def _metadata(header: _Header) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, entry in header.metadata.items():
        if len(entry) == 3:
            found[key] = Counted(entry[0], entry[2])
        else:
            value = entry[1]
            found[key] = tuple(value) if isinstance(value, list) else value
    return found


def _check_split(parts: Sequence[Mapping[str, Value]], tensors: int) -> None:
    """Hold what each part says of the split against what is there (``gguf-split`` writes these keys)."""
    told = parts[0].get("split.count", 1)
    if told in (0, 1) and len(parts) == 1:
        return
    for index, metadata in enumerate(parts):
        count, number = metadata.get("split.count"), metadata.get("split.no")
        if count != len(parts):
            hint = "" if len(parts) > 1 else "; its name should end in -00001-of-0000N.gguf"
            raise ChildRefused(f"it says that it is one of {count} parts, not of {len(parts)}{hint}", index)
        if number != index:
            raise ChildRefused(f"it says that it is part {number}, not {index} (from 0)", index)
    total = parts[0].get("split.tensors.count")
    if isinstance(total, int) and total != tensors:
        raise ChildRefused(f"its parts should hold {total} tensors, and hold {tensors}", 0)


def _tensors(header: _Header, file: OpenFile, part: int) -> list[GgufTensor]:
    """Return the tensors of one part, each within the file and none over another."""
    alignment = _alignment(header, part)
    start = -(-header.header_bytes // alignment) * alignment
    found = []
    for name, ne, number, offset in header.tensors:
        kind = BY_ID.get(number)
        if kind is None:
            raise ChildRefused(f"tensor {name!r} is of ggml type {number}, which is not known here", part)
        try:
            size = kind.tensor_bytes(ne[::-1])
        except ValueError as error:
            raise ChildRefused(f"tensor {name!r}: {error}", part) from None
        if offset % alignment:
            raise ChildRefused(f"tensor {name!r} begins at {offset}, no multiple of {alignment}", part)
        if start + offset + size > file.size:
            raise ChildRefused(
                f"tensor {name!r} ends at byte {start + offset + size}, but the file at {file.size}", part
            )
        found.append(GgufTensor(name, tuple(ne), kind, start + offset, size, part))
    end, before = start, ""
    for tensor in sorted(found, key=lambda each: each.offset):
        if tensor.offset < end:
            raise ChildRefused(f"tensors {before!r} and {tensor.name!r} lie over one another", part)
        end, before = tensor.offset + tensor.bytes, tensor.name
    return found


def _alignment(header: _Header, part: int) -> int:
    entry = header.metadata.get("general.alignment", ("uint32", _DEFAULT_ALIGNMENT))
    value = entry[1]
    sound = entry[0] == "uint32" and isinstance(value, int) and 0 < value <= _MOST_ALIGNMENT
    if not sound or not isinstance(value, int) or value & (value - 1):
        raise ChildRefused(f"its alignment is {value!r}, no power of two", part)
    return value
