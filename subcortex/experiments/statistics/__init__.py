"""What samples say: medians with intervals, two arms compared, and when there are enough. Pure.

Samples come from ``abba``'s order. ``kept`` leaves out an arm's warm-up and what was measured while the
machine held itself back; ``paired`` brings two arms together by block; ``verdict`` compares them.
"""

from subcortex.experiments.statistics.arms import Pairs, abba, difference, paired, ratio
from subcortex.experiments.statistics.intervals import LEVEL, Estimate, Interval, median_of
from subcortex.experiments.statistics.samples import Kept, Sample, kept, warm_up
from subcortex.experiments.statistics.verdicts import VERDICT_LEVEL, Enough, Verdict, enough, verdict

__all__ = [
    "LEVEL",
    "VERDICT_LEVEL",
    "Enough",
    "Estimate",
    "Interval",
    "Kept",
    "Pairs",
    "Sample",
    "Verdict",
    "abba",
    "difference",
    "enough",
    "kept",
    "median_of",
    "paired",
    "ratio",
    "verdict",
    "warm_up",
]
