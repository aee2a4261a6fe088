"""Single forms of drive, date and depth, each in the smallest text that has it; and what is none."""

from __future__ import annotations

import pytest

from subcortex.journal.sessions import DriveLevel, Reading, parse, read, render
from subcortex.types import Depth


def _read(text: str, name: str | None = None) -> Reading:
    return read(parse(text), name)


@pytest.mark.parametrize(
    ("text", "name", "drives"),
    [
        ("# Session Log: 2026-02-22 — LEARNING (137%)\n", None, "LEARNING"),
        ("# Aurora's LEARNING Session\n", None, "LEARNING"),
        ("# Session 14: CREATIVE\n", None, "CREATIVE"),
        ("# LEARNING Drive Session - 2026-02-20 10:15 EST\n", None, "LEARNING"),
        ("# Creative Session: The Poem\n", None, "CREATIVE"),
        ("# 🎨 Creative Drive — Evening Session\n", None, "CREATIVE"),
        ("# Session — CARE — Feb 20, 2026\n", None, "CARE"),
        ("# LEARNING SESSION: RUST LIFETIMES\n", None, "LEARNING"),
        ("# CREATIVE + CURIOSITY Session — 2026-02-20\n", None, "CREATIVE CURIOSITY"),
        ("# CURIOSITY SATISFACTION - DEEP\n", None, "CURIOSITY"),
        ("# Deferred: CREATIVE\n", None, "CREATIVE"),
        ("# Session: WRITING\n", None, "WRITING"),
        ("AUTONOMOUS SESSION (triggered by CURIOSITY drive)\n", None, "CURIOSITY"),
        ("**Drive:** loneliness (aversive), 140%\n", None, "LONELINESS"),
        ("**Drives:** SOCIAL (satisfied), CARE (building)\n", None, "SOCIAL CARE"),
        ("**Drive: CARE (104%)**\n", None, "CARE"),
        ("> **Drive:** CARE\n", None, "CARE"),
        ("- **Drives**: CARE 110%; PLAY 90%\n", None, "CARE PLAY"),
        ("---\ndrive: CREATIVE/PLAY\n---\n", None, "CREATIVE PLAY"),
        ("---\ndrive: {name: CARE, level: 110%}\n---\n", None, "CARE"),
        ("hi", "2026-02-22-evening-CARE.md", "CARE"),
        ("hi", "LEARNING-2026-02-22-1508.md", "LEARNING"),
        ("hi", "2026-02-22-1508-LEARNING_CURIOSITY.md", "LEARNING CURIOSITY"),
        ("hi", "2026-02-22-1508-NOVELTY-SEEKING.md", "NOVELTY_SEEKING"),
        ("hi", "2026-02-22_15-08_CARE.md", "CARE"),
        ("Drive that woke me: **WANDER**\n", None, "WANDER"),
        ("| Drive | Level |\n|---|---|\n| CARE | 118% |\n| PLAY | 103% |\n", None, "CARE PLAY"),
        ("# Satisfaction log\n\n- 06:00 CARE — moderate\n- 06:05 REST — deep\n", None, "CARE REST"),
        ("hi", "2026-02-22-1508-CARE-NOVELTY_SEEKING.md", "CARE NOVELTY_SEEKING"),
        # And what is none:
        ("# Session: A Topic, Not A Drive\n", "2026-02-22-1508-x.md", ""),
        ("# Notes on REST APIs\n", None, ""),
        ("# README\n", None, ""),
        ("# GPU Session\n", None, ""),
        ("Hard drive: NVME (97%)\n", None, ""),
        ("The word CARE in prose, and LEARNING (137%).\n", None, ""),
        ("**Drive:** none\n", "2026-02-22-1508-CARE.md", ""),
        ("hi", "2026-02-22-1508-how-to-rest.md", ""),
    ],
)
def test_drives(text: str, name: str | None, drives: str) -> None:
    assert [drive.name for drive in _read(text, name).drives] == drives.split()


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("CARE (104%)", 104),
        ("CARE 24.5/20", 122.5),
        ("CARE at 97.5 %", 97.5),
        ("CARE (130% → 65%)", 130),
        ("CARE", None),
    ],
)
def test_levels(value: str, level: float | None) -> None:
    assert _read(f"**Drive:** {value}\n").drives == (DriveLevel("CARE", level),)


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2026-02-22 15:08", "2026-02-22T15:08:00"),
        ("2026-02-22 (Sunday) 15:08", "2026-02-22T15:08:00"),
        ("Feb 22, 2026, ~3:08 PM", "2026-02-22T15:08:00"),
        ("12:05 am, 22 February 2026", "2026-02-22T00:05:00"),
        ("2026-02-22T15:08Z", "2026-02-22T15:08:00+00:00"),
        ("2026-02-22T15:08:00.123-0500", "2026-02-22T15:08:00.123000-05:00"),
        ("2026-02-22T15:08-05:00", "2026-02-22T15:08:00-05:00"),
        ("2026-02-22 15:08 - 15:40 CET", "2026-02-22T15:08:00+01:00"),
        ("2026-02-22 15:08 UTC+2", "2026-02-22T15:08:00+02:00"),
        ("2026-02-22 15:08 MST", "2026-02-22T15:08:00"),
        ("22.02.2026 15:08", "2026-02-22T15:08:00"),
        ("13/02/2026 15:08", "2026-02-13T15:08:00"),
        ("20260222T150800Z", "2026-02-22T15:08:00+00:00"),
        ("1771772880", "2026-02-22T15:08:00+00:00"),
        ("2026-02-30 15:08", None),
        ("03/04/2026", None),
        ("yesterday evening", None),
    ],
)
def test_dates(value: str, at: str | None) -> None:
    reading = _read(f"**Date:** {value}\n")
    assert (reading.at.isoformat() if reading.at else None) == at
    assert reading.at_written is not None
    assert at is not None or reading.not_understood


def test_a_date_under_the_title_knows_more_than_the_name() -> None:
    reading = _read("# CARE Session\n*February 22, 2026 — 3:08 PM EST*\n", "2026-02-22-1508-CARE.md")
    assert reading.at is not None
    assert reading.at.isoformat() == "2026-02-22T15:08:00-05:00"


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("**Depth: Deep**\n", Depth.DEEP),
        ("## Depth\n\n### Assessment\n\n**Deep**\n", Depth.DEEP),
        ("**Depth Assessment**\n\nDeep. Because.\n", Depth.DEEP),
        ("## Satisfaction\n\n- PLAY: shallow (30%)\n- CARE: deep (75%)\n", Depth.DEEP),
        ("## Drive Satisfied: CARE (moderate)\n", Depth.MODERATE),
        ("**Satisfaction:** Yes (moderate)\n", Depth.MODERATE),
        ("---\nsatisfaction: {depth: deep, reason: x}\n---\n", Depth.DEEP),
        ("## Satisfaction Assessment\n\nI would rate this session as **deep**. It held.\n", Depth.DEEP),
        ("`satisfy_drive(state, 'CARE', 'full')`\n", Depth.FULL),
        ("**Depth:** **None**\n", Depth.NONE),
        ("CARE satisfied (26.0 → 6.5) [deep]\n", Depth.DEEP),
        ("**Depth of satisfaction** — deep\n", Depth.DEEP),
        ("**Drive effect:** CARE -50% (moderate satisfaction)\n", Depth.MODERATE),
        ("**Satisfaction depth:** shallow\n\n## Depth\n\n**Deep**\n", Depth.SHALLOW),
        ("## How deep did it go?\n\nmoderate — less than I hoped\n", Depth.MODERATE),
        ("## 🌊 My honest depth\n\nShallow.\n", Depth.SHALLOW),
        ("## Depth\n\n- Target: deep\n- Reached: **moderate**, no more\n", Depth.MODERATE),
        ("## Depth\n\n- [ ] shallow\n- [x] moderate\n- [ ] deep\n", Depth.MODERATE),
        ("**Depth:** ☐ shallow ☑ deep ☐ full\n", Depth.DEEP),
        ("## Depth\n\nBetween moderate and deep.\n", Depth.MODERATE),
        ("## Depth\n\nShallow — [x] deep was what I wanted\n", Depth.SHALLOW),
        ("## Profundidad / Depth\n\n**Profunda / Deep**\n", Depth.DEEP),
        ("---\nrating:\n  depth: full\n---\n", Depth.FULL),
        ("+++\ndrive = 'CARE'\ndepth = 'deep'\n+++\n", Depth.DEEP),
        ("- **Depth** moderate\n", Depth.MODERATE),
        ("A walk.\n\nDepth - shallow\n", Depth.SHALLOW),
        ("A walk.\n\n— moderate\n", Depth.MODERATE),
        ("Depth\n-----\nDeep\n", Depth.DEEP),
        ("```markdown\n# Session: CARE\n\n## Depth\nDeep\n```\n", Depth.DEEP),
        ("Some words.\n\nDepth ⇒ moderate\n", Depth.MODERATE),
        ("Depth of reading: deep. The rest can wait.\n", Depth.DEEP),
        ("A long walk (depth: shallow, I suppose).\n", Depth.SHALLOW),
        ("I'd call it moderate depth, all told.\n", Depth.MODERATE),
        ("- how deep? shallow\n", Depth.SHALLOW),
        ("Overall I'd say this went moderately deep.\n", Depth.MODERATE),
        ("---\ntype: satisfaction\ndrive: CARE\n---\n\nmoderate: one letter, one call\n", Depth.MODERATE),
        # And what is none:
        ("The network depth: shallow nets forget.\n", None),
        ("```\ndepth = deep\n```\n", None),
        ("Moderate: that is how I would have it.\n", None),
        ("It was moderate weather.\n", None),
        ("A deep dive into deep learning, full of detail.\n", None),
        ("**Depth:** 4/5\n", None),
        ("## Depth\n\nNot deep.\n", None),
        ("## Depth\n\n- [ ] shallow\n- [ ] moderate\n", None),
        ("## Depth\n\n- Target: deep\n", None),
        ("## Water Depth\n\nShallow at the shore.\n", None),
        ("## How deep is the sea\n\nDeep.\n", None),
        ("**Snow depth:** moderate\n", None),
        ("**Depth wanted:** full\n", None),
        ("What was it?\n\nModerate\n", None),
        ("A quotation:\n\n```markdown\n# Session\n\n## Depth\nDeep\n```\n", None),
        ("```markdown\n## Depth\nDeep\n```\n\n# Session: CARE\n", None),
        ("Use `drives satisfy CARE deep` for more relief.\n", None),
        ("## Depth\n\nFull of doubts, none of them moderate enough to be shallow.\n", None),
    ],
)
def test_depths(text: str, depth: Depth | None) -> None:
    assert _read(f"{text}", "2026-02-22-1508-CARE.md").depth is depth


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("**Deferred:** SOCIAL (107%)\n\nIt is late.\n", "deferral"),
        ("**Drive:** CARE\n**Deferred:** SOCIAL (107%)\n", "session"),
        ("**Deferred:** SOCIAL (107%)\n**Depth:** deep\n", "session"),
    ],
)
def test_what_is_put_off_beside_what_was_done_is_no_deferral(text: str, kind: str) -> None:
    assert _read(text).kind == kind


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("What I Saw\n----------\nA heron.\n", ["What I Saw"]),
        ("A heron.\n---\nGone.\n", []),
        ("A heron stood there\n---\nGone.\n", []),
        ("- a heron\n---------\n", []),
        ("Drive: CARE\n-----------\n", []),
    ],
)
def test_dashes_underline_a_heading_if_they_are_as_long(text: str, headings: list[str]) -> None:
    assert [section.heading for section in _read(text).sections if section.level] == headings


def test_a_fence_around_the_whole_is_no_part_of_what_it_says() -> None:
    text = "```markdown\n# Session: CARE\n\n```sh\nls\n```\n\n## Depth\n\n**Deep** — why\n```\n\nSaved.\n"
    reading = _read(text)
    assert render(parse(text)) == text
    assert [drive.name for drive in reading.drives] == ["CARE"]
    assert (reading.depth, reading.depth_reason) == (Depth.DEEP, "why")
    assert [section.heading for section in reading.sections] == ["Session: CARE", "Depth"]


@pytest.mark.parametrize(
    "unit", ["*", "#", "[", "-", " ", "]", "(", "_", "`", "# (", "**a:** ", "- [ ", "`~", "<!--", "1/", "\\"]
)
@pytest.mark.parametrize(
    "before", ["", "---\n", "# ", "**Date:** ", "**Drive:** ", "## Depth\n", "+++\n", "```md\n# a\n"]
)
def test_a_hostile_line_costs_no_more_than_its_length(unit: str, before: str) -> None:
    """A hundred thousand of anything; were a pattern quadratic, the sum of them would take hours."""
    text = before + unit * 100_000
    assert render(parse(text)) == text
    _read(text, unit * 1000)
