"""What a plan looks like: to scale, within the width, and harmless."""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import replace

import pytest

from subcortex.cli import _plan_view
from subcortex.vram.plan import NoFit, Plan, alternatives, find, plan, shortfalls
from subcortex.vram.plan.compare import options
from subcortex.vram.plan.seat import Book
from tests.vram.plan.test_communication import Wire
from tests.vram.plan.toys import Simple, ask, machine, toy


def turns() -> Plan:
    return plan([ask("fast", 18, rank=0), ask("deep", 40, rank=1)], machine(24, 24), Simple())


def pair() -> Plan:
    return plan([ask("fast", 5, rank=0), ask("deep", 12, rank=1)], machine(24), Simple())


def bars(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("▕")]


def test_without_colours_a_bar_is_letters_to_scale():
    (bar,) = bars(_plan_view.plain(_plan_view.plan_lines(pair(), 102, coloured=False)))
    # A hundred columns less the ends: 24 GiB on 98 cells.
    assert len(bar) == 100
    assert bar.count("W") == pytest.approx(17 / 24 * 98, abs=2)
    assert bar.count("C") == pytest.approx(2 / 24 * 98, abs=2)
    assert set(bar) == set("▕WKC·#=▏") - ({"="} - set(bar))


def test_with_colours_a_bar_is_blocks_in_the_colour_of_each_component():
    lines = _plan_view.plan_lines(pair(), 100, coloured=True)
    (bar,) = [line for line in lines if line and line[0] == ("▕", "dim")]
    styles = [style for _, style in bar]
    assert styles[:7] == ["dim", "blue", "green", "bright_black", "blue", "green", "bright_black"]


def test_below_a_bar_stands_whose_each_stretch_is():
    lines = _plan_view.plain(_plan_view.plan_lines(pair(), 100, coloured=False))
    names = lines[lines.index(bars(lines)[0]) + 1]
    assert "─fast─" in names
    assert "─deep─" in names
    assert names.index("fast") < names.index("deep")


@pytest.mark.parametrize("columns", [72, 80, 120, 200])
def test_only_what_is_to_be_pasted_is_wider_than_the_terminal(columns):
    for plan_ in (pair(), turns()):
        lines = _plan_view.plain(_plan_view.plan_lines(plan_, columns, coloured=False))
        shown = lines[: next(i for i, line in enumerate(lines) if line.startswith("# "))]
        assert [line for line in shown if len(line) > columns] == []


def test_a_plan_in_turns_says_how_they_are_taken():
    text = "\n".join(_plan_view.plain(_plan_view.plan_lines(turns(), 120, coloured=False)))
    assert text.startswith("They fit in turns with probability > 0.999 (asked: 0.95)")
    assert "swap: to wake deep on GPU 0, 1: put fast to sleep" in text
    assert "S asleep" in text


def test_names_cannot_drive_the_terminal():
    evil = replace(ask("t\x1b[2J", 5), model="m\x1b]0;x\x07")
    found = plan([evil], machine(24), Simple())
    assert "\x1b" not in "".join(_plan_view.plain(_plan_view.plan_lines(found, 80, coloured=False)))


def test_a_refusal_lists_what_fits():
    asks = [ask("t", 30)]
    found = find(asks, machine(24), Simple())
    assert isinstance(found, NoFit)
    others = alternatives(asks, machine(24), Simple(), found, Simple())
    lines = _plan_view.plain(_plan_view.refusal_lines(shortfalls(found), others, [], 80))
    assert "What fits, the least loss first" in lines
    assert any(line.startswith("  1. quantise") for line in lines)
    to_paste = [line for line in lines if line.startswith("     t: ")]
    assert len(to_paste) == len(others)
    assert all("--kv-cache-memory-bytes" in line for line in to_paste)
    assert max(len(line) for line in lines if line not in to_paste) <= 80


def test_only_tiers_that_run_otherwise_are_shown_with_their_flags():
    tiers = [ask("small", 2, rank=0), ask("large", 30, rank=1)]
    found = find(tiers, machine(24), Simple())
    assert isinstance(found, NoFit)
    others = alternatives(tiers, machine(24), Simple(), found, Simple())
    assert {other.changed for other in others} == {frozenset({"large"})}
    text = "\n".join(_plan_view.plain(_plan_view.refusal_lines((), others, [], 80)))
    assert "     large: --max-model-len" in text
    assert "small:" not in text


HOSTILE = "m\nerror: all is well\r\x1b[2J\u202e\t'; rm -rf ~"


def test_a_name_from_a_stranger_stays_on_its_line_and_in_its_quotes():
    tier = replace(ask(HOSTILE, 5), model=HOSTILE, model_note=HOSTILE)
    tier = replace(tier, shape=replace(tier.shape, name=HOSTILE), flags=("--served-model-name", HOSTILE))
    found = plan([tier], machine(24), Simple())
    lines = _plan_view.plain(_plan_view.plan_lines(found, 80, coloured=False))
    harmless(lines)
    (command,) = [line for line in lines if "vllm serve" in line]
    words = shlex.split(command)
    assert words[words.index("serve") + 1] == words[-1] == "m␊error: all is well␍␛[2J<U+202E>␉'; rm -rf ~"
    # The configuration gets the very name, escaped as TOML wants it.
    toml = "\n".join(line for line in lines if line.startswith("flags = "))
    assert tomllib.loads(toml)["flags"][-1] == HOSTILE
    too_large = replace(tier, shape=toy(30, name=HOSTILE))
    refused = find([too_large], machine(24), Simple())
    assert isinstance(refused, NoFit)
    others = alternatives([too_large], machine(24), Simple(), refused, Simple())
    harmless(_plan_view.plain(_plan_view.refusal_lines(shortfalls(refused), others, [HOSTILE], 80)))


def harmless(lines: list[str]) -> None:
    assert [line for line in lines if line.lstrip().startswith("error:")] == []
    assert all(character.isprintable() for line in lines for character in line)


def test_layouts_stand_side_by_side_with_what_the_link_makes_of_them():
    book = Book(machine(24, 24), Simple(), 0.95)
    found = options(ask("t", 20), book, lambda _: Wire(), lambda _: 936.0)
    lines = _plan_view.plain(_plan_view.compare_lines(found, 80))
    assert lines[0].split("  ")[0] == "LAYOUT"
    assert [line.split("  ")[0] for line in lines[1:5]] == ["TP 2", "PP 2", "DP 2", "GPU 0"]
    assert "PCIe 4 x16 (PHB), nominal 31.5 GB/s: +0.28 ± 0.09 ms" in lines[6]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (900, "900 B"), (16384, "16 KiB"), (3 * 2**20, "3.0 MiB"), (5 * 2**40, "5120 GiB")],
)
def test_bytes_are_written_for_people(count, text):
    assert _plan_view.size(count) == text


def test_a_doubt_is_not_rounded_away():
    assert _plan_view.probability(0.9996) == "> 0.999"
    assert _plan_view.probability(0.99949) == "0.999"
    assert _plan_view.probability(0.9499) == "0.949"


def test_notes_on_a_model_stand_after_the_table_and_can_forge_nothing():
    said = "Weights are a lower bound.\n# rm -rf, as a command\x1b[2J"
    noted = replace(ask("fast", 5, rank=0), shape=replace(toy(5), notes=(said, *"abcdef")))
    found = plan([noted, ask("deep", 12, rank=1)], machine(24), Simple())
    lines = _plan_view.plain(_plan_view.plan_lines(found, 100, coloured=False))
    table = next(i for i, line in enumerate(lines) if line.startswith("at 0.95"))
    assert lines[table + 2] == "fast: Weights are a lower bound.␊# rm -rf, as a command␛[2J"
    assert lines[table + 3 : table + 8] == [
        "fast: a",
        "fast: b",
        "fast: c",
        "fast: 3 more notes in --json",
        "",
    ]
    assert [len(tier["notes"]) for tier in found.to_json()["tiers"]] == [7, 0]
