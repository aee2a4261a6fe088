"""In which order to run experiments. Pure.

Greedy by value for a GPU-minute, where what must run before is part of the price: an experiment that has not
earned a run itself still goes first where what it opens is worth both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from subcortex.errors import InvalidRequest
from subcortex.experiments.choice.scores import Question, Score, score_together


@dataclass(frozen=True, slots=True)
class Choice:
    """One run in the order.

    Args:
        experiment: Its name.
        questions: What it answers, by id.
        score: What it brings by itself; None where the answers are remembered and nothing runs.
        a_minute: Value for a GPU-minute of it with what it needs or opens: why it stands here.
        opens: Whom it is run for, if not for itself.
        remembered: Whether every answer is known already for this very provenance.
    """

    experiment: str
    questions: tuple[str, ...]
    score: Score | None
    a_minute: float
    opens: str | None = None
    remembered: bool = False


def order(
    questions: Sequence[Question], memo: Collection[str] = (), *, done: Collection[str] = ()
) -> list[Choice]:
    """Return the runs that answer all questions, the next one first.

    What is remembered comes first, at no cost. A question that gates others (can peers be trusted?) has to be
    among the questions, or to be done; what nobody can open is left out.

    Args:
        questions: Open gaps.
        memo: Provenance digests whose answers are known.
        done: Experiments that need not run again to open what they gate.

    Raises:
        InvalidRequest: Where experiments need each other in a circle, or a question has no sound figures.
    """
    known = [one for one in questions if one.provenance and one.provenance in memo]
    open_ones = [one for one in questions if one not in known]
    found = [
        Choice(name, tuple(one.id for one in group), None, 0.0, remembered=True)
        for name, group in _grouped(known).items()
    ]
    groups = _grouped(open_ones)
    scores = {name: score_together(group) for name, group in groups.items()}
    needs = {name: frozenset().union(*(one.needs for one in group)) for name, group in groups.items()}
    _check_circles(needs)
    finished = set(done) | {choice.experiment for choice in found if choice.experiment not in groups}
    left = set(groups)
    while True:
        best: tuple[float, str, list[str]] | None = None
        for name in sorted(left):
            chain = _chain(name, needs, finished)
            if chain is None or not set(chain) <= left:
                continue
            worth = sum(scores[one].value for one in chain) / sum(scores[one].gpu_minutes for one in chain)
            if best is None or worth > best[0]:
                best = (worth, name, chain)
        if best is None:
            return found
        worth, name, chain = best
        first = chain[0]
        opens = name if first != name else None
        ids = tuple(one.id for one in groups[first])
        found.append(Choice(first, ids, scores[first], worth, opens))
        finished.add(first)
        left.discard(first)


def _grouped(questions: Sequence[Question]) -> dict[str, list[Question]]:
    groups: dict[str, list[Question]] = {}
    for one in questions:
        groups.setdefault(one.experiment, []).append(one)
    return groups


def _chain(name: str, needs: dict[str, frozenset[str]], finished: Collection[str]) -> list[str] | None:
    """Return what must run for an experiment, itself last; None where something needed is not to be had."""
    chain: list[str] = []

    def add(one: str) -> bool:
        if one in finished or one in chain:
            return True
        if one not in needs or not all(add(before) for before in sorted(needs[one])):
            return False
        chain.append(one)
        return True

    return chain if add(name) else None


def _check_circles(needs: dict[str, frozenset[str]]) -> None:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise InvalidRequest(
            f"Experiments need each other in a circle: {' → '.join(error.args[1])}.",
            hint="One of them has to run without the others.",
        ) from error
