"""The scene that experiments run on: hardware, interpreter, tools and their versions. Effects."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from subcortex import hardware
from subcortex.config import Config, LlamaCppTier, VllmTier
from subcortex.experiments.scene import Scene
from subcortex.hardware import Hardware, Interpreter
from subcortex.hardware.child import ask

#: Programs that measure better than anything of ours would, where somebody has installed them.
TOOLS = ("llama-bench", "llama-batched-bench", "llama-perplexity", "llama-server", "all_reduce_perf")
#: Those that answer ``--version``; the others are built with them.
_TELLS_VERSION = ("llama-server", "llama-batched-bench", "llama-perplexity")
_TOOL_LIMIT_S = 20.0

#: What programs said of themselves, by path and by when they, or their packages, last changed.
_interpreters: dict[tuple[str, int], Interpreter] = {}
_tool_versions: dict[tuple[str, int], str | None] = {}


def scene_of(config: Config, *, found: Hardware | None = None) -> Scene:
    """Return the scene of this machine. Asking an interpreter the first time takes seconds.

    Args:
        config: Its tiers name interpreters and engines.
        found: The machine, if somebody has just looked; else it is looked at now.
    """
    machine = hardware.detect() if found is None else found
    python = interpreter_of(config)
    tools = tools_of(config)
    versions: dict[str, str | None] = {"driver": machine.driver_version, "xllamacpp": _installed("xllamacpp")}
    if python is not None:
        told = asked(python)
        versions |= {"torch": told.torch, "vllm": told.vllm, "nccl": told.nccl, "cuda": told.cuda}
        versions["python"] = told.version
    versions |= _tool_versions_of(tools) | dict(_tier_versions(config))
    return Scene(config, machine, python, tools, {name: value for name, value in versions.items() if value})


def interpreter_of(config: Config) -> Path | None:
    """Return the interpreter that has torch: the configuration's, or the first vLLM tier's that is there."""
    if config.experiments.python is not None:
        return _program(str(config.experiments.python), config)
    tiers = [tier for tier in config.tiers if isinstance(tier, VllmTier)]
    return next((python for tier in tiers if (python := tier_interpreter(tier, config)) is not None), None)


def tier_interpreter(tier: VllmTier, config: Config) -> Path | None:
    """Return the interpreter that runs a tier's vLLM, found as the engine finds it; None if none is there."""
    if tier.python is not None:
        return _program(str(tier.python), config)
    if tier.executable is None and importlib.util.find_spec("vllm") is not None:
        return Path(sys.executable)
    command = _program(str(tier.executable or "vllm"), config)
    return None if command is None else _first_line(command, config)


def tools_of(config: Config) -> dict[str, Path]:
    """Return the tools that are there: in the configured folder, beside a tier's llama-server, or on PATH."""
    folders = [config.resolve(config.experiments.tools_dir)] if config.experiments.tools_dir else []
    for tier in config.tiers:
        if isinstance(tier, LlamaCppTier) and tier.executable is not None:
            server = _program(str(tier.executable), config)
            folders += [server.parent] if server is not None else []
    places = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    return {name: Path(path) for name in TOOLS if (path := shutil.which(name, path=places)) is not None}


def asked(python: Path) -> Interpreter:
    """Return what an interpreter says of torch, asked once as long as neither it nor its packages change."""
    key = (str(python), max([_changed_ns(python), *map(_changed_ns, _packages(python))]))
    if key not in _interpreters:
        _interpreters[key] = hardware.ask_interpreter(str(python))
    return _interpreters[key]


def told() -> list[dict[str, Any]]:
    """Return what interpreters have said, as JSON can hold it, for another process to ``believe``."""
    return [
        {"path": path, "changed_ns": changed_ns, "said": found.model_dump(mode="json")}
        for (path, changed_ns), found in _interpreters.items()
        if found.problem is None
    ]


def believe(answers: Iterable[Mapping[str, Any]]) -> None:
    """Take what another process was ``told``; who has not changed since is not asked again."""
    for one in answers:
        found = Interpreter.model_validate(one["said"])
        _interpreters.setdefault((str(one["path"]), int(one["changed_ns"])), found)


def _packages(python: Path) -> list[Path]:
    """Return the folders that hold a virtual environment's packages; installing one changes their time."""
    return list(python.parent.parent.glob("lib/python3*/site-packages"))


def _first_line(script: Path, config: Config) -> Path | None:
    try:
        with script.open("rb") as stream:
            first = stream.readline(512)
    except OSError:
        return None
    words = first[2:].decode("utf-8", "replace").split() if first.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = words[1:]
    # Where the path is too long for a first line, pip writes a shell's; the interpreter lies beside.
    named = script.with_name("python") if words and Path(words[0]).name == "sh" else words[0] if words else ""
    return _program(str(named), config) if named else None


def _program(name: str, config: Config) -> Path | None:
    """Return a program given as a path or as a name on PATH; a link is not followed: a venv's is one."""
    if "/" not in name:
        found = shutil.which(name)
        return Path(found) if found else None
    path = config.resolve(name)
    return path if path.is_file() and os.access(path, os.X_OK) else None


def _tier_versions(config: Config) -> Iterator[tuple[str, str | None]]:
    """Yield what each tier's own engine says, where it is not the one that all others have."""
    for tier in config.tiers:
        if isinstance(tier, VllmTier):
            python = tier_interpreter(tier, config)
            if python is not None:
                yield f"vllm of {tier.name}", asked(python).vllm
        elif isinstance(tier, LlamaCppTier):
            server = _program(str(tier.executable), config) if tier.executable else None
            version = _installed("xllamacpp") if tier.executable is None else None
            yield f"llama.cpp of {tier.name}", _tool_version(server) if server else version


def _tool_versions_of(tools: dict[str, Path]) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        name: _tool_version(tools[name]) for name in _TELLS_VERSION if name in tools
    }
    for name, path in tools.items():
        beside = [other for other in found if tools[other].parent == path.parent]
        if name.startswith("llama-") and name not in found and beside:
            found[name] = found[beside[0]]
    return found


def _tool_version(path: Path) -> str | None:
    """Return what a program of llama.cpp answers to ``--version``, without the word itself."""
    key = (str(path), _changed_ns(path))
    if key not in _tool_versions:
        answer = ask([str(path), "--version"], env=os.environ, time_limit_s=_TOOL_LIMIT_S)
        lines = (answer.stdout + "\n" + answer.stderr).splitlines()
        line = next((one for one in lines if one.startswith("version")), None)
        _tool_versions[key] = line.removeprefix("version:").strip() if line else None
    return _tool_versions[key]


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


__all__ = ["TOOLS", "asked", "believe", "interpreter_of", "scene_of", "tier_interpreter", "told", "tools_of"]
