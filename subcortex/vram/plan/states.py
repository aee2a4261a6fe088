"""Who is awake, asleep or stopped at a time, and how far pools may grow so that every such state fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from subcortex.vram.plan.ask import TierAsk
from subcortex.vram.plan.budget import fitting
from subcortex.vram.plan.place import added
from subcortex.vram.plan.seat import Book, Mode, Seat

State = tuple[Mode, ...]
#: Halvings in looking for how far pools may grow: to compare placements, and for the one that is chosen.
COARSE_STEPS, FINE_STEPS = 6, 14


def load_of(
    book: Book, seats: Sequence[Seat], state: State, requests: Sequence[float]
) -> dict[int, tuple[float, float]]:
    """Return what all tiers together take of each device in a state."""
    loads = [book.load(*one) for one in zip(seats, state, requests, strict=True)]
    load = dict(loads[0]) if loads else {}
    for more in loads[1:]:
        load = added(load, more)
    return load


def likelihood(book: Book, seats: Sequence[Seat], state: State, requests: Sequence[float]) -> float:
    """Return the probability that a state fits on every device."""
    return fitting(load_of(book, seats, state, requests), book.limits)


def wanted(seats: Sequence[Seat]) -> tuple[float, ...]:
    """Return for how many requests each tier wants room; 1 where a person has fixed the pool."""
    return tuple(float(max(1, seat.ask.concurrency)) if seat.ask.grows else 1.0 for seat in seats)


def grown(
    book: Book, seats: Sequence[Seat], states: Sequence[State], *, steps: int = FINE_STEPS
) -> tuple[float, ...]:
    """Return for how many requests of full length each tier gets room.

    Each has one. All then grow by the same share of what each wants, until a state would not fit; then each
    alone, where its own GPUs still have room.
    """
    most = wanted(seats)

    def fit(requests: Sequence[float]) -> bool:
        return all(likelihood(book, seats, state, requests) >= book.probability for state in states)

    if fit(most):
        return most
    base = [1.0] * len(seats)
    # A share of thousands of requests has to be found more finely to mean single ones.
    steps += (int(max(most)) // 512).bit_length()
    share = _largest(lambda t: fit([1 + t * (want - 1) for want in most]), steps)
    requests = [1 + share * (want - 1) for want in most]
    for i, want in enumerate(most):
        had = requests[i]
        if want > had:

            def alone(t: float, i: int = i, had: float = had, want: float = want) -> bool:
                return fit([*requests[:i], had + t * (want - had), *requests[i + 1 :]])

            requests[i] = had + _largest(alone, steps) * (want - had)
    return tuple(max(least, held) for least, held in zip(base, requests, strict=True))


def _largest(fits: Callable[[float], bool], steps: int) -> float:
    """Return the largest share, 0 to 1, that fits; of what is monotone."""
    if fits(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def homes(asks: Sequence[TierAsk]) -> Iterator[State]:
    """Yield the states to rest in where not all tiers fit, the best first.

    Best is to keep awake those that start with the daemon, then as many as can be, then the least capable:
    they are the quick ones, and most thoughts go to them. Of the others, asleep is better than stopped.
    """
    everyone = range(len(asks))
    choices = [set(awake) for count in range(1, len(asks)) for awake in combinations(everyone, count)]

    def worth(awake: set[int]) -> tuple[int, int, list[int]]:
        eager = sum(asks[i].start == "eager" for i in awake)
        return -eager, -len(awake), sorted(awake)

    for awake in sorted(choices, key=worth):
        others = [i for i in everyone if i not in awake]
        sleepers = [i for i in others if asks[i].sleepable]
        for count in range(len(sleepers), -1, -1):
            for asleep in combinations(sleepers, count):
                yield tuple(
                    Mode.AWAKE if i in awake else Mode.ASLEEP if i in asleep else Mode.STOPPED
                    for i in everyone
                )


def swaps(book: Book, seats: Sequence[Seat], home: State) -> dict[int, State] | None:
    """Return, for each tier that is not awake, a state in which it is; None if one of them has none.

    As few neighbours as can be make room for it, the most capable first; asleep where they can be.
    """
    ones = [1.0] * len(seats)
    found: dict[int, State] = {}
    for comes in (i for i, mode in enumerate(home) if mode is not Mode.AWAKE):
        state = next(
            (
                state
                for state in _making_room(book, seats, home, comes)
                if likelihood(book, seats, state, ones) >= book.probability
            ),
            None,
        )
        if state is None:
            return None
        found[comes] = state
    return found


def _making_room(book: Book, seats: Sequence[Seat], home: State, comes: int) -> Iterator[State]:
    awake = [i for i, mode in enumerate(home) if mode is Mode.AWAKE]
    for count in range(1, len(awake) + 1):
        for leave in combinations(reversed(awake), count):
            asleep = [i for i in leave if book.can_sleep(seats[i])]
            for sleeping in range(len(asleep), -1, -1):
                for sleepers in combinations(asleep, sleeping):
                    state = list(home)
                    state[comes] = Mode.AWAKE
                    for i in leave:
                        state[i] = Mode.ASLEEP if i in sleepers else Mode.STOPPED
                    yield tuple(state)
