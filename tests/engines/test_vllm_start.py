"""What vLLM is started with, and what is refused before or while it starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from subcortex.config import Config
from subcortex.engines import create, vllm
from subcortex.engines.protocol import Progress
from subcortex.errors import ConfigError, EngineFailed
from tests.engines import tiny_vllm
from tests.engines.conftest import VLLM_ENV, VLLM_FLAGS


def vllm_tier(folder: Path, **tier: Any) -> dict[str, Any]:
    model = tiny_vllm.write(folder / "model")
    return {"engine": "vllm", "model": str(model), "env": VLLM_ENV, "flags": VLLM_FLAGS} | tier


@pytest.mark.vllm
async def test_a_flag_it_does_not_know_is_named(
    make_config: Callable[..., Config], vllm_python: str, tmp_path: Path
) -> None:
    config = make_config(**vllm_tier(tmp_path, python=vllm_python, flags=["--frobnicate", "3"]))
    engine = create(config.tiers[0], config=config)
    with pytest.raises(ConfigError, match="--frobnicate"):
        await engine.start(Progress())
    await engine.stop()


async def test_an_interpreter_without_vllm_says_how_to_get_it(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = make_config(**vllm_tier(tmp_path, python=sys.executable))
    with pytest.raises(ConfigError, match="has no vLLM") as caught:
        await create(config.tiers[0], config=config).start(Progress())
    assert "pip install vllm" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("tier", "words"),
    [
        ({"python": "no/such/python"}, "no/such/python is not there"),
        ({"executable": "no-such-vllm"}, "no-such-vllm is not there"),
        ({"python": "/bin/false"}, "/bin/false does not work"),
        ({"model": "./no/such/model"}, "there is no model folder"),
        ({"model": "/"}, "has no config.json"),
    ],
)
async def test_what_is_missing_is_named_before_anything_starts(
    make_config: Callable[..., Config], tmp_path: Path, tier: dict[str, Any], words: str
) -> None:
    config = make_config(**vllm_tier(tmp_path, **tier))
    engine = create(config.tiers[0], config=config)
    with pytest.raises(ConfigError, match=words):
        await engine.start(Progress())
    assert engine.process is None


async def test_the_command_is_what_the_tier_says(make_config: Callable[..., Config], tmp_path: Path) -> None:
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'], os.environ['OWN'])\n"
        "print(os.environ['PATH'].split(':')[0])\nprint(*sys.argv[1:])\n"
    )
    program.chmod(0o755)
    config = make_config(
        engine="vllm",
        model="owner/model",
        executable=str(program),
        tensor_parallel_size=2,
        pipeline_parallel_size=2,
        context_tokens=8192,
        gpu_memory_utilization=0.4,
        gpus=[2, 3],
        env={"OWN": "yes"},
        flags=["--quantization", "awq"],
    )
    engine = create(config.tiers[0], config=config)
    with pytest.raises(EngineFailed) as caught:
        await engine.start(Progress())
    await engine.stop()
    socket = tmp_path / "run" / "engines" / "fast" / "engine.sock"
    devices, path, arguments = caught.value.details["log_tail"].splitlines()
    assert devices == "2,3 PCI_BUS_ID yes"
    assert path == str(program.parent)
    assert arguments == (
        f"serve owner/model --served-model-name fast --uds {socket} --tensor-parallel-size 2 "
        "--disable-uvicorn-access-log --pipeline-parallel-size 2 --max-model-len 8192 "
        "--gpu-memory-utilization 0.4 --quantization awq"
    )


@pytest.mark.parametrize("trusted", [False, True])
async def test_code_of_the_model_runs_only_where_the_tier_says_so(
    make_config: Callable[..., Config], tmp_path: Path, trusted: bool
) -> None:
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:])\n")
    program.chmod(0o755)
    config = make_config(
        engine="vllm", model="owner/model", executable=str(program), trust_remote_code=trusted
    )
    engine = create(config.tiers[0], config=config)
    with pytest.raises(EngineFailed) as caught:
        await engine.start(Progress())
    await engine.stop()
    assert ("--trust-remote-code" in caught.value.details["log_tail"]) is trusted


async def test_nothing_of_an_interpreter_s_group_outlives_the_question(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    left = tmp_path / "left"
    program = tmp_path / "python"
    # It leaves one that holds its output, and says no.
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {left}\necho out of order >&2\nexit 4\n")
    program.chmod(0o755)
    config = make_config(**vllm_tier(tmp_path, python=str(program)))
    with pytest.raises(ConfigError, match="does not work: out of order"):
        await create(config.tiers[0], config=config).start(Progress())
    await gone(int(left.read_text()))


async def test_an_interpreter_that_does_not_answer_is_ended_with_all_it_started(
    make_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "_PROBE_LIMIT_S", 0.5)
    left = tmp_path / "left"
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {left}.new\nmv {left}.new {left}\nwait\n")
    program.chmod(0o755)
    config = make_config(**vllm_tier(tmp_path, python=str(program)))
    with pytest.raises(ConfigError, match="does not answer"):
        await create(config.tiers[0], config=config).start(Progress())
    if left.exists():
        await gone(int(left.read_text()))


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        await asyncio.sleep(0.01)
