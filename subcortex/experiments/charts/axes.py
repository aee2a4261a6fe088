"""Axes: where a value lies between two ends, which values get a tick, and how figures are written. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log2, log10
from sys import float_info

from subcortex.experiments.experiment import Chart, Line
from subcortex.journal.render import inert

_MOST = float_info.max
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
#: Below this share of the highest value, the axis begins at zero.
_FROM_ZERO = 0.6
_BINARY = ("", " KiB", " MiB", " GiB", " TiB")


@dataclass(frozen=True, slots=True)
class Point:
    """A finite point; the ends of its interval are None where it has none."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Args:
        low, high: Its ends, the first below the second; both above zero on a logarithmic one.
        log: Whether equal distances are equal factors.
        ticks: Values with a label, in order, within the ends.
        labels: How each is written.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]
    labels: tuple[str, ...]

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the lower end, 1 at the upper; what lies beyond is at the end."""
        if value <= self.low:
            return 0.0
        if value >= self.high:
            return 1.0
        if self.log:
            return _within((log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low)))
        # Halved, since the distance of two finite numbers need not be finite.
        return _within((value / 2 - self.low / 2) / (self.high / 2 - self.low / 2))


def points_of(line: Line) -> list[Point]:
    """Return a line's points in order of x; what is not finite is left out, and so is half an interval."""
    found = []
    for point in line.points:
        if len(point) < 2 or not (isfinite(point[0]) and isfinite(point[1])):
            continue
        low, high = point[2:4] if len(point) >= 4 and all(map(isfinite, point[2:4])) else (None, None)
        found.append(Point(point[0], point[1], low, high))
    return sorted(found, key=lambda one: one.x)


def x_axis(chart: Chart, lines: Sequence[Sequence[Point]], most_ticks: int) -> Axis:
    """Return the axis below a chart of lines."""
    values = [one.x for points in lines for one in points]
    marks = [x for x, _ in chart.marks if isfinite(x)]
    return axis(values, log=chart.log_x, unit=chart.x_label, most_ticks=most_ticks, beside=marks)


def y_axis(chart: Chart, lines: Sequence[Sequence[Point]], most_ticks: int, *, zero: bool = False) -> Axis:
    """Return the axis beside a chart; ``zero`` has it show zero in any case."""
    middles = [one.y for points in lines for one in points]
    ends = [end for points in lines for one in points for end in (one.low, one.high) if end is not None]
    log = chart.log_y and all(y > 0 for y in middles)
    if log:
        # An interval may reach down to zero and below; its whisker then ends at the axis.
        ends = [end for end in ends if end > 0]
    return axis([*middles, *ends], log=log, unit=chart.y_label, most_ticks=most_ticks, zero=zero)


def axis(
    values: Sequence[float],
    *,
    log: bool = False,
    unit: str = "",
    most_ticks: int = 6,
    zero: bool = False,
    beside: Sequence[float] = (),
) -> Axis:
    """Return an axis that holds all values.

    Args:
        values: Finite.
        log: Wanted logarithmic; it is linear where a value is not above zero.
        unit: The axis's label; sizes in bytes are written in KiB and on.
        most_ticks: At least 2.
        zero: Whether zero must be on a linear one; it also is where the values come near.
        beside: Further values that it must hold; they have no say in the ticks.
    """
    everything = [*values, *beside]
    low, high = min(everything, default=0.0), max(everything, default=1.0)
    if log and low > 0:
        low, high = _apart(low, high, log=True)
        ticks = _log_ticks(low, high, values, most_ticks)
    else:
        log = False
        if zero or 0 <= low < _FROM_ZERO * high:
            low, high = min(low, 0.0), max(high, 0.0)
        low, high = _apart(low, high, log=False)
        whole = bool(values) and all(float(value).is_integer() for value in values)
        ticks = _linear_ticks(low, high, most_ticks, least=1.0 if whole else 0.0)
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    return Axis(low, high, log, tuple(ticks), tuple(_labels(ticks, unit)))


def figure(value: float) -> str:
    """Return a figure as a person reads it: four digits, thousands by letter."""
    size = abs(value)
    if size != 0 and (size < 1e-4 or size >= 1e15):
        return f"{value:.3g}"
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= factor:
            thousand = 1e3 if letter == "k" else factor
            return f"{value / thousand:.4g}{letter}"
    return f"{value:.4g}"


def shown(text: str) -> str:
    """Return a label on one line, with nothing in it that acts."""
    return " ".join(inert(text).split())


def clipped(text: str, most: int) -> str:
    """Return ``text`` cut to so many characters."""
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def summary(chart: Chart) -> str:
    """Return a chart in words, for whoever does not see it."""
    said = [f"{shown(chart.y_label)} against {shown(chart.x_label)}." if chart.kind == "lines" else ""]
    for line in chart.lines:
        points = points_of(line)
        told = "; ".join(_told(one, chart) for one in points[:60])
        said.append(f"{shown(line.label) or 'Values'}: {told or 'no points'}.")
        if len(points) > 60:
            said.append(f"And {len(points) - 60} more.")
    said += [f"Marked at {figure(x)}: {shown(label)}." for x, label in chart.marks if isfinite(x)]
    return " ".join(one for one in said if one)


def category(chart: Chart, x: float) -> str:
    """Return what stands at a bar."""
    place = round(x) if abs(x) < 1e9 else -1
    there = 0 <= place < len(chart.categories)
    return shown(chart.categories[place]) if there else figure(x)


def _told(point: Point, chart: Chart) -> str:
    where = category(chart, point.x) if chart.kind == "bars" else figure(point.x)
    between = ""
    if point.low is not None and point.high is not None:
        between = f" ({figure(point.low)} to {figure(point.high)})"
    return f"{where}: {figure(point.y)}{between}"


def _within(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _apart(low: float, high: float, *, log: bool) -> tuple[float, float]:
    """Return ends with some distance between them, whatever the values."""
    if log:
        if high / 2 >= low / 2 * 1.01 and log10(high) > log10(low):
            return low, high
        return max(low / 2, float_info.min), min(high, _MOST / 2) * 2
    size = max(abs(low), abs(high))
    if high / 2 - low / 2 > size * 1e-9:
        return low, high
    pad = size / 10 if size > 1e-300 else 1.0
    return max(low - pad, -_MOST), min(high + pad, _MOST)


def _linear_ticks(low: float, high: float, most: int, *, least: float) -> list[float]:
    """Return ticks at least so far apart: between one thread and two there is none."""
    distance = high / 2 - low / 2
    size = 10.0 ** min(max(floor(log10(distance)), -300), 307)
    for step in (size * factor * share for share in (0.1, 1.0, 10.0) for factor in _STEPS):
        if not isfinite(step) or step == 0 or step < least:
            continue
        first, last = floor(low / step), ceil(high / step)
        ticks = [one * step for one in range(first, last + 1)] if last - first < most else []
        if ticks and all(map(isfinite, ticks)):
            return ticks
    return [low, high]


def _log_ticks(low: float, high: float, values: Iterable[float], most: int) -> list[float]:
    if all(v > 0 and log2(v).is_integer() for v in values):
        ticks = [2.0**power for power in range(round(log2(low)), round(log2(high)) + 1)]
    else:
        powers = range(floor(log10(low)), ceil(log10(high)) + 1)
        for factors in ((1, 2, 5), (1, 3), (1,)):
            ticks = [float(f"{factor}e{power}") for power in powers for factor in factors]
            if sum(low <= one <= high for one in ticks) <= most:
                break
    ticks = [one for one in ticks if low <= one <= high and isfinite(one)]
    ticks = ticks[:: max(1, ceil(len(ticks) / most))]
    return ticks if len(ticks) >= 2 else [low, high]


def _labels(ticks: Sequence[float], unit: str) -> list[str]:
    if "byte" in unit.lower() and all(one >= 0 and one.is_integer() for one in ticks):
        return [_binary(one) for one in ticks]
    labels = [figure(one) for one in ticks]
    return labels if len(set(labels)) == len(labels) else [f"{one:.10g}" for one in ticks]


def _binary(size: float) -> str:
    power = 0
    while size >= 1024 and power < len(_BINARY) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.4g}{_BINARY[power] or ' B'}"
