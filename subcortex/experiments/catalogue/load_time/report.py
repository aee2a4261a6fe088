"""What timed loads come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, median, of_estimate, written
from subcortex.experiments.catalogue.common.tiers import LocalTier, about
from subcortex.experiments.experiment import Answer, Chart, Line, Outcome, Report
from subcortex.experiments.statistics import Sample, difference, kept, paired, ratio, verdict

#: Loads that differ by less are as good as equal.
ALIKE = 0.05
_WORDS = {
    "mapped cold": "with its file mapped and none of it in memory",
    "mapped warm": "with its file mapped and all of it in memory",
    "read cold": "with its file read and none of it in memory",
    "read warm": "with its file read and all of it in memory",
}
#: Arm a, arm b, what b/a is, in words.
_PAIRS = (
    ("mapped warm", "mapped cold", "A cold start of {} takes {} times a warm one, its file mapped"),
    ("read warm", "read cold", "A cold start of {} takes {} times a warm one, its file read"),
    ("mapped warm", "read warm", "Reading the file of {} takes {} times mapping it, all of it in memory"),
    ("mapped cold", "read cold", "Reading the file of {} takes {} times mapping it, none of it in memory"),
)


def report(
    samples: Sequence[Sample], tier: LocalTier, *, size_mib: float, noticed: Sequence[str] = ()
) -> Report:
    """Return the report.

    Args:
        samples: Seconds from start to ready, by arm (``mapped cold``, …) and block.
        tier: As configured.
        size_mib: Of its files.
        noticed: What the run itself had to say.
    """
    medians = _medians(samples)
    details = {
        **{f"{arm.replace(' ', '_')}_s": one.value for arm, one in medians.items()},
        "file_mib": size_mib,
    }
    for arm, name in (("mapped cold", "cold_start_s"), ("mapped warm", "restart_s")):
        if arm in medians:
            details[name] = medians[arm].value
    answers = [_load(arm, one, tier, details) for arm, one in medians.items()]
    answers += [found for pair in _PAIRS if (found := _ratio(samples, pair, tier)) is not None]
    return Report(
        answers=tuple(answers),
        noticed=(*noticed, *_noticed(samples, tier, size_mib)),
        charts=(_chart(medians, tier),) if medians else (),
    )


def _medians(samples: Sequence[Sample]) -> dict[str, Median]:
    found = {}
    for arm in _WORDS:
        values = kept([one for one in samples if one.arm == arm]).values
        if (one := median(values)) is not None:
            found[arm] = one
    return found


def _load(arm: str, one: Median, tier: LocalTier, details: dict[str, Any]) -> Answer:
    return Answer(
        quantity="load_time",
        about=about(tier),
        unit="s",
        outcome="measured",
        statement=f"{about(tier)} is ready after {one.said('s')} {_WORDS[arm]}.",
        value=one.value,
        low=one.low,
        high=one.high,
        n=one.n,
        series="load",
        tier=tier.name,
        gap_kind="load_time",
        details={"arm": arm, **details},
    )


def _ratio(samples: Sequence[Sample], pair: tuple[str, str, str], tier: LocalTier) -> Answer | None:
    a, b, words = pair
    found = paired(samples, a, b)
    if not found.a:
        return None
    one = of_estimate(ratio(found.a, found.b))
    said = verdict(found.a, found.b, as_ratio=True, within=ALIKE)
    outcome: Outcome = said.kind
    ends = {
        "different": "the interval leaves no difference out",
        "alike": f"they differ by less than {ALIKE:.0%}",
        "inconclusive": "too few blocks to tell whether they differ",
    }[said.kind]
    if said.n_needed:
        ends += f", about {said.n_needed} would do"
    between = f" ({written(one.low)} to {written(one.high)})" if one.low is not None and one.high else ""
    return Answer(
        quantity="load_time_ratio",
        about=about(tier),
        unit="x",
        outcome=outcome,
        statement=f"{words.format(about(tier), written(one.value) + between)}: {ends} (n = {one.n} blocks).",
        value=one.value,
        low=one.low,
        high=one.high,
        n=one.n,
        series="load",
        n_needed=said.n_needed,
        tier=tier.name,
        gap_kind="load_time",
        details={"a": a, "b": b},
    )


def _noticed(samples: Sequence[Sample], tier: LocalTier, size_mib: float) -> list[str]:
    words = []
    found = paired(samples, "mapped warm", "mapped cold")
    if found.a and verdict(found.a, found.b).kind == "different":
        more_s = difference(found.a, found.b).median
        if more_s > 0:
            words.append(
                f"The {written(size_mib)} MiB of {about(tier)} come from disk in {written(more_s)} s more, "
                f"{written(size_mib / more_s)} MiB a second."
            )
    if found.throttled:
        words.append(f"{found.throttled} blocks were left out: the machine held itself back meanwhile.")
    return words


def _chart(medians: dict[str, Median], tier: LocalTier) -> Chart:
    points = tuple(
        (float(place), one.value)
        if one.low is None or one.high is None
        else (float(place), one.value, one.low, one.high)
        for place, one in enumerate(medians.values())
    )
    return Chart(
        title=f"{about(tier)}: seconds from start to ready",
        x_label="",
        y_label="s",
        lines=(Line(tier.name, points),),
        kind="bars",
        categories=tuple(medians),
    )
