"""What the samples of ``joint_serving`` come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, counted, ends, median, written
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.record import Reading, as_sample
from subcortex.experiments.statistics import paired, verdict

SOLO, JOINT = "solo", "joint"
#: Differences up to this share are none that anybody would plan for.
ALIKE = 0.05


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tier that serves beside another: its name, and its model's."""

    tier: str
    model: str


def report(
    readings: Sequence[Reading],
    tenants: Sequence[Tenant],
    *,
    concurrency: int = 1,
    refused: str | None = None,
) -> Report:
    """Return the report on two tiers at once.

    Args:
        readings: All samples of the run.
        tenants: The most capable first.
        concurrency: Requests that were kept going of each.
        refused: Why the second did not start beside the first, if it did not.
    """
    first, second = tenants
    if refused is not None:
        return _refused(readings, first, second, refused)
    answers: list[Answer] = []
    for one, other in ((first, second), (second, first)):
        answers += _lost(readings, one, other, concurrency)
    answers += [one for tenant in tenants for one in _alone(readings, tenant, concurrency)]
    return Report(
        answers=tuple(answers),
        noticed=tuple(_noticed(readings, tenants)),
        charts=tuple(_charts(readings, tenants)),
    )


def whole_blocks(readings: Sequence[Reading], tiers: Sequence[str]) -> list[int]:
    """Return the blocks in which every tier was measured there and back, alone and joint."""
    numbers = sorted({one.block for one in readings if one.metric == "tpot_p95"})
    return [
        number
        for number in numbers
        if all(
            sum(1 for one in _of(readings, "tpot_p95", tier) if (one.block, one.arm) == (number, arm)) == 2
            for tier in tiers
            for arm in (SOLO, JOINT)
        )
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value at a share (0 to 1) of the sorted values, between two of them in proportion."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    below = int(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (ranked[above] - ranked[below]) * (place - below)


def _of(readings: Sequence[Reading], metric: str, tier: str) -> list[Reading]:
    return [one for one in readings if one.metric == metric and one.facts.get("tier") == tier]


def _middle(readings: Sequence[Reading], metric: str, tier: str, arm: str) -> Median | None:
    return median([one.value for one in _of(readings, metric, tier) if one.arm == arm])


def _kv_tokens(readings: Sequence[Reading], tier: str) -> int | None:
    found = _of(readings, "kv_tokens", tier)
    return int(found[-1].value) if found else None


def _lost(readings: Sequence[Reading], one: Tenant, other: Tenant, concurrency: int) -> list[Answer]:
    """Return how much longer a token of one takes while the other is at work: p50, and p95."""
    answers = []
    for metric, words in (("tpot_p50", "p50"), ("tpot_p95", "p95")):
        pairs = paired([as_sample(each) for each in _of(readings, metric, one.tier)], SOLO, JOINT)
        quantity = "speed_ratio" if words == "p50" else "speed_ratio_p95"
        common: dict[str, Any] = {
            "quantity": quantity,
            "about": f"{one.model} beside {other.model}",
            "unit": "x",
            "series": metric,
            "tier": one.tier,
            "gap_kind": "joint_serving" if words == "p50" else None,
        }
        if not pairs.a:
            why = "every whole block was throttled"
            if not pairs.throttled:
                why = "time was over before a block was whole, each alone and both at once, there and back"
            words_of = f"{one.model} beside {other.model}, {words}: inconclusive; {why}"
            answers.append(Answer(outcome="inconclusive", statement=words_of, **common))
            continue
        said = verdict(pairs.a, pairs.b, within=ALIKE, as_ratio=True)
        solo, joint = (_middle(readings, metric, one.tier, arm) for arm in (SOLO, JOINT))
        assert solo is not None
        assert joint is not None
        low, high = ends(said.interval, over=0.0)
        between = "" if low is None or high is None else f"{low:.2f} to {high:.2f}; "
        details = {
            "concurrency": concurrency,
            "solo_s": solo.value,
            "joint_s": joint.value,
            "kv_tokens": _kv_tokens(readings, one.tier),
        }
        answers.append(
            Answer(
                outcome=said.kind,
                statement=(
                    f"While {other.model} serves too, a token of {one.model} takes {said.estimate:.2f} times "
                    f"as long at the {words} ({between}{written(joint.value * 1e3)} against "
                    f"{written(solo.value * 1e3)} ms; {counted(concurrency, 'request')} at once of each; "
                    f"n = {said.n} blocks): {said.kind}"
                ),
                value=said.estimate,
                low=low,
                high=high,
                n=said.n,
                level=said.interval.level,
                n_needed=said.n_needed,
                details=details,
                **common,
            )
        )
    return answers


def _alone(readings: Sequence[Reading], one: Tenant, concurrency: int) -> list[Answer]:
    found = _middle(readings, "tpot_p50", one.tier, SOLO)
    if found is None:
        return []
    return [
        Answer(
            quantity="tpot",
            about=one.model,
            unit="s",
            outcome="measured",
            statement=(
                f"A token of {one.model} takes {written(found.value * 1e3)} ms while the other idles, with "
                f"{counted(concurrency, 'request')} at once (n = {found.n} phases)"
            ),
            value=found.value,
            low=found.low,
            high=found.high,
            n=found.n,
            series="tpot_p50",
            tier=one.tier,
            details={"concurrency": concurrency},
        )
    ]


def _refused(readings: Sequence[Reading], first: Tenant, second: Tenant, why: str) -> Report:
    kv_tokens = _kv_tokens(readings, first.tier)
    answer = Answer(
        quantity="speed_ratio",
        about=f"{first.model} beside {second.model}",
        unit="x",
        outcome="failed",
        statement=f"{second.model} does not start beside {first.model}, as they are configured: {why}",
        tier=first.tier,
        gap_kind="joint_serving",
        details={"kv_tokens": kv_tokens},
    )
    gap = f"Which memory settings let {first.model} and {second.model} serve at once?"
    return Report(answers=(answer,), gaps=(gap,))


def _noticed(readings: Sequence[Reading], tenants: Sequence[Tenant]) -> list[str]:
    said = []
    begun = {one.block for one in readings if one.metric == "tpot_p50"}
    broken_off = len(begun) - len(whole_blocks(readings, [one.tier for one in tenants]))
    if broken_off:
        said.append(
            f"{counted(broken_off, 'block')} broken off, of {len(begun)}: what is lost is not told by it."
        )
    for one in tenants:
        tokens = _kv_tokens(readings, one.tier)
        if tokens is not None:
            said.append(f"With both up, {one.model} has a KV pool of {tokens} tokens.")
        rates = {
            arm: median(
                [each.facts["tok_s"] for each in _of(readings, "tpot_p50", one.tier) if each.arm == arm]
            )
            for arm in (SOLO, JOINT)
        }
        solo, joint = rates[SOLO], rates[JOINT]
        if solo is not None and joint is not None:
            said.append(
                f"{one.model} gives {written(joint.value)} tok/s beside the other and "
                f"{written(solo.value)} alone."
            )
    return said


def _charts(readings: Sequence[Reading], tenants: Sequence[Tenant]) -> list[Chart]:
    lines = []
    for arm in (SOLO, JOINT):
        points = []
        for x, (one, metric) in enumerate(
            (one, metric) for one in tenants for metric in ("tpot_p50", "tpot_p95")
        ):
            found = _middle(readings, metric, one.tier, arm)
            if found is not None:
                points.append((float(x), found.value * 1e3))
        if points:
            lines.append(Line(arm, tuple(points)))
    if not lines:
        return []
    categories = tuple(f"{one.model} {words}" for one in tenants for words in ("p50", "p95"))
    return [
        Chart(
            title="Time a token, alone and at once",
            x_label="",
            y_label="ms",
            lines=tuple(lines),
            kind="bars",
            categories=categories,
        )
    ]
