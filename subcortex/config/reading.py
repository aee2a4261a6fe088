"""Find and read a configuration: one TOML file, overridden by ``SUBCORTEX_…`` variables, held to a schema.

Search order: the path given, ``$SUBCORTEX_CONFIG``, ``./config.toml`` when it has a ``[subcortex]``
table, and ``config.toml`` in the user's config folder. Relative paths are relative to the file.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from subcortex import paths
from subcortex.config.tables import Config, LlamaCppTier, RemoteTier, VllmTier
from subcortex.errors import ConfigError

ENV_PREFIX = "SUBCORTEX_"
#: Variables with our prefix that are not config keys.
_RESERVED = {"SUBCORTEX_CONFIG"}


def find(path: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Return the config file that applies.

    Raises:
        ConfigError: There is none, or the one named is not there.
    """
    environ = os.environ if environ is None else environ
    named = path or environ.get("SUBCORTEX_CONFIG")
    if named:
        file = Path(named).expanduser().absolute()
        if not file.is_file():
            raise ConfigError(
                f"there is no config file {file}",
                hint="Run `subcortex init` to write one, or name another.",
                file=str(file),
            )
        return file
    here, home = Path.cwd() / "config.toml", paths.config_home() / "config.toml"
    if here.is_file() and _is_ours(here):
        return here
    if home.is_file():
        return home
    raise ConfigError(
        f"no config.toml: neither {here} (with a [subcortex] table) nor {home} exists",
        hint="Run `subcortex init` to write one that fits this machine.",
        file=str(home),
    )


def _is_ours(file: Path) -> bool:
    # A config names commands to run, so a stranger's file in the current folder is not taken.
    if file.stat().st_uid not in (os.getuid(), 0):
        return False
    if not os.access(file, os.R_OK):
        return False
    try:
        return "subcortex" in tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return "[subcortex]" in file.read_text("utf-8", errors="replace")


def load(path: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Find, read, override and validate the configuration.

    Raises:
        ConfigError: Naming the file, the key and what to write instead.
    """
    environ = os.environ if environ is None else environ
    file = find(path, environ)
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}", hint="Mend that line.", file=str(file)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8: byte {error.start}", hint="Save it as UTF-8.", file=str(file)
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", hint="Mind its owner and mode.", file=str(file)
        ) from None
    return parse(data, file, environ)


def parse(data: dict[str, Any], file: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Validate a config given as plain data; ``file`` names it in errors and anchors its paths."""
    origin = str(file) if file else "the configuration"
    data = _with_overrides(data, environ or {})
    if "source" in data:
        raise ConfigError(f"{origin}: unknown key source", hint="Remove it.", file=origin, key="source")
    try:
        return Config.model_validate({**data, "source": file})
    except ValidationError as error:
        raise _explained(error, data, origin) from None


def _with_overrides(data: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Lay ``SUBCORTEX_A__B=value`` over ``data``; a tier is named by its name or its place."""
    result: dict[str, Any] = _copied(data)
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable in _RESERVED or "__" not in variable:
            continue
        *parents, last = variable[len(ENV_PREFIX) :].split("__")
        parents = [part.lower() for part in parents]
        # A tier's env names variables, whose case matters; keys are all lower case.
        last = last if parents[-1:] == ["env"] else last.lower()
        node: Any = result
        for part in parents:
            node = _descend(node, part, variable)
        if not isinstance(node, dict):
            raise ConfigError(f"{variable} does not name a key", hint="Name a table and a key in it.")
        node[last] = _toml_value(text)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _descend(node: Any, part: str, variable: str) -> Any:
    if isinstance(node, dict):
        return node.setdefault(part, {})
    if isinstance(node, list):
        for i, item in enumerate(node):
            if part == str(i) or (isinstance(item, dict) and str(item.get("name", "")).lower() == part):
                return item
    raise ConfigError(
        f"{variable}: there is no {part!r} to override", hint="Check the name against the config file."
    )


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explained(error: ValidationError, data: dict[str, Any], origin: str) -> ConfigError:
    problems = [_problem(item, data) for item in error.errors()]
    lines = [f"{key}: {what}" for key, what, _ in problems]
    hints = [hint for _, _, hint in problems if hint]
    return ConfigError(
        f"{origin}: " + ("; ".join(lines)),
        hint=" ".join(dict.fromkeys(hints)) or "See the commented config.toml.",
        file=origin,
        key=problems[0][0],
        problems=[{"key": key, "problem": what, "hint": hint} for key, what, hint in problems],
    )


def _problem(item: Any, data: dict[str, Any]) -> tuple[str, str, str | None]:
    """Return key, what is wrong and what to write instead, for one of pydantic's errors."""
    location = [part for part in item["loc"] if part not in _ENGINES]
    key = _dotted(location, data)
    if item["type"] == "extra_forbidden":
        known = _keys_at(location[:-1], data)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        return (
            key,
            "unknown key",
            f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}.",
        )
    if item["type"] == "union_tag_invalid":
        return (
            f"{key}.engine",
            f"no engine {item['input'].get('engine')!r}",
            f"One of: {', '.join(_ENGINES)}.",
        )
    if item["type"] == "union_tag_not_found":
        return f"{key}.engine", "missing", f"One of: {', '.join(_ENGINES)}."
    if item["type"] == "missing":
        return key, "missing", f"Add {location[-1]!r}."
    message = str(item["msg"]).removeprefix("Value error, ")
    return key, f"{message} (it is {item['input']!r})" if location else message, None


_ENGINES: dict[str, type[BaseModel]] = {"llama.cpp": LlamaCppTier, "vllm": VllmTier, "remote": RemoteTier}


def _dotted(location: list[Any], data: dict[str, Any]) -> str:
    parts: list[str] = []
    node: Any = data
    for part in location:
        node = (
            node[part]
            if isinstance(node, list) and isinstance(part, int) and part < len(node)
            else (node.get(part) if isinstance(node, dict) else None)
        )
        named = isinstance(part, int) and isinstance(node, dict) and node.get("name")
        parts.append(f"[{node['name']}]" if named and isinstance(node, dict) else str(part))
    return ".".join(parts).replace(".[", "[") or "the file"


def _keys_at(location: list[Any], data: dict[str, Any]) -> list[str]:
    if not location:
        return [name for name in Config.model_fields if name != "source"]
    if location[0] == "tiers":
        tier = data["tiers"][location[1]] if len(location) > 1 else {}
        model = _ENGINES.get(tier.get("engine", ""), LlamaCppTier)
        return sorted(model.model_fields)
    field = Config.model_fields.get(str(location[0]))
    section = field.annotation if field else None
    return (
        sorted(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the config file, for editors and for ``docs/config.schema.json``."""
    schema = Config.model_json_schema()
    schema["properties"].pop("source", None)
    schema["title"] = "subcortex config.toml"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema
