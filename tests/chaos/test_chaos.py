"""Twenty faults, drawn once for all, on real processes: nothing is lost, torn or left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.vllm

FAULTS, OF_VLLM, SEED = 20, 2, 5


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    log = tmp_path_factory.mktemp("chaos") / "faults.jsonl"
    asked = {"--faults": FAULTS, "--vllm": OF_VLLM, "--seed": SEED, "--log": log}
    words = [str(word) for pair in asked.items() for word in pair]
    command = [sys.executable, str(ROOT / "bench" / "chaos.py"), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), log


def test_nothing_is_lost_torn_or_left_behind(ran: tuple[dict[str, Any], Path]) -> None:
    found, _ = ran
    wrong = found["what_was_wrong"]
    assert (found["leaked_processes"], wrong["leaked"]) == (0, [])
    assert (found["lost_thoughts"], wrong["lost"]) == (0, [])
    assert (found["torn_rows"], wrong["torn"]) == (0, [])
    assert wrong["unrecovered"] == []
    assert (found["sockets_left"], found["shm_left"]) == (0, 0)


def test_it_was_under_load_all_the_time(ran: tuple[dict[str, Any], Path]) -> None:
    found, _ = ran
    assert found["faults"] == FAULTS
    assert sum(found["by_kind"].values()) == FAULTS
    assert sum(count for kind, count in found["by_kind"].items() if kind.startswith("vllm_")) == OF_VLLM
    assert found["answered"] > FAULTS
    assert found["adopted"] >= 1
    assert found["swaps"] >= 1
    assert found["restarts"] >= 1
    assert found["answered"] + sum(found["errors_by_code"].values()) <= found["thoughts"]


def test_the_log_tells_the_seed_and_each_fault(ran: tuple[dict[str, Any], Path]) -> None:
    first, *rows = [json.loads(line) for line in ran[1].read_text().splitlines()]
    assert first["seed"] == SEED
    assert [row["fault"] for row in rows if "fault" in row] == first["faults"]
