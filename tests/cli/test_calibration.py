"""``plan --calibration``: what real starts taught, told from the journal."""

from __future__ import annotations

import json
from pathlib import Path

from subcortex.cli._calibration_view import as_json, lines
from subcortex.client import Client
from tests.cli.helpers import invoke
from tests.conftest import wait_for, write_config
from tests.vram.boot_samples import boot


def test_without_starts_it_says_how_to_come_by_some(folder: Path) -> None:
    done = invoke("plan", "--calibration", "--config", write_config(folder))
    assert done.exit_code == 0
    assert done.stdout.startswith("nothing learned yet")
    found = json.loads(invoke("plan", "--calibration", "--json", "--config", write_config(folder)).stdout)
    assert (found["starts"], found["learned"]) == (0, [])


def test_real_starts_show_what_they_taught_and_that_the_plan_knows_it(running: Client) -> None:
    file = running.config.source

    def learned() -> list[dict[str, object]]:
        return list(json.loads(invoke("plan", "--calibration", "--json", "--config", file).stdout)["learned"])

    wait_for(lambda: bool(learned()) and learned()[0]["starts"] == 2)
    rows = {(row["component"], row["place"]): row for row in learned()}
    kv = rows["kv", "host"]
    assert (kv["engine"], kv["models"], kv["gpu"]) == ("llama.cpp", 2, None)
    assert abs(float(str(kv["residual_mib"]))) < 0.1
    table = invoke("plan", "--calibration", "--config", file).stdout
    assert "host memory" in table
    assert "inside the 90% interval" in table
    planned = invoke("plan", "--config", file)
    assert planned.exit_code == 0, planned.stderr


def test_a_shift_is_shown_beside_what_was_estimated() -> None:
    starts = [boot(1200.0, model=name, hour=hour) for hour, name in enumerate("abcdef")]
    (row,) = as_json(starts)["learned"]
    assert (row["starts"], row["models"], row["component"]) == (6, 6, "activations")
    assert (row["estimated_mib"], row["residual_mib"]) == (1000.0, 200.0)
    assert 1100 < row["learned_mib"] <= 1200
    assert row["learned_sigma_mib"] < row["estimated_sigma_mib"]
    text = "\n".join(lines(starts))
    assert "+200" in text
    assert "NVIDIA H200" in text
