"""The backends: llama.cpp, vLLM and remote servers behind one small protocol."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from subcortex.config import Config, LlamaCppTier, RemoteTier, VllmTier

if TYPE_CHECKING:
    from subcortex.engines.protocol import Engine

__all__ = ["create", "environment", "is_engines", "reap_leftovers"]


def create(tier: LlamaCppTier | VllmTier | RemoteTier, *, config: Config) -> Engine:
    """Return the engine that a tier names, not started. Nothing is read or run yet."""
    # Imported here: a machine with one kind of engine pays for that one.
    if isinstance(tier, LlamaCppTier):
        from subcortex.engines.llamacpp import LlamaCppEngine

        return LlamaCppEngine(tier, config)
    if isinstance(tier, VllmTier):
        from subcortex.engines.vllm import VllmEngine

        return VllmEngine(tier, config)
    from subcortex.engines.remote import RemoteEngine

    return RemoteEngine(tier, config)


def environment(tier: LlamaCppTier | VllmTier, *, config: Config) -> dict[str, str]:
    """Return all variables that a tier's engine is started with."""
    from subcortex.engines._local import LocalEngine

    engine = create(tier, config=config)
    assert isinstance(engine, LocalEngine)
    return engine._env()


def reap_leftovers(runtime_dir: Path, keep: Collection[str] = ()) -> list[str]:
    """End the engines that a dead daemon left, all but the adoptable ones of the tiers in ``keep``."""
    from subcortex.engines import process

    return process.reap_leftovers(runtime_dir, keep)


def is_engines(pid: int) -> bool:
    """Return whether a process is an engine's, of this daemon or a former one, or is about to be gone."""
    from subcortex.engines import _processes

    return _processes.is_engines(pid)
