"""What the windows of ``saturation`` come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median as middle_of
from typing import Any

from subcortex.config import LlamaCppTier
from subcortex.experiments.catalogue.common.figures import Median, median, written
from subcortex.experiments.catalogue.common.tiers import LocalTier, about
from subcortex.experiments.experiment import Answer, Chart, Line, Report
from subcortex.experiments.laboratory.ceiling import FREE_SHARE
from subcortex.experiments.laboratory.record import Reading
from subcortex.experiments.saturation import Done, Inconclusive
from subcortex.experiments.statistics import Interval

#: How a ladder ended; None where time was over before.
End = Done | Inconclusive | None
#: Past the best by this share it is worth a word that throughput falls.
_FALLEN = 0.10


def report(
    readings: Sequence[Reading],
    configured: LocalTier,
    measured: LocalTier,
    end: End,
    *,
    most: int,
    tokens: int,
) -> Report:
    """Return the report on one tier.

    Args:
        readings: All samples of the run: ``tok_s`` by concurrency, ``ttft`` and ``tpot`` alone, the
            client's ceiling, and the tokens of the KV pool.
        configured: The tier.
        measured: As it was started.
        end: How the ladder ended.
        most: Requests at once that were allowed.
        tokens: Of each question, and of each answer at the most.
    """
    windows, end = _windows(readings), _from_one(end)
    answers = [_knee(readings, windows, configured, end, tokens), *_alone(readings, configured)]
    if isinstance(end, Done):
        answers.insert(1, _speed(windows, configured, end))
    return Report(
        answers=tuple(answers),
        noticed=(*_noticed(windows, configured, measured, end), *_pool_bound(readings, windows, end, tokens)),
        gaps=tuple(_gaps(configured, windows, end, most)),
        charts=(_chart(windows, configured, end),) if windows else (),
    )


def _from_one(end: End) -> End:
    """Return an end with no knee below one request: a curve's says that a second gains nothing."""
    if not isinstance(end, Done):
        return end
    interval = Interval(max(1.0, end.interval.low), max(1.0, end.interval.high))
    return replace(end, knee=max(1.0, end.knee), interval=interval)


def client_bound(readings: Sequence[Reading]) -> str | None:
    """Return in words that the client was part of what was measured; None where it was not."""
    speeds = [one.value for one in readings if one.metric == "tok_s"]
    ceilings = [one.value for one in readings if one.metric == "client ceiling"]
    if not speeds or not ceilings or max(speeds) <= FREE_SHARE * min(ceilings):
        return None
    return (
        f"inconclusive: the client. It took {written(max(speeds))} tok/s, and can take no more than "
        f"{written(min(ceilings))} from a server without work"
    )


def _windows(readings: Sequence[Reading]) -> dict[int, Median]:
    by: dict[int, list[float]] = {}
    for one in readings:
        if one.metric == "tok_s":
            by.setdefault(int(one.facts["concurrency"]), []).append(one.value)
    return {size: found for size in sorted(by) if (found := median(by[size])) is not None}


def _knee(
    readings: Sequence[Reading], windows: dict[int, Median], tier: LocalTier, end: End, tokens: int
) -> Answer:
    n = sum(one.n for one in windows.values())
    bound = client_bound(readings)
    shape = f"questions of {tokens} tokens, answers of up to as many"
    details: dict[str, object] = {"tokens": tokens, "reach": max(windows, default=0)}
    figures: dict[str, Any] = {}
    if end is not None:
        figures = {"value": end.knee, "low": end.interval.low, "high": end.interval.high}
    if isinstance(end, Done) and bound is None:
        details |= {"knee": end.knee, "knee_low": end.interval.low, "knee_high": end.interval.high}
        details |= {"tok_s": end.tok_s, "max_useful": round(end.knee)}
        statement = (
            f"{about(tier)} gains less than 5 % by twice as many requests from {written(end.knee)} at once "
            f"on ({written(end.interval.low)} to {written(end.interval.high)}), where it gives "
            f"{written(end.tok_s)} tok/s ({written(end.tok_s_interval.low)} to "
            f"{written(end.tok_s_interval.high)}; {shape}, n = {n} windows)"
        )
    elif bound is not None:
        statement = f"{about(tier)}: {bound}"
    elif isinstance(end, Inconclusive):
        statement = f"{about(tier)}: inconclusive; {end.reason} ({shape}, n = {n} windows)"
    else:
        statement = f"{about(tier)}: inconclusive; time was over after {n} windows, before the knee was known"
    return Answer(
        quantity="requests",
        about=about(tier),
        unit="requests",
        outcome="measured" if isinstance(end, Done) and bound is None else "inconclusive",
        statement=statement,
        n=n,
        series="tok_s",
        tier=tier.name,
        gap_kind="saturation",
        details=details,
        **figures,
    )


def _speed(windows: dict[int, Median], tier: LocalTier, end: Done) -> Answer:
    low, high = end.tok_s_interval.low, end.tok_s_interval.high
    return Answer(
        quantity="speed",
        about=about(tier),
        unit="tokens/s",
        outcome="measured",
        statement=(
            f"{about(tier)} gives {written(end.tok_s)} tok/s at its knee of {written(end.knee)} requests at "
            f"once ({written(low)} to {written(high)})"
        ),
        value=end.tok_s,
        low=low,
        high=high,
        n=sum(one.n for one in windows.values()),
        series="tok_s",
        tier=tier.name,
        details={"concurrency": end.knee},
    )


def _alone(readings: Sequence[Reading], tier: LocalTier) -> list[Answer]:
    """Return TTFT and TPOT of one request alone."""
    answers = []
    for quantity, words in (("ttft", "to the first token"), ("tpot", "a token after the first")):
        own = [one for one in readings if one.metric == quantity]
        if (found := median([one.value for one in own])) is None:
            continue
        prompt_tokens = int(middle_of(one.facts["prompt_tokens"] for one in own))
        # Milliseconds read better than 0.0213 s.
        shown = Median(
            found.value * 1e3,
            None if found.low is None else found.low * 1e3,
            None if found.high is None else found.high * 1e3,
            found.n,
        )
        answers.append(
            Answer(
                quantity=quantity,
                about=about(tier),
                unit="s",
                outcome="measured",
                statement=(
                    f"{about(tier)} alone takes {shown.said('ms')} {words}, of a question of "
                    f"{prompt_tokens} tokens"
                ),
                value=found.value,
                low=found.low,
                high=found.high,
                n=found.n,
                series=quantity,
                tier=tier.name,
                details={"concurrency": 1, "prompt_tokens": prompt_tokens},
            )
        )
    return answers


def _noticed(windows: dict[int, Median], configured: LocalTier, measured: LocalTier, end: End) -> list[str]:
    said = []
    if isinstance(measured, LlamaCppTier) and isinstance(configured, LlamaCppTier):
        if measured.parallel != configured.parallel:
            said.append(
                f"It was started with {measured.parallel} slots of {measured.context_tokens} tokens; "
                f"{configured.name} is configured with {configured.parallel}."
            )
        if isinstance(end, Done) and end.interval.low > configured.parallel:
            said.append(
                f"Its {configured.parallel} slots are fewer than the {written(end.knee)} that it would "
                f"work on with profit."
            )
    if len(windows) > 1:
        best = max(windows, key=lambda size: windows[size].value)
        last = max(windows)
        lost = 1 - windows[last].value / windows[best].value
        if lost > _FALLEN:
            said.append(
                f"Throughput falls beyond its best: {written(windows[best].value)} tok/s at {best} at once, "
                f"{written(windows[last].value)} at {last}."
            )
    return said


def _pool_bound(readings: Sequence[Reading], windows: dict[int, Median], end: End, tokens: int) -> list[str]:
    """Say where the KV pool, and not the GPU, may be what throughput waits for."""
    pool = max((int(one.value) for one in readings if one.metric == "kv_tokens"), default=0)
    whole = pool // (2 * tokens)
    reached = end.knee if end is not None else max(windows, default=0)
    if not pool or reached <= whole:
        return []
    return [
        f"Its KV pool of {pool} tokens holds {whole} whole requests of {2 * tokens} tokens (question and "
        f"answer), fewer than {written(reached)}: beyond that some wait or are computed anew, so that a "
        "larger pool may move the knee."
    ]


def _gaps(tier: LocalTier, windows: dict[int, Median], end: End, most: int) -> list[str]:
    if isinstance(end, Inconclusive) and windows and max(windows) >= most and 2 * end.interval.low > most:
        return [f"Where does batching of {about(tier)} saturate with more than {most} requests at once?"]
    return []


def _chart(windows: dict[int, Median], tier: LocalTier, end: End) -> Chart:
    points = tuple(
        (float(size), one.value)
        if one.low is None or one.high is None
        else (float(size), one.value, one.low, one.high)
        for size, one in windows.items()
    )
    marks = ((end.knee, f"knee {end.knee:.0f}"),) if isinstance(end, Done) else ()
    return Chart(
        title=f"Throughput of {about(tier)}",
        x_label="requests at once",
        y_label="tok/s",
        lines=(Line(about(tier), points),),
        log_x=True,
        marks=marks,
    )
