"""Single keys changed in the text of a config.toml: it says what was meant, and all else is as it was."""

from __future__ import annotations

import difflib
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.config.editing import Edit, edited, toml
from subcortex.errors import ConfigError
from tests.conftest import ROOT

TEXT = '''# Ours.
[subcortex]
version = 1

# Fast: answers at once.
[[tiers]]
name = "fast"   # its name
engine = "vllm"
"model" = """
a # no comment ] [[tiers]]
"""
max_concurrent = 32  # at once
flags = ["--a", # why
   "--b=[x]",   # because
]
  # threads = 4

# Deep: thinks aloud.
[[ tiers ]]  # the deep one
  name = 'deep'
  env = { A = "1", B = "]" }
  context_tokens = 1024

  [tiers.nested]
  threads = 1

[fleet]
max_wait_s = 1.0
'''


def changed(text: str, *edits: Edit) -> tuple[list[str], list[str]]:
    """Return the lines that went and those that came."""
    before, after = text.splitlines(), edited(text, edits).splitlines()
    diff = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
    return [one[1:] for one in diff if one[0] == "-"], [one[1:] for one in diff if one[0] == "+"]


def test_a_value_is_replaced_and_its_comment_stays():
    assert changed(TEXT, Edit("fast", "max_concurrent", 16)) == (
        ["max_concurrent = 32  # at once"],
        ["max_concurrent = 16  # at once"],
    )


def test_a_new_key_stands_at_the_end_of_its_own_table():
    text = edited(TEXT, [Edit("fast", "sleep_mode", True), Edit("deep", "threads", 2)])
    assert "]\nsleep_mode = true\n  # threads = 4\n" in text
    assert "  context_tokens = 1024\n  threads = 2\n\n  [tiers.nested]\n  threads = 1\n" in text


def test_items_of_an_array_keep_their_lines_and_comments():
    assert changed(TEXT, Edit("fast", "flags", ["--a", "--c", "--d", "5"])) == (
        ['   "--b=[x]",   # because'],
        ['   "--c", "--d", "5",   # because'],
    )


def test_values_of_many_lines_are_replaced_whole():
    text = edited(TEXT, [Edit("fast", "model", "b"), Edit("deep", "env", {"A": "2"})])
    assert '"model" = "b"\nmax_concurrent' in text
    assert '  env = { A = "2" }\n' in text


def test_line_ends_and_a_missing_last_one_stay():
    text = TEXT.replace("\n", "\r\n")
    assert edited(text, [Edit("fast", "threads", 2)]).replace("\r\n", "").count("\n") == 0
    short = '[[tiers]]\nname = "a"'
    assert edited(short, [Edit("a", "threads", 2)]) == '[[tiers]]\nname = "a"\nthreads = 2'


def test_the_project_s_own_file_changes_by_one_line():
    text = (ROOT / "config.toml").read_text()
    assert changed(text, Edit("deep", "threads", 1)) == (["threads = 2"], ["threads = 1"])
    assert changed(text, Edit("fast", "max_concurrent", 4)) == ([], ["max_concurrent = 4"])


def test_what_cannot_be_changed_is_refused_with_the_words_to_write():
    with pytest.raises(ConfigError, match="no tier 'other'"):
        edited(TEXT, [Edit("other", "threads", 1)])
    with pytest.raises(ConfigError) as caught:
        edited('tiers = [{ name = "a" }]\n', [Edit("a", "threads", 1)])
    assert "threads = 1" in str(caught.value.hint)
    dotted = '[[tiers]]\nname = "a"\nenv.A = "1"\n'
    with pytest.raises(ConfigError, match="cannot be changed safely"):
        edited(dotted, [Edit("a", "env", {"A": "2"})])


_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    _WORDS,
    st.lists(_WORDS, max_size=4),
    st.lists(st.integers(0, 9), max_size=3),
)
_KEYS = st.sampled_from(["threads", "flags", "model", "max_concurrent", "split_mode", "engine"])
_COMMENTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10)


@st.composite
def _files(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A file of tiers, each key written in one of the ways there are, and the tiers' names."""
    lines, names = ["# head", "[subcortex]", "version = 1"], []
    for place in range(draw(st.integers(1, 3))):
        names.append(f"t{place}")
        lines += [
            f"# {draw(_COMMENTS)}",
            draw(st.sampled_from(["[[tiers]]", " [[ tiers ]] # x", '[["tiers"]]'])),
        ]
        lines.append(f'name = "t{place}"')
        for key in draw(st.lists(_KEYS, unique=True, max_size=4)):
            value = draw(_VALUES)
            written = toml(value)
            if isinstance(value, list) and draw(st.booleans()):
                comment = draw(_COMMENTS)
                written = (
                    "[ # ,[" + comment + "\n" + "".join(f"  {toml(i)}, # {comment}\n" for i in value) + "]"
                )
            elif isinstance(value, str) and "'" not in value and value.isprintable() and draw(st.booleans()):
                written = f"'{value}'" if draw(st.booleans()) else f"'''{value}'''"
            lines.append(f"{key} = {written} # {draw(_COMMENTS)}")
        if draw(st.booleans()):
            lines.append("")
    lines += ["[fleet]", "max_wait_s = 1.0"]
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"])), names


@given(_files(), st.data())
def test_any_edit_says_what_was_meant_and_leaves_other_lines_alone(made, data):
    text, names = made
    before = tomllib.loads(text)
    edit = Edit(data.draw(st.sampled_from(names)), data.draw(_KEYS), data.draw(_VALUES))
    after = edited(text, [edit])
    next(one for one in before["tiers"] if one["name"] == edit.tier)[edit.key] = edit.value
    assert tomllib.loads(after) == before
    kept = [line for line in after.split("\n") if line.startswith(("#", "[", " ["))]
    assert kept == [line for line in text.split("\n") if line.startswith(("#", "[", " ["))]


def test_a_file_that_somebody_has_just_broken_is_refused_and_not_a_crash():
    with pytest.raises(ConfigError, match="not TOML any more"):
        edited('[[tiers]]\nname = "fast', [Edit("fast", "max_concurrent", 4)])
