"""The process trees of all engines and what they hold of host memory, in one pass over ``/proc``."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Tree:
    """An engine's processes; a page that several of them share counts once for each in ``resident_mib``."""

    pids: frozenset[int]
    resident_mib: float


def trees(roots: Iterable[int]) -> dict[int, Tree]:
    """Return the tree of each process in ``roots`` that is alive; reads ``/proc`` once, in some milliseconds.

    To a tree belong its root, all descendants, and whatever is in the session that the root leads.
    """
    wanted = set(roots)
    if not wanted:
        return {}
    children: dict[int, list[int]] = defaultdict(list)
    sessions: dict[int, list[int]] = defaultdict(list)
    resident_mib: dict[int, float] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - a third of the time
        if not name.isdigit():
            continue
        try:
            raw = Path(f"/proc/{name}/stat").read_bytes()
        except OSError:
            continue
        # The command's name may hold spaces and brackets; what follows the last bracket is plain.
        state, parent, _, session, *rest = raw[raw.rindex(b")") + 2 :].split()
        # A leader that has ended waits for its last thread, which may hold memory yet.
        if state in (b"Z", b"X") and int(rest[13]) <= 1:
            continue
        pid = int(name)
        resident_mib[pid] = int(rest[17]) * _PAGE_MIB
        children[int(parent)].append(pid)
        sessions[int(session)].append(pid)
    found = {}
    for root in wanted & resident_mib.keys():
        members, waiting = set[int](), [root, *sessions[root]]
        while waiting:
            pid = waiting.pop()
            if pid not in members:
                members.add(pid)
                waiting += children[pid]
        found[root] = Tree(frozenset(members), sum(resident_mib[pid] for pid in members))
    return found
