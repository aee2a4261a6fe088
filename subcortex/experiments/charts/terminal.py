"""A chart as lines of text. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

from subcortex.experiments.charts.axes import (
    Axis,
    Point,
    category,
    figure,
    points_of,
    shown,
    x_axis,
    y_axis,
)
from subcortex.experiments.experiment import Chart

_LEAST_WIDTH, _LEAST_HEIGHT = 24, 4
_TICK_WIDTH = 9
_LEAST_BAR = 12


@dataclass(frozen=True, slots=True)
class _Letters:
    points: str
    path: str
    whisker: str
    mark: str
    up: str
    along: str
    corner: str
    tick: str
    notch: str
    full: str
    parts: str
    cut: str


_BLOCKS = _Letters("●○■□▲△◆◇", "·", "│", "┊", "│", "─", "└", "┬", "┤", "█", "▏▎▍▌▋▊▉", "…")
_ASCII = _Letters("ox*+#@%&", ".", "|", ":", "|", "-", "+", "+", "+", "#", "", "~")


def lines_of(chart: Chart, width: int = 80, height: int = 14, *, ascii_only: bool = False) -> list[str]:
    """Return a chart as lines of at most ``width`` columns.

    Args:
        chart: Values that are not finite are left out; a logarithmic axis with values not above zero is
            drawn linear.
        width: Columns, at least 24.
        height: Rows of the frame of a chart of lines, at least 4; bars have a row each.
        ascii_only: For terminals that have nothing else; labels then come escaped.
    """
    width, height = max(width, _LEAST_WIDTH), max(height, _LEAST_HEIGHT)
    letters = _ASCII if ascii_only else _BLOCKS
    drawn = _bars(chart, width, letters) if chart.kind == "bars" else _lines(chart, width, height, letters)
    found = [shown(chart.title), *drawn]
    if ascii_only:
        found = [line.encode("ascii", "backslashreplace").decode() for line in found]
    return [_cut(line, width, letters.cut).rstrip() for line in found]


def _lines(chart: Chart, width: int, height: int, letters: _Letters) -> Iterator[str]:
    lines = [points_of(line) for line in chart.lines]
    if not any(lines):
        yield "(no points)"
        return
    y = y_axis(chart, lines, max(2, height // 2))
    margin = max(map(len, y.labels)) + 1
    columns = width - margin - 1
    x = x_axis(chart, lines, max(2, columns // _TICK_WIDTH))
    grid = _grid(chart, lines, x, y, columns, height, letters)
    rows = {_row(y.place(tick), height): label for tick, label in zip(y.ticks, y.labels, strict=True)}
    yield shown(chart.y_label)
    for number, cells in enumerate(grid):
        label = rows.get(number, "")
        yield f"{label:>{margin - 1}} {letters.notch if label else letters.up}{''.join(cells)}"
    below, labels = _below(x, columns, letters)
    yield " " * margin + letters.corner + below
    yield " " * (margin + 1) + labels
    name = shown(chart.x_label)
    yield " " * max(margin + 1 + (columns - _width(name)) // 2, 0) + name
    yield from _legend(chart, letters)


def _grid(
    chart: Chart,
    lines: Sequence[Sequence[Point]],
    x: Axis,
    y: Axis,
    columns: int,
    rows: int,
    letters: _Letters,
) -> list[list[str]]:
    grid = [[" "] * columns for _ in range(rows)]
    for at, _ in chart.marks:
        if isfinite(at):
            for cells in grid:
                cells[_column(x.place(at), columns)] = letters.mark
    for points in lines:
        for one, two in pairwise(points):
            _join(grid, (x.place(one.x), y.place(one.y)), (x.place(two.x), y.place(two.y)), letters.path)
    for points in lines:
        for point in points:
            if point.low is not None and point.high is not None:
                ends = sorted((_row(y.place(point.low), rows), _row(y.place(point.high), rows)))
                for row in range(ends[0], ends[1] + 1):
                    grid[row][_column(x.place(point.x), columns)] = letters.whisker
    for number, points in enumerate(lines):
        for point in points:
            letter = letters.points[number % len(letters.points)]
            grid[_row(y.place(point.y), rows)][_column(x.place(point.x), columns)] = letter
    return grid


def _join(grid: list[list[str]], one: tuple[float, float], two: tuple[float, float], letter: str) -> None:
    rows, columns = len(grid), len(grid[0])
    first, last = _column(one[0], columns), _column(two[0], columns)
    for column in range(first, last + 1):
        share = (column - first) / (last - first) if last > first else 0.0
        grid[_row(one[1] + share * (two[1] - one[1]), rows)][column] = letter


def _below(x: Axis, columns: int, letters: _Letters) -> tuple[str, str]:
    """Return the axis with its ticks, and the labels below them; a label without room is left out."""
    line, labels = [letters.along] * columns, [" "] * columns
    free_from = 0
    for tick, label in zip(x.ticks, x.labels, strict=True):
        column = _column(x.place(tick), columns)
        line[column] = letters.tick
        start = min(max(column - len(label) // 2, 0), columns - len(label))
        if start >= free_from:
            labels[start : start + len(label)] = label
            free_from = start + len(label) + 1
    return "".join(line), "".join(labels)


def _legend(chart: Chart, letters: _Letters) -> Iterator[str]:
    for number, line in enumerate(chart.lines):
        if line.label:
            yield f"  {letters.points[number % len(letters.points)]} {shown(line.label)}"
    for at, label in chart.marks:
        if isfinite(at):
            yield f"  {letters.mark} {figure(at)}: {shown(label)}"


def _bars(chart: Chart, width: int, letters: _Letters) -> Iterator[str]:
    lines = [points_of(line) for line in chart.lines]
    if not any(lines):
        yield "(no points)"
        return
    y = y_axis(chart, lines, 2, zero=True)
    zero = y.place(0.0) if not y.log else 0.0
    rows = [
        (category(chart, point.x), shown(chart.lines[number].label), point)
        for place in sorted({point.x for points in lines for point in points})
        for number, points in enumerate(lines)
        for point in points
        if point.x == place
    ]
    names = [f"{name}, {label}" if label and len(lines) > 1 else name for name, label, _ in rows]
    figures = [_figures(point) for _, _, point in rows]
    if width - max(map(_width, figures)) < 2 * _LEAST_BAR + 3:
        # Narrow: a bar says more than the ends of its interval.
        figures = [figure(point.y) for _, _, point in rows]
    room = max(map(_width, figures))
    margin = min(max(map(_width, names)), max((width - room) // 2, 8))
    columns = max(width - margin - room - 3, 4)
    yield shown(chart.y_label)
    for name, said, (_, _, point) in zip(names, figures, rows, strict=True):
        name = _cut(name, margin, letters.cut)
        bar = _bar(sorted((zero, y.place(point.y))), columns, letters)
        yield f"{name}{' ' * (margin - _width(name))} {bar}  {said}"
    for at, label in chart.marks:
        if isfinite(at):
            yield f"  {category(chart, at)}: {shown(label)}"


def _bar(ends: Sequence[float], columns: int, letters: _Letters) -> str:
    first, last = ends[0] * columns, ends[1] * columns
    whole = int(last) - int(first)
    part = int((last - int(last)) * 8) if letters.parts else 0
    bar = " " * int(first) + letters.full * whole + (letters.parts[part - 1] if part else "")
    return f"{bar:{columns}}"[:columns]


def _figures(point: Point) -> str:
    if point.low is None or point.high is None:
        return figure(point.y)
    return f"{figure(point.y)} ({figure(point.low)} to {figure(point.high)})"


def _row(share: float, rows: int) -> int:
    return rows - 1 - min(max(round(share * (rows - 1)), 0), rows - 1)


def _column(share: float, columns: int) -> int:
    return min(max(round(share * (columns - 1)), 0), columns - 1)


def _width(text: str) -> int:
    return sum(_columns(letter) for letter in text)


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _cut(text: str, columns: int, cut: str) -> str:
    if _width(text) <= columns:
        return text
    kept, used = [], len(cut)
    for letter in text:
        used += _columns(letter)
        if used > columns:
            break
        kept.append(letter)
    return "".join(kept) + cut
