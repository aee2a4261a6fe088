"""What the samples of llama.cpp's splits come to. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot
from statistics import NormalDist, fmean, median
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, ends, from_to, written
from subcortex.experiments.catalogue.common.figures import median as median_with_interval
from subcortex.experiments.catalogue.split_modes.arms import NO_SPLIT, SplitArm, is_forward, without_places
from subcortex.experiments.experiment import Answer, Chart, Line, Outcome, Report
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.statistics import VERDICT_LEVEL, Sample, Verdict, paired, verdict

GENERATION, PROMPT, LOAD, MEMORY, DIVERGENCE, REFUSED = (
    "generation", "prompt", "load", "memory", "divergence", "refused",
)  # fmt: skip
#: Speeds this near are alike.
WITHIN = 0.02
#: The tools print divergences to 1e-6 nats and store the base's distributions in 16 bits.
RESOLUTION_NATS = 1e-5
_FEWEST_PASSES = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of one arm; None and empty where nothing is.

    Args:
        arm: Which.
        generation, prompt: Tokens a second.
        against: Its generation speed against no split.
        load_s: Seconds until the first evaluation.
        memory_mib: What came onto each GPU, by index.
        divergence: The sample, with its error and the share of the same likeliest tokens.
        refused: The end of its log.
    """

    arm: SplitArm
    generation: Median | None
    prompt: Median | None
    against: Verdict | None
    load_s: float | None
    memory_mib: Mapping[str, float]
    divergence: Reading | None
    refused: str | None


def sample_of(reading: Reading) -> Sample:
    """Return a tool's sample; a throttling while it ran counts as one beside the sample."""
    why = str(reading.facts.get("throttled_for") or reading.readings.get("throttled_for") or "")
    return Sample(reading.value, reading.arm, reading.block, throttled=bool(why), why=why)


def measured(readings: Sequence[Reading], arms: Sequence[SplitArm]) -> list[Measured]:
    """Return what samples say of each arm."""
    return [_measured(readings, arm) for arm in arms]


def _measured(readings: Sequence[Reading], arm: SplitArm) -> Measured:
    def of(metric: str) -> list[Reading]:
        return [one for one in readings if one.metric == metric and one.arm == arm.name]

    def speeds(metric: str) -> Median | None:
        passes: dict[int, list[float]] = defaultdict(list)
        for one in map(sample_of, of(metric)):
            if not one.throttled:
                passes[one.block].append(one.value)
        # Repetitions of one process share its luck; where there are few passes they are all there is.
        if len(passes) >= _FEWEST_PASSES:
            return median_with_interval([fmean(values) for values in passes.values()])
        return median_with_interval([value for values in passes.values() for value in values])

    pairs = paired([sample_of(one) for one in readings if one.metric == GENERATION], NO_SPLIT, arm.name)
    against = verdict(pairs.a, pairs.b, within=WITHIN, as_ratio=True) if pairs.a and pairs.b else None
    memory: dict[str, float] = {}
    for one in of(MEMORY):
        gpu = str(one.facts["gpu"])
        memory[gpu] = max(memory.get(gpu, 0.0), one.value)
    loads, apart, refused = of(LOAD), of(DIVERGENCE), of(REFUSED)
    return Measured(
        arm,
        speeds(GENERATION),
        speeds(PROMPT),
        against if arm.name != NO_SPLIT else None,
        median(one.value for one in loads) if loads else None,
        memory,
        apart[-1] if apart else None,
        without_places(str(refused[-1].facts["words"])) if refused else None,
    )


def split_report(
    found: Sequence[Measured], *, model: str, tier: str, configured: str, noticed: Sequence[str] = ()
) -> Report:
    """Return the report.

    Args:
        found: The arms, in the order of their worth.
        model: In the one spelling.
        tier: Whose model it is.
        configured: The arm that the tier is now.
        noticed: What the run itself had to say.
    """
    none, others = found[0], found[1:]
    answers: list[Answer] = []
    for one in others:
        about = model if one is others[0] else f"{model}, {one.arm.name}"
        if (ratio := _ratio(one, none, about, tier)) is not None:
            answers.append(ratio)
    if answers:
        answers[0] = replace(answers[0], details={"arms": {one.arm.name: _row(one) for one in found}})
    if none.generation is not None:
        answers.append(_speed(none, model, tier))
    else:
        alone = [one for one in others if one.generation is not None]
        answers += [_speed(one, f"{model}, {one.arm.name}", tier) for one in alone]
    answers += [_apart(one, none, model, tier) for one in others if one.divergence is not None]
    if (best := _best(found, configured)) is not None:
        answers.append(_better(best, found, model, tier, configured))
    if not answers:
        outcome: Outcome = "failed" if none.refused else "inconclusive"
        words = f"{model} does not run here at all: {none.refused}"
        if not none.refused:
            words = f"{model}: inconclusive; time was over before it had been measured without a split"
        answers = [Answer("speed_ratio", model, "x", outcome, words, tier=tier, gap_kind="split_modes")]
    told = [_line(one, none) for one in found]
    return Report(
        tuple(answers), (*noticed, *(one for one in told if one)), _gaps(found), _charts(found, model)
    )


def kl_outcome(apart: Reading, floor: Reading | None) -> Outcome:
    """Return whether an arm's mean divergence is that of no split against itself.

    Means of hundreds of tokens are taken for normal; both standard errors count.
    """
    if floor is None:
        return "measured"
    by = apart.value - floor.value
    reach = NormalDist().inv_cdf((1 + VERDICT_LEVEL) / 2) * hypot(apart.facts["error"], floor.facts["error"])
    if by + reach <= max(RESOLUTION_NATS, floor.value):
        return "alike"
    return "different" if by - reach > 0 else "inconclusive"


def _ratio(one: Measured, none: Measured, about: str, tier: str) -> Answer | None:
    if one.against is None:
        if one.refused is None:
            return None
        said = f"{about.partition(',')[0]} does not run with {one.arm.name}: {one.refused}"
        return Answer(
            "speed_ratio", about, "x", "failed", said, series=REFUSED, tier=tier, gap_kind="split_modes"
        )
    told = one.against
    if told.n < 2 and one.arm.name.endswith("reversed"):
        # One pass bounds nothing; its speed is among what was noticed.
        return None
    low, high = ends(told.interval, over=0.0)
    assert one.generation is not None
    assert none.generation is not None
    return Answer(
        quantity="speed_ratio",
        about=about,
        unit="x",
        outcome=told.kind,
        statement=(
            f"Split by {one.arm.name}, {about.partition(',')[0]} generates at {written(told.estimate)} times"
            f"{from_to(low, high)} the speed of one GPU: {one.generation.said('tokens/s')} against "
            f"{none.generation.said('tokens/s')}."
        ),
        value=told.estimate,
        low=low,
        high=high,
        n=told.n,
        level=told.interval.level,
        series=GENERATION,
        n_needed=told.n_needed,
        tier=tier,
        gap_kind="split_modes",
    )


def _speed(one: Measured, about: str, tier: str) -> Answer:
    assert one.generation is not None
    told = one.generation
    return Answer(
        "speed", about, "tokens/s", "measured",
        f"{about.partition(',')[0]} generates {told.said('tokens/s')} with {one.arm.name}.",
        value=told.value, low=told.low, high=told.high, n=told.n, series=GENERATION, tier=tier,
    )  # fmt: skip


def _apart(one: Measured, none: Measured, model: str, tier: str) -> Answer:
    apart, floor = one.divergence, none.divergence
    assert apart is not None
    outcome = kl_outcome(apart, floor)
    reach = NormalDist().inv_cdf(0.95) * apart.facts["error"]
    against = f"; no split against itself {_nats(floor)}" if floor is not None else ""
    return Answer(
        quantity="divergence",
        about=f"{model}, {one.arm.name}",
        unit="nats",
        outcome=outcome,
        statement=(
            f"Under {one.arm.name} the next token of {model} diverges from that without a split by "
            f"{_nats(apart)} in the mean{against}; the likeliest is the same in "
            f"{100 * apart.facts['same_top']:.2f} %."
        ),
        value=apart.value,
        low=apart.value - reach,
        high=apart.value + reach,
        series=DIVERGENCE,
        tier=tier,
        gap_kind="split_answers",
    )


def _nats(apart: Reading) -> str:
    """Return a divergence in words, where it is more than the tools can tell from none."""
    if apart.value <= RESOLUTION_NATS:
        return f"under {RESOLUTION_NATS:.5f} nats"
    return f"{apart.value:.6f} ± {apart.facts['error']:.6f} nats"


def _best(found: Sequence[Measured], configured: str) -> tuple[Measured, Measured] | None:
    """Return the fastest arm and the one configured, if both were measured."""
    ran = [one for one in found if one.generation is not None and is_forward(one.arm)]
    now = next((one for one in ran if one.arm.name == configured), None)
    if now is None:
        return None
    return max(ran, key=lambda one: one.generation.value if one.generation else 0.0), now


def _better(
    pair: tuple[Measured, Measured], found: Sequence[Measured], model: str, tier: str, configured: str
) -> Answer:
    best, now = pair
    assert best.generation is not None
    assert now.generation is not None
    gain = best.generation.value / now.generation.value
    apart = (
        best is not now
        and None not in (best.generation.low, now.generation.high)
        and (best.generation.low or 0.0) > (now.generation.high or 0.0)
        and gain > 1 + WITHIN
    )
    details: dict[str, Any] = {"best": best.arm.name, "configured": configured}
    if apart:
        shares = [float(one) for one in best.arm.shares] or None
        details["better"] = {"split_mode": best.arm.mode, **({"tensor_split": shares} if shares else {})}
    outcome: Outcome = "different" if apart else "alike" if gain <= 1 + WITHIN else "inconclusive"
    return Answer(
        quantity="speed_change",
        about=model,
        unit="%",
        outcome=outcome,
        statement=(
            f"Of {sum(one.generation is not None for one in found)} ways to lay {model} out, {best.arm.name} "
            f"generates fastest: {best.generation.said('tokens/s')}; as configured ({configured}) "
            f"{now.generation.said('tokens/s')}."
        ),
        value=100 * (gain - 1),
        series=GENERATION,
        tier=tier,
        gap_kind="split_modes",
        details=details,
    )


def _line(one: Measured, none: Measured) -> str | None:
    """Return one sentence with all that is known of an arm."""
    if one.generation is None:
        # That an arm was refused is an answer of its own, but for the one that all are held against.
        return f"{one.arm.name} was refused: {one.refused}" if one is none and one.refused else None
    parts = [f"generates {one.generation.said('tokens/s')}"]
    if one.prompt is not None:
        parts.append(f"reads prompts at {one.prompt.said('tokens/s')}")
    if one.load_s is not None:
        parts.append(f"is loaded in {written(one.load_s)} s")
    if any(one.memory_mib.values()):
        held = ", ".join(f"{mib:.0f} MiB of GPU {gpu}" for gpu, mib in sorted(one.memory_mib.items()) if mib)
        parts.append(f"takes {held}")
    if one.divergence is not None and one is not none:
        parts.append(f"diverges by {_nats(one.divergence)} from no split")
    if one.refused is not None:
        parts.append(f"and failed once: {one.refused}")
    return f"{one.arm.name} {', '.join(parts)}."


def _row(one: Measured) -> dict[str, Any]:
    """Return an arm's figures as JSON can hold them; what is not known is left out."""
    row: dict[str, Any] = {
        "generation_tokens_per_s": one.generation.value if one.generation else None,
        "prompt_tokens_per_s": one.prompt.value if one.prompt else None,
        "load_s": one.load_s,
        "memory_mib": dict(one.memory_mib) or None,
        "divergence_nats": one.divergence.value if one.divergence else None,
        "same_top": one.divergence.facts["same_top"] if one.divergence else None,
        "refused": one.refused,
    }
    return {name: value for name, value in row.items() if value is not None}


def _gaps(found: Sequence[Measured]) -> tuple[str, ...]:
    refused = sorted({one.arm.mode for one in found if one.refused is not None})
    ran = {one.arm.mode for one in found if one.generation is not None and one.arm.shares}
    others = " and ".join(sorted(ran))
    return tuple(
        f"Which build of llama.cpp loads split mode {mode}, and is it faster than {others}?"
        for mode in refused
        if mode not in ran and ran
    )


def _charts(found: Sequence[Measured], model: str) -> tuple[Chart, ...]:
    ran = [one for one in found if one.generation is not None]
    if not ran:
        return ()
    names = tuple(one.arm.name for one in ran)
    points = []
    for x, one in enumerate(ran):
        told = one.generation
        assert told is not None
        ends = (told.low, told.high) if told.low is not None and told.high is not None else ()
        points.append((float(x), told.value, *ends))
    speeds = (Line("generation", tuple(points)),)
    charts = [Chart(f"{model} by split", "", "tokens/s", speeds, kind="bars", categories=names)]
    gpus = sorted({gpu for one in ran for gpu in one.memory_mib})
    if gpus:
        held = tuple(
            Line(
                f"GPU {gpu}",
                tuple((float(x), one.memory_mib.get(gpu, 0.0)) for x, one in enumerate(ran)),
            )
            for gpu in gpus
        )
        charts.append(Chart(f"Memory of {model} by split", "", "MiB", held, kind="bars", categories=names))
    return tuple(charts)
