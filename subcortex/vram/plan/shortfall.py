"""How much is short where nothing fits: which component, on which GPU, how many GiB. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

from subcortex.vram.amount import Amount, z_score
from subcortex.vram.footprint import Component, DeviceNeed
from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.budget import HOST, Load
from subcortex.vram.plan.fit import NoFit
from subcortex.vram.plan.place import added, layouts
from subcortex.vram.plan.seat import Book, Mode, Seat

#: In this order an engine takes its memory; the component that goes beyond the budget is the one to blame.
_FIRST, _LAST = (Component.CONTEXT, Component.COMMUNICATION, Component.WEIGHTS), Component.KV
_ORDER = (*_FIRST, *(part for part in Component if part not in _FIRST and part is not _LAST), _LAST)
_NAMES = {Component.KV: "its KV cache", Component.CACHED: "what torch keeps"}
#: Sets of GPUs tried for each tier in looking for the place that is least short.
_MOST_SETS = 32


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One device that has too little.

    Args:
        device: The GPU's index, -1 for host memory.
        name: What it is called.
        tier: Whose component goes beyond the budget.
        component: Which one that is.
        need_mib: What all tiers together need of it, with the plan's probability.
        budget_mib: What may be planned.
        component_mib: Expected size of the component there.
    """

    device: int
    name: str
    tier: str
    component: Component
    need_mib: float
    budget_mib: float
    component_mib: float

    @property
    def short_mib(self) -> float:
        """What is missing."""
        return self.need_mib - self.budget_mib

    def __str__(self) -> str:
        where = "host memory" if self.device == HOST else f"GPU {self.device} ({self.name})"
        part = _NAMES.get(self.component, self.component.value)
        return (
            f"{_gib(self.short_mib)} short on {where}: "
            f"{self.tier} needs {_gib(self.component_mib)} for {part}; "
            f"{_gib(self.need_mib)} in all of {_gib(self.budget_mib)}"
        )


def _gib(mib: float) -> str:
    return f"{mib / 1024:.2f} GiB"


def shortfalls(refused: NoFit) -> tuple[Shortfall, ...]:
    """Return what is short in the place that comes nearest, the largest first.

    Tiers are placed one after the other, each where it adds least to what is short; for one tier that is
    exact. Quantiles are taken at the probability that each of the devices used would need for the product to
    reach the plan's.
    """
    book = refused.book
    load: dict[int, tuple[float, float]] = {}
    seats: list[Seat] = []
    for ask in sorted(refused.asks, key=lambda ask: -book.weights_mib(ask)):
        options = _seats(book, ask)
        if not options:
            return ()
        best = min(
            options, key=lambda seat: _badness(book, added(load, book.load(seat, Mode.AWAKE, 1.0)), seat)
        )
        load = added(load, book.load(best, Mode.AWAKE, 1.0))
        seats.append(best)
    each = _each(book, load)
    found = [
        _blamed(book, device, seats, each)
        for device in load
        if _quantile(load, device, each) > book.limits[device].mib + 1e-6
    ]
    found += [short for seat in seats if not seat.ask.grows for short in _small_pool(book, seat)]
    return tuple(sorted(found, key=lambda short: (-short.short_mib, short.device)))


def _seats(book: Book, ask: TierAsk) -> list[Seat]:
    found = []
    for layout in layouts(book, ask)[0]:
        for i, gpus in enumerate(combinations(book.allowed(ask), layout.gpus)):
            if i >= _MOST_SETS:
                break
            found.append(book.spread(ask, gpus, layout.setup))
    return found


def _badness(book: Book, load: Load, seat: Seat) -> tuple[float, int]:
    each = _each(book, load)
    short = sum(max(0.0, _quantile(load, device, each) - book.limits[device].mib) for device in load)
    return round(short, 6), len(seat.gpus)


def _each(book: Book, load: Load) -> float:
    return float(book.probability ** (1 / max(1, sum(variance > 0 for _, variance in load.values()))))


def _quantile(load: Load, device: int, probability: float) -> float:
    mean, variance = load[device]
    return mean + z_score(probability) * sqrt(variance)


def _blamed(book: Book, device: int, seats: Sequence[Seat], probability: float) -> Shortfall:
    """Return the first component that goes beyond the budget, in the order that engines take them."""
    limit = book.limits[device]
    parts: list[tuple[Seat, Component, Amount]] = []
    for seat in seats:
        need = _need(book, seat, device)
        parts += [(seat, part, need.of(part)) for part in _ORDER if need.of(part).mean_mib > 0]
    whole = Amount()
    blamed = parts[-1]
    for part in parts:
        whole = whole + part[2]
        if whole.at(probability) > limit.mib:
            blamed = part
            break
    need_mib = sum((part[2] for part in parts), Amount()).at(probability)
    seat, component, amount = blamed
    return Shortfall(device, limit.name, seat.ask.name, component, need_mib, limit.mib, amount.mean_mib)


def _need(book: Book, seat: Seat, device: int) -> DeviceNeed:
    made = book.footprint(seat, 1.0)
    if device == HOST:
        return made.host
    return made.devices[seat.gpus.index(device)] if device in seat.gpus else DeviceNeed()


def _small_pool(book: Book, seat: Seat) -> list[Shortfall]:
    """Return that a pool of fixed size holds not even one request."""
    held = book.held_requests(seat, 1.0)
    if held >= 1.0:
        return []
    need = book.request_bytes(seat) / 2**20
    device = seat.gpus[0] if seat.gpus else HOST
    return [
        Shortfall(
            device,
            book.limits[device].name,
            seat.ask.name,
            Component.KV,
            need,
            max(0.0, held) * need,
            need,
        )
    ]
