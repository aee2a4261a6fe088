"""``plan --calibration``: what past starts taught, a line a component, and how good predictions have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subcortex.cli import _output
from subcortex.vram.amount import Amount
from subcortex.vram.learning.boots import Boot, BootKey
from subcortex.vram.learning.calibration import calibrate
from subcortex.vram.learning.coverage import Coverage, LearnedRow, coverage, replayed, report

_PROBABILITY = 0.9


def lines(starts: Sequence[Boot]) -> list[str]:
    """Return the page: a table of what was learned, and how often the truth lay where it was said."""
    rows = report(calibrate(starts))
    if not rows:
        return [
            "nothing learned yet: no start on record has both a prediction and the engine's own figures",
            "`subcortex up` predicts every start and compares; `subcortex plan` then uses what came of it",
        ]
    header = ["ENGINE", "ON", "COMPONENT", "STARTS", "MODELS", "ESTIMATED", "OFF BY", "LEARNED", "LAST"]
    table = _output.table(header, [_cells(row) for row in rows], right=(3, 4, 5, 6, 7))
    told, today = coverage(starts, probability=_PROBABILITY), replayed(starts, probability=_PROBABILITY)[0]
    return [
        *table,
        "",
        "MiB: mean of the bare estimates ± σ; median of what was measured beyond them; what they become now",
        f"inside the {_PROBABILITY:.0%} interval predicted before the start: {_share(told)}",
        f"the same by today's rules, each start from those before it: {_share(today)}",
    ]


def as_json(starts: Sequence[Boot]) -> dict[str, Any]:
    """Return the same as JSON can hold it."""
    told, today = coverage(starts, probability=_PROBABILITY), replayed(starts, probability=_PROBABILITY)[0]
    return {
        "starts": len(starts),
        "learned": [_row_json(row) for row in report(calibrate(starts))],
        "coverage_as_predicted": _coverage_json(told),
        "coverage_by_todays_rules": _coverage_json(today),
    }


def _cells(row: LearnedRow) -> list[str]:
    return [
        _engine(row.key),
        _where(row),
        row.component.value,
        str(row.boots),
        str(row.models),
        _amount(row.estimated),
        f"{row.residual_mib:+.0f}",
        _amount(row.learned),
        f"{row.last_seen:%Y-%m-%d}",
    ]


def _engine(key: BootKey) -> str:
    return f"{key.engine} {key.version}" if key.version else key.engine


def _where(row: LearnedRow) -> str:
    if row.place == "host" or row.key.gpu_name is None:
        return "host memory"
    ranks = row.key.tensor_parallel_size, row.key.pipeline_parallel_size
    return (
        row.key.gpu_name
        + (f" TP {ranks[0]}" if ranks[0] > 1 else "")
        + (f" PP {ranks[1]}" if ranks[1] > 1 else "")
    )


def _amount(amount: Amount) -> str:
    return f"{amount.mean_mib:.0f} ±{amount.sigma_mib:.0f}"


def _share(found: Coverage) -> str:
    return (
        "nothing measured yet"
        if found.share is None
        else f"{found.inside} of {found.measured} ({found.share:.0%})"
    )


def _coverage_json(found: Coverage) -> dict[str, Any]:
    return {"inside": found.inside, "measured": found.measured, "probability": found.probability}


def _row_json(row: LearnedRow) -> dict[str, Any]:
    return {
        "engine": row.key.engine,
        "version": row.key.version,
        "gpu": row.key.gpu_name,
        "tensor_parallel_size": row.key.tensor_parallel_size,
        "pipeline_parallel_size": row.key.pipeline_parallel_size,
        "place": row.place,
        "component": row.component.value,
        "starts": row.boots,
        "models": row.models,
        "estimated_mib": row.estimated.mean_mib,
        "estimated_sigma_mib": row.estimated.sigma_mib,
        "residual_mib": row.residual_mib,
        "learned_mib": row.learned.mean_mib,
        "learned_sigma_mib": row.learned.sigma_mib,
        "last_seen": row.last_seen.isoformat(),
    }
