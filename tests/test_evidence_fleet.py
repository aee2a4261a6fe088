"""What the page on swaps says stands in the samples beside it."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent.parent / "docs" / "evidence" / "fleet-2xh200"
PAGE = (HERE / "README.md").read_text("utf-8")


def rows(run: str, what: str) -> list[dict[str, Any]]:
    lines = (HERE / run / "raw.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["what"] == what]


def quoted(label: str) -> tuple[float, ...]:
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| {label} |"))
    return tuple(float(cell) for cell in line.split("|")[2:6])


def told(values: list[float]) -> tuple[float, ...]:
    return (len(values), round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3))


def test_what_a_wake_took() -> None:
    ttft = {row["number"]: row["ttft_s"] for row in rows("wakes", "wake")}
    woke = {row["number"]: row["facts"] for row in rows("wakes", "woke")}
    over = [ttft[number] - woke[number]["engine_s"] for number in ttft]
    assert quoted("time to the first token") == pytest.approx(told(list(ttft.values())), abs=1e-3)
    assert quoted("of that, the engine's own wake") == pytest.approx(
        told([one["engine_s"] for one in woke.values()]), abs=1e-3
    )
    assert quoted("the rest, canary and first token included") == pytest.approx(told(over), abs=1e-3)
    assert quoted("of that, the canary") == pytest.approx(
        told([one["canary_s"] for one in woke.values()]), abs=1e-3
    )
    assert quoted("the same thought when awake") == pytest.approx(
        told([row["ttft_s"] for row in rows("wakes", "awake")]), abs=1e-3
    )
    assert statistics.median(over) <= 0.5


def test_a_first_sleep_is_long_and_later_ones_are_not() -> None:
    seconds = [row["seconds"] for row in rows("wakes", "rested")]
    assert quoted("going to sleep") == pytest.approx(told(seconds), abs=1e-3)
    first, *later = [
        json.loads(event["detail"])["was_for_s"]
        for event in json.loads((HERE / "wakes" / "events.json").read_text("utf-8"))
        if event["kind"] == "asleep"
    ]
    assert f"takes {first:.1f} s, each later one {statistics.median(later):.0f} s" in PAGE
    assert max(later) < 0.05 * first


def test_what_swaps_took_and_what_the_ledger_counted() -> None:
    swaps = rows("swaps", "swap")
    own = [row["ttft_s"] for row in swaps if not row["lent"]]
    lent = [row["ttft_s"] for row in swaps if row["lent"]]
    assert f"{len(swaps)} of the 60" in PAGE
    assert f"{len(own)} were made by thoughts in turn (median {statistics.median(own):.3f} s" in PAGE
    assert f"{len(lent)} by `yield` and `resume` (median {statistics.median(lent):.3f} s" in PAGE
    for tier, words in (("fast", "for the 8B"), ("deep", "for the 70B")):
        seconds = [row["ttft_s"] for row in swaps if row["lent"] and row["tier"] == tier]
        found = re.search(rf"([\d.]+) s {words}", PAGE)
        assert found is not None
        assert float(found[1]) == pytest.approx(statistics.median(seconds), abs=0.02)
    checked = rows("swaps", "swapped")
    assert len(checked) == len(swaps)
    off = [abs(mib) for row in checked for mib in row["off_mib"]]
    assert f"off by {min(off):.0f} to {max(off):.0f} MiB a GPU" in PAGE
    assert max(off) <= 300
    for row in checked:
        awake = [tier for tier, state in row["states"].items() if state == "ready"]
        assert len(awake) == 1, "both awake under a limit that has room for one"


def test_a_killed_worker_and_the_end() -> None:
    (noticed,), (back,) = rows("swaps", "noticed"), rows("swaps", "back")
    assert back["error"] is None
    assert f"noticed after {noticed['after_s']:.1f} s, the tier back after {back['after_s']} s" in PAGE
    (before,), stopped = rows("swaps", "before"), rows("swaps", "stopped")
    assert stopped[-1]["driver_mib"] == before["driver_mib"] == [0.0, 0.0]
