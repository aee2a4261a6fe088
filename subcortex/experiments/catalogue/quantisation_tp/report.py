"""What the table of splits and two boots come to, in words and figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from subcortex.config import VllmTier
from subcortex.experiments.catalogue.common.figures import median, written
from subcortex.experiments.catalogue.common.tiers import about
from subcortex.experiments.catalogue.quantisation_tp.splits import SIZES, Splits
from subcortex.experiments.experiment import Answer, Chart, Line, Outcome, Report
from subcortex.experiments.statistics import VERDICT_LEVEL, Sample, median_of
from subcortex.journal.board.subjects import model_name

METRICS = ("boot", "taken", "weights", "kv pool", "tpot", "ttft", "window")
FORMS = {"fp8": "in FP8 made while loading", "plain": "as it is"}
_KIND = "quantisation_tp"


@dataclass(frozen=True, slots=True)
class Boot:
    """What was booted.

    Args:
        size: Ranks of tensor parallelism.
        refused: Why the quantised one did not start.
        on_gpus: On cards; else on the CPU.
        concurrency: Requests at once in the load.
    """

    size: int
    refused: str | None
    on_gpus: bool
    concurrency: int


def report(
    samples: Mapping[str, Sequence[Sample]],
    table: Sequence[Splits],
    tier: VllmTier,
    boot: Boot,
    *,
    noticed: Sequence[str] = (),
) -> Report:
    """Return the report.

    Args:
        samples: By metric (``METRICS``), with the arms ``fp8`` and ``plain``.
        table: What can be split, the booted model's first.
        tier: As configured.
        boot: What was booted.
        noticed: What the run itself had to say.
    """
    own = about(tier)
    first = next((one for one in table if one.model == own), table[0])
    booted = [one for one in samples.get("boot", ()) if one.arm == "fp8"]
    figures = _compared(samples, tier, boot)
    # What was asked for comes first; where no boot could tell it, the table does.
    answers = [one for one in figures if one.quantity == "speed_ratio"]
    if not answers and boot.refused is None:
        answers.append(_unknown(samples, tier, boot))
    answers.append(_legal(first, boot.size, tier, table))
    answers += [_boot(samples, tier, boot)] if booted or boot.refused else []
    answers += [one for one in figures if one.quantity != "speed_ratio"]
    answers += [_legal(one, max(2, boot.size), None, ()) for one in table if one is not first]
    return Report(
        answers=tuple(answers),
        noticed=(*noticed, *_noticed(table)),
        gaps=(
            ()
            if booted or not boot.refused
            else (f"What does {own} give in FP8 at TP={boot.size} on an engine that takes it?",)
        ),
        charts=tuple(_charts(samples, tier, table)),
    )


def _legal(one: Splits, size: int, tier: VllmTier | None, table: Sequence[Splits]) -> Answer:
    can, cannot = one.at(size)
    name = model_name(one.model) or one.model
    words = f"{len(can)} of {len(one.legal)} forms of {name} can be split over {size} GPUs"
    if cannot:
        form = cannot[0]
        allowed = ", ".join(map(str, one.legal[form])) or "none"
        words += f"; not {_listed(cannot)}: {one.refused[form]} (sizes that {form} allows: {allowed})"
    outcome: Outcome = "failed" if cannot else "passed"
    return Answer(
        quantity="quantised_splits",
        about=name,
        unit=None,
        outcome=outcome,
        statement=f"{words}.",
        n=len(one.legal),
        tier=tier.name if tier else None,
        gap_kind=_KIND,
        details={
            "size": size,
            "legal": {form: list(sizes) for form, sizes in one.legal.items()},
            "refused": dict(one.refused),
            **({"models": [row.model for row in table]} if table else {}),
        },
    )


def _unknown(samples: Mapping[str, Sequence[Sample]], tier: VllmTier, boot: Boot) -> Answer:
    """Return that there is no ratio of the two forms; of no gap, since table and boot answer theirs."""
    there = sorted({one.arm for one in samples.get("window", ())})
    only = f"it was measured {FORMS[there[0]]} alone" if len(there) == 1 else "they cannot be compared"
    return Answer(
        quantity="speed_ratio",
        about=about(tier),
        unit="x",
        outcome="inconclusive",
        statement=(
            f"How much faster {about(tier)} is {FORMS['fp8']} at TP={boot.size} is not known: {only}."
        ),
        n=0,
        tier=tier.name,
    )


def _boot(samples: Mapping[str, Sequence[Sample]], tier: VllmTier, boot: Boot) -> Answer:
    where = f"at TP={boot.size}{'' if boot.on_gpus else ' on the CPU'}"
    if boot.refused is not None:
        words = f"{about(tier)} {FORMS['fp8']} does not start {where}: {boot.refused}."
    else:
        boots = [one.value for one in samples["boot"] if one.arm == "fp8"]
        words = f"{about(tier)} {FORMS['fp8']} starts {where}, in {written(boots[0])} s (n = 1)."
    return Answer(
        quantity="quantised_boot",
        about=about(tier),
        unit=None,
        outcome="failed" if boot.refused is not None else "passed",
        statement=words,
        n=1,
        tier=tier.name,
        gap_kind=_KIND,
        details={"flags": ["--quantization", "fp8"], "size": boot.size},
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One figure of a boot: its metric, what it is called alone and as a ratio, unit, and what it is of."""

    metric: str
    alone: str
    ratio: str
    unit: str
    of: str
    exact: bool = False


def _rows(boot: Boot) -> tuple[_Row, ...]:
    many = f"for {boot.concurrency} requests at once"
    ranks = "all ranks together"
    return (
        _Row("tpot", "tpot", "tpot_ratio", "ms", "a token for one request alone"),
        _Row("window", "speed", "speed_ratio", "tokens/s", many),
        _Row("weights", "weights_size", "memory_ratio", "MiB", f"of weights, {ranks},", exact=True),
        _Row("kv pool", "kv_cache", "kv_cache_ratio", "MiB", f"for the KV pool, {ranks},", exact=True),
    )


def _compared(samples: Mapping[str, Sequence[Sample]], tier: VllmTier, boot: Boot) -> list[Answer]:
    found = [_figure(samples.get(row.metric, ()), row, tier, boot) for row in _rows(boot)]
    return [one for one in found if one is not None]


def _figure(samples: Sequence[Sample], row: _Row, tier: VllmTier, boot: Boot) -> Answer | None:
    """Return a figure in FP8 against the same as it is, or alone where nothing else was booted."""
    fp8, plain = ([s.value for s in samples if s.arm == arm and not s.throttled] for arm in FORMS)
    one, other = median(fp8), median(plain)
    if one is None:
        return None
    if other is None or other.value <= 0:
        return Answer(
            quantity=row.alone,
            about=f"{about(tier)} FP8",
            unit=row.unit,
            outcome="measured",
            statement=(
                f"{about(tier)} {FORMS['fp8']} at TP={boot.size} comes to {one.said(row.unit)} "
                f"{row.of.rstrip(',')}."
            ),
            value=one.value,
            low=one.low,
            high=one.high,
            n=one.n,
            series=row.metric,
            # Not the tier's: that has its weights as they are.
            gap_kind=_KIND,
            details={"form": "fp8", "size": boot.size},
        )
    low, high, outcome = (None, None, "measured") if row.exact else _apart(fp8, plain)
    value = one.value / other.value
    between = f" ({written(low)} to {written(high)})" if low is not None and high is not None else ""
    return Answer(
        quantity=row.ratio,
        about=about(tier),
        unit="x",
        outcome=outcome,
        statement=(
            f"{about(tier)} at TP={boot.size} comes to {one.said(row.unit)} {row.of} in FP8, against "
            f"{other.said(row.unit)} as it is: {written(value)} times as much{between}; one boot of each."
        ),
        value=value,
        low=low,
        high=high,
        n=min(one.n, other.n),
        series=row.metric,
        tier=tier.name,
        gap_kind=_KIND,
        details={"size": boot.size, "fp8": one.value, "plain": other.value},
    )


def _apart(fp8: Sequence[float], plain: Sequence[float]) -> tuple[float | None, float | None, Outcome]:
    """Return the widest ratios that both medians' intervals allow, and whether the intervals are apart.

    Each arm has one boot, so there are no blocks to pair: the ends are those of the two intervals.
    """
    a, b = (median_of(values, level=VERDICT_LEVEL).interval for values in (plain, fp8))
    if min(a.low, b.low) <= 0 or max(a.high, b.high) == float("inf"):
        return None, None, "inconclusive"
    low, high = b.low / a.high, b.high / a.low
    return low, high, "inconclusive" if low <= 1 <= high else "different"


def _noticed(table: Sequence[Splits]) -> list[str]:
    asked = [sizes for one in table for sizes in one.legal.values()]
    legal = sum(len(sizes) for sizes in asked)
    words = [
        f"Of {len(table)} models in {len(asked)} forms over {_listed(list(map(str, SIZES)))} GPUs, "
        f"{legal} of {len(asked) * len(SIZES)} splits are legal, by arithmetic and without a boot."
    ]
    alone = [(one.model, form) for one in table for form, sizes in one.legal.items() if sizes == (1,)]
    if alone:
        named = [f"{model_name(model)} as {form}" for model, form in alone]
        words.append(
            f"At these widths one GPU alone can serve {_listed(named)}; a checkpoint that its maker has "
            "widened is another shape."
        )
    return words


def _charts(samples: Mapping[str, Sequence[Sample]], tier: VllmTier, table: Sequence[Splits]) -> list[Chart]:
    forms = list(dict.fromkeys(form for one in table for form in one.legal))
    largest = tuple(
        Line(
            model_name(one.model) or one.model,
            tuple(
                (float(place), float(max(one.legal[form], default=0)))
                for place, form in enumerate(forms)
                if form in one.legal
            ),
        )
        for one in table
    )
    charts = [
        Chart(
            title="Largest legal tensor-parallel size, up to 8",
            x_label="",
            y_label="GPUs",
            lines=largest,
            kind="bars",
            categories=tuple(forms),
        )
    ]
    speeds = [
        (arm, found.value)
        for arm in FORMS
        if (found := median([one.value for one in samples.get("window", ()) if one.arm == arm]))
    ]
    if speeds:
        points = tuple((float(place), value) for place, (_, value) in enumerate(speeds))
        charts.append(
            Chart(
                title=f"{about(tier)}: tokens a second by form",
                x_label="",
                y_label="tokens/s",
                lines=(Line(tier.name, points),),
                kind="bars",
                categories=tuple(FORMS[arm] for arm, _ in speeds),
            )
        )
    return charts


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
