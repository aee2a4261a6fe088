"""Real engines for the tests: a random GGUF for llama.cpp, and one vLLM a session on the CPU."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from subcortex.config import Config, parse
from subcortex.engines import create
from subcortex.engines.protocol import Engine, GenerateRequest, Progress
from tests.engines import sleepy_server, tiny_gguf

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    def make(**tier: Any) -> Config:
        return config_in(tmp_path, tier)

    return make


def config_in(folder: Path, tier: dict[str, Any]) -> Config:
    return parse(
        {
            "daemon": {"runtime_dir": str(folder / "run")},
            "journal": {"database": str(folder / "state" / "journal.db")},
            "tiers": [{"name": "fast", **tier}],
        }
    )


@pytest.fixture
def running(make_config: Callable[..., Config], gguf: Path) -> Callable[..., Any]:
    """Return a context manager that runs llama.cpp on the random model; its arguments go to the tier."""

    @asynccontextmanager
    async def run(**tier: Any) -> AsyncIterator[Engine]:
        tier = {"engine": "llama.cpp", "model": str(gguf), "context_tokens": 256, "parallel": 2} | tier
        config = make_config(**tier)
        engine = create(config.tiers[0], config=config)
        try:
            await engine.start(Progress())
            yield engine
        finally:
            await engine.stop()

    return run


@pytest.fixture
def sleepy(make_config: Callable[..., Config], tmp_path: Path) -> Callable[..., Any]:
    """Return a context manager that runs vLLM's stand-in as switched; it gives engine and program."""

    @asynccontextmanager
    async def run(tier: dict[str, Any] | None = None, **switches: Any) -> AsyncIterator[tuple[Engine, Path]]:
        program = sleepy_server.install(tmp_path / "bin", **switches)
        tier = {"sleep_mode": True, "start_timeout_s": 60.0} | (tier or {})
        config = make_config(engine="vllm", model="owner/model", executable=str(program), **tier)
        engine = create(config.tiers[0], config=config)
        try:
            await engine.start(Progress())
            yield engine, program
        finally:
            await engine.stop()

    return run


def asking(text: str = "Say something.", **request: Any) -> GenerateRequest:
    return GenerateRequest([{"role": "user", "content": text}], **request)


@pytest.fixture(scope="session")
def vllm_python() -> str:
    named = os.environ.get("SUBCORTEX_TEST_VLLM_PYTHON")
    python = Path(named) if named else _ROOT / ".venv-vllm" / "bin" / "python"
    if not python.is_file():
        pytest.fail(f"no vLLM at {python}: run `make setup`, or set SUBCORTEX_TEST_VLLM_PYTHON")
    return str(python)


VLLM_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "0",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
VLLM_FLAGS = ["--load-format", "dummy", "--enforce-eager", "--dtype", "float32", "--max-num-seqs", "8"]
