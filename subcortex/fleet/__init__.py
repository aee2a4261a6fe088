"""Engines at work: one owner starts, watches, swaps, restarts and stops them."""

from __future__ import annotations

from subcortex.fleet.fleet import Fleet, Lease
from subcortex.fleet.grounds import Rules
from subcortex.fleet.post import Member
from subcortex.fleet.room import Memory, Needs, Seen
from subcortex.fleet.running import BootWatch, Timing
from subcortex.fleet.scene import HOST
from subcortex.fleet.swaps import SwapBook
from subcortex.fleet.trees import Tree

__all__ = [
    "HOST",
    "BootWatch",
    "Fleet",
    "Lease",
    "Member",
    "Memory",
    "Needs",
    "Rules",
    "Seen",
    "SwapBook",
    "Timing",
    "Tree",
]
