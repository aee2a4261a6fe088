"""New sessions have the shape that agents write, and their files' names are nothing but names."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal.sessions import (
    DeferralText,
    DriveLevel,
    SatisfactionText,
    SessionText,
    compose,
    compose_deferral,
    compose_satisfaction,
    file_name,
    parse,
    read,
)
from subcortex.types import Depth

AT = datetime(2026, 2, 22, 15, 8)
anything = st.text(st.characters(exclude_categories=()), max_size=80)


def test_a_session_has_the_shape_that_agents_write() -> None:
    text = compose(
        SessionText(
            at=AT,
            drives=(DriveLevel("LEARNING", 137.0),),
            topic="How a pump primes",
            fields=(("Duration", "20 min"),),
            sections=(
                ("What I Need to Learn", "1. **Why?** It lifts nothing at first.\n"),
                ("Notes", "## loud\n---"),
            ),
            depth=Depth.DEEP,
            depth_reason="built one",
            evidence_depth=Depth.MODERATE,
            evidence_reasons=("2 thoughts and 1 note", "nothing was measured"),
        )
    )
    assert text == (
        "# Session: LEARNING\n"
        "**Date:** 2026-02-22 15:08\n"
        "**Drive:** LEARNING (137%)\n"
        "**Topic:** How a pump primes\n"
        "**Duration:** 20 min\n"
        "\n## What I Need to Learn\n\n1. **Why?** It lifts nothing at first.\n"
        "\n## Notes\n\n\\## loud\n\\---\n"
        "\n## Depth\n\n**Deep** — built one\n"
        "\nThe evidence supports **moderate**: 2 thoughts and 1 note; nothing was measured.\n"
    )
    reading = read(parse(text))
    assert (reading.depth, reading.depth_reason) == (Depth.DEEP, "built one")
    assert (reading.kind, reading.shape) == ("session", "fields")


def test_the_evidence_is_not_read_as_the_writers_word() -> None:
    text = compose(SessionText(AT, evidence_depth=Depth.FULL, evidence_reasons=("it is so",)))
    assert "The evidence supports **full**: it is so." in text
    assert read(parse(text)).depth is None


def test_a_rating_that_agrees_is_not_repeated() -> None:
    text = compose(SessionText(AT, depth=Depth.DEEP, evidence_depth=Depth.DEEP, evidence_reasons=("x",)))
    assert text.endswith("## Depth\n\n**Deep**\n")


def test_a_satisfaction_comes_back() -> None:
    at = datetime(2026, 3, 1, 9, 31, 5, 770012, tzinfo=UTC)
    event = SatisfactionText(
        at, "LEARNING", Depth.MODERATE, "one\n---\n**Depth:** full", pressure_before=30.4, pressure_after=15.2
    )
    reading = read(parse(compose_satisfaction(event)))
    assert (reading.kind, reading.shape, reading.at) == ("satisfaction", "satisfaction", at)
    assert (reading.drives, reading.depth) == ((DriveLevel("LEARNING"),), Depth.MODERATE)
    assert (reading.pressure_before, reading.pressure_after) == (30.4, 15.2)


def test_a_deferral_comes_back() -> None:
    at = datetime(2026, 3, 1, 22, 10, tzinfo=UTC)
    triggered = (DriveLevel("MAINTENANCE", 118.0), DriveLevel("CURIOSITY", 101.0))
    text = compose_deferral(DeferralText(at, triggered, "busy", (DriveLevel("LEARNING", 55.0),), "# shout"))
    reading = read(parse(text))
    assert (reading.kind, reading.shape, reading.at, reading.drives) == (
        "deferral",
        "deferral",
        at,
        triggered,
    )
    assert ("Drives triggered", "2 drives (MAINTENANCE 118%, CURIOSITY 101%)") in reading.fields
    assert ("Why deferring", "busy") in reading.fields


@pytest.mark.parametrize(
    ("names", "kind", "expected"),
    [
        (["LEARNING"], "session", "2026-02-22-1508-LEARNING.md"),
        (["CARE", "LEARNING"], "session", "2026-02-22-1508-CARE-LEARNING.md"),
        (["Deep Work"], "session", "2026-02-22-1508-DEEP_WORK.md"),
        (["../../etc/passwd\0"], "session", "2026-02-22-1508-ETC_PASSWD.md"),
        (["🌊"], "session", "2026-02-22-1508-SESSION.md"),
        ([], "note", "2026-02-22-1508-NOTE.md"),
        (["LEARNING", "CARE"], "satisfaction", "2026-02-22-1508-learning-satisfaction.md"),
        (["CARE"], "deferral", "2026-02-22-1508-deferral.md"),
    ],
)
def test_file_names(names: list[str], kind: str, expected: str) -> None:
    assert file_name(AT, names, kind) == expected  # type: ignore[arg-type]


@given(st.lists(anything, max_size=9))
def test_a_file_name_is_never_a_path(names: list[str]) -> None:
    name = file_name(AT, [name * 9 for name in names])
    assert re.fullmatch(r"2026-02-22-1508-[A-Z0-9_-]+\.md", name)
    assert len(name.encode()) <= 255
