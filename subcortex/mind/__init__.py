"""The think pipeline: route, make room, generate, record."""

from __future__ import annotations

from subcortex.mind.core import Subcortex, explain

__all__ = ["Subcortex", "explain"]
