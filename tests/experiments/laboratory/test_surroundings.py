"""Interpreters, tools and versions as they are found on a machine."""

from pathlib import Path
from typing import Any

import pytest

from subcortex.config import Config, parse
from subcortex.experiments.laboratory.surroundings import interpreter_of, scene_of, tools_of
from subcortex.hardware import Hardware, Interpreter
from tests.experiments.harness import MODELS, VLLM_PYTHON


def program(path: Path, text: str = "#!/bin/sh\necho 'version: 6123 (abcdef)' >&2\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def config_of(*tiers: dict[str, Any], **experiments: Any) -> Config:
    found = [{"engine": "vllm", "model": "/models/m", **tier} for tier in tiers]
    return parse({"tiers": found, "experiments": experiments})


def test_the_configured_interpreter_comes_first_and_the_first_tiers_that_is_there_next(
    tmp_path: Path,
) -> None:
    own, other = program(tmp_path / "own" / "python"), program(tmp_path / "other" / "python")
    tiers = ({"name": "a", "python": str(tmp_path / "gone")}, {"name": "b", "python": str(other)})
    assert interpreter_of(config_of(*tiers, python=str(own))) == own
    assert interpreter_of(config_of(*tiers)) == other
    assert interpreter_of(config_of(tiers[0])) is None


@pytest.mark.parametrize("first", ["#!{python}", "#!/usr/bin/env {python}", "#!/bin/sh"])
def test_an_executables_first_line_names_its_interpreter(tmp_path: Path, first: str) -> None:
    python = program(tmp_path / "bin" / "python")
    vllm = program(tmp_path / "bin" / "vllm", first.format(python=python) + "\n")
    assert interpreter_of(config_of({"name": "a", "executable": str(vllm)})) == python


def test_tools_are_looked_for_in_their_folder_beside_the_server_and_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = program(tmp_path / "tools" / "llama-bench")
    server, other = (program(tmp_path / "llama" / name) for name in ("llama-server", "llama-bench"))
    nccl = program(tmp_path / "path" / "all_reduce_perf")
    monkeypatch.setenv("PATH", str(nccl.parent))
    tier = {"name": "l", "engine": "llama.cpp", "executable": str(server)}
    assert tools_of(config_of(tier, tools_dir=str(bench.parent))) == {
        "llama-bench": bench,
        "llama-server": server,
        "all_reduce_perf": nccl,
    }
    assert tools_of(config_of(tier))["llama-bench"] == other


def test_a_scene_asks_each_program_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(python: str) -> Interpreter:
        asked.append(python)
        return Interpreter(python=python, torch="2.11.0", vllm="0.26.0", nccl="2.28.9", cuda="13.0")

    monkeypatch.setattr("subcortex.hardware.ask_interpreter", ask)
    python = program(tmp_path / "venv" / "bin" / "python")
    packages = tmp_path / "venv" / "lib" / "python3.12" / "site-packages"
    packages.mkdir(parents=True)
    server = program(tmp_path / "llama" / "llama-server")
    program(tmp_path / "llama" / "llama-bench")
    config = config_of(
        {"name": "a", "python": str(python)},
        {"name": "b", "python": str(python)},
        {"name": "l", "engine": "llama.cpp", "executable": str(server)},
        {"name": "e", "engine": "llama.cpp"},
    )
    bare = Hardware(host_memory_total_mib=1, host_memory_available_mib=1, cores=1)
    for _ in range(2):
        scene = scene_of(config, found=bare)
    assert asked == [str(python)]
    assert scene.python == python
    assert {name: scene.versions[name] for name in ("torch", "nccl", "cuda")} == {
        "torch": "2.11.0",
        "nccl": "2.28.9",
        "cuda": "13.0",
    }
    assert scene.versions["vllm of b"] == "0.26.0"
    # llama-bench does not say its version, but was built with what lies beside it.
    assert scene.versions["llama-bench"] == scene.versions["llama.cpp of l"] == "6123 (abcdef)"
    assert scene.versions["llama.cpp of e"] == scene.versions["xllamacpp"]
    # Another torch installed there is asked for anew.
    (packages / "torch").mkdir()
    scene_of(config, found=bare)
    assert len(asked) == 2


def test_this_machines_interpreter_has_torch() -> None:
    tier = {"name": "v", "model": str(MODELS / "fast"), "python": str(VLLM_PYTHON)}
    scene = scene_of(config_of(tier))
    assert scene.python == VLLM_PYTHON
    assert scene.versions["torch"].startswith("2.")
    assert scene.versions["vllm of v"].startswith("0.")
