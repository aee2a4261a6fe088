"""Figures: what is read of each way of writing one, and that reading undoes writing."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal.board.figures import figures_in, written
from subcortex.journal.board.units import UNITS, comparable, in_base


def read(line: str) -> list[tuple[float, str | None]]:
    return [(figure.value, figure.unit) for figure in figures_in(line) if figure.unit]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("weights of ~9GB", [(9, "GB")]),
        ("35-40GB or 35 to 40 GB", [(37.5, "GB"), (37.5, "GB")]),
        ("35GB-40GB", [(37.5, "GB")]),
        ("about 5–10 seconds", [(7.5, "s")]),
        ("0.4375MiB each, 128 KiB there", [(0.4375, "MiB"), (128, "KiB")]),
        ("32GB/s each direction, 64 Gb/s, 10 Gbps", [(32, "GB/s"), (64, "Gbit/s"), (10, "Gbit/s")]),
        ("93.9% of 1,319", [(93.9, "%")]),
        ("4-6 hours, 20 min, 3 ms, 7 µs", [(5, "h"), (20, "min"), (3, "ms"), (7, "µs")]),
        (
            "70B weights, 70 billion, 8B parameters",
            [(70, "billion parameters")] * 2 + [(8, "billion parameters")],
        ),
        ("2 bytes a weight, 128 B in all", [(2, "B"), (128, "B")]),
        ("4k tokens of context", [(4000, "tokens")]),
        ("31 tok/s, 312 TFLOPS", [(31, "tokens/s"), (312, "TFLOP/s")]),
        ("from 4x to 8x", [(6, "x")]),
        ("80 layers with 8 KV heads", [(80, "layers"), (8, "KV heads")]),
    ],
)
def test_a_figure_is_read_with_its_unit(line, found):
    assert read(line) == found


@pytest.mark.parametrize(
    "line",
    [
        "on 2026-02-22 at 15:08", "8-Jan-26 17:34", "Q4_K_M", "Llama-3.1-8B", "pressure 29.1/30",
        "3090s idle", "v0.22.1", "layers[12]", "/dev/nvme0n1p2", "20x more", "",
    ],
)  # fmt: skip
def test_names_dates_and_paths_are_no_figures(line):
    assert [one for one in read(line) if one[1] != "x"] == []


@pytest.mark.parametrize(
    ("line", "met", "not_met"),
    [
        ("~9GB", (8.5, 9.5), (8.49, 9.51)),
        ("32 GB/s", (31.5, 32.8), (31.1, 32.9)),
        ("140 GB", (137.95,), (136.4, 143.6)),
        ("6.8GiB", (6.76, 6.84), (6.41, 6.9)),
        ("0.4375 MiB", (0.4375,), (0.109, 0.438)),
        ("80 layers", (80,), (79, 81)),
        ("at least 8 GB", (7.8, 900), (7.4,)),
        ("< 20 GB", (0, 20), (21,)),
        ("50-60 GB", (50, 60), (48.5, 61.6)),
        ("8+ GB", (8, 80), (7,)),
    ],
)
def test_a_figure_is_met_within_its_own_rounding(line, met, not_met):
    figure = next(one for one in figures_in(line.replace("8+ GB", "8 GB+")))
    assert [value for value in met if not figure.meets(value, figure.unit)] == []
    assert [value for value in not_met if figure.meets(value, figure.unit)] == []


def test_decimal_and_binary_multiples_stay_apart():
    figure = figures_in("7.0 GiB")[0]
    assert figure.meets(7.0, "GiB")
    assert figure.meets(7 * 2**30 / 1e9, "GB")
    assert not figure.meets(7.0, "GB")
    assert not comparable("GiB", "GB/s")
    assert comparable("ms", "h")
    assert not comparable("layers", "GPUs")
    assert not comparable("GB", None)


def test_several_of_one_size_are_told_from_one():
    (figure,) = figures_in("across 2x 24GB")
    assert (figure.times, figure.value, figure.unit) == (2, 24, "GB")
    assert figures_in("4x A100")[0:] == ()


_VALUES = st.one_of(
    st.integers(1, 10**7).map(float), st.integers(1, 10**6).map(lambda n: n / 1000).map(lambda v: round(v, 3))
)


@given(_VALUES, st.none() | _VALUES, st.sampled_from(sorted(UNITS)), st.booleans())
def test_what_is_written_is_read_again(low, high, unit, rough):
    if high is not None and high < low:
        low, high = high, low
    text = written(low, high, unit, rough=rough)
    (figure,) = figures_in(f"it takes {text} there")
    assert figure.unit == unit
    assert figure.value == pytest.approx(low if high is None else (low + high) / 2)
    assert figure.overlaps(low, high or low, unit)
    assert figure.low <= low <= (high or low) <= figure.high < inf
    assert in_base(figure.low, unit) <= in_base(figure.high, unit)


@given(st.text(max_size=300))
def test_any_line_is_read(line):
    for figure in figures_in(line):
        assert 0 <= figure.at < figure.end <= len(line)
        assert figure.low <= figure.value <= figure.high
