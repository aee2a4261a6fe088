"""The process that owns the machine: HTTP on a Unix socket over one mind."""

from __future__ import annotations

from subcortex.daemon.serve import log_to_stderr, serve

__all__ = ["log_to_stderr", "serve"]
