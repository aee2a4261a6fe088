"""Units as notes write them, and what each is worth. Pure.

Decimal and binary multiples stay apart: 7 GiB is 7.5 GB, and notes that mix them up are wrong by that much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Dimension = Literal[
    "memory", "bandwidth", "time", "share", "ratio", "tokens", "speed", "parameters", "compute", "count",
    "power", "frequency", "temperature", "density",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit.

    Args:
        name: As this program writes it.
        dimension: What it measures; figures of one dimension compare.
        factor: Of the dimension's base: bytes, bytes/s, s, percent, 1.
        of: What a count counts; only figures that count the same compare.
    """

    name: str
    dimension: Dimension
    factor: float = 1.0
    of: str = ""

    @property
    def measured(self) -> bool:
        """Whole numbers of it are rounded more often than not: a 32 GB/s stands for 31.5."""
        return self.dimension in ("memory", "bandwidth", "time", "parameters", "compute", "speed")


_DECIMAL = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def _table() -> dict[str, tuple[Unit, tuple[str, ...]]]:
    """Return every unit by its name, with its spellings."""
    found: dict[str, tuple[Unit, tuple[str, ...]]] = {}

    def add(unit: Unit, *spellings: str) -> None:
        found[unit.name] = (unit, (unit.name, *spellings))

    add(Unit("B", "memory"), "bytes", "byte")
    for prefix, factor in (_DECIMAL | _BINARY).items():
        low = prefix.lower()
        add(Unit(f"{prefix}B", "memory", factor), f"{low}b")
        add(Unit(f"{prefix}B/s", "bandwidth", factor), f"{low}b/s", f"{low}b/sec", f"{prefix}Bps")
        if prefix in _DECIMAL:
            spelled = (f"{prefix}b/s", f"{prefix}bps", f"{low}bit/s", f"{low}bps")
            add(Unit(f"{prefix}bit/s", "bandwidth", factor / 8), *spelled)
            add(Unit(f"{prefix}FLOP/s", "compute", factor), f"{low}flops", f"{low}flop/s", f"{low}flop")
    add(Unit("B/parameter", "density"), "bytes/param", "bytes per parameter", "bytes per param", "b/param")
    add(Unit("ns", "time", 1e-9))
    add(Unit("µs", "time", 1e-6), "us", "μs")
    add(Unit("ms", "time", 1e-3), "milliseconds", "millisecond", "msec")
    add(Unit("s", "time"), "seconds", "second", "secs", "sec")
    add(Unit("min", "time", 60), "minutes", "minute", "mins")
    add(Unit("h", "time", 3600), "hours", "hour", "hrs", "hr")
    add(Unit("days", "time", 86400), "day")
    add(Unit("%", "share"), "percent", "per cent")
    add(Unit("x", "ratio"), "×")
    rates = ("tok/s", "tokens/sec", "tok/sec", "tokens/second", "tokens per second", "token/s", "t/s")
    add(Unit("tokens/s", "speed"), *rates)
    add(Unit("tokens", "tokens"), "token", "tok", "context length", "context tokens", "tokens context")
    add(Unit("billion parameters", "parameters", 1e9), "billion", "b parameters", "b params")
    add(Unit("million parameters", "parameters", 1e6), "m parameters", "m params")
    add(Unit("layers", "count", of="layers"), "layer")
    add(Unit("KV heads", "count", of="KV heads"), "key-value heads", "kv head", "key/value heads")
    add(Unit("heads", "count", of="heads"), "query heads", "attention heads", "head")
    add(Unit("GPUs", "count", of="GPUs"), "gpu", "cards")
    add(Unit("experts", "count", of="experts"), "expert")
    add(
        Unit("requests", "count", of="requests"),
        "concurrent requests",
        "concurrent request",
        "users",
        "request",
    )
    add(Unit("all-reduces", "count", of="all-reduces"), "all-reduce", "allreduce", "all_reduces")
    add(Unit("W", "power"), "watts", "watt")
    add(Unit("MHz", "frequency", 1e6))
    add(Unit("GHz", "frequency", 1e9))
    add(Unit("°C", "temperature"))
    return found


_TABLE = _table()
#: Unit by name.
UNITS: dict[str, Unit] = {name: unit for name, (unit, _) in _TABLE.items()}
#: As written first, so that ``Gb/s`` are bits; then in lower case, where bytes come before bits.
_EXACT = {spelling: unit for unit, spellings in _TABLE.values() for spelling in spellings}
_LOWERED = {spelling.lower(): _EXACT[spelling] for spelling in reversed(_EXACT)}
_ALTERNATIVES = "|".join(
    re.escape(one)
    for one in sorted({s for _, spellings in _TABLE.values() for s in spellings}, key=lambda s: (-len(s), s))
)
_UNIT = re.compile(rf"[ \t]?(?:({_ALTERNATIVES}))(?!\w)", re.IGNORECASE)


def unit_at(text: str, at: int) -> tuple[Unit, int] | None:
    """Return the unit that begins at a place in a line, after one space at most, and where it ends.

    A bare ``B`` is bytes only as a word; right behind a number it is billions of parameters (``70B``).
    """
    found = _UNIT.match(text, at)
    if found is None:
        return None
    spelling = found[1]
    if spelling in ("B", "b"):
        if found.start(1) > at:
            return (UNITS["B"], found.end()) if spelling == "B" else None
        return UNITS["billion parameters"], found.end()
    unit = _EXACT.get(spelling) or _LOWERED[spelling.lower()]
    return unit, found.end()


def comparable(first: str | None, second: str | None) -> bool:
    """Tell whether figures in these units compare."""
    if first is None or second is None:
        return first == second
    one, other = UNITS.get(first), UNITS.get(second)
    if one is None or other is None:
        return first == second
    return (one.dimension, one.of) == (other.dimension, other.of)


def in_base(value: float, unit: str | None) -> float:
    """Return a value in its dimension's base; as it is for a unit that is not known."""
    known = UNITS.get(unit or "")
    return value * known.factor if known else value
