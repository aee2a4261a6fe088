"""What a sweep of llama.cpp's threads comes to. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import inf
from statistics import fmean, median
from typing import Any

from subcortex.experiments.catalogue.common.figures import Median, counted, ends, from_to, written
from subcortex.experiments.catalogue.common.figures import median as median_with_interval
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.record import Reading, as_sample
from subcortex.experiments.statistics import Interval, Verdict, paired, verdict

GENERATION, PROMPT, BATCH = "generation", "prompt", "batch"
#: Speeds this near are alike; fewer threads are then the better ones.
WITHIN = 0.03
#: After one block, an arm this far behind the best is not measured again, unless it is the runner-up.
_HOPELESS = 0.5


def thread_counts(cores: int) -> list[int]:
    """Return the numbers of threads worth trying: powers of two up to the cores, and all of them."""
    return sorted({2**power for power in range(cores.bit_length()) if 2**power <= cores} | {cores})


def arm_of(threads: int) -> str:
    """Return what samples call a number of threads."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def batch_arm(sequences: int) -> str:
    """Return what samples call a number of sequences at once."""
    return f"{sequences} at once"


def contenders(readings: Sequence[Reading], counts: Sequence[int], now: int) -> list[int]:
    """Return the numbers of threads that may still be best, the runner-up, and the configured one."""
    middle = {n: _middle(readings, n) or 0.0 for n in counts}
    ranked = sorted(counts, key=lambda n: middle[n], reverse=True)
    return [n for n in counts if n == now or n in ranked[:2] or middle[n] >= _HOPELESS * middle[ranked[0]]]


def best_threads(readings: Sequence[Reading], counts: Sequence[int]) -> tuple[int, list[int]]:
    """Return the best number of threads, and all that cannot be told from it, it included.

    Best is the fewest of those that are no slower than the fastest within ``WITHIN``. What was left after a
    block for being far behind counts as told apart.
    """
    blocks = {n: _blocks(readings, GENERATION, n) for n in counts}
    most = max(len(means) for means in blocks.values())
    middle = {n: median(means) for n, means in blocks.items() if means and len(means) >= min(2, most)}
    fastest = max(middle, key=lambda n: middle[n])
    kinds = {n: "alike" if n == fastest else against(readings, n, fastest).kind for n in middle}
    return (
        min(n for n in middle if kinds[n] == "alike"),
        [n for n in middle if kinds[n] != "different"],
    )


def against(readings: Sequence[Reading], a: int, b: int) -> Verdict:
    """Return the verdict on b's generation speed over a's, by block."""
    samples = [as_sample(one) for one in readings if one.metric == GENERATION]
    pairs = paired(samples, arm_of(a), arm_of(b))
    if not pairs.a:
        return Verdict("inconclusive", 1.0, Interval(0.0, inf), 0, WITHIN, None)
    return verdict(pairs.a, pairs.b, within=WITHIN, as_ratio=True)


def thread_report(
    readings: Sequence[Reading], counts: Sequence[int], *, now: int, model: str, tier: str, how: str
) -> Report:
    """Return the report.

    Args:
        readings: All samples of the run.
        counts: Numbers of threads that were tried.
        now: The one that the tier has, or that llama.cpp chooses.
        model: In the one spelling.
        tier: Whose engine it is.
        how: What measured, in words.
    """
    best, equal = best_threads(readings, counts)
    rival = now if best != now else _runner_up(readings, counts, best)
    told = against(readings, rival, best)
    speeds = {n: found for n in counts if (found := _speed(readings, GENERATION, n)) is not None}
    prompts = {n: found for n in counts if (found := _speed(readings, PROMPT, n)) is not None}
    # Nothing is said of two that were never measured in one block.
    times = f"{written(told.estimate)} times{from_to(*ends(told.interval, over=0.0))}"
    by = f", {times} the speed of {arm_of(rival)}" if told.n else ""
    untried = [n for n in counts if n not in speeds]
    among = ", ".join(str(n) for n in counts if n in speeds)
    words = {
        "different": "they differ",
        "alike": "they are alike",
        "inconclusive": "which cannot be told yet",
    }
    details: dict[str, Any] = {
        "best_threads": best,
        "configured_threads": now,
        "generation_tokens_per_s": {str(n): one.value for n, one in speeds.items()},
        "prompt_tokens_per_s": {str(n): one.value for n, one in prompts.items()},
        "measured_by": how,
    }
    if best != now and told.kind == "different" and told.estimate > 1:
        details["better"] = {"threads": best}
    answers = [
        Answer(
            quantity="threads",
            about=model,
            unit="threads",
            outcome=told.kind,
            statement=(
                f"{model} runs best with {counted(best, 'thread')}, of {among}: "
                f"{speeds[best].said('tokens/s')}{by}; {words[told.kind]}."
            ),
            value=float(best) if told.n else None,
            low=float(min(equal)) if told.n else None,
            high=float(max(equal)) if told.n else None,
            n=told.n,
            level=told.interval.level,
            series=GENERATION,
            n_needed=told.n_needed,
            tier=tier,
            gap_kind="split_modes",
            details=details,
        ),
        Answer(
            quantity="speed",
            about=model,
            unit="tokens/s",
            outcome="measured",
            statement=f"{model} generates {speeds[best].said('tokens/s')} with {arm_of(best)}.",
            value=speeds[best].value,
            low=speeds[best].low,
            high=speeds[best].high,
            n=speeds[best].n,
            series=GENERATION,
            tier=tier,
        ),
    ]
    answers += _batch(readings, model, tier)
    noticed = tuple(
        f"{arm_of(n)}: {one.said('tokens/s')} generated"
        + (f", {prompts[n].said('tokens/s')} of prompt read." if n in prompts else ".")
        for n, one in speeds.items()
    )
    if untried:
        noticed += (f"Time was over before {', '.join(map(str, untried))} threads were tried.",)
    points = tuple((float(n), one.value, *_ends(one)) for n, one in speeds.items())
    chart = Chart(
        f"Generation of {model} by threads", "threads", "tokens/s", (Line("generation", points),),
        marks=((float(best), "best"),),
    )  # fmt: skip
    return Report(tuple(answers), noticed, charts=(chart,))


def _runner_up(readings: Sequence[Reading], counts: Sequence[int], best: int) -> int:
    others = [n for n in counts if n != best]
    return max(others, key=lambda n: _middle(readings, n) or 0.0, default=best)


def _batch(readings: Sequence[Reading], model: str, tier: str) -> list[Answer]:
    """Return what several sequences at once gain over one, where that was measured."""
    sizes = sorted({int(one.facts["sequences"]) for one in readings if one.metric == BATCH})
    samples = [as_sample(one) for one in readings if one.metric == BATCH]
    if len(sizes) < 2 or sizes[0] != 1:
        return []
    table = {n: median(one.value for one in samples if one.arm == batch_arm(n)) for n in sizes}
    most = max(sizes, key=lambda n: table[n])
    other = most if most != 1 else sizes[-1]
    pairs = paired(samples, batch_arm(1), batch_arm(other))
    if not pairs.a:
        return []
    told = verdict(pairs.a, pairs.b, within=WITHIN, as_ratio=True)
    low, high = ends(told.interval, over=0.0)
    each = ", ".join(f"{written(table[n])} tokens/s with {n}" for n in sizes)
    return [
        Answer(
            quantity="concurrency_gain",
            about=model,
            unit="x",
            outcome=told.kind,
            statement=f"Sequences at once on {model}: {each}: {written(told.estimate)} times one.",
            value=told.estimate,
            low=low,
            high=high,
            n=told.n,
            level=told.interval.level,
            series=BATCH,
            n_needed=told.n_needed,
            tier=tier,
            details={"tokens_per_s": {str(n): value for n, value in table.items()}},
        )
    ]


def _blocks(readings: Sequence[Reading], metric: str, threads: int) -> list[float]:
    """Return an arm's means by block: samples of one visit share what the machine was like then."""
    blocks: dict[int, list[float]] = defaultdict(list)
    for one in readings:
        if one.metric == metric and one.arm == arm_of(threads):
            blocks[one.block].append(one.value)
    return [fmean(values) for values in blocks.values()]


def _middle(readings: Sequence[Reading], threads: int) -> float | None:
    means = _blocks(readings, GENERATION, threads)
    return median(means) if means else None


def _speed(readings: Sequence[Reading], metric: str, threads: int) -> Median | None:
    return median_with_interval(_blocks(readings, metric, threads))


def _ends(found: Median) -> tuple[float, ...]:
    return () if found.low is None or found.high is None else (found.low, found.high)
