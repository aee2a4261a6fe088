"""The loop on real boots: from constants that know nothing, vLLM's own logs make useful intervals."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from subcortex.engines._vllm_memory import read_boot
from subcortex.types import BootFigures
from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component, DeviceNeed, Footprint
from subcortex.vram.learning.boots import Boot, BootKey
from subcortex.vram.learning.coverage import coverage, replayed

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence" / "vram-h200"
TRUTH: list[dict[str, Any]] = json.loads((EVIDENCE / "truth.json").read_text())["boots"]

#: What one might guess without looking: the same for every model, and wide.
GUESSED = {
    Component.ACTIVATIONS: Amount(900.0, 700.0),
    Component.GRAPHS: Amount(600.0, 400.0),
    Component.CONTEXT: Amount(450.0, 200.0),
}
WITH_RANKS = {Component.COMMUNICATION: Amount(600.0, 500.0)}


def figures_of(row: dict[str, Any]) -> BootFigures:
    """Return the figures of a boot, read from its log; both waves have logs of some names."""
    for wave in ("lines-1", "lines-2"):
        file = EVIDENCE / wave / f"{row['log']}.log"
        figures = read_boot(file.read_text().splitlines()) if file.exists() else None
        if figures is not None and figures.kv_tokens == row["kv_tokens"]:
            return figures
    raise AssertionError(f"no log of {row['log']} agrees with its row")


def boots(bias: float = 1.0) -> list[Boot]:
    """Return the boots as they came, each guessed at with ``bias`` times the constants."""
    found = []
    for hour, row in enumerate(TRUTH):
        parts = GUESSED | (WITH_RANKS if row["tp"] * row.get("pp", 1) > 1 else {})
        need = DeviceNeed({part: Amount(bias * a.mean_mib, a.sigma_mib) for part, a in parts.items()})
        measured = figures_of(row)
        guess = Footprint((need,) * len(measured.devices))
        found.append(
            Boot(
                at=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=hour),
                key=BootKey("vllm", measured.version, "NVIDIA H200", row["tp"], row.get("pp", 1)),
                model=row["model"],
                predicted=guess,
                raw=guess,
                measured=measured.model_copy(update={"devices": _without_weights(measured)}),
                setup={"flags": row.get("flags", []), "sleep_mode": row.get("sleep_mode", False)},
                used_before_mib=(0.0,) * len(measured.devices),
            )
        )
    return found


def _without_weights(figures: BootFigures) -> list[Any]:
    # Weights are counted tensor by tensor, never guessed.
    return [
        device.model_copy(
            update={"components": {k: v for k, v in device.components.items() if k != "weights"}}
        )
        for device in figures.devices
    ]


@pytest.mark.parametrize("row", TRUTH, ids=[f"{n}-{row['log']}" for n, row in enumerate(TRUTH)])
def test_every_log_is_read_as_its_row_says(row: dict[str, Any]) -> None:
    figures = figures_of(row)
    first = figures.devices[0]
    read = {
        "weights_gib": first.components.get("weights"),
        "peak_activation_gib": first.components.get("activations"),
        "cuda_graph_gib": first.components.get("graphs"),
        "non_torch_gib": first.other_mib,
        "available_kv_gib": first.kv_pool_mib,
        "free_at_start_gib": first.free_at_start_mib,
    }
    for name, mib in read.items():
        if row.get(name) is not None:
            assert mib is not None, name
            assert mib / 1024 == pytest.approx(row[name], abs=0.0051), name
    assert len(figures.devices) == row["tp"] * row.get("pp", 1)


def errors(residuals: list[Any]) -> dict[str, float]:
    by_part: dict[str, list[float]] = defaultdict(list)
    for residual in residuals:
        by_part["+".join(residual.components)].append(abs(residual.residual_mib))
    return {part: fmean(found) for part, found in by_part.items()}


@pytest.mark.parametrize(
    ("bias", "activations", "graphs", "overhead"), [(0.5, 0.6, 0.5, 0.75), (1.0, 0.95, 0.8, 0.95)]
)
def test_guesses_become_estimates_as_boots_come(bias, activations, graphs, overhead) -> None:
    all_boots = boots(bias)
    replay, told = replayed(all_boots)
    before = errors([one for boot in all_boots[4:] for one in boot.raw_residuals])
    skipped = sum(len(boot.raw_residuals) for boot in all_boots[:4])
    after = errors(told[skipped:])
    # A constant can only find the middle: what depends on the model is the estimator's part, not the loop's.
    assert after["activations"] < before["activations"] * activations
    assert after["graphs"] < before["graphs"] * graphs
    assert after["context+communication"] < before["context+communication"] * overhead
    guessed = coverage(all_boots)
    assert replay.measured == guessed.measured > 100
    assert guessed.share is not None
    assert replay.share is not None
    assert replay.share > max(0.75, guessed.share)
