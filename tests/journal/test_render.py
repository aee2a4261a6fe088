"""Text from a model cannot act on a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal import inert


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇"),
        ("over\rwritten", "over␍written"),
        ("back\x08space\x7f", "back␈space␡"),
        ("\x9b31m", "<U+009B>31m"),
        ("abc\u202edef\u2066", "abc<U+202E>def<U+2066>"),
        ("zero\u200bwidth\ufeff", "zero<U+200B>width<U+FEFF>"),
        ("tag\U000e0041", "tag<U+E0041>"),
        ("half\ud800", "half<U+D800>"),
        ("nul\x00", "nul␀"),
        ("line\u2028break", "line<U+2028>break"),
        (
            "kept:\n\ttabs, Größe, 推論, 👩\u200d🚀, می\u200cخواهم",
            "kept:\n\ttabs, Größe, 推論, 👩\u200d🚀, می\u200cخواهم",
        ),
    ],
)
def test_what_acts_becomes_visible(text: str, shown: str) -> None:
    assert inert(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_is_left_and_a_second_time_changes_nothing(text: str) -> None:
    shown = inert(text)
    assert inert(shown) == shown
    assert all(char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") for char in shown)
    assert all(
        unicodedata.bidirectional(c) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        for c in shown
    )
    shown.encode()
