"""The inference subcortex of autonomous agents: one call, the right one of several local models.

    from subcortex import think

    thought = think("Does tensor parallelism cost VRAM beyond the weights?", drive="LEARNING")
    print(thought, thought.tier, thought.route.reasons, thought.timing.ttft_s)

Names are imported when first used, so that ``import subcortex`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subcortex.client import Client, astream, athink, openai_client, session, stream, think
    from subcortex.config import Config
    from subcortex.errors import (
        Cancelled,
        ConfigError,
        DaemonRunning,
        DaemonUnreachable,
        DeadlineExceeded,
        DoesNotFit,
        EngineFailed,
        InvalidRequest,
        JournalError,
        Overloaded,
        SubcortexError,
    )
    from subcortex.journal import Reader
    from subcortex.mind import Subcortex
    from subcortex.types import Chunk, Notice, Route, Thought, Timing, Usage

_HOME = {
    "subcortex.client": ("Client", "astream", "athink", "openai_client", "session", "stream", "think"),
    "subcortex.config": ("Config",),
    "subcortex.errors": (
        "Cancelled",
        "ConfigError",
        "DaemonRunning",
        "DaemonUnreachable",
        "DeadlineExceeded",
        "DoesNotFit",
        "EngineFailed",
        "InvalidRequest",
        "JournalError",
        "Overloaded",
        "SubcortexError",
    ),
    "subcortex.journal": ("Reader",),
    "subcortex.mind": ("Subcortex",),
    "subcortex.types": ("Chunk", "Notice", "Route", "Thought", "Timing", "Usage"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Cancelled",
    "Chunk",
    "Client",
    "Config",
    "ConfigError",
    "DaemonRunning",
    "DaemonUnreachable",
    "DeadlineExceeded",
    "DoesNotFit",
    "EngineFailed",
    "InvalidRequest",
    "JournalError",
    "Notice",
    "Overloaded",
    "Reader",
    "Route",
    "Subcortex",
    "SubcortexError",
    "Thought",
    "Timing",
    "Usage",
    "astream",
    "athink",
    "openai_client",
    "session",
    "stream",
    "think",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from subcortex.version import version

        return version()
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'subcortex' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
