"""Writing a config.toml that explains itself: the tiers chosen, then every key there is, commented out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from subcortex import config
from subcortex.cli._starter import Starter, TierPlan
from subcortex.config.editing import toml

_WIDTH = 100
_SECTIONS = ("daemon", "journal", "drives", "routing", "fleet", "agent", "experiments")
_ABOUT = {
    "daemon": "The process that owns the engines.",
    "journal": "What is written down, and how safely.",
    "drives": "Where the drives are defined, and whose state is followed.",
    "routing": "How readily a thought goes deep.",
    "fleet": "How tiers share the GPUs.",
    "agent": "When sessions are held of themselves.",
    "experiments": "When the machine may try things out on itself.",
}
#: What an unset key looks like when it is set; keys with a default show that instead.
_EXAMPLES: dict[str, Any] = {
    "runtime_dir": "/run/user/1000/subcortex",
    "tcp": "127.0.0.1:8741",
    "database": "~/.local/state/subcortex/journal.db",
    "redact": ["secret-[0-9]+"],
    "context_tokens": 8192,
    "gpus": [0, 1],
    "env": {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    "gpu_limit_gib": 20.0,
    "quiet_hours": ["22:00-07:30"],
    "windows": ["*/10 2-5 * * *"],
    "tools_dir": "~/llama.cpp/build/bin",
    "host_limit_gib": 48.0,
    "flags": [],
    "executable": "/usr/local/bin/llama-server",
    "threads": 4,
    "gpu_layers": 999,
    "split_mode": "layer",
    "tensor_split": [8, 3],
    "python": "~/.venvs/vllm/bin/python",
    "gpu_memory_utilization": 0.9,
    "sleep_mode": True,
    "api_key_env": "PRODUCTION_STACK_KEY",
    "nominal_ttft_s": 0.2,
    "nominal_tpot_s": 0.02,
    "nominal_load_s": 60.0,
}
#: Keys whose field says nothing about them.
_MEANINGS = {
    "version": "form of this file",
    "split_mode": "how several GPUs share a model: none, layer, row or tensor",
    "tensor_parallel_size": "GPUs that share every layer",
    "pipeline_parallel_size": "groups of GPUs that each hold some of the layers",
    "gpu_memory_utilization": "share of each GPU that vLLM may take",
    "request_timeout_s": "seconds that one request may take",
    "engine": "llama.cpp, vllm or remote",
}


def render(starter: Starter, about: Iterable[str]) -> str:
    """Return the text of a config.toml with the tiers of ``starter``; every other key is a comment.

    Args:
        about: Lines for the head of the file: which machine it was written for.
    """
    lines = [
        "# Subcortex's configuration. `subcortex config check` checks it, docs/config.schema.json is its",
        "# schema, and SUBCORTEX_ROUTING__DEEP_BIAS=0.2 (section, two underscores, key) overrides a key",
        "# for one command. Keys that are commented out show their default, or an example where unset.",
        *_comments(about),
        "",
        "[subcortex]",
        "version = 1  # form of this file",
        "",
    ]
    for section in _SECTIONS:
        lines += [f"# {_ABOUT[section]}", f"[{section}]"]
        lines += [f"# {line}" for line in _keys(_section(section))]
        lines.append("")
    lines += _comments(["Tiers run from least to most capable; a thought's score picks among them."])
    lines += [*_comments(starter.notes), ""]
    for tier in starter.tiers:
        lines += [*_tier(tier), ""]
    for example in _examples():
        lines += [*example, ""]
    return "\n".join(lines).rstrip() + "\n"


def _section(name: str) -> type[BaseModel]:
    section = config.Config.model_fields[name].annotation
    assert isinstance(section, type)
    assert issubclass(section, BaseModel)
    return section


def _tier(tier: TierPlan) -> Iterator[str]:
    yield from _comments(tier.why)
    if tier.download:
        yield "# Fetch it with:"
        yield f"#   {tier.download}"
    if tier.keys["engine"] == "vllm":
        yield "# vLLM has an environment of its own:"
        venv = str(Path(tier.keys["python"]).parent.parent)
        yield f"#   python3 -m venv {venv} && {venv}/bin/pip install 'vllm>=0.22'"
    if tier.keys.get("executable"):
        yield "# llama-server must be built for CUDA; `subcortex doctor` says how if it is missing."
    yield "[[tiers]]"
    for key, value in tier.keys.items():
        yield f"{key} = {toml(value)}"


def _examples() -> Iterator[list[str]]:
    """Yield one commented-out tier an engine, with every key it has."""
    for title, model, first in (
        (
            "Example: llama.cpp, with all its keys. An 8 GB and a 3 GB card share one model.",
            config.LlamaCppTier,
            {"name": "example-llamacpp", "engine": "llama.cpp", "model": "~/models/some.gguf"},
        ),
        (
            "Example: vLLM on two GPUs, with all its keys (either python or executable).",
            config.VllmTier,
            {
                "name": "example-vllm",
                "engine": "vllm",
                "model": "~/models/Llama-3.1-70B",
                "tensor_parallel_size": 2,
            },
        ),
        (
            "Example: any OpenAI-compatible URL, such as a vLLM production-stack, with all its keys.",
            config.RemoteTier,
            {
                "name": "example-remote",
                "engine": "remote",
                "model": "some-model",
                "url": "https://llm.example.org/v1",
            },
        ),
    ):
        keys = [f"{key} = {toml(value)}  # {_meaning(key, model)}" for key, value in first.items()]
        yield [f"# {line}" for line in (title, "[[tiers]]", *keys, *_keys(model, without=first))]


def _keys(model: type[BaseModel], without: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Yield ``key = value  # meaning`` for each field of ``model``."""
    for key, found in model.model_fields.items():
        if key in (without or {}):
            continue
        value = _EXAMPLES.get(key) if found.is_required() else found.get_default(call_default_factory=True)
        unset = value is None or value is PydanticUndefined
        example = _EXAMPLES.get(key) if unset or value in ([], {}) else value
        meaning = _meaning(key, model) + (" (unset)" if unset else "")
        # A tier may have one of the two, and every example must be valid when its comments are taken away.
        if model is config.VllmTier and key == "executable":
            yield f"# executable = {toml('~/.venvs/vllm/bin/vllm')}  # {meaning}"
            continue
        yield f"{key} = {toml(example)}  # {meaning}"


def _meaning(key: str, model: type[BaseModel]) -> str:
    return model.model_fields[key].description or _MEANINGS[key]


def _comments(lines: Iterable[str]) -> list[str]:
    return [f"# {part}" for line in lines for part in textwrap.wrap(line, _WIDTH - 2)]
