"""Who sits where: a search over GPUs and layouts for tiers that must be up at the same time.

Exact while the work stays within its budget (``work.py``), which four tiers on four GPUs do; beyond it the
best of what was tried. GPUs that are alike are tried once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from subcortex.vram.amount import z_score
from subcortex.vram.footprint import Component
from subcortex.vram.plan.ask import Free, TierAsk
from subcortex.vram.plan.budget import HOST, Load, fitting
from subcortex.vram.plan.seat import Book, Mode, Seat
from subcortex.vram.plan.work import MANY_GPUS, PLACE
from subcortex.vram.setup import LlamaCppSetup, VllmSetup

#: Complete placements of one size that are looked at, and those compared by what they have room for.
MOST_SEEN, MOST_COMPARED = 1000, 12
#: Splits are made for what is left with this probability whatever the plan's own, so that asking for less
#: certainty never changes a split for the worse.
_SPLIT_Z = z_score(0.95)
_SPLIT_STEP_MIB = 16.0
#: Sizes of tensor parallelism that are tried where it alone is free; with the stages free too, all are.
_SIZES = (1, 2, 4, 8)

#: What an engine takes alike of all cards together, and the share of it that no layout does without.
_FIXED, _SURELY = (Component.WEIGHTS, Component.KV), 0.95

_Sum = dict[int, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to run a tier, before GPUs are chosen for it: how many, and the setup."""

    gpus: int
    setup: VllmSetup | LlamaCppSetup


def layouts(book: Book, ask: TierAsk) -> tuple[list[Layout], list[str]]:
    """Return the legal ways to run a tier, fewest GPUs first, and what was refused and why."""
    allowed, old = book.allowed(ask), book.too_old(ask)
    if not allowed:
        return ([], [old]) if old else _checked(book, ask, [Layout(0, _on_host(ask.setup))])
    if isinstance(ask.setup, LlamaCppSetup):
        return _checked(book, ask, _llamacpp_layouts(ask, ask.setup, len(allowed)))
    setup = ask.setup
    anything = Free.PIPELINE_PARALLEL in ask.free
    sizes = range(1, len(allowed) + 1) if anything else _SIZES
    tensor = sizes if Free.TENSOR_PARALLEL in ask.free else (setup.tensor_parallel_size,)
    stages = range(1, len(allowed) + 1) if anything else (setup.pipeline_parallel_size,)
    found = [
        Layout(tp * pp, replace(setup, tensor_parallel_size=tp, pipeline_parallel_size=pp))
        for tp in tensor
        for pp in stages
        if tp * pp <= len(allowed)
    ]
    if not found:
        need = setup.tensor_parallel_size * setup.pipeline_parallel_size
        return [], [f"it asks for {need} GPUs and may use {len(allowed)}" + (f": {old}" if old else "")]
    # Of the layouts on as many GPUs, tensor parallelism first: it is the faster one for a single request.
    return _checked(book, ask, sorted(found, key=lambda layout: (layout.gpus, -_tensor(layout))))


def _tensor(layout: Layout) -> int:
    return layout.setup.tensor_parallel_size if isinstance(layout.setup, VllmSetup) else 0


def _on_host(setup: VllmSetup | LlamaCppSetup) -> VllmSetup | LlamaCppSetup:
    return replace(setup, gpu_layers=0, tensor_split=None) if isinstance(setup, LlamaCppSetup) else setup


def _llamacpp_layouts(ask: TierAsk, setup: LlamaCppSetup, allowed: int) -> list[Layout]:
    if setup.gpu_layers == 0:
        return [Layout(0, setup)]
    whole = len(ask.shape.layers) + 1
    layers = whole if setup.gpu_layers is None else min(setup.gpu_layers, whole)
    setup = replace(setup, gpu_layers=layers)
    if setup.tensor_split and Free.SPLIT not in ask.free:
        return [Layout(min(len(setup.tensor_split), allowed), setup)]
    if setup.split_mode == "none":
        return [Layout(1, setup)]
    return [Layout(count, replace(setup, tensor_split=None)) for count in range(1, allowed + 1)]


def _checked(book: Book, ask: TierAsk, found: list[Layout]) -> tuple[list[Layout], list[str]]:
    legal, refused = [], []
    for layout in found:
        why = book.refusal(ask, layout.setup, layout.gpus)
        if why is None:
            legal.append(layout)
        else:
            refused.append(why)
    return legal, list(dict.fromkeys(refused))


class Search:
    """Places for tiers that are in given modes at the same time.

    Args:
        book: Machine and estimates.
        asks: The tiers.
        modes: What each is doing.
        counts: By tier, on how many GPUs it is tried; None for all that are legal.
    """

    def __init__(
        self,
        book: Book,
        asks: Sequence[TierAsk],
        modes: Sequence[Mode],
        counts: Mapping[str, frozenset[int]] | None = None,
    ) -> None:
        self._book = book
        # Those that cannot be divided first; llama.cpp's splits then take what is left.
        order = sorted(range(len(asks)), key=lambda i: _stiffness(book, asks[i]))
        self._order = order
        self._asks = [asks[i] for i in order]
        self._modes = [modes[i] for i in order]
        self._layouts = []
        for ask, mode in zip(self._asks, self._modes, strict=True):
            found = layouts(book, ask)[0]
            if counts is not None:
                found = [layout for layout in found if layout.gpus in counts[ask.name]]
            room = sorted((book.limits[gpu].mib for gpu in book.allowed(ask)), reverse=True)
            if mode is Mode.AWAKE:
                found = [layout for layout in found if not self._hopeless(ask, layout, room)]
            self._layouts.append(found)
        self._alike = _alike(book, self._asks)
        self._whole_mib = sum(book.limits[gpu].mib for gpu in book.gpus)
        least = [self._least_mib(k) for k in range(len(asks))]
        self._rest_mib = [sum(least[k:]) for k in range(len(asks) + 1)]
        self._end = self._last = book.work.end_of_search()
        self._stopped = False

    def _hopeless(self, ask: TierAsk, layout: Layout, room: Sequence[float]) -> bool:
        """Return whether the weights alone are too much: evenly divided, or for the freest cards together.

        ``room`` is what each card has, MiB, the freest first.
        """
        if not layout.gpus:
            return False
        setup = layout.setup
        if isinstance(setup, VllmSetup):
            return self._book.weights_mib(ask) / layout.gpus > room[0]
        whole = (setup.gpu_layers or 0) > len(ask.shape.layers)
        return whole and self._book.layers_mib(ask) > sum(room[: layout.gpus])

    def _least_mib(self, k: int) -> float:
        """Return what a tier takes of all GPUs together wherever it sits: its weights and one request."""
        ask, found = self._asks[k], self._layouts[k]
        if self._modes[k] is not Mode.AWAKE or not found or any(layout.gpus == 0 for layout in found):
            return 0.0
        key = (ask.name, ask.setup)
        if key not in self._book.least_mib:
            gpus = self._book.allowed(ask)
            # llama.cpp's layers take the same however they are spread.
            some = found[:1] if isinstance(ask.setup, LlamaCppSetup) else (found[0], found[-1])
            sizes = []
            for layout in some:
                seat = self._seated(ask, layout, tuple(gpus[: layout.gpus]), {})
                made = self._book.footprint(seat, 1.0)
                sizes.append(sum(need.of(part).mean_mib for need in made.devices for part in _FIXED))
            self._book.least_mib[key] = _SURELY * min(sizes)
        return self._book.least_mib[key]

    @property
    def exact(self) -> bool:
        """Every place was tried, or need not be."""
        return not self._stopped

    def goes_on(self) -> bool:
        """Return whether it has work left for this number of seats; where it has none it is not exact."""
        left = self._book.work.done < self._end
        if not left:
            self._stopped = self._book.work.cut_short = True
        return left

    def stop(self) -> None:
        """Say that places were passed over."""
        self._stopped = True

    @property
    def least(self) -> int:
        """Seats that the tiers take at least."""
        if not all(self._layouts):
            return 0
        return sum(min(layout.gpus for layout in found) for found in self._layouts)

    @property
    def most(self) -> int:
        """Seats that the tiers take at most; -1 if one of them has no layout."""
        if not all(self._layouts):
            return -1
        return sum(max(layout.gpus for layout in found) for found in self._layouts)

    def complete(self, seats: int) -> Iterator[tuple[Seat, ...]]:
        """Yield placements that take so many seats and fit with one request each, in the order asked."""
        if all(self._layouts):
            self._end = self._book.work.end_of_part(self._last, self.most - seats)
            for placed in self._place(0, seats, [], {}, {}):
                ordered: list[Seat | None] = [None] * len(placed)
                for position, seat in zip(self._order, placed, strict=True):
                    ordered[position] = seat
                yield tuple(seat for seat in ordered if seat is not None)

    def _place(
        self, k: int, seats: int, placed: list[Seat], load: _Sum, held: dict[int, tuple[object, ...]]
    ) -> Iterator[list[Seat]]:
        if k == len(self._asks):
            if seats == 0:
                yield placed
            return
        taken = sum(mean for device, (mean, _) in load.items() if device != HOST)
        if taken + self._rest_mib[k] > self._whole_mib:
            return
        rest = self._layouts[k + 1 :]
        least = sum(min(layout.gpus for layout in found) for found in rest)
        most = sum(max(layout.gpus for layout in found) for found in rest)
        for layout in self._layouts[k]:
            if not least <= seats - layout.gpus <= most:
                continue
            for gpus in self._choices(k, layout, load, held):
                if not self.goes_on():
                    return
                self._book.work.did(PLACE)
                # What is not awake need not leave room for those who are.
                beside = load if self._modes[k] is Mode.AWAKE else {}
                seat = self._seated(self._asks[k], layout, gpus, beside)
                if not self._enough_pool(seat, self._modes[k]):
                    continue
                now = added(load, self._book.load(seat, self._modes[k], 1.0))
                if fitting(now, self._book.limits) < self._book.probability:
                    continue
                marks = {gpu: (*held.get(gpu, ()), (k, i)) for i, gpu in enumerate(gpus)}
                yield from self._place(k + 1, seats - layout.gpus, [*placed, seat], now, {**held, **marks})

    def _choices(
        self, k: int, layout: Layout, load: _Sum, held: dict[int, tuple[object, ...]]
    ) -> Iterator[tuple[int, ...]]:
        """Yield the GPUs to try; of sets that are alike, one."""
        allowed = self._book.allowed(self._asks[k])
        kinds = {gpu: (self._alike[gpu], held.get(gpu, ())) for gpu in allowed}
        first: tuple[int, ...] | None = None
        if len(allowed) > MANY_GPUS:
            # Where not all sets can be tried, what would fit anywhere has been seen to.
            freest = sorted(allowed, key=lambda gpu: -self._left(gpu, load))[: layout.gpus]
            first = tuple(gpu for gpu in allowed if gpu in freest)
            yield first
        yield from (gpus for gpus in unlike(allowed, kinds, layout.gpus) if gpus != first)

    def _seated(self, ask: TierAsk, layout: Layout, gpus: tuple[int, ...], load: _Sum) -> Seat:
        if isinstance(layout.setup, VllmSetup):
            return self._book.seat(ask, gpus, layout.setup)
        return self._book.spread(ask, gpus, layout.setup, [self._left(gpu, load) for gpu in gpus])

    def _left(self, gpu: int, load: _Sum) -> float:
        mean, variance = load.get(gpu, (0.0, 0.0))
        left = self._book.limits[gpu].mib - mean - _SPLIT_Z * sqrt(variance)
        # In steps, so that nearly the same question is not asked anew.
        return max(0.0, left // _SPLIT_STEP_MIB * _SPLIT_STEP_MIB)

    def _enough_pool(self, seat: Seat, mode: Mode) -> bool:
        """Return whether a pool that a person has fixed holds one request."""
        return mode is not Mode.AWAKE or seat.ask.grows or self._book.held_requests(seat, 1.0) >= 1.0


def unlike(gpus: Sequence[int], kinds: Mapping[int, object], count: int) -> Iterator[tuple[int, ...]]:
    """Yield the sets of ``count`` GPUs, in order; of sets whose kinds are equal one by one, the first.

    Of 64 equal cards eight can be taken in 4 billion ways that are all alike: none but the first is made.
    """
    if count == 0:
        yield ()
        return
    tried: set[object] = set()
    for place, gpu in enumerate(gpus[: len(gpus) - count + 1]):
        if kinds[gpu] not in tried:
            tried.add(kinds[gpu])
            yield from ((gpu, *others) for others in unlike(gpus[place + 1 :], kinds, count - 1))


def added(load: Load, more: Load) -> _Sum:
    """Return two loads together."""
    result = dict(load)
    for device, (mean, variance) in more.items():
        had_mean, had_variance = result.get(device, (0.0, 0.0))
        result[device] = (had_mean + mean, had_variance + variance)
    return result


def _stiffness(book: Book, ask: TierAsk) -> tuple[bool, float, str]:
    return isinstance(ask.setup, LlamaCppSetup), -book.weights_mib(ask), ask.name


def _alike(book: Book, asks: Sequence[TierAsk]) -> dict[int, object]:
    """Return a value for each GPU that is equal for those that can be exchanged."""
    pairs = book.hardware.links
    # Cards are only alike if every two of them are joined alike.
    uniform = len({(pair.code, pair.peer_read, pair.measured_gb_per_s) for pair in pairs}) <= 1
    found: dict[int, object] = {}
    for gpu in book.gpus:
        may = tuple(ask.devices is None or gpu in ask.devices for ask in asks)
        found[gpu] = (book.kind(gpu), may, None if uniform else gpu)
    return found


def seats_of(seats: Sequence[Seat]) -> int:
    """Return on how many GPUs tiers sit, each counted for itself."""
    return sum(len(seat.gpus) for seat in seats)
