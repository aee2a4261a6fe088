"""The think pipeline: route, make room, generate, record."""

from __future__ import annotations

from subcortex.mind.core import Subcortex
from subcortex.mind.deciding import explain

__all__ = ["Subcortex", "explain"]
