"""The joint plan: all tiers on all GPUs, so that with the asked probability everything fits. Pure.

The order of preference between places: how much of the wanted concurrency is reached, less a price for each
GPU beyond one that a tier takes (traffic); then faster links; then the fullest GPU as empty as can be.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from math import inf

from subcortex.errors import InvalidRequest
from subcortex.hardware import Hardware
from subcortex.vram.amount import z_score
from subcortex.vram.plan.ask import TierAsk, in_order
from subcortex.vram.plan.budget import HOST
from subcortex.vram.plan.estimator import Estimator
from subcortex.vram.plan.place import MOST_COMPARED, MOST_SEEN, Search, layouts, seats_of
from subcortex.vram.plan.seat import Book, Mode, Seat
from subcortex.vram.plan.states import COARSE_STEPS, State, grown, homes, likelihood, load_of, swaps, wanted
from subcortex.vram.plan.work import Work
from subcortex.vram.setup import VllmSetup

DEFAULT_PROBABILITY = 0.95
#: Resting states that are tried where not all tiers fit together.
_MOST_HOMES = 64

#: What a GPU more for one tier must bring, as a share of the concurrency that was wanted.
_SEAT_COST = 0.05
#: Placements that miss no more than this are not looked for further.
_GOOD_ENOUGH = 0.25

_Worth = tuple[float, float, float, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class Fit:
    """A plan that fits, in the planner's own terms.

    Args:
        book: Machine and estimates it was made with.
        seats: Who sits where, in the order of ranks.
        requests: For how many requests of full length each has room.
        home: What each tier does at rest.
        swaps: By tier that is not awake at rest, the state in which it is.
        asked: What was asked, in the order of ranks; seats may have sleep mode switched on beside.
        exact: Every place was tried.
    """

    book: Book
    seats: tuple[Seat, ...]
    requests: tuple[float, ...]
    home: State
    swaps: Mapping[int, State]
    asked: tuple[TierAsk, ...] = ()
    exact: bool = True

    @property
    def probability(self) -> float:
        """Of fitting, in the least likely of all states."""
        states = (self.home, *self.swaps.values())
        return min(likelihood(self.book, self.seats, state, self.requests) for state in states)


@dataclass(frozen=True, slots=True)
class NoFit:
    """No plan fits.

    Args:
        asks: The tiers that do not, together or alone.
        together: They fit one at a time, not together; where swapping was not allowed.
        refused: What the engines would refuse, by tier; then memory is not the matter.
        exact: Every place was tried.
    """

    book: Book
    asks: tuple[TierAsk, ...]
    together: bool = False
    refused: Mapping[str, str] | None = None
    exact: bool = True


def find(
    asks: Sequence[TierAsk],
    hardware: Hardware,
    estimator: Estimator,
    *,
    probability: float = DEFAULT_PROBABILITY,
    swapping: bool = True,
    own_mib: Mapping[int, float] | None = None,
    work: Work | None = None,
) -> Fit | NoFit:
    """Return a plan for all tiers together, or what stands against it.

    Args:
        asks: Tiers; their order does not matter, their ranks do.
        hardware: The machine, with what is used of it now.
        estimator: What an engine takes.
        probability: Of everything fitting, on all devices at once and in every state of the plan.
        swapping: Tiers may be asleep or stopped where not all fit together.
        own_mib: By GPU (host: -1), what is used now by engines that this plan will replace.
        work: What it may do; what it did is noted there.

    Raises:
        InvalidRequest: No tiers, two of one name, or no probability.
    """
    z_score(probability)
    asks = in_order(asks)
    if not asks:
        raise InvalidRequest("there is nothing to plan", hint="Name a model, or a configuration with tiers.")
    names = [ask.name for ask in asks]
    if len(set(names)) < len(names):
        raise InvalidRequest("two tiers have one name", hint="Give each tier a name of its own.")
    book = Book(hardware, estimator, probability, own_mib, work)
    refused = {ask.name: why[0] for ask in asks if not (found := layouts(book, ask))[0] for why in [found[1]]}
    if refused:
        return NoFit(book, asks, refused=refused)
    awake = (Mode.AWAKE,) * len(asks)
    best = _best(book, asks, awake)
    if best is not None:
        return replace(best, asked=asks)
    alone = [ask for ask in asks if len(asks) > 1 and _best(book, [ask], (Mode.AWAKE,)) is None]
    if alone or len(asks) == 1:
        return NoFit(book, tuple(alone or asks), exact=not book.work.cut_short)
    if swapping:
        sleepers = [_with_sleep(ask) for ask in asks]
        for home in islice(homes(asks), _MOST_HOMES):
            best = _best(book, sleepers, home)
            if best is not None:
                return replace(best, asked=asks)
    return NoFit(book, asks, together=True, exact=not book.work.cut_short)


def _with_sleep(ask: TierAsk) -> TierAsk:
    """Return the ask with vLLM's sleep mode on, if the tier may sleep."""
    if not ask.sleepable or not isinstance(ask.setup, VllmSetup):
        return ask
    return replace(ask, setup=replace(ask.setup, sleep_mode=True))


def _best(book: Book, asks: Sequence[TierAsk], home: State) -> Fit | None:
    """Return the best placement for a resting state, None if none fits.

    Each tier is first tried on the numbers of GPUs that are of use to it alone; on all others only where
    nothing fits so, or what fits reaches much less than was wanted.
    """
    narrow = None
    if len(asks) > 1:
        counts = {ask.name: _useful(book, ask) for ask in asks}
        narrow = _best_of(book, Search(book, asks, home, counts), home)
        if narrow is not None and _worth(narrow)[0] <= _GOOD_ENOUGH:
            return narrow
    wide = _best_of(book, Search(book, asks, home), home)
    found = [fit for fit in (narrow, wide) if fit is not None]
    return min(found, key=_worth, default=None)


def _useful(book: Book, ask: TierAsk) -> frozenset[int]:
    """Return on how many GPUs a tier has room by itself, up to the number that has room for all it wants."""
    key = ask.name
    if key not in book.useful:
        alone = (Mode.AWAKE,)
        search = Search(book, [ask], alone)
        most = wanted([book.seat(ask, (), ask.setup)])
        useful: set[int] = set()
        for seats in range(search.least, search.most + 1):
            fits = list(_compared(book, search, seats, alone))
            if fits:
                useful.add(seats)
            if any(fit.requests == most for fit in fits):
                break
        book.useful[key] = frozenset(useful or range(len(book.gpus) + 1))
    return book.useful[key]


def _best_of(book: Book, search: Search, home: State) -> Fit | None:
    best: tuple[_Worth, Fit] | None = None
    for seats in range(search.least, search.most + 1):
        if best is not None and best[0][0] <= _SEAT_COST * (seats - len(home)):
            # Even with all that was wanted, more GPUs would cost more than they bring.
            break
        for fit in _compared(book, search, seats, home):
            worth = _worth(fit)
            if best is None or worth < best[0]:
                best = worth, fit
    if best is None:
        return None
    fit = best[1]
    requests = grown(book, fit.seats, (home, *fit.swaps.values()))
    return replace(fit, requests=requests, exact=search.exact)


def _compared(book: Book, search: Search, seats: int, home: State) -> Iterator[Fit]:
    """Yield placements of so many seats: those with all that was wanted, and the nearest of the others."""
    others: list[tuple[float, int, Fit]] = []
    for number, fit in enumerate(_fits(book, search, seats, home)):
        if number == MOST_SEEN:
            search.stop()
            break
        beyond = _beyond(fit)
        if beyond <= 0 and fit.probability >= book.probability:
            yield fit
        else:
            others.append((beyond, number, fit))
    for _, _, fit in heapq.nsmallest(MOST_COMPARED, others):
        states = (home, *fit.swaps.values())
        yield replace(fit, requests=grown(book, fit.seats, states, steps=COARSE_STEPS))


def _beyond(fit: Fit) -> float:
    """Return by how much all devices together would be too small for what was wanted, MiB."""
    load = load_of(fit.book, fit.seats, fit.home, fit.requests)
    limits = fit.book.limits
    return sum(max(0.0, mean - limits[device].mib) for device, (mean, _) in load.items())


def _fits(book: Book, search: Search, seats: int, home: State) -> Iterator[Fit]:
    """Yield placements that fit with one request each, as if all that is wanted were reached."""
    for placed in search.complete(seats):
        if any(
            mode is Mode.ASLEEP and not book.can_sleep(seat) for seat, mode in zip(placed, home, strict=True)
        ):
            continue
        others = swaps(book, placed, home)
        if others is not None:
            yield Fit(book, placed, wanted(placed), home, others)


def _worth(fit: Fit) -> _Worth:
    """Return what to compare placements by; less is better."""
    reached = [
        min(1.0, held / max(1, seat.ask.concurrency)) if seat.ask.grows else 1.0
        for seat, held in zip(fit.seats, fit.requests, strict=True)
    ]
    missing = 1 - (min(reached) + sum(reached) / len(reached)) / 2
    cost = round(missing + _SEAT_COST * (seats_of(fit.seats) - len(fit.seats)), 4)
    load = load_of(fit.book, fit.seats, fit.home, fit.requests)
    fullest = max(
        (mean / max(fit.book.limits[gpu].mib, 1.0) for gpu, (mean, _) in load.items() if gpu != HOST),
        default=0.0,
    )
    places = tuple(seat.gpus for seat in fit.seats)
    slowest = min((_slowest_link(fit, seat) for seat in fit.seats), default=0.0)
    return cost, -slowest, round(fullest, 6), places


def _slowest_link(fit: Fit, seat: Seat) -> float:
    """Return the GB/s of the slowest link between a seat's GPUs; infinite on one GPU or where unknown."""
    book = fit.book
    between = getattr(book.estimator, "link_gb_per_s", None)
    if between is None or len(seat.gpus) < 2:
        return inf
    pairs = list(combinations(sorted(seat.gpus), 2))
    for pair in pairs:
        if pair not in book.links:
            book.links[pair] = float(between(book.hardware, pair))
    return min(book.links[pair] for pair in pairs)
