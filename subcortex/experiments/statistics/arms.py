"""Two or more arms, measured in an order that lets drift cancel. Pure.

A block is the arms forwards and then backwards: A B B A. Whatever moves evenly in time (a GPU warming up, a
cache filling) then adds as much to one arm's mean as to the other's, so a block's difference is free of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from subcortex.errors import InvalidRequest
from subcortex.experiments.statistics.intervals import LEVEL, Estimate, geometric_median_of, median_of
from subcortex.experiments.statistics.samples import Sample


def abba(arms: Sequence[str], blocks: int) -> list[tuple[int, str]]:
    """Return the order to measure arms in, as (block, arm); every other block begins at the other end."""
    order = []
    for block in range(blocks):
        forwards = list(arms) if block % 2 == 0 else list(reversed(arms))
        order += [(block, arm) for arm in forwards + forwards[::-1]]
    return order


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two arms' means by block, side by side, and how many blocks were left out for what."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    throttled: int
    incomplete: int


def paired(samples: Sequence[Sample], a: str, b: str) -> Pairs:
    """Return two arms' means by block.

    A block with a throttled sample is left out whole, since what is left of it no longer cancels drift; so is
    one that was broken off (both arms have as many samples in a whole block, and at least two).
    """
    blocks: dict[int, dict[str, list[Sample]]] = defaultdict(lambda: {a: [], b: []})
    for sample in samples:
        if sample.arm in (a, b):
            blocks[sample.block][sample.arm].append(sample)
    of_a, of_b = [], []
    throttled = incomplete = 0
    for number in sorted(blocks):
        found = blocks[number]
        if any(sample.throttled for sample in found[a] + found[b]):
            throttled += 1
        elif len(found[a]) != len(found[b]) or len(found[a]) < 2:
            incomplete += 1
        else:
            of_a.append(fmean(sample.value for sample in found[a]))
            of_b.append(fmean(sample.value for sample in found[b]))
    return Pairs(tuple(of_a), tuple(of_b), throttled, incomplete)


def difference(a: Sequence[float], b: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Return the median of b − a over blocks, in the samples' unit.

    Raises:
        InvalidRequest: Where the arms have not as many blocks, or none.
    """
    _same_length(a, b)
    return median_of([y - x for x, y in zip(a, b, strict=True)], level=level, seed=seed)


def ratio(a: Sequence[float], b: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """Return the median of b / a over blocks; 1.05 is five percent more in b.

    Raises:
        InvalidRequest: As ``difference``; also where a sample is not above zero.
    """
    _same_length(a, b)
    if any(value <= 0 for value in (*a, *b)):
        raise InvalidRequest(
            f"A ratio needs samples above zero; one is {min(*a, *b)}.", hint="Compare by difference instead."
        )
    return geometric_median_of([y / x for x, y in zip(a, b, strict=True)], level=level, seed=seed)


def _same_length(a: Sequence[float], b: Sequence[float]) -> None:
    if len(a) != len(b):
        raise InvalidRequest(
            f"The arms have {len(a)} and {len(b)} blocks; a pair needs both.",
            hint="Bring samples together by block first (paired).",
        )
