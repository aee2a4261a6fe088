"""Engines at work: one owner starts, watches, restarts and stops them."""

from __future__ import annotations

from subcortex.fleet.fleet import Fleet, Lease, Member

__all__ = ["Fleet", "Lease", "Member"]
