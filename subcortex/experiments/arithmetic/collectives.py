"""Worked examples of collective operations, worked again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from subcortex.experiments.arithmetic.settlement import Settlement, number, verdict_of
from subcortex.journal.board.claims import Claim
from subcortex.journal.board.collectives import Collected

_REDUCTIONS: dict[str, Callable[[tuple[float, ...]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "prod": prod,
}


def settle_collective(claim: Claim) -> Settlement | None:
    """Return whether what is said to come out of a collective does; None where its input is not whole."""
    done = claim.collected
    if done is None:
        return None
    found = _result(done)
    if found is None:
        return None
    result, words = found
    held = len(result) == len(done.said) and all(
        abs(a - b) <= 1e-9 * max(1.0, abs(a)) for a, b in zip(result, done.said, strict=True)
    )
    said = _vector(done.said)
    return Settlement(
        verdict_of(held), "collective", done.operation, _whose(done), f"{_whose(done)}: {_vector(result)}",
        f"{words} = {_vector(result)}; written: {said}", None, None,
    )  # fmt: skip


def _whose(done: Collected) -> str:
    return "every rank" if done.rank is None else f"rank {done.rank}"


def _result(done: Collected) -> tuple[tuple[float, ...], str] | None:
    vectors = [vector for _, vector in done.given]
    ranks = [rank for rank, _ in done.given]
    if done.operation == "broadcast":
        given = dict(done.given)
        return (given[done.root], f"what rank {done.root} has") if done.root in given else None
    # A rank whose values the text leaves out would make the rest mean something else.
    if len(vectors) < 2 or ranks != list(range(len(ranks))):
        return None
    if done.operation == "all_gather":
        return tuple(value for vector in vectors for value in vector), f"{len(vectors)} vectors end to end"
    reduce = _REDUCTIONS.get(done.reduction)
    if reduce is None or len({len(vector) for vector in vectors}) != 1:
        return None
    reduced = tuple(float(reduce(values)) for values in zip(*vectors, strict=True))
    written = " + ".join(_vector(vector) for vector in vectors[:4]) + (" + …" if len(vectors) > 4 else "")
    words = written if done.reduction == "sum" else f"{done.reduction} of {len(vectors)} vectors"
    if done.operation == "all_reduce":
        return reduced, words
    if done.rank is None or len(reduced) % len(vectors):
        return None
    each = len(reduced) // len(vectors)
    part = reduced[done.rank * each : (done.rank + 1) * each]
    return (
        part,
        f"{words} = {_vector(reduced)}, of which each of {len(vectors)} ranks keeps {each}: rank {done.rank}",
    )


def _vector(values: tuple[float, ...]) -> str:
    shown = ", ".join(number(value) for value in values[:16])
    return f"[{shown}{', …' if len(values) > 16 else ''}]"
