"""The rows of docs/evidence/vram-h200 are what the logs beside them say, and its page quotes the rows."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from subcortex.engines._vllm_memory import read_boot
from tests.conftest import ROOT

HERE = ROOT / "docs" / "evidence" / "vram-h200"
TOTAL_GIB = 139.80


def rows(file: str) -> list[dict[str, Any]]:
    return list(json.loads((HERE / file).read_text("utf-8"))["boots"])


WAVES = [(row, ("1", "2")) for row in rows("truth.json")] + [(row, ("3",)) for row in rows("heldout.json")]


@pytest.mark.parametrize(("row", "waves"), WAVES, ids=lambda one: one["log"] if isinstance(one, dict) else "")
def test_every_row_is_what_its_log_says(row: dict[str, Any], waves: tuple[str, ...]) -> None:
    found = []
    for wave in waves:
        log = HERE / f"lines-{wave}" / f"{row['log']}.log"
        if log.exists() and (figures := read_boot(log.read_text("utf-8").splitlines())) is not None:
            found.append(figures)
    (figures,) = [one for one in found if one.kv_tokens == row["kv_tokens"]]
    first = figures.devices[0]
    assert first.components["weights"] == pytest.approx(row["weights_gib"] * 1024)
    assert first.components["activations"] == pytest.approx(row["peak_activation_gib"] * 1024)
    if "cuda_graph_gib" in row:
        assert first.components["graphs"] == pytest.approx(row["cuda_graph_gib"] * 1024)
    assert first.kv_pool_mib == pytest.approx(row["available_kv_gib"] * 1024)


def one(rows: list[dict[str, Any]], model: str, **wanted: Any) -> dict[str, Any]:
    (row,) = [
        row
        for row in rows
        if row["model"] == model and all(row.get(key, None) == value for key, value in wanted.items())
    ]
    return row


def test_the_page_quotes_the_rows() -> None:
    page = " ".join((HERE / "README.md").read_text("utf-8").split())
    boots = rows("truth.json")
    asleep = one(boots, "gemma-3-12b-text", tp=1, sleep_mode=True)["non_torch_gib"]
    plain = one(boots, "gemma-3-12b-text", tp=1, sleep_mode=False)["non_torch_gib"]
    assert f"gemma-3-12b {asleep:.2f} GiB, {plain:.2f} without" in page
    whole = one(boots, "llama-3.1-8b", sleep_mode=False, tp=1, flags=None, pp=None)["peak_activation_gib"]
    few = one(boots, "llama-3.1-8b", sleep_mode=True)["peak_activation_gib"]
    eager = one(boots, "llama-3.1-8b", flags=["--enforce-eager"])["peak_activation_gib"]
    assert f"took {whole:.2f} GiB at 8192 tokens and {few:.2f} at 2048" in page
    assert f"In eager mode it is {eager:.2f}" in page


def test_mixtures_over_two_gpus_start_half_a_gib_lower() -> None:
    page = (HERE / "README.md").read_text("utf-8")
    found = re.search(r"Mixtures at TP=2 start ([\d.]+) GiB lower", page)
    assert found is not None
    boots = [row for row in rows("truth.json") if row["tp"] == 2]
    dense = {
        row["free_at_start_gib"] for row in boots if row["model"].startswith(("qwen2.5", "llama", "gemma"))
    }
    mixed = {
        row["free_at_start_gib"] for row in boots if row["model"].startswith(("qwen3-30b", "mixtral", "glm"))
    }
    assert len(dense) == len(mixed) == 1
    assert dense.pop() - mixed.pop() == pytest.approx(float(found[1]), abs=0.011)


def test_what_no_log_line_names_is_as_much_as_the_page_says() -> None:
    page = " ".join((HERE / "README.md").read_text("utf-8").split())
    found = re.search(r"a card holds ([\d.]+) to ([\d.]+) GiB more than the log's figures add up to", page)
    assert found is not None
    unnamed = []
    for row in [*rows("truth.json"), *rows("heldout.json")]:
        if "used_mib" not in row or row["sleep_mode"] or "cuda_graph_gib" not in row or row.get("pp"):
            continue
        named = [row[key] for key in ("weights_gib", "available_kv_gib", "cuda_graph_gib", "non_torch_gib")]
        before = TOTAL_GIB - row["free_at_start_gib"]
        unnamed.append(row["used_mib"][0] / 1024 - sum(named) - before)
    assert len(unnamed) >= 15
    assert float(found[1]) == pytest.approx(min(unnamed), abs=0.15)
    assert float(found[2]) == pytest.approx(max(unnamed), abs=0.15)


def test_the_pages_on_memory_quote_the_boots() -> None:
    boots = [*rows("truth.json"), *rows("heldout.json")]
    shapes = {row["model"] for row in boots}
    memory = (ROOT / "docs" / "memory.md").read_text("utf-8")
    assert f"{len(boots)} boots of {len(shapes)} shapes" in memory
    evidence = (HERE / "README.md").read_text("utf-8")
    unnamed = re.search(r"holds ([\d.]+ to [\d.]+ GiB) more", evidence)
    assert unnamed is not None
    design = (ROOT / "docs" / "design" / "vram.md").read_text("utf-8")
    assert f"{unnamed[1]} that no log line names" in design
    withheld = round(143771 - TOTAL_GIB * 1024)
    assert f"an H200: {withheld} of 143771" in (ROOT / "docs" / "plan.md").read_text("utf-8")
