"""A model's shape from wherever it lies: a folder, a config.json, a GGUF file, a name on the hub.

Nothing of the weights is read, only headers. Files come from strangers: sizes are bounded, headers are parsed
by processes without rights (``_child.py``), and whatever is wrong with one is a `ConfigError` that names it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

from subcortex.errors import ConfigError
from subcortex.models import _child, hub
from subcortex.models._stored_shape import with_stored
from subcortex.models.gguf_shape import shape_of_gguf
from subcortex.models.huggingface import from_config
from subcortex.models.quantisation import lacks_quantisation, with_hf_quant_config
from subcortex.models.safetensors import read_folder
from subcortex.models.shape import ModelShape

_CONFIG, _BESIDE = "config.json", "hf_quant_config.json"
#: The largest real config.json has some 100 KB.
MOST_CONFIG_BYTES = 2**20
#: Brackets within brackets; real ones have five.
_MOST_DEPTH = 100
#: Parts of one GGUF model differ in this alone.
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.ASCII)
#: GGUF files that are no language model: projectors of images, statistics for quantising.
_NO_MODEL = ("mmproj", "imatrix")
#: ``owner/name`` as the hub allows it.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def read_shape(source: str | Path, *, offline: bool = True, name: str | None = None) -> ModelShape:
    """Return the shape of a model.

    Args:
        source: A folder with a config.json (headers of its safetensors give exact bytes; without any, a GGUF
            file beside it does), a config.json, a GGUF file (any part of a split one), or ``owner/name`` on
            the hub: then the local hub cache is looked in, and after it, unless ``offline``, the network.
        offline: Do not use the network.
        name: What to call the model; the source if None.

    Raises:
        ConfigError: There is no such model, or its files cannot be read; says what to try.
    """
    path = Path(source).expanduser()
    label = name or str(source)
    kind = _kind(path)
    if kind == "file" and path.suffix.lower() == ".gguf":
        return shape_of_gguf(path, label)
    if kind == "file":
        return from_config(read_config(path), label, file=str(path))
    if kind == "folder":
        return _folder(path, label)
    if _NAME.fullmatch(str(source)):
        return _of_hub(str(source), label, offline=offline)
    raise ConfigError(
        f"there is no model at {source}",
        hint="Give a folder with a config.json, a .gguf file, or owner/name of a model on the hub.",
        file=str(source),
    )


def _kind(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    return "file" if stat.S_ISREG(found.st_mode) else ""


def _folder(path: Path, name: str) -> ModelShape:
    ggufs = _ggufs(path)
    if _kind(path / _CONFIG) == "file":
        shape = from_config(_config_of(path), name, file=str(path / _CONFIG))
        stored = read_folder(path)
        if stored is not None:
            return with_stored(shape, stored)
        # Whoever keeps both means the GGUF for llama.cpp: the config alone loads nowhere.
        return _only_gguf(path, ggufs, name) if ggufs else _without_weights(path, shape)
    if ggufs:
        return _only_gguf(path, ggufs, name)
    if _kind(path / "adapter_config.json") == "file":
        raise ConfigError(
            f"the folder {path} holds an adapter, not a model",
            hint="Give the folder of the model that it was made for.",
            file=str(path),
        )
    raise ConfigError(
        f"the folder {path} has neither a {_CONFIG} nor a .gguf file",
        hint="Give the folder of a model, as downloaded.",
        file=str(path),
    )


def _config_of(folder: Path) -> dict[str, Any]:
    """Return a folder's config.json, with the quantisation that ModelOpt keeps in a file beside it."""
    config, beside = read_config(folder / _CONFIG), folder / _BESIDE
    if lacks_quantisation(config) and _kind(beside) == "file":
        return with_hf_quant_config(config, read_config(beside))
    return config


def _without_weights(path: Path, shape: ModelShape) -> ModelShape:
    """Return the config's shape, with a note where weights should be and are not."""
    if _kind(path / "model.safetensors.index.json") != "file":
        return shape
    note = "None of the files that its index names are there yet: the config's figures are used."
    return replace(shape, notes=(*shape.notes, note))


def _ggufs(path: Path) -> list[Path]:
    """Return a folder's GGUF models, of a split one its first part."""
    found = sorted((one for one in path.glob("*.gguf") if not one.name.startswith(_NO_MODEL)), reverse=True)
    return sorted({_PART.sub("", one.name): one for one in found}.values())


def _only_gguf(path: Path, found: list[Path], name: str) -> ModelShape:
    """Return the shape of the one GGUF model of a folder."""
    if len(found) == 1:
        return shape_of_gguf(found[0], name)
    named = ", ".join(file.name for file in found[:4]) + (" …" if len(found) > 4 else "")
    raise ConfigError(
        f"the folder {path} has {len(found)} models: {named}",
        hint="Name one of the files.",
        file=str(path),
    )


def read_config(path: Path) -> dict[str, Any]:
    """Return a config.json's object.

    Raises:
        ConfigError: It cannot be opened, is larger than 1 MiB, is no JSON, or no object.
    """
    try:
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path} is no file", hint="Give a config.json.", file=str(path))
            text = file.read(MOST_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", hint="Check its permissions.", file=str(path)
        ) from None
    return parse_config(text, str(path))


def parse_config(text: bytes, file: str) -> dict[str, Any]:
    """Return the object of a config.json's text.

    Args:
        text: The file, or its beginning if it is too large.
        file: What to call it in errors.

    Raises:
        ConfigError: It is too large, no JSON, or no object.
    """
    if text.startswith(_child.LFS_SIGN):
        raise _child.lfs_pointer(file)
    if len(text) > MOST_CONFIG_BYTES:
        raise ConfigError(
            f"{file} is larger than {MOST_CONFIG_BYTES // 2**20} MiB; that is no config.json",
            hint="Give the model's config.json, not its weights.",
            file=file,
        )
    try:
        if _depth(text) > _MOST_DEPTH:
            raise ValueError(f"brackets more than {_MOST_DEPTH} deep")
        found = json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file} is no JSON that can be read: {str(error)[:200]}",
            hint="Download the model's config.json again.",
            file=file,
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{file} holds a {type(found).__name__}, not an object",
            hint="Give a model's config.json.",
            file=file,
        )
    return found


def _depth(text: bytes) -> int:
    """Return how deep brackets go at most, those inside texts counted too."""
    deepest = depth = 0
    for bracket in re.finditer(rb"[\[\]{}]", text):
        depth += 1 if bracket[0] in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > _MOST_DEPTH:
            break
    return deepest


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _of_hub(name: str, label: str, *, offline: bool) -> ModelShape:
    """Return a model of the hub: from its local cache, else from the network."""
    cached = hub.cached_folder(name)
    if cached is not None and _kind(cached / _CONFIG) == "file":
        return _cached(cached, label)
    file = f"{name}/{_CONFIG}"
    found = hub.remembered(name) if offline else hub.fetch(name, lacks=lambda text: _lacks(text, file))
    if found is None:
        raise ConfigError(
            f"the model {name} is not in the local hub cache",
            hint=f"Download it (hf download {name} config.json), or allow the network.",
            file=name,
        )
    config = parse_config(found.config, file)
    if found.quantisation is not None and lacks_quantisation(config):
        config = with_hf_quant_config(config, parse_config(found.quantisation, f"{name}/{_BESIDE}"))
    shape = from_config(config, label, file=file)
    if not offline:
        hub.remember(name, found)
    return replace(shape, source="hub", file_bytes=found.stored_bytes)


def _lacks(text: bytes, file: str) -> bool:
    """Tell whether a config.json that was fetched leaves its quantisation to the file beside it."""
    try:
        return lacks_quantisation(parse_config(text, file))
    except ConfigError:
        # What is wrong with it is said where it is read.
        return False


def _cached(folder: Path, label: str) -> ModelShape:
    """Return a model of the local cache; weights that are there in part do not count."""
    shape = from_config(_config_of(folder), label, file=str(folder / _CONFIG))
    try:
        stored = read_folder(folder)
    except ConfigError:
        return shape
    return _without_weights(folder, shape) if stored is None else with_stored(shape, stored)
