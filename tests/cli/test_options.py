"""Times on the command line: seconds, and durations as people write them."""

from __future__ import annotations

import json

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.cli._options import LONGEST_S, Duration, Seconds
from subcortex.cli.think import think_command, thought_request
from tests.cli.helpers import invoke


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("30m", 1800.0), ("2h", 7200.0), ("1d", 86400.0), ("1h30m", 5400.0), (" 0.5H ", 1800.0)],
)
def test_a_duration_is_read_as_people_write_it(text, seconds):
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    "text", ["", "2", "h", "-2h", "2 h", "2h30", "h2", "0s", "1e9s", "infs", "nan", "2w", "٣h", "99999999h"]
)
def test_what_is_no_duration_is_said_with_an_example_or_the_bound(text):
    with pytest.raises(click.BadParameter, match="Write 90s, 30m, 2h|a year"):
        Duration().convert(text, None, None)


@given(st.text(alphabet="0123456789.smhd -e", max_size=12))
def test_any_text_is_a_bounded_duration_or_refused(text):
    try:
        seconds = Duration().convert(text, None, None)
    except click.BadParameter:
        return
    assert 0 < seconds <= LONGEST_S


@pytest.mark.parametrize("text", ["inf", "nan", "-1", "soon", "1e400"])
def test_seconds_are_finite_and_not_negative(text):
    with pytest.raises(click.BadParameter):
        Seconds().convert(text, None, None)


def test_wait_becomes_wait_s_of_the_request():
    context = think_command.make_context("think", ["hello", "--wait", "45"])
    names = {"config_file", "as_json", "no_stream"}
    options = {name: value for name, value in context.params.items() if name not in names}
    assert thought_request(options).wait_s == 45.0
    assert thought_request({**options, "wait": None}).wait_s is None


def test_a_wait_that_is_none_is_wrong_usage():
    done = invoke("think", "hello", "--wait", "nan", "--json")
    assert done.exit_code == 2
    assert "--wait" in json.loads(done.stdout)["error"]["message"]
