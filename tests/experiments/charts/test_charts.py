"""Charts: any finite chart is drawn, within its frame, inert; and figures stand where they belong."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from math import inf, nan
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.experiments.charts import lines_of, svg
from subcortex.experiments.charts.axes import axis, figure
from subcortex.experiments.experiment import Chart, Line
from subcortex.journal.render import inert
from tests.cli.hostile import PAYLOAD

_NS = "{http://www.w3.org/2000/svg}"
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
_TEXT = st.text(max_size=40) | st.sampled_from(
    [PAYLOAD, "</title><script>1</script>", "\ud800\uffff", "混合"]
)
_POINT = st.tuples(_NUMBER, _NUMBER) | st.tuples(_NUMBER, _NUMBER, _NUMBER, _NUMBER)
_CHARTS = st.builds(
    Chart,
    title=_TEXT,
    x_label=_TEXT,
    y_label=_TEXT,
    lines=st.lists(st.builds(Line, _TEXT, st.lists(_POINT, max_size=6).map(tuple)), max_size=4).map(tuple),
    kind=st.sampled_from(["lines", "bars"]),
    log_x=st.booleans(),
    log_y=st.booleans(),
    marks=st.lists(st.tuples(_NUMBER, _TEXT), max_size=2).map(tuple),
    categories=st.lists(_TEXT, max_size=3).map(tuple),
)

LADDER = Chart(
    "Throughput",
    "requests at once",
    "tok/s",
    (Line("fast", tuple((2.0**i, 100.0 * i, 100.0 * i - 30, 100.0 * i + 60) for i in range(1, 6))),),
    log_x=True,
    marks=((16.0, "knee"),),
)
ARMS = Chart(
    "Arms", "", "ms", (Line("", ((0, 10.0, 9.0, 11.0), (1, 20.0))),), kind="bars", categories=("one", "two")
)


def _columns(line: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line
    )


def _drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(svg(chart))


@given(_CHARTS, st.integers(24, 120), st.integers(4, 30), st.booleans())
def test_every_finite_chart_is_text_of_its_width_that_does_nothing(chart, width, height, ascii_only):
    lines = lines_of(chart, width, height, ascii_only=ascii_only)
    assert all(_columns(line) <= width for line in lines)
    assert all(inert(line) == line and "\n" not in line for line in lines)
    assert not ascii_only or all(line.isascii() for line in lines)


@given(_CHARTS)
def test_every_finite_chart_is_a_picture_within_its_frame_that_does_nothing(chart):
    root = _drawn(chart)
    box = [float(one) for one in root.attrib["viewBox"].split()]
    tags = {element.tag.removeprefix(_NS) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "line", "path"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not any(name.startswith("on") or "href" in name for name in names)
    points = _points(root)
    legend = sum(1 for line in chart.lines if line.label)
    many = sum(len(line.points) for line in chart.lines)
    if chart.kind == "lines":
        assert len(points) == many + legend
    else:
        assert len(root.findall(f"{_NS}rect")) == 1 + many
    for rect in root.findall(f"{_NS}rect"):
        x, width = float(rect.get("x", 0)), float(rect.attrib["width"])
        assert 0 <= x <= x + width <= box[2]
    assert all(0 <= over <= box[2] and 0 <= down <= box[3] for over, down in points)


def _points(root: ElementTree.Element) -> list[tuple[float, float]]:
    found = [element.get("transform", "") for element in root.findall(f"{_NS}path")]
    pairs = [re.findall(r"[-\d.]+", one) for one in found if one]
    return [(float(over), float(down)) for over, down in pairs]


def test_equal_factors_are_equal_distances_and_heights_are_in_proportion():
    places = _points(_drawn(LADDER))[:5]
    overs, downs = zip(*places, strict=True)
    assert [b - a for a, b in pairwise(overs)] == pytest.approx([overs[1] - overs[0]] * 4)
    assert [a - b for a, b in pairwise(downs)] == pytest.approx([downs[0] - downs[1]] * 4, abs=0.2)
    marks = [line for line in _drawn(LADDER).findall(f"{_NS}line") if line.get("class") == "mark"]
    assert float(marks[0].attrib["x1"]) == overs[3]


def test_whiskers_reach_from_end_to_end():
    root = _drawn(LADDER)
    tall = [
        sorted((float(line.attrib["y1"]), float(line.attrib["y2"])))
        for line in root.findall(f"{_NS}line")
        if line.get("class", "").startswith("whisker") and line.get("x1") == line.get("x2")
    ]
    downs = [down for _, down in _points(root)[:5]]
    a_unit = (downs[0] - downs[1]) / 100
    for (top, bottom), down in zip(tall, downs, strict=True):
        assert down - top == pytest.approx(60 * a_unit, abs=0.2)
        assert bottom - down == pytest.approx(30 * a_unit, abs=0.2)


def test_bars_are_as_long_as_their_figures():
    rects = _drawn(ARMS).findall(f"{_NS}rect")[1:]
    assert float(rects[1].attrib["width"]) == pytest.approx(2 * float(rects[0].attrib["width"]), abs=0.2)
    one, two = lines_of(ARMS, 80, ascii_only=True)[2:4]
    assert two.count("#") == pytest.approx(2 * one.count("#"), abs=1)
    assert one.startswith("one ")
    assert one.endswith("10 (9 to 11)")
    assert two.endswith("  20")


def test_a_ladder_on_a_terminal():
    lines = lines_of(LADDER, 50, 9, ascii_only=True)
    assert lines[:2] == ["Throughput", "tok/s"]
    frame = [re.sub(r"^.{3} .", "", line) for line in lines[2:11]]
    at = {row.index("o"): number for number, row in enumerate(frame) if "o" in row}
    assert len(at) == 5
    assert sorted(at, reverse=True) == [column for column, _ in sorted(at.items(), key=lambda one: one[1])]
    assert [row[sorted(at)[3]] for row in frame].count(":") >= 4
    assert lines[12].split() == ["2", "4", "8", "16", "32"]
    assert lines[-2:] == ["  o fast", "  : 16: knee"]


def test_what_is_not_finite_is_left_out_and_zero_makes_an_axis_linear():
    chart = Chart("t", "x", "y", (Line("a", ((1, nan), (inf, 2), (3, 4, nan, 5), (0, 2))),), log_x=True)
    root = _drawn(chart)
    assert len(_points(root)) == 2 + 1
    assert not [one for one in root.findall(f"{_NS}line") if one.get("class", "").startswith("whisker")]
    empty = Chart("t", "x", "y", (Line("a", ((nan, nan),)),))
    assert "(no points)" in lines_of(empty)
    assert _drawn(empty).find(f"{_NS}title") is not None


def test_a_picture_is_told_in_words():
    root = _drawn(LADDER)
    told = root.findtext(f"{_NS}desc")
    assert told is not None
    assert root.attrib["role"] == "img"
    assert "tok/s against requests at once." in told
    assert "fast: 2: 100 (70 to 160); 4: 200 (170 to 260)" in told
    assert "Marked at 16: knee." in told
    bars = _drawn(ARMS).findtext(f"{_NS}desc")
    assert bars is not None
    assert "one: 10 (9 to 11); two: 20" in bars


@pytest.mark.parametrize(
    ("values", "options", "labels"),
    [
        ([1.0, 2.0], {}, ("0", "1", "2")),
        ([0.0, 9.0], {}, ("0", "2", "4", "6", "8", "10")),
        ([1.0, 2.0, 4.0, 8.0], {"log": True}, ("1", "2", "4", "8")),
        ([1.0, 1000.0], {"log": True}, ("1", "3", "10", "30", "100", "300", "1000")),
        (
            [16384.0, 65536.0, 2.0**22],
            {"log": True, "unit": "bytes"},
            ("16 KiB", "64 KiB", "256 KiB", "1 MiB", "4 MiB"),
        ),
        ([95.0, 100.0], {}, ("95", "96", "97", "98", "99", "100")),
        ([5.0], {"log": True}, ("5", "10")),
    ],
)
def test_ticks_are_round(values, options, labels):
    assert axis(values, most_ticks=7 if options.get("log") else 6, **options).labels == labels


def test_a_narrow_terminal_has_bars_rather_than_their_intervals():
    chart = Chart(
        "Held", "", "s", (Line("", ((0, 1.0, 0.9123, 1.1),)),), kind="bars", categories=("warm start",)
    )
    wide, narrow = lines_of(chart, 60)[-1], lines_of(chart, 40)[-1]
    assert wide.endswith("1 (0.9123 to 1.1)")
    assert narrow.startswith("warm start ███████")
    assert narrow.endswith("  1")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (1234.0, "1234"),
        (12345.0, "12.35k"),
        (2.5e6, "2.5M"),
        (3e-5, "3e-05"),
        (-0.12345, "-0.1235"),
    ],
)
def test_figures_are_short(value, written):
    assert figure(value) == written
