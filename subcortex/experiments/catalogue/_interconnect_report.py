"""What the samples of ``interconnect`` come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subcortex.config import VllmTier
from subcortex.experiments.catalogue._figures import Median, median, written
from subcortex.experiments.catalogue._tiers import about
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.lab import Reading, as_sample
from subcortex.experiments.statistics import Pairs, Sample, paired, verdict

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


def report(
    readings: Sequence[Reading],
    tier: VllmTier,
    failed: Mapping[str, str],
    arms: Sequence[str],
    *,
    concurrencies: Sequence[int],
    long_tokens: int,
) -> Report:
    """Return the report on one tier.

    Args:
        readings: All samples of the run: the metrics, and ``boot`` once a start.
        tier: As configured.
        failed: Arms that did not start or serve, and why.
        arms: In their order; the first is what the others are held against.
        concurrencies: Requests at once that throughput was measured with.
        long_tokens: Of a long question.
    """
    metrics = metrics_of(concurrencies)
    figures = {arm: _figures(readings, arm, metrics) for arm in arms}
    boots = {arm: sum(1 for one in readings if one.metric == "boot" and one.arm == arm) for arm in arms}
    details = {
        arm: {_named(metric): one.value for metric, one in found.items()} | {"boots": boots[arm]}
        for arm, found in figures.items()
    }
    answers = [
        found
        for arm in reversed(arms[1:])
        if arm not in failed
        for metric, words in metrics.items()
        if (found := _compared(readings, tier, (metric, words), arm, boots, details)) is not None
    ]
    if NO_PEERS not in failed and not any(one.quantity == "speed_ratio" for one in answers):
        answers.insert(0, _nothing(tier))
    answers += [_refused(tier, arm, why) for arm, why in failed.items()]
    answers += _as_found(figures[arms[0]], tier)
    return Report(
        answers=tuple(answers),
        noticed=tuple(_noticed(answers, boots, long_tokens, NO_PEERS in figures and NO_PEERS not in failed)),
        charts=tuple(_charts(figures, tier, metrics)),
    )


def metrics_of(concurrencies: Sequence[int]) -> dict[str, str]:
    """Return what is measured in each arm: the samples' metric, and what it is in words."""
    return ALONE | {f"tok_s_{size}": f"throughput with {size} requests at once" for size in concurrencies}


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
    boots: Mapping[str, int],
    details: Mapping[str, Any],
) -> Answer | None:
    """Return how a metric in an arm compares with how it was found; None without a pair."""
    metric, words = metric_words
    pairs = pairs_of([as_sample(one) for one in readings if one.metric == metric], arm)
    if not pairs.a:
        return None
    said = verdict(pairs.a, pairs.b, within=ALIKE, as_ratio=True)
    unit, scale = ("tok/s", 1.0) if metric.startswith("tok_s") else ("ms", 1e3)
    before, after = (_middle(values) * scale for values in (pairs.a, pairs.b))
    low, high = said.interval.low, said.interval.high
    statement = (
        f"{about(tier)} at TP={tier.tensor_parallel_size}, {arm}: {words} is {said.estimate:.3f} times what "
        f"it is as found ({low:.3f} to {high:.3f}; {written(after)} against {written(before)} {unit}; "
        f"n = {said.n} pairs of repeats from {boots[arm]} and {boots[FOUND]} boots): {said.kind}"
    )
    first = (arm, metric) == (NO_PEERS, "tpot")
    if arm == NO_PEERS:
        statement = f"{statement}. {BOUND}"
    return Answer(
        quantity="speed_ratio" if first else f"{metric}_ratio",
        about=about(tier) if arm == NO_PEERS else f"{about(tier)}, {arm}",
        unit="x",
        outcome=said.kind,
        statement=statement,
        value=said.estimate,
        low=low,
        high=high,
        n=said.n,
        level=said.interval.level,
        series=metric,
        n_needed=said.n_needed,
        tier=tier.name,
        gap_kind="interconnect" if first else None,
        details={"arms": dict(details), "arm": arm, "metric": _named(metric), "boots": dict(boots)},
    )


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
    answers: Sequence[Answer], boots: Mapping[str, int], long_tokens: int, bounded: bool
) -> list[str]:
    said = [
        f"A long question has {long_tokens} tokens. What varies from one boot to the next is in no interval: "
        + ", ".join(f"{count} boots {arm}" for arm, count in boots.items())
        + "."
    ]
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
