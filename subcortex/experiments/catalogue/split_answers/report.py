"""What the samples of ``split_answers`` come to. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean, median

from subcortex.experiments.catalogue.common.figures import ends, written
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.next_tokens import best, divergence
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.statistics import LEVEL, Interval, Verdict, verdict

#: The metric of a raw sample: the likeliest token's log-probability, with all that were told beside it.
NEXT, FLOOR, SPLIT = "next token", "divergence of the same twice", "divergence of the split"
#: Arithmetic in 32 bits moves a distribution by less; a difference below it is none.
RESOLUTION_NATS = 1e-6
TURNS = (0, 1)


@dataclass(frozen=True, slots=True)
class Place:
    """One beginning, asked of both arms twice.

    Args:
        prompt: Which one.
        floor_nats: Mean divergence between an arm's two turns.
        split_nats: Mean divergence between the arms, turn by turn.
        same_floor, same_split: Of the two comparisons, how many had the same likeliest token (0, 1 or 2).
    """

    prompt: int
    floor_nats: float
    split_nats: float
    same_floor: int
    same_split: int


def places(readings: Sequence[Reading], a: str, b: str) -> list[Place]:
    """Return the beginnings that both arms were asked for twice, in order.

    Each kind of comparison is made twice, so that without any difference between the arms both kinds have
    the same distribution.
    """
    told: dict[int, dict[tuple[str, int], Mapping[str, float]]] = defaultdict(dict)
    for one in readings:
        if one.metric == NEXT:
            told[one.block][one.arm, one.facts["turn"]] = one.facts["top"]
    found = []
    for prompt in sorted(told):
        of = told[prompt]
        if not all((arm, turn) in of for arm in (a, b) for turn in TURNS):
            continue
        floor = [(of[arm, 0], of[arm, 1]) for arm in (a, b)]
        split = [(of[a, turn], of[b, turn]) for turn in TURNS]
        found.append(
            Place(
                prompt,
                fmean(divergence(p, q) for p, q in floor),
                fmean(divergence(p, q) for p, q in split),
                sum(best(p) == best(q) for p, q in floor),
                sum(best(p) == best(q) for p, q in split),
            )
        )
    return found


def judged(found: Sequence[Place]) -> Verdict:
    """Return whether the split's divergence is that of the same arm twice.

    Alike is what lies within the floor's own median, or within the arithmetic's resolution.
    """
    floor = [one.floor_nats for one in found]
    return verdict(floor, [one.split_nats for one in found], within=max(RESOLUTION_NATS, median(floor)))


def wilson(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Return the interval of a share, from 0 to 1 (Wilson 1927); ``n`` is above zero."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(max(0.0, middle - reach), min(1.0, middle + reach), level)


def report(found: Sequence[Place], *, a: str, b: str, model: str, tier: str) -> Report:
    """Return the report on two arms of a model, of one place at least."""
    told = judged(found)
    split = sorted(one.split_nats for one in found)
    floor = sorted(one.floor_nats for one in found)
    n, pairs = len(found), 2 * len(found)
    same, same_floor = sum(one.same_split for one in found), sum(one.same_floor for one in found)
    share = wilson(same, pairs)
    words = {
        "alike": "is no more than that of the same twice",
        "different": "is more than that of the same twice" if told.estimate > 0 else "is less than its floor",
        "inconclusive": "cannot be told from that of the same twice yet",
    }[told.kind]
    details = {
        "arms": [a, b],
        "median_nats": median(split),
        "mean_nats": fmean(split),
        "largest_nats": split[-1],
        "floor_median_nats": median(floor),
        "floor_mean_nats": fmean(floor),
        "floor_largest_nats": floor[-1],
        "same_top": same / pairs,
        "same_top_floor": same_floor / pairs,
    }
    low, high = ends(told.interval)
    answers = (
        Answer(
            quantity="divergence",
            about=model,
            unit="nats",
            outcome=told.kind,
            statement=(
                f"Between {a} and {b} the next token of {model} diverges by {written(median(split))} nats in "
                f"the median of {n} beginnings (mean {written(fmean(split))}, at most {written(split[-1])}); "
                f"the same twice by {written(median(floor))} (at most {written(floor[-1])}): it {words}."
            ),
            value=told.estimate,
            low=low,
            high=high,
            n=n,
            level=told.interval.level,
            series=SPLIT,
            n_needed=told.n_needed,
            tier=tier,
            gap_kind="split_answers",
            details=details,
        ),
        Answer(
            quantity="same_top_token",
            about=model,
            unit="%",
            outcome="measured",
            statement=(
                f"{a} and {b} have the same likeliest next token in {same} of {pairs} comparisons "
                f"({100 * same / pairs:.1f} %, {100 * share.low:.1f} to {100 * share.high:.1f} %); the same "
                f"twice in {same_floor} of {pairs}."
            ),
            value=100 * same / pairs,
            low=100 * share.low,
            high=100 * share.high,
            n=pairs,
            series=NEXT,
            tier=tier,
        ),
    )
    gaps = (
        (f"Does the other likeliest token of {model} under {b} change what it is worth on a benchmark?",)
        if told.kind == "different" and same < same_floor
        else ()
    )
    return Report(answers, gaps=gaps, charts=(_chart(split, floor, a, b, model),))


def _chart(split: Sequence[float], floor: Sequence[float], a: str, b: str, model: str) -> Chart:
    lines = tuple(
        Line(label, tuple((float(rank), value) for rank, value in enumerate(values, 1)))
        for label, values in ((f"{a} against {b}", split), ("the same twice", floor))
    )
    return Chart(
        f"Divergence of {model}'s next token", "beginnings, the least divergent first", "nats", lines
    )
