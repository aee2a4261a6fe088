"""What safetensors files hold: each tensor's dtype, shape and exact bytes, from the headers alone.

The format: https://github.com/huggingface/safetensors. An 8-byte length, a JSON object, the data; its own
library refuses holes and overlaps in the data, and so does this one. Headers are read by
``_safetensors_child.py`` in a process without rights. One of more than 16 MiB is refused, though the format
allows 100 MB: no real one comes near, and Python's JSON objects of 100 MB would take gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from subcortex.errors import ConfigError
from subcortex.models import _child
from subcortex.models._child import ChildRefused, OpenFile
from subcortex.models.stored import StoredTensor

_SCRIPT = Path(__file__).with_name("_safetensors_child.py")
_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$", re.DOTALL | re.ASCII)
#: What lies beside models and is none: LoRA adapters, and what a training run leaves.
_BESIDE = re.compile(
    r"^(?:adapters?[_.-]|adapters?$|lora[_.-]|training_|optimizer|scheduler|rng_state|random_states)"
)

#: dtype → bits of a value, all that the format knows (``safetensors/src/tensor.rs``).
DTYPE_BITS: dict[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

_Name = Annotated[str, Field(min_length=1, max_length=512)]
_Size = Annotated[int, Field(ge=0, lt=2**63)]
_Entry = tuple[
    _Name, Annotated[str, Field(max_length=20)], Annotated[list[_Size], Field(max_length=16)], _Size, _Size
]


class _Header(BaseModel):
    """One file's header as the child tells it."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    tensors: list[_Entry]
    data_at: _Size


class _Index(BaseModel):
    """An index as the child tells it: file → how many tensors it should hold."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    shards: dict[_Name, _Size]


class _Answer(BaseModel):
    """All that the child says."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    headers: list[_Header | _Index] = []
    refused: str | None = Field(default=None, max_length=2000)
    part: int = Field(default=0, ge=0)


def read_safetensors(path: Path | str) -> tuple[StoredTensor, ...]:
    """Return all tensors of a model.

    In a folder the files are those that ``model.safetensors.index.json`` names; without it,
    ``model.safetensors``; without that, all ``*.safetensors`` but adapters and leftovers of training
    (``consolidated*`` only where there are no others: it holds the same weights in another form). A few
    milliseconds once the headers are remembered.

    Args:
        path: A folder or one file.

    Raises:
        ConfigError: No such files, shards missing, a name in the index that leads out of the folder, or a
            header that is damaged or does not fit its file.
    """
    path = Path(path)
    if not _child.exists(path) or not path.is_dir():
        return tuple(_read([path], {}).values())
    found = read_folder(path)
    if found is None:
        raise ConfigError(
            f"{path} holds no safetensors files of a model", hint="Download the model.", file=str(path)
        )
    return found


def read_folder(folder: Path) -> tuple[StoredTensor, ...] | None:
    """Return all tensors of a model's folder, None if no file of its weights is there.

    Raises:
        ConfigError: As for `read_safetensors`, shards that are there in part included.
    """
    if _child.exists(folder / _INDEX):
        shards = _child.load(_SCRIPT, [folder / _INDEX], _parse_index, mark="i")
        paths = _shards(folder, list(shards))
        missing = [path.name for path in paths if not _child.exists(path)]
        if len(missing) < len(paths):
            _none_missing(folder, missing, len(paths))
            return tuple(_read(paths, shards).values())
    names = _files(folder)
    return tuple(_read(_shards(folder, names), {}).values()) if names else None


def _files(folder: Path) -> list[str]:
    """Return the files that make the model where no index says so."""
    if _child.exists(folder / _SINGLE):
        return [_SINGLE]
    try:
        names = sorted(found.name for found in folder.glob("*.safetensors"))
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}", file=str(folder)) from None
    names = [name for name in names if not _BESIDE.match(name)]
    names = [name for name in names if not name.startswith("consolidated")] or names
    for part in filter(None, map(_PART.match, names)):
        count = min(int(part["count"]), _child.PARTS)
        wanted = {f"{part['stem']}-{n:05d}-of-{part['count']}.safetensors" for n in range(1, count + 1)}
        _none_missing(folder, sorted(wanted - set(names)), len(wanted))
    return names


def _shards(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the files of these names; none may lead out of the folder or the hub's cache around it."""
    if len(names) > _child.PARTS:
        raise ConfigError(
            f"{folder / _INDEX} names {len(names)} files; {_child.PARTS} are read at most",
            file=str(folder / _INDEX),
        )
    home = folder.resolve()
    # The hub's cache: MODEL/snapshots/REVISION/NAME are links to MODEL/blobs/HASH.
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    paths = []
    for name in names:
        if (
            "\0" in name
            or "\\" in name
            or PurePosixPath(name).is_absolute()
            or ".." in PurePosixPath(name).parts
        ):
            raise ConfigError(
                f"{folder / _INDEX} names a file outside its folder: {name!r}", file=str(folder / _INDEX)
            )
        try:
            target = (folder / name).resolve()
        except (OSError, RuntimeError):
            raise ConfigError(f"{folder / name} leads nowhere", file=str(folder / name)) from None
        if not target.is_relative_to(home) and not (blobs and target.is_relative_to(blobs)):
            raise ConfigError(
                f"{folder / name} is a link out of its folder, to {target}",
                hint="Name the file itself, or put it into the folder.",
                file=str(folder / name),
            )
        paths.append(folder / name)
    return paths


def _none_missing(folder: Path, missing: Sequence[str], count: int) -> None:
    if missing:
        named = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise ConfigError(
            f"{len(missing)} of the {count} shards of {folder} are missing: {named}",
            hint="Wait for its download to finish, or download it again.",
            file=str(folder),
        )


def _read(paths: Sequence[Path], expected: dict[str, int]) -> dict[str, StoredTensor]:
    """Return the tensors of these files by name; one that stands in two is one if both say the same."""
    found: dict[str, StoredTensor] = {}
    for path, tensors in zip(paths, _child.load(_SCRIPT, paths, _parse_headers), strict=True):
        wanted = expected.get(path.name, 0)
        if len(tensors) < wanted:
            raise ConfigError(
                f"{path} holds {len(tensors)} tensors, and the index says {wanted}",
                hint="The index and the files are not of one download: download them again.",
                file=str(path),
            )
        for tensor in tensors:
            if found.setdefault(tensor.name, tensor) != tensor:
                raise ConfigError(
                    f"{path} holds another {tensor.name!r} than the files before it", file=str(path)
                )
    return found


def _believed(text: bytes, files: Sequence[OpenFile]) -> list[_Header | _Index]:
    answer = _Answer.model_validate_json(text)
    if answer.refused is not None:
        raise ChildRefused(answer.refused, answer.part)
    if len(answer.headers) != len(files):
        raise ChildRefused("the reader left parts of it out", 0)
    return answer.headers


def _parse_index(text: bytes, files: Sequence[OpenFile]) -> dict[str, int]:
    (found,) = _believed(text, files)
    if not isinstance(found, _Index) or not found.shards:
        raise ChildRefused("its weight_map names no file", 0)
    return found.shards


def _parse_headers(text: bytes, files: Sequence[OpenFile]) -> list[list[StoredTensor]]:
    told = []
    for part, (found, file) in enumerate(zip(_believed(text, files), files, strict=True)):
        if not isinstance(found, _Header):
            raise ChildRefused("the reader took it for an index", part)
        told.append(_tensors(found, file, part))
    return told


def _tensors(header: _Header, file: OpenFile, part: int) -> list[StoredTensor]:
    """Return the tensors of one file, whose data lie end to end up to the file's end."""
    end = 0
    for name, dtype, shape, begin, after in sorted(header.tensors, key=lambda entry: entry[3:]):
        bits = DTYPE_BITS.get(dtype)
        if bits is None:
            raise ChildRefused(f"tensor {name!r} is of the dtype {dtype!r}, which is not known here", part)
        if prod(shape) * bits != 8 * (after - begin):
            raise ChildRefused(
                f"tensor {name!r} takes {after - begin} bytes; {dtype} of shape {shape} takes"
                f" {prod(shape) * bits / 8:g}",
                part,
            )
        if begin != end:
            raise ChildRefused(f"tensor {name!r} begins at {begin}, the one before it ends at {end}", part)
        end = after
    if header.data_at + end != file.size:
        raise ChildRefused(f"its tensors end at byte {header.data_at + end}, the file at {file.size}", part)
    return [
        StoredTensor(name, tuple(shape), dtype, after - begin)
        for name, dtype, shape, begin, after in header.tensors
    ]
