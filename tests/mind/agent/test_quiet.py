"""Quiet hours: spans of a day, over midnight too."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.errors import ConfigError
from subcortex.mind.agent import QuietHours

_TIMES = st.times().map(lambda time: time.replace(second=0, microsecond=0))
DAY = datetime(2026, 3, 1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01 {text}")


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ("09:00-17:30", ["09:00", "12:00", "17:29:59"], ["08:59:59", "17:30", "00:00"]),
        ("22:00-07:30", ["22:00", "23:59", "00:00", "07:29"], ["07:30", "21:59", "12:00"]),
        ("20:00-24:00", ["20:00", "23:59:59"], ["00:00", "19:59"]),
        ("08:00-08:00", ["08:00", "07:59", "00:00"], []),
    ],
)
def test_a_span_holds_from_its_first_minute_to_the_one_before_its_last(span, inside, outside):
    hours = QuietHours.parse([span])
    assert all(hours.holding(at(text)) for text in inside)
    assert not any(hours.holding(at(text)) for text in outside)


@given(_TIMES, _TIMES)
def test_a_span_and_its_reverse_share_no_minute_and_leave_none_out(begins, ends):
    if begins == ends:
        return
    one = QuietHours.parse([f"{begins:%H:%M}-{ends:%H:%M}"])
    other = QuietHours.parse([f"{ends:%H:%M}-{begins:%H:%M}"])
    for minute in range(0, 24 * 60, 7):
        now = DAY + timedelta(minutes=minute)
        assert (one.holding(now) is None) != (other.holding(now) is None)


@pytest.mark.parametrize(
    "written", ["", "22", "22:00", "22:00-25:00", "9-17", "22:60-23:00", "٢٢:٠٠-٢٣:٠٠", "24:00-07:00"]
)
def test_what_is_no_span_is_refused_by_name(written):
    with pytest.raises(ConfigError, match="agent.quiet_hours"):
        QuietHours.parse([written])
