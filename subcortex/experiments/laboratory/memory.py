"""How much memory engines hold: of cards as the driver counts, of the host as the kernel does. Effects."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from subcortex import hardware
from subcortex.engines.protocol import Engine
from subcortex.fleet.trees import trees

#: The driver gives memory back a moment after a process has ended.
_LOOK_EVERY_S = 0.25
_SETTLED_MIB = 8.0
_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Held:
    """Memory in use, MiB.

    Args:
        gpus: By index: all that is used of the card, whoever holds it.
        host_mib: Of an engine's processes; a page that several share counts in equal parts (PSS).
        whole: Whether the kernel told the parts of every process; else shared pages count for each (RSS).
    """

    gpus: Mapping[int, float] = field(default_factory=dict)
    host_mib: float = 0.0
    whole: bool = True

    def less(self, before: Held) -> tuple[float, ...]:
        """Return what each card has more than before, in the order of the cards; MiB."""
        return tuple(self.gpus[index] - before.gpus.get(index, 0.0) for index in sorted(self.gpus))


def held(engine: Engine | None, gpus: Sequence[int] = ()) -> Held:
    """Return what is held now; blocks for some milliseconds.

    Args:
        engine: Whose processes count on the host; None for nobody's.
        gpus: Indices of the cards to look at.
    """
    cards = hardware.detect().gpus if gpus else ()
    used = {card.index: card.memory_used_mib for card in cards if card.index in gpus}
    process = engine.process if engine is not None else None
    if process is None:
        return Held(used)
    host_mib, whole = _of_tree(process.pid)
    return Held(used, host_mib, whole)


async def settled(
    engine: Engine | None, gpus: Sequence[int] = (), *, limit_s: float = 5.0, look: Callable[..., Held] = held
) -> Held:
    """Return what is held once two looks agree to 8 MiB a card, or the limit is over."""
    until_s = time.monotonic() + limit_s
    last = await asyncio.to_thread(look, engine, gpus)
    while gpus and time.monotonic() < until_s:
        await asyncio.sleep(_LOOK_EVERY_S)
        now = await asyncio.to_thread(look, engine, gpus)
        if all(abs(now.gpus[one] - last.gpus.get(one, 0.0)) <= _SETTLED_MIB for one in now.gpus):
            return now
        last = now
    return last


def _of_tree(root: int) -> tuple[float, bool]:
    tree = trees([root]).get(root)
    if tree is None:
        return 0.0, True
    parts = [_pss_mib(pid) for pid in tree.pids]
    known = [part for part in parts if part is not None]
    return (sum(known), True) if len(known) == len(parts) else (tree.resident_mib, False)


def _pss_mib(pid: int) -> float | None:
    try:
        found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_bytes())
    except ProcessLookupError:
        return 0.0
    except FileNotFoundError:
        # The process has ended, or this kernel has no such file.
        return None if Path(f"/proc/{pid}").exists() else 0.0
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None
