"""``subcortex plan`` on real shapes, without starting anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import invoke, run, run_on_terminal

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "bench" / "shapes"
TESTBED = ROOT / "testbed" / "models"

CONFIG = """
[subcortex]
version = 1
[[tiers]]
name = "fast"
engine = "vllm"
model = "{shapes}/llama-3.1-8b"
context_tokens = 8192
max_concurrent = 8
[[tiers]]
name = "deep"
engine = "vllm"
model = "{shapes}/llama-3.1-70b"
tensor_parallel_size = 2
context_tokens = 8192
max_concurrent = 8
start = "lazy"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(shapes=SHAPES))
    return file


def planned(*arguments: object) -> dict[str, Any]:
    done = invoke("plan", *arguments, "--json")
    assert done.exit_code == 0, done.output
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


def test_the_tiers_of_the_configuration_are_planned_together(config):
    plan = planned("--config", config, "--gpus", "2x H200")
    assert plan["fits"] is True
    assert plan["probability"] >= 0.95
    fast, deep = plan["tiers"]
    assert [tier["mode"] for tier in plan["tiers"]] == ["awake", "awake"]
    assert deep["gpus"] == [0, 1]
    assert fast["requests"] == deep["requests"] == 8
    # 128 KiB a token of the 8B; pools are bytes, not shares.
    assert fast["config"]["flags"][:2] == ["--kv-cache-memory-bytes", str(8 * 8192 * 128 * 1024)]
    for device in plan["devices"]:
        assert device["need_mib"] <= device["budget_mib"]


def test_two_small_cards_take_turns(config):
    plan = planned("--config", config, "--gpus", "2x H100", "--probability", "0.9")
    modes = {tier["name"]: tier["mode"] for tier in plan["tiers"]}
    assert modes["fast"] == "awake"
    assert (modes["deep"] == "awake") == (plan["swaps"] == [])


def test_a_model_that_does_not_fit_says_what_would():
    done = invoke("plan", SHAPES / "llama-3.1-70b", "--gpus", "2x RTX 3090")
    assert done.exit_code == 5
    assert "short on GPU 0" in done.stderr
    assert "What fits, the least loss first" in done.stdout
    wire = json.loads(invoke("plan", SHAPES / "llama-3.1-70b", "--gpus", "2x RTX 3090", "--json").stdout)
    error = wire["error"]
    assert (error["code"], error["exit_code"]) == ("does_not_fit", 5)
    assert {short["component"] for short in error["details"]["short"]} == {"weights"}
    kinds = [other["kind"] for other in error["details"]["alternatives"]]
    assert kinds == sorted(kinds, key=["layout", "pool", "context", "cache", "quantisation", "smaller"].index)
    assert kinds[-1] == "smaller"


def test_a_quantisation_is_planned_as_if_it_were_there():
    plan = planned(
        SHAPES / "llama-3.1-70b", "--gpus", "2x RTX 5090", "--quantisation", "awq", "--context", 4096
    )
    assert plan["tiers"][0]["gpus"] == [0, 1]


def test_a_gguf_is_planned_for_llama_cpp():
    plan = planned(TESTBED / "deep" / "deep.gguf", "--gpus", "GTX 1060 3GB", "--concurrency", 2)
    (tier,) = plan["tiers"]
    assert (tier["engine"], tier["gpus"], tier["requests"]) == ("llama.cpp", [0], 2)
    assert "--n-gpu-layers" in tier["arguments"]


def test_the_configuration_that_comes_with_the_source_is_planned_in_host_memory():
    plan = planned("--config", ROOT / "config.toml")
    assert [tier["gpus"] for tier in plan["tiers"]] == [[], []]
    assert [tier["mode"] for tier in plan["tiers"]] == ["awake", "awake"]


def test_layouts_side_by_side():
    done = invoke("plan", SHAPES / "llama-3.1-8b", "--gpus", "2x RTX 3090", "--compare", "--json")
    assert done.exit_code == 0
    layouts = {layout["name"]: layout for layout in json.loads(done.stdout)["layouts"]}
    assert list(layouts) == ["TP 2", "PP 2", "DP 2", "GPU 0"]
    # Two all-reduces a layer and one more, of 8 KiB, of which each of two ranks sends as much; logits beside.
    assert layouts["TP 2"]["token_bytes"] == 65 * 8192 + 128256
    assert layouts["TP 2"]["tokens_per_s"] > layouts["DP 2"]["tokens_per_s"]
    assert layouts["DP 2"]["token_bytes"] == 0


def test_a_layout_that_the_engine_refuses_is_listed_with_the_reason():
    done = invoke("plan", SHAPES / "qwen2.5-7b", "--gpus", "3x RTX 3090", "--compare")
    assert done.exit_code == 0
    assert "28 attention heads do not divide by tensor_parallel_size 3" in done.stdout


def test_options_of_a_model_are_refused_without_one(config):
    done = invoke("plan", "--config", config, "--tp", "2")
    assert done.exit_code == 2
    assert "--tp goes with a MODEL" in done.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_what_is_printed_keeps_to_the_width(config, columns):
    done = run("plan", "--config", config, "--gpus", "2x H200", env={"COLUMNS": str(columns)})
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    shown = lines[: next(i for i, line in enumerate(lines) if line.startswith("# "))]
    assert [line for line in shown if len(line) > columns] == []
    assert "\x1b" not in done.stdout


def test_a_terminal_gets_colours_unless_it_does_not_want_them(config):
    arguments = ("plan", "--config", config, "--gpus", "2x H200")
    assert "\x1b[34m█" in run_on_terminal(*arguments)[1]
    plain = run_on_terminal(*arguments, env={"NO_COLOR": "1"})[1]
    assert "\x1b" not in plain
    assert "WWW" in plain


@pytest.mark.parametrize("quant_method", ["exl2", "so\nforged: line"])
def test_a_checkpoint_that_vllm_does_not_load_is_refused_with_what_it_would_load(tmp_path, quant_method):
    config = json.loads((SHAPES / "llama-3.1-8b" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": quant_method, "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = invoke("plan", tmp_path, "--gpus", "H200")
    assert done.exit_code == 5
    said = done.stdout + done.stderr
    assert "does not load" in said
    assert "in 16 bits" in said
    assert "--engine llama.cpp" in said
    assert not [line for line in said.splitlines() if line.startswith("forged")]
    done = invoke("plan", tmp_path, "--gpus", "H200", "--engine", "llama.cpp", "--json")
    (tier,) = json.loads(done.stdout)["tiers"]
    assert tier["model"] == "MODEL"
    assert any("does not load" in note for note in tier["notes"])


def test_what_is_not_certain_of_a_model_is_said(tmp_path):
    config = json.loads((SHAPES / "llama-3.1-8b" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "brand_new"}))
    note = "Models of type brand_new are not known here: counted as a Llama with the config's figures."
    assert planned(tmp_path, "--gpus", "H200")["tiers"][0]["notes"] == [note]
    assert "brand_new are not known here" in " ".join(
        invoke("plan", tmp_path, "--gpus", "H200").stdout.split()
    )
