"""Where batching saturates: a ladder of concurrencies that stops by itself. Pure."""

from subcortex.experiments.saturation.knees import GAIN, Curve, knee_of_sweep
from subcortex.experiments.saturation.ladder import (
    Done,
    Inconclusive,
    Limits,
    Measure,
    Measured,
    next_step,
)

__all__ = [
    "GAIN",
    "Curve",
    "Done",
    "Inconclusive",
    "Limits",
    "Measure",
    "Measured",
    "knee_of_sweep",
    "next_step",
]
