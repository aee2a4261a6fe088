"""Sessions as agents write them, in every shape: nothing is lost, and a careful reader's reading is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subcortex.journal.sessions import parse, read, render

CORPUS = Path(__file__).parent / "corpus"
#: Written by judgement, from the files; never from what the program says.
EXPECTED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "expected.json").read_text(encoding="utf-8")
)


def _text(name: str) -> str:
    return (CORPUS / name).read_bytes().decode("utf-8")


def test_every_file_has_an_expected_reading() -> None:
    files = {path.name for path in CORPUS.iterdir() if path.name != ".gitattributes"}
    assert files == set(EXPECTED)
    assert len(files) >= 60


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_comes_back_as_it_was(name: str) -> None:
    text = _text(name)
    document = parse(text)
    assert render(document) == text
    assert parse(render(document)) == document


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_a_careful_reader_finds_is_found(name: str) -> None:
    reading = read(parse(_text(name)), name)
    found: dict[str, Any] = {
        "kind": reading.kind,
        "shape": reading.shape,
        "at": reading.at.isoformat() if reading.at else None,
        "drives": [drive.name for drive in reading.drives],
        "levels": [drive.level_percent for drive in reading.drives],
        "topic": reading.topic,
        "depth": reading.depth.value if reading.depth else None,
        "reason": reading.depth_reason,
        "before": reading.pressure_before,
        "after": reading.pressure_after,
        "doubts": len(reading.not_understood),
    }
    expected = EXPECTED[name]
    assert {key: found[key] for key in expected} == expected, reading.not_understood


def test_sections_carry_their_place_and_lines() -> None:
    name = "2026-02-15-0905-LEARNING.md"
    text = _text(name)
    sections = read(parse(text), name).sections
    assert [(s.level, s.heading, s.above) for s in sections] == [
        (2, "Summary", ()),
        (2, "Details", ()),
        (3, "What I read", ("Details",)),
        (2, "Artifacts", ()),
    ]
    lines = text.splitlines()
    assert [lines[section.first_line - 1].lstrip("# ") for section in sections] == [
        section.heading for section in sections
    ]
    assert sections[2].body == "- the admission queue\n- the preemption path"
