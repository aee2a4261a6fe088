"""What the samples of ``interconnect`` come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from subcortex.config import VllmTier
from subcortex.experiments.catalogue.common.figures import Median, counted, median, written
from subcortex.experiments.catalogue.common.tiers import about
from subcortex.experiments.experiment import Answer, Chart, Line, Outcome, Report
from subcortex.experiments.laboratory.record import Reading, as_sample
from subcortex.experiments.statistics import LEVEL, Pairs, Sample, paired, verdict

FOUND, NCCL, NO_PEERS = "as found", "NCCL only", "no peer path"
#: Metric of one request alone → what it is in words.
ALONE: dict[str, str] = {
    "tpot": "a token",
    "ttft_short": "the first token of a short question",
    "ttft_long": "the first token of a long question",
}
#: Differences up to this share are none that anybody would plan for.
ALIKE = 0.02
BOUND = (
    "Without peers the traffic goes through host memory, which takes two crossings of PCIe where peers over "
    "PCIe take one: it bounds PCIe from below"
)
BRIEFLY = "Through host memory, which bounds PCIe from below"


def report(
    readings: Sequence[Reading],
    tier: VllmTier,
    failed: Mapping[str, str],
    arms: Sequence[str],
    *,
    concurrencies: Sequence[int],
    long_tokens: int,
    missing: Sequence[str] = (),
) -> Report:
    """Return the report on one tier.

    Args:
        readings: All samples of the run: the metrics, and ``boot`` once a pass.
        tier: As configured.
        failed: Arms that did not start or serve, and why.
        arms: In their order; the first is what the others are held against.
        concurrencies: Requests at once that throughput was measured with.
        long_tokens: Of a long question.
        missing: Arms that time was over for.
    """
    metrics = metrics_of(concurrencies)
    figures = {arm: _figures(readings, arm, metrics) for arm in arms}
    engines = engines_of(readings, arms)
    details = {
        arm: {_named(metric): one.value for metric, one in found.items()} | {"engines": engines[arm]}
        for arm, found in figures.items()
    }
    answers = [
        found
        for arm in reversed(arms[1:])
        if arm not in failed
        for metric, words in metrics.items()
        if (found := _compared(readings, tier, (metric, words), arm, engines, details)) is not None
    ]
    if NO_PEERS not in failed and not any(one.quantity == "speed_ratio" for one in answers):
        answers.insert(0, _nothing(tier))
    answers += [_refused(tier, arm, why) for arm, why in failed.items()]
    answers += _as_found(figures[arms[0]], tier)
    return Report(
        answers=tuple(answers),
        noticed=tuple(_noticed(answers, engines, long_tokens, bool(figures.get(NO_PEERS)), missing)),
        charts=tuple(_charts(figures, tier, metrics)),
    )


def metrics_of(concurrencies: Sequence[int]) -> dict[str, str]:
    """Return what is measured in each arm: the samples' metric, and what it is in words."""
    return ALONE | {
        f"tok_s_{size}": f"throughput with {counted(size, 'request')} at once" for size in concurrencies
    }


def engines_of(readings: Sequence[Reading], arms: Sequence[str]) -> dict[str, int]:
    """Return how many engines each arm was measured on: a pass may take one warm that another has started.

    Each pass keeps the seconds that its engine's start took, which no two starts share. Passes without that
    (of an older version) are taken to share the engine of the pass before if that was of the same arm.
    """
    starts: dict[str, set[float]] = {arm: set() for arm in arms}
    untold: dict[str, int] = dict.fromkeys(arms, 0)
    passes: dict[tuple[int, int], list[Reading]] = {}
    for one in readings:
        if one.metric == "boot" and one.arm in starts:
            starts[one.arm].add(one.value)
        passes.setdefault((one.facts.get("round", 0), one.facts.get("place", 0)), []).append(one)
    before = None
    for _, own in sorted(passes.items()):
        arm = own[0].arm
        if arm in untold and arm != before and not any(one.metric == "boot" for one in own):
            untold[arm] += 1
        before = arm
    return {arm: len(starts[arm]) + untold[arm] for arm in arms}


def _named(metric: str) -> str:
    """Return a metric's name among details, its unit with it."""
    return metric if metric.startswith("tok_s") else f"{metric}_s"


def _figures(readings: Sequence[Reading], arm: str, metrics: Mapping[str, str]) -> dict[str, Median]:
    found = {}
    for metric in metrics:
        samples = [as_sample(one) for one in readings if one.metric == metric and one.arm == arm]
        if (middle := median([one.value for one in samples if not one.throttled])) is not None:
            found[metric] = middle
    return found


def _compared(
    readings: Sequence[Reading],
    tier: VllmTier,
    metric_words: tuple[str, str],
    arm: str,
    engines: Mapping[str, int],
    details: Mapping[str, Any],
) -> Answer | None:
    """Return how a metric in an arm compares with how it was found; None without samples of both.

    Where an arm was not measured there and back, drift does not cancel: medians are told, and no verdict.
    """
    metric, words = metric_words
    samples = [as_sample(one) for one in readings if one.metric == metric]
    pairs = pairs_of(samples, arm)
    said = verdict(pairs.a, pairs.b, within=ALIKE, as_ratio=True) if pairs.a else None
    of_each = (pairs.a, pairs.b) if said else (_steady(samples, FOUND), _steady(samples, arm))
    if not all(of_each):
        return None
    unit, scale = ("tok/s", 1.0) if metric.startswith("tok_s") else ("ms", 1e3)
    before, after = (_middle(values) * scale for values in of_each)
    verb = "is" if metric.startswith("tok_s") else "takes"
    value = after / before if said is None else said.estimate
    counts = f"engines: {engines[arm]} {arm}, {engines[FOUND]} {FOUND}"
    shown, n = f"{written(after)} against {written(before)} {unit}", len(of_each[1])
    low = high = None
    if said is None:
        shown += f"; n = {n} and {len(of_each[0])} repeats, not there and back, so drift is in it; {counts}"
    else:
        if isfinite(said.interval.high) and said.interval.low > 0:
            low, high = said.interval.low, said.interval.high
            shown = f"{low:.3f} to {high:.3f}; {shown}"
        shown += f"; n = {counted(said.n, 'pair')} of repeats; {counts}"
    kind: Outcome = "inconclusive" if said is None else said.kind
    statement = (
        f"{about(tier)} at TP={tier.tensor_parallel_size}, {arm}: {words} {verb} {value:.3f} times what it "
        f"{verb} as found ({shown}): {kind}"
    )
    first = (arm, metric) == (NO_PEERS, "tpot")
    if first:
        statement += f". {BRIEFLY}"
    return Answer(
        quantity="speed_ratio" if first else f"{metric}_ratio",
        about=about(tier) if arm == NO_PEERS else f"{about(tier)}, {arm}",
        unit="x",
        outcome=kind,
        statement=statement,
        value=value,
        low=low,
        high=high,
        n=n,
        level=LEVEL if said is None else said.interval.level,
        series=metric,
        n_needed=None if said is None else said.n_needed,
        tier=tier.name,
        gap_kind="interconnect" if first else None,
        details={"arms": dict(details), "arm": arm, "metric": _named(metric), "engines": dict(engines)},
    )


def _steady(samples: Sequence[Sample], arm: str) -> tuple[float, ...]:
    return tuple(one.value for one in samples if one.arm == arm and not one.throttled)


def pairs_of(samples: Sequence[Sample], arm: str) -> Pairs:
    """Return an arm's repeats beside those as found; each is the mean of one there and one back."""
    return paired(samples, FOUND, arm)


def _refused(tier: VllmTier, arm: str, why: str) -> Answer:
    return Answer(
        quantity="speed_ratio",
        about=about(tier) if arm == NO_PEERS else f"{about(tier)}, {arm}",
        unit="x",
        outcome="failed",
        statement=f"{about(tier)} at TP={tier.tensor_parallel_size} does not serve with {arm}: {why}",
        tier=tier.name,
        gap_kind="interconnect" if arm == NO_PEERS else None,
    )


def _nothing(tier: VllmTier) -> Answer:
    return Answer(
        quantity="speed_ratio",
        about=about(tier),
        unit="x",
        outcome="inconclusive",
        statement=(
            f"{about(tier)} at TP={tier.tensor_parallel_size}: inconclusive; no repeat is left that was "
            "whole and not throttled in both arms"
        ),
        tier=tier.name,
        gap_kind="interconnect",
    )


def _as_found(figures: Mapping[str, Median], tier: VllmTier) -> list[Answer]:
    """Return TTFT and TPOT of one request alone, as the tier is."""
    answers = []
    for metric, quantity in (("ttft_short", "ttft"), ("tpot", "tpot")):
        if (found := figures.get(metric)) is None:
            continue
        answers.append(
            Answer(
                quantity=quantity,
                about=about(tier),
                unit="s",
                outcome="measured",
                statement=(
                    f"{about(tier)} at TP={tier.tensor_parallel_size} as found: {ALONE[metric]} alone "
                    f"takes {written(found.value * 1e3)} ms (n = {found.n})"
                ),
                value=found.value,
                low=found.low,
                high=found.high,
                n=found.n,
                series=metric,
                tier=tier.name,
                details={"concurrency": 1},
            )
        )
    return answers


def _noticed(
    answers: Sequence[Answer],
    engines: Mapping[str, int],
    long_tokens: int,
    bounded: bool,
    missing: Sequence[str],
) -> list[str]:
    counts = ", ".join(f"{counted(count, 'engine')} {arm}" for arm, count in engines.items())
    said = [
        f"A long question has {long_tokens} tokens. What varies from one start of an engine to the next is "
        f"in no interval: {counts}."
    ]
    if missing:
        said.append(f"Not measured, or not there and back, for want of time: {', '.join(missing)}.")
    if bounded:
        said.append(f"{BOUND}.")
    for one in answers:
        faster = one.value is not None and (one.value < 1) != str(one.series).startswith("tok_s")
        if one.outcome == "different" and faster and one.unit == "x":
            said.append(f"Faster than as found: {one.statement.split('. ')[0]}.")
    return said


def _charts(
    figures: Mapping[str, Mapping[str, Median]], tier: VllmTier, metrics: Mapping[str, str]
) -> list[Chart]:
    """Return throughput by arm; times in milliseconds by arm."""
    charts = []
    for title, unit, chosen, scale in (
        ("Throughput", "tok/s", [one for one in metrics if one.startswith("tok_s")], 1.0),
        ("Time to first token, and a token", "ms", ["ttft_short", "ttft_long", "tpot"], 1e3),
    ):
        lines = tuple(
            Line(
                arm,
                tuple((float(x), found[one].value * scale) for x, one in enumerate(chosen) if one in found),
            )
            for arm, found in figures.items()
            if any(one in found for one in chosen)
        )
        if lines:
            charts.append(
                Chart(
                    title=f"{title} of {about(tier)} by path",
                    x_label="",
                    y_label=unit,
                    lines=lines,
                    kind="bars",
                    categories=tuple(chosen),
                )
            )
    return charts


def _middle(values: Sequence[float]) -> float:
    found = median(values)
    assert found is not None
    return found.value
