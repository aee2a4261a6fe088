"""What people get wrong, and what the machine gets wrong: the plan says so and stays a plan."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from subcortex.client import Client
from tests.cli.helpers import invoke
from tests.conftest import ROOT, wait_for, write_config

SHAPES = ROOT / "bench" / "shapes"


def planned(*arguments: object) -> dict[str, Any]:
    """Return the one tier of a plan."""
    done = invoke("plan", *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    (tier,) = json.loads(done.stdout)["tiers"]
    return dict(tier)


def test_weights_that_the_host_computes_have_to_be_there(tmp_path: Path) -> None:
    done = invoke("plan", SHAPES / "deepseek-v2", "--engine", "llama.cpp", "--quantisation", "Q8_0")
    assert done.exit_code == 5
    assert "weights" in done.stderr


def test_a_pin_to_a_gpu_that_is_not_there_is_named(folder: Path) -> None:
    file = write_config(folder, deep="gpus = [7]")
    done = invoke("plan", "--config", file, "--gpus", "2x RTX 3090")
    assert done.exit_code == 3
    assert "'deep' is to run on GPU 7" in done.stderr
    assert "0, 1" in done.stderr


def test_a_missing_model_is_named_with_its_tier(folder: Path) -> None:
    file = write_config(folder)
    file.write_text(file.read_text().replace("deep/deep.gguf", "deep/gone.gguf"))
    done = invoke("plan", "--config", file)
    assert done.exit_code == 3
    assert "tier 'deep'" in done.stderr
    assert "gone.gguf" in done.stderr


def test_vllm_is_not_asked_to_serve_gguf() -> None:
    done = invoke("plan", ROOT / "testbed" / "models" / "deep" / "deep.gguf", "--engine", "vllm")
    assert done.exit_code == 4
    assert "GGUF" in done.stderr


def test_more_requests_wanted_never_means_fewer() -> None:
    def room(wanted: int) -> float:
        arguments = (SHAPES / "llama-3.1-8b", "--gpus", "RTX 3090", "--concurrency", wanted)
        return float(planned(*arguments)["requests"])

    few, many = room(64), room(100_000)
    assert many == pytest.approx(few, rel=0.02)


@pytest.mark.parametrize("model", ["falcon-h1-7b", "nemotron-h-8b"])
def test_recurrent_models_get_no_more_sequences_than_states(model: str) -> None:
    command = planned(SHAPES / model, "--gpus", "H200")["arguments"]
    assert 0 < int(command[command.index("--max-num-seqs") + 1]) <= 256


def test_an_imagined_quantisation_prints_no_command_that_loads_the_model_as_it_is() -> None:
    arguments = (SHAPES / "llama-3.1-8b", "--quantisation", "awq", "--gpus", "RTX 3060")
    done = invoke("plan", *arguments)
    assert done.exit_code == 0
    assert f"# llama-3.1-8b, as a command; MODEL is a checkpoint of {arguments[0]} quantised as awq" in (
        done.stdout.splitlines()
    )
    assert " vllm serve MODEL --max-model-len" in done.stdout
    assert f"serve {arguments[0]}" not in done.stdout


def test_fp8_is_made_while_loading_of_the_model_itself() -> None:
    tier = planned(SHAPES / "llama-3.1-8b", "--quantisation", "fp8", "--gpus", "RTX 3090")
    assert (tier["model"], tier["model_note"]) == (str(SHAPES / "llama-3.1-8b"), None)
    assert tier["arguments"][-2:] == ["--quantization", "fp8"]


def test_a_type_of_gguf_means_llama_cpp_and_vllm_has_none() -> None:
    tier = planned(SHAPES / "llama-3.1-8b", "--quantisation", "Q4_K_M", "--gpus", "RTX 3060")
    assert tier["engine"] == "llama.cpp"
    assert tier["model_note"] == f"a GGUF of type Q4_K_M made of {SHAPES / 'llama-3.1-8b'}"
    for engine, method in (("vllm", "Q4_K_M"), ("llama.cpp", "awq")):
        arguments = ("--engine", engine, "--quantisation", method, "--gpus", "RTX 3060")
        done = invoke("plan", SHAPES / "llama-3.1-8b", *arguments)
        assert done.exit_code == 4
        assert f"{engine} has no weights stored as {method}" in done.stderr


def test_llama_cpp_is_not_told_to_load_a_folder() -> None:
    tier = planned(SHAPES / "llama-3.2-1b", "--engine", "llama.cpp", "--gpus", "RTX 3060")
    assert (tier["model"], tier["model_note"]) == ("MODEL", f"a GGUF made of {SHAPES / 'llama-3.2-1b'}")


def test_old_cards_get_llama_cpp_and_a_word_why_vllm_is_none_for_them() -> None:
    assert planned(SHAPES / "llama-3.2-1b", "--gpus", "V100 32GB")["engine"] == "llama.cpp"
    done = invoke("plan", SHAPES / "llama-3.2-1b", "--engine", "vllm", "--gpus", "V100 32GB")
    assert done.exit_code == 5
    assert "vLLM wants compute capability 7.5, and GPU 0 (V100 32GB) has 7.0" in done.stderr
    assert "llama.cpp runs on such cards" in done.stderr
    offered = invoke("plan", SHAPES / "llama-3.1-8b", "--gpus", "GTX 1080 Ti")
    assert "take a GGUF of type Q8_0 made of llama-3.1-8b" in offered.stdout


def test_a_flag_that_makes_fp8_is_planned_as_fp8(folder: Path) -> None:
    def weights_gib(*flags: str) -> float:
        file = folder / "config.toml"
        file.write_text(
            "[subcortex]\nversion = 1\n[[tiers]]\nname = 'deep'\nengine = 'vllm'\ncontext_tokens = 8192\n"
            f"model = '{SHAPES / 'llama-3.1-8b'}'\nflags = {json.dumps(flags)}\n"
        )
        done = json.loads(invoke("plan", "--config", file, "--gpus", "H200", "--json").stdout)
        (share,) = done["devices"][0]["shares"]
        return float(share["components"]["weights"]["mean_mib"]) / 1024

    assert weights_gib() == pytest.approx(14.96, abs=0.05)
    assert weights_gib("--quantization", "fp8") == pytest.approx(8.46, abs=0.1)


def test_a_damaged_start_on_record_is_passed_over(running: Client) -> None:
    config = running.config

    def learned() -> int:
        found = invoke("plan", "--calibration", "--json", "--config", config.source)
        return int(json.loads(found.stdout)["starts"])

    wait_for(lambda: learned() >= 2)
    before = learned()
    with sqlite3.connect(config.database_path, timeout=30) as database:
        (kept,) = database.execute("SELECT predicted FROM boots WHERE tier = 'fast'").fetchone()
        for damaged in ("{", '{"footprint": {"devices": [], "host": {"kv": [1e999, 1]}}}', "[]"):
            database.execute("UPDATE boots SET predicted = ? WHERE tier = 'fast'", (damaged,))
            database.commit()
            assert learned() == before - 1
            assert invoke("plan", "--config", config.source).exit_code == 0
        database.execute("UPDATE boots SET predicted = ? WHERE tier = 'fast'", (kept,))
    assert learned() == before


def test_a_persons_other_flags_are_passed_on(folder: Path) -> None:
    flags = ["--block-size", "32", "--tool-call-parser=hermes", "-O3", "--max-num-seqs", "64"]
    file = folder / "config.toml"
    file.write_text(
        "[subcortex]\nversion = 1\n[[tiers]]\nname = 'deep'\nengine = 'vllm'\ncontext_tokens = 8192\n"
        f"model = '{SHAPES / 'llama-3.1-8b'}'\nflags = {json.dumps(flags)}\n"
    )
    command = planned("--config", file, "--gpus", "H200")["arguments"]
    assert command[-4:] == ["--block-size", "32", "--tool-call-parser=hermes", "-O3"]
    assert command.count("--max-num-seqs") == 1
    assert command[command.index("--max-num-seqs") + 1] == "64"


def test_slots_that_share_one_cache_are_told_so(folder: Path) -> None:
    file = write_config(folder)
    file.write_text(file.read_text().replace("context_tokens = 1024\n", ""))
    done = json.loads(invoke("plan", "--config", file, "--json").stdout)
    for tier in done["tiers"]:
        assert "--kv-unified" in tier["arguments"]
        assert "context_tokens" not in tier["config"]
