"""Real vLLM on the CPU, booted once: a random model whose weights it makes up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from subcortex.config import Config
from subcortex.engines import create
from subcortex.engines.protocol import Delta, Engine, Progress
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, InvalidRequest
from tests.engines import tiny_vllm
from tests.engines.conftest import VLLM_ENV, VLLM_FLAGS, asking, config_in

BOOT_LIMIT_S = 300.0


async def collected(engine: Engine, **request: Any) -> list[Delta]:
    return [delta async for delta in engine.generate(asking(**request))]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.vllm
class TestServing:
    """All on one engine: a boot takes twenty seconds. The last test kills it."""

    pytestmark = pytest.mark.asyncio(loop_scope="class")

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    async def served(
        self, tmp_path_factory: pytest.TempPathFactory, vllm_python: str
    ) -> AsyncIterator[tuple[Engine, list[str]]]:
        folder = tmp_path_factory.mktemp("vllm")
        config = config_in(
            folder,
            {
                "engine": "vllm",
                "model": str(tiny_vllm.write(folder / "model")),
                "python": vllm_python,
                "context_tokens": 512,
                "flags": VLLM_FLAGS,
                "env": VLLM_ENV,
                "start_timeout_s": BOOT_LIMIT_S,
            },
        )
        engine = create(config.tiers[0], config=config)
        told: list[str] = []
        try:
            await engine.start(Progress(listeners=[told.append]))
            yield engine, told
        finally:
            await engine.stop()

    @pytest.fixture
    def engine(self, served: tuple[Engine, list[str]]) -> Engine:
        return served[0]

    async def test_its_boot_is_told_in_stages(self, served: tuple[Engine, list[str]]) -> None:
        engine, told = served
        assert "loading weights" in told
        assert any(text.startswith("KV cache of ") for text in told)
        assert told[-1] == "ready"
        assert engine.version is not None
        assert engine.version.startswith("vllm ")
        assert await engine.healthy()

    async def test_it_streams(self, engine: Engine) -> None:
        deltas = await collected(engine, max_tokens=20, temperature=0)
        assert deltas[-1].finish_reason == "length"
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.completion_tokens == 20
        assert len(deltas) > 2
        assert text_of(deltas)

    async def test_one_token_comes_whole(self, engine: Engine) -> None:
        (delta,) = await collected(engine, max_tokens=1, temperature=0)
        assert delta.usage is not None
        assert delta.usage.completion_tokens == 1

    async def test_many_at_once(self, engine: Engine) -> None:
        answers = await asyncio.gather(*(collected(engine, max_tokens=10) for _ in range(12)))
        assert all(deltas[-1].finish_reason for deltas in answers)

    async def test_a_schema_is_obeyed(self, engine: Engine) -> None:
        schema = {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["n"],
            "additionalProperties": False,
        }
        answer = json.loads(text_of(await collected(engine, max_tokens=400, response_schema=schema, seed=1)))
        assert answer.keys() == {"n"}
        assert answer["n"] in range(10)

    @pytest.mark.parametrize(
        "wrong", [{"response_schema": {"type": "nope"}}, {"temperature": -3.0}, {"tool_choice": "sometimes"}]
    )
    async def test_what_it_refuses_is_an_invalid_request(self, engine: Engine, wrong: dict[str, Any]) -> None:
        with pytest.raises(InvalidRequest):
            await collected(engine, max_tokens=5, **wrong)
        assert await engine.healthy()

    async def test_a_prompt_that_is_too_long_says_both_figures(self, engine: Engine) -> None:
        with pytest.raises(DoesNotFit) as caught:
            await collected(engine, text="x" * 2000, max_tokens=5)
        assert caught.value.details["context_tokens"] == 512
        assert caught.value.details["prompt_tokens"] > 512

    async def test_closing_a_stream_stops_the_engine(self, engine: Engine) -> None:
        stream = engine.generate(asking(max_tokens=450, temperature=0))
        await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(60):
            while await running_requests(engine):
                await asyncio.sleep(0.02)
        # It counts what it generated: far less than was asked for.
        assert await metric(engine, "vllm:request_success_total", 'finished_reason="abort"') >= 1

    async def test_a_killed_server_takes_its_core_with_it(self, engine: Engine) -> None:
        assert engine.process is not None
        family = [
            psutil.Process(engine.process.pid),
            *psutil.Process(engine.process.pid).children(recursive=True),
        ]
        assert len(family) > 1
        os.kill(engine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            assert "SIGKILL" in await engine.exited()
        with pytest.raises(EngineFailed):
            await collected(engine, max_tokens=5)
        await engine.stop()
        _, alive = psutil.wait_procs(family, timeout=0)
        assert alive == []


async def metric(engine: Engine, name: str, label: str = "") -> float:
    status, text = await engine._wire.get("http://engine/metrics")  # type: ignore[attr-defined]
    assert status == 200
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name) and label in line
    )


async def running_requests(engine: Engine) -> float:
    return await metric(engine, "vllm:num_requests_running")


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
