"""Raw samples, as they are taken and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from subcortex.experiments.statistics import Sample


@dataclass(frozen=True, slots=True)
class Reading:
    """One raw sample as it is kept.

    Args:
        metric: What was measured, e.g. ``tpot`` or ``gemm bf16 4096``; one metric has one unit.
        value, unit: The figure.
        arm, block: As in ``statistics.Sample``.
        at_s: Seconds since the run began.
        facts: Whatever else belongs to this sample (concurrency, sizes, tokens).
        readings: Clocks, temperatures and throttling beside it.
    """

    metric: str
    value: float
    unit: str
    arm: str = ""
    block: int = 0
    at_s: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    readings: Mapping[str, Any] = field(default_factory=dict)


class Keep(Protocol):
    """Where a run's raw data goes at once, so that a kill loses nothing. Called on the event loop, quick."""

    def reading(self, reading: Reading) -> None:
        """Keep a sample."""

    def command(self, words: Sequence[str], version: str | None) -> None:
        """Keep a command as it was run, with the version of its program."""

    def boot(self, facts: Mapping[str, Any]) -> None:
        """Keep an engine's start: tier, seconds, what its log said of memory, or why it failed."""

    def progress(self, text: str, share: float | None) -> None:
        """Tell how far the run has come."""


def as_sample(reading: Reading) -> Sample:
    """Return a raw sample as statistics take it."""
    why = str(reading.readings.get("throttled_for") or "")
    return Sample(reading.value, reading.arm, reading.block, throttled=bool(why), why=why)
