"""Intervals as answers have them: both ends, or neither."""

from __future__ import annotations

from math import inf

import pytest

from subcortex.experiments.catalogue.common.figures import Median, ends, from_to, median
from subcortex.experiments.statistics import Interval


@pytest.mark.parametrize(
    ("low", "high", "over", "found"),
    [
        (1.2, 1.4, 0.0, (1.2, 1.4)),
        (0.0, 1.4, 0.0, (None, None)),
        (0.0, 1.4, -inf, (0.0, 1.4)),
        (-0.5, 0.5, -inf, (-0.5, 0.5)),
        (1.2, inf, 0.0, (None, None)),
        (-inf, inf, -inf, (None, None)),
    ],
)
def test_an_interval_that_bounds_nothing_has_no_ends(low, high, over, found):
    assert ends(Interval(low, high, 0.9), over=over) == found


def test_in_words_it_stands_behind_its_figure_or_not_at_all():
    assert f"1.3 times{from_to(1.234, 1.4)}" == "1.3 times (1.23 to 1.4)"
    assert f"1.3 times{from_to(None, None)}" == "1.3 times"


def test_one_sample_has_a_median_without_an_interval():
    assert median([3.0]) == Median(3.0, None, None, 1)
    assert median([]) is None
