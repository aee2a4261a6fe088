"""How good the estimates have been: what was learned, and how often the truth lay where it was said. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median

from subcortex.vram.amount import Amount
from subcortex.vram.footprint import Component
from subcortex.vram.learning.boots import Boot, BootKey, Residual, residuals
from subcortex.vram.learning.calibration import Calibration, Evidence, Place, calibrate


@dataclass(frozen=True, slots=True)
class LearnedRow:
    """What was learned of one component on one kind of boot, at the estimates that it has had; MiB.

    Args:
        boots, models: Behind it.
        estimated: Mean of the raw estimates.
        residual_mib: Median of what they were off by.
        learned: What that estimate becomes for a model that has not been booted yet.
        last_seen: When the last of the boots began.
    """

    component: Component
    place: Place
    key: BootKey
    boots: int
    models: int
    estimated: Amount
    residual_mib: float
    learned: Amount
    last_seen: datetime

    @property
    def shift_mib(self) -> float:
        """Learned less estimated."""
        return self.learned.mean_mib - self.estimated.mean_mib


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of the components that were measured, how many lay in the interval predicted before the boot."""

    inside: int
    measured: int
    probability: float

    @property
    def share(self) -> float | None:
        """Inside of measured; None before anything was measured."""
        return self.inside / self.measured if self.measured else None


def report(calibration: Calibration) -> list[LearnedRow]:
    """Return a row a component and kind of boot, the most booted first."""
    groups: dict[tuple[Component, Place, BootKey], list[Evidence]] = defaultdict(list)
    for one in calibration.evidence:
        groups[one.component, one.place, one.key].append(one)
    rows = [
        _row(calibration, which, sorted(found, key=lambda one: one.at)) for which, found in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.boots, row.key.engine, str(row.key), row.place, row.component))


def _row(
    calibration: Calibration, which: tuple[Component, Place, BootKey], found: Sequence[Evidence]
) -> LearnedRow:
    component, place, key = which
    estimated = Amount(
        fmean(one.estimate.mean_mib for one in found), fmean(one.estimate.sigma_mib for one in found)
    )
    return LearnedRow(
        component=component,
        place=place,
        key=key,
        boots=len(found),
        models=len({one.model for one in found}),
        estimated=estimated,
        residual_mib=median(one.residual_mib for one in found),
        learned=calibration.applied(component, estimated, key, place=place),
        last_seen=found[-1].at,
    )


def coverage(boots: Iterable[Boot], *, probability: float = 0.9) -> Coverage:
    """Return how often the measured lay in what was predicted before each boot, as it was stored then.

    A component counts once a device. One predicted exactly counts as inside where rounding hides the rest.
    """
    told = [
        residual.inside(probability, resolution_mib=boot.measured.resolution_mib)
        for boot in boots
        if boot.measured is not None
        for residual in boot.told_residuals
    ]
    return Coverage(sum(told), len(told), probability)


def replayed(boots: Iterable[Boot], *, probability: float = 0.9) -> tuple[Coverage, list[Residual]]:
    """Return coverage and residuals had every boot been predicted from those before it, by today's rules."""
    inside: list[bool] = []
    found: list[Residual] = []
    before: list[Boot] = []
    for boot in sorted(boots, key=lambda boot: boot.at):
        if boot.measured is not None:
            learned = calibrate(before)
            told = learned.corrected(boot.raw, boot.key, model=boot.model, setup=boot.setup)
            new = residuals(told, boot.measured, boot.used_before_mib)
            step_mib = boot.measured.resolution_mib
            inside += [residual.inside(probability, resolution_mib=step_mib) for residual in new]
            found += new
        before.append(boot)
    return Coverage(sum(inside), len(inside), probability), found
