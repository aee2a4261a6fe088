"""Figures quoted in docs/evidence stand in the raw samples beside them."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import side_by_side

TWO = ROOT / "docs" / "evidence" / "think-2xh200"


def read(name: str):
    return json.loads((TWO / name).read_text())


@pytest.fixture(scope="module")
def rows() -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in (TWO / "raw.jsonl").read_text().splitlines()]


def test_the_table_is_made_from_the_samples(rows):
    data, markdown = side_by_side.table(rows, ["fast", "deep"])
    assert (TWO / "table.md").read_text() == markdown
    assert read("result.json")["phases"] == data
    page = (TWO / "README.md").read_text()
    for line in markdown.splitlines():
        assert line in page


def test_the_counts_on_the_page_are_those_of_the_samples(rows):
    page = " ".join((TWO / "README.md").read_text().split())
    failed = [row for row in rows if "error" in row]
    degraded = [row for row in rows if row.get("degraded")]
    kept = read("result.json")["journal"]
    assert len(rows) == 200 == sum(kept.values())
    assert f"Of {len(rows)} thoughts {len(rows) - len(failed)} were answered." in page
    assert Counter(row["error"] for row in failed) == {"engine_failed": 7}
    assert f"The {len(failed)} that had seen tokens" in page
    assert all(row["chunks"] > 0 for row in failed), "an error only after a token was seen"
    assert f"{len(degraded)} had not, and were answered by deep" in page
    assert {row["tier"] for row in degraded} == {"deep"}
    assert f"{kept['completed']} completed, {kept['failed']} failed" in page


def test_boots_restart_and_memory_are_those_of_the_samples(rows):
    page = " ".join((TWO / "README.md").read_text().split())
    boots = {tier["name"]: tier["load_s"] for tier in read("boots.json")}
    assert f"fast {boots['fast']:.1f} s, then deep {boots['deep']:.1f} s" in page
    events = [(event["tier"], event["kind"], json.loads(event["detail"])) for event in read("events.json")]
    again = [detail["load_s"] for tier, kind, detail in events if (tier, kind) == ("fast", "ready")][1]
    assert f"({again:.1f} s, with a warm compile cache)" in page
    timeline = {entry["what"]: entry for entry in read("timeline.json")}
    used = [gpu["memory.used"] for gpu in timeline["booted"]["gpus"]]
    assert f"{used[0]} MiB on GPU 0 and {used[1]} MiB on GPU 1" in page
    assert timeline["stopped"]["mib"] == ["0", "0"]
    down = [row for row in rows if row["phase"] == "one killed" and "error" not in row]
    assert max(row["load_s"] + row["queued_s"] for row in down) < 0.01, "no thought waited for the dead tier"


def test_no_figure_on_the_page_is_without_a_source():
    page = (TWO / "README.md").read_text()
    prose = "\n".join(line for line in page.splitlines() if not line.startswith("|"))
    known = "".join(path.read_text() for path in sorted(TWO.iterdir()) if path.name != "README.md")
    rounded = {f"{float(number):.1f}" for number in re.findall(r"\d+\.\d+", known)}
    for figure in re.findall(r"\d+\.\d+", prose):
        assert figure in known or figure in rounded, f"{figure} stands nowhere in the samples"
    phases = Counter(json.loads(line)["phase"] for line in (TWO / "raw.jsonl").read_text().splitlines())
    assert list(phases.values()) == [80, 60, 60]


def test_evidence_names_no_machines_folders():
    for path in Path(ROOT / "docs" / "evidence").rglob("*"):
        if path.is_file():
            assert not re.search(r"/(?:tmp|root|home|work|opt)/", path.read_text()), path
