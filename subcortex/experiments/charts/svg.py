"""A chart as a picture that stands by itself: no script, nothing loaded, readable on light and dark. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from xml.sax.saxutils import escape

from subcortex.experiments.charts.axes import (
    Axis,
    Point,
    category,
    clipped,
    figure,
    points_of,
    shown,
    summary,
    x_axis,
    y_axis,
)
from subcortex.experiments.experiment import Chart

WIDTH, _HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP = 84, 24, 58
_ROW, _BAR = 20, 22
_LONGEST = 90
#: What XML cannot hold even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Told apart by the colour-blind too (Okabe and Ito), and by shapes; the second of each pair on dark.
_COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#b34700", "#e69f00"),
    ("#007a59", "#2fc79a"),
    ("#a6447f", "#e39ac7"),
    ("#555555", "#bbbbbb"),
    ("#7a6a00", "#f0e442"),
)
_SHAPES = (
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "M-4,-4h8v8h-8z",
    "M0,-5l5,9h-10z",
    "M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z",
    "M0,5l5,-9h-10z",
    "M-5,-1.5h3.5v-3.5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5z",
)


def svg(chart: Chart) -> str:
    """Return a chart as the text of an SVG file, with its figures in words for whoever does not see it.

    Values that are not finite are left out; a logarithmic axis with values not above zero is drawn linear.
    """
    lines = [points_of(line) for line in chart.lines]
    drawn, bottom = _bars(chart, lines) if chart.kind == "bars" else _lines(chart, lines)
    legend, height = _legend(chart, bottom)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{_text(chart.title, None)}</title>',
        f'<desc id="desc">{_text(summary(chart), None)}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        _words(_LEFT, 24, chart.title, "name"),
        *drawn,
        *legend,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lines(chart: Chart, lines: Sequence[Sequence[Point]]) -> tuple[list[str], float]:
    x, y = x_axis(chart, lines, 10), y_axis(chart, lines, 8)
    bottom = _TOP + _HEIGHT - 60
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts = [_words(_LEFT - 60, _TOP - 12, chart.y_label, "label")]
    for tick, label in zip(y.ticks, y.labels, strict=True):
        down = _down(y, tick, bottom)
        parts.append(_stroke("grid", _LEFT, down, WIDTH - _RIGHT, down))
        parts.append(_words(_LEFT - 8, down + 4, label, "tick", "end"))
    for tick, label in zip(x.ticks, x.labels, strict=True):
        over = _over(x, tick)
        parts.append(_stroke("axis", over, bottom, over, bottom + 5))
        parts.append(_words(over, bottom + 20, label, "tick", "middle"))
    parts.append(_stroke("axis", _LEFT, bottom, WIDTH - _RIGHT, bottom))
    parts.append(_words(middle, bottom + 42, chart.x_label, "label", "middle"))
    parts += _marks(chart, x, bottom)
    for number, points in enumerate(lines):
        parts += _line(number, points, x, y, bottom)
    return parts, bottom + 52


def _marks(chart: Chart, x: Axis, bottom: float) -> Iterator[str]:
    for at, label in chart.marks:
        if isfinite(at):
            over = _over(x, at)
            # Words stand on the side that has room.
            right = over < (_LEFT + WIDTH) / 2
            yield _stroke("mark", over, _TOP, over, bottom)
            yield _words(over + (6 if right else -6), bottom - 8, label, "tick", "start" if right else "end")


def _line(number: int, points: Sequence[Point], x: Axis, y: Axis, bottom: float) -> Iterator[str]:
    style = f"s{number % len(_COLOURS)}"
    places = [(_over(x, one.x), _down(y, one.y, bottom)) for one in points]
    if len(places) > 1:
        path = "L".join(f"{_n(over)},{_n(down)}" for over, down in places)
        yield f'<path class="path {style}" d="M{path}"/>'
    for one, (over, down) in zip(points, places, strict=True):
        if one.low is not None and one.high is not None:
            first, last = _down(y, one.low, bottom), _down(y, one.high, bottom)
            yield _stroke(f"whisker {style}", over, first, over, last)
            for end in (first, last):
                yield _stroke(f"whisker {style}", over - 4, end, over + 4, end)
        yield _shape(number, over, down)


def _bars(chart: Chart, lines: Sequence[Sequence[Point]]) -> tuple[list[str], float]:
    rows = [
        (place, number, point)
        for place in sorted({one.x for points in lines for one in points})
        for number, points in enumerate(lines)
        for point in points
        if point.x == place
    ]
    y = y_axis(chart, lines, 8, zero=True)
    names = [clipped(category(chart, place), 30) for place, _, _ in rows]
    left = min(max([_LEFT, *(16 + 7.5 * len(name) for name in names)]), WIDTH / 2)
    right = WIDTH - _RIGHT - 150
    bottom = _TOP + max(len(rows), 1) * (_BAR + 6)

    def over(value: float) -> float:
        return left + y.place(value) * (right - left)

    parts = []
    for tick, label in zip(y.ticks, y.labels, strict=True):
        parts.append(_stroke("grid", over(tick), _TOP, over(tick), bottom))
        parts.append(_words(over(tick), bottom + 18, label, "tick", "middle"))
    zero = left if y.log else over(0.0)
    before = None
    for row, ((place, number, point), name) in enumerate(zip(rows, names, strict=True)):
        top = _TOP + row * (_BAR + 6) + 3
        if place != before:
            parts.append(_words(left - 8, top + 15, name, "tick", "end"))
        before = place
        first, last = sorted((zero, over(point.y)))
        fill = f'class="f{number % len(_COLOURS)}"'
        parts.append(
            f'<rect {fill} x="{_n(first)}" y="{_n(top)}" width="{_n(last - first)}" height="{_BAR}"/>'
        )
        said, end = figure(point.y), last
        if point.low is not None and point.high is not None:
            said += f" ({figure(point.low)} to {figure(point.high)})"
            end = max(last, over(point.high))
            parts.append(_stroke("ends", over(point.low), top + _BAR / 2, over(point.high), top + _BAR / 2))
            for one in (over(point.low), over(point.high)):
                parts.append(_stroke("ends", one, top + 6, one, top + _BAR - 6))
        parts.append(_words(end + 6, top + 15, said, "tick"))
    parts.append(_stroke("axis", zero, _TOP, zero, bottom))
    parts.append(_words((left + right) / 2, bottom + 40, chart.y_label, "label", "middle"))
    return parts, bottom + 50


def _legend(chart: Chart, top: float) -> tuple[list[str], float]:
    named = [(number, line) for number, line in enumerate(chart.lines) if line.label]
    if chart.kind == "bars" and len(named) == 1:
        named = []
    parts = []
    for number, line in named:
        top += _ROW
        parts.append(_shape(number, _LEFT + 4, top - 4))
        parts.append(_words(_LEFT + 18, top, line.label, "tick"))
    if chart.kind == "bars":
        for at, label in chart.marks:
            if isfinite(at):
                top += _ROW
                parts.append(_words(_LEFT, top, f"{category(chart, at)}: {shown(label)}", "tick"))
    return parts, round(top + 16)


def _style() -> str:
    return (
        "text{font:13px system-ui,sans-serif;fill:#222}.name{font-size:16px;font-weight:600}"
        ".tick{font-size:12px}.paper{fill:#fff}.grid{stroke:#ddd}.axis{stroke:#444}.ends{stroke:#222}"
        ".mark{stroke:#444;stroke-dasharray:3 3}.path{fill:none;stroke-width:2}.whisker{stroke-width:1.5}"
        + _colours(0)
        + "@media (prefers-color-scheme:dark){text{fill:#e6e6e6}.paper{fill:#161616}.grid{stroke:#3a3a3a}"
        ".axis,.mark{stroke:#aaa}.ends{stroke:#fff}" + _colours(1) + "}"
    )


def _colours(which: int) -> str:
    # Said out for each class: variables are unknown to many a viewer of pictures.
    return "".join(
        f".s{i}{{stroke:{one[which]}}}.f{i}{{fill:{one[which]}}}" for i, one in enumerate(_COLOURS)
    )


def _shape(number: int, over: float, down: float) -> str:
    shape = _SHAPES[number % len(_SHAPES)]
    style = f"f{number % len(_COLOURS)}"
    return f'<path class="{style}" transform="translate({_n(over)} {_n(down)})" d="{shape}"/>'


def _stroke(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{style}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>'


def _words(over: float, down: float, text: str, style: str, anchor: str = "start") -> str:
    where = f'x="{_n(over)}" y="{_n(down)}" text-anchor="{anchor}"'
    return f'<text class="{style}" {where}>{_text(text, _LONGEST)}</text>'


def _text(text: str, most: int | None) -> str:
    words = _NOT_XML.sub("\ufffd", shown(text))
    return escape(words if most is None else clipped(words, most))


def _over(x: Axis, value: float) -> float:
    return _LEFT + x.place(value) * (WIDTH - _RIGHT - _LEFT)


def _down(y: Axis, value: float, bottom: float) -> float:
    return bottom - y.place(value) * (bottom - _TOP)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
