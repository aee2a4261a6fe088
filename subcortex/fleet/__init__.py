"""Engines at work: one owner starts, watches, restarts and stops them."""

from __future__ import annotations

from subcortex.fleet.fleet import BootWatch, Fleet, Lease, Member
from subcortex.fleet.trees import Tree

__all__ = ["BootWatch", "Fleet", "Lease", "Member", "Tree"]
