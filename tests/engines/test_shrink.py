"""What a start that ran out of memory asks less of next time, and what it leaves as the config says."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.config import Config, LlamaCppTier, VllmTier
from subcortex.engines import _shrink, create
from subcortex.engines._shrink import LEAST_CONTEXT_TOKENS, Lowered
from subcortex.engines.protocol import Engine, Progress
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed
from subcortex.types import BootFigures, DeviceFigures
from tests.engines import sleepy_server, tiny_gguf
from tests.engines.sleepy_server import switch

Make = Callable[..., Config]


def vllm(make_config: Make, folder: Path, tier: dict[str, Any], **switches: Any) -> tuple[Engine, Path]:
    program = sleepy_server.install(folder / "bin", **switches)
    config = make_config(engine="vllm", model="owner/model", executable=str(program), **tier)
    return create(config.tiers[0], config=config), program


def command(engine: Engine) -> str:
    assert engine.process is not None
    return " ".join(psutil.Process(engine.process.pid).cmdline())


@pytest.mark.parametrize(
    ("room", "words", "flags"),
    [
        # 40 of 80 GiB are free, a hundredth is left for what comes.
        ({"free_gib": 40.0}, "gpu_memory_utilization 0.92 → 0.49", "--gpu-memory-utilization 0.49"),
        # 95 % of the 10 000 tokens that vLLM says would fit, in steps of 256.
        ({"kv_tokens": 10_000}, "context 32768 → 9472 tokens", "--max-model-len 9472"),
        (
            {"most_batched": 4096},
            "tokens a step 8192 → 4096, requests a step → 32",
            "--max-num-batched-tokens 4096 --max-num-seqs 32",
        ),
    ],
    ids=["memory taken", "context too long", "profiling"],
)
async def test_vllm_starts_with_less_the_second_time(
    make_config: Make, tmp_path: Path, room: dict[str, Any], words: str, flags: str
) -> None:
    engine, program = vllm(make_config, tmp_path, {}, **room)
    try:
        with pytest.raises(DoesNotFit):
            await engine.start(Progress())
        await engine.stop()
        assert engine.shrink() == words
        # Once a failure.
        assert engine.shrink() is None
        await engine.start(Progress())
        assert flags in command(engine)
        await engine.stop()
        # What made it fail may still be there: it is not tried again with more.
        await engine.start(Progress())
        assert flags in command(engine)
        assert engine.shrink() is None
        # One that only takes too long is not short of memory.
        await engine.stop()
        switch(program, slow_s={"start": 100})
        engine._tier = engine._tier.model_copy(update={"start_timeout_s": 0.2})  # type: ignore[attr-defined]
        with pytest.raises(EngineFailed):
            await engine.start(Progress())
        assert engine.shrink() is None
    finally:
        await engine.stop()


@pytest.mark.parametrize(
    ("room", "tier"),
    [
        ({"free_gib": 40.0}, {"gpu_memory_utilization": 0.9}),
        ({"free_gib": 40.0}, {"flags": ["--gpu-memory-utilization=0.9"]}),
        ({"free_gib": 40.0}, {"flags": ["--kv_cache_memory_bytes", "1000"]}),
        # A tenth of the card has no room for what needed nine.
        ({"free_gib": 8.0}, {}),
        ({"kv_tokens": 10_000}, {"context_tokens": 20_000}),
        ({"kv_tokens": 10_000}, {"flags": ["--max-model-len", "20000"]}),
        ({"kv_tokens": 900}, {}),
        ({"most_batched": 1}, {"flags": ["--max-num-batched-tokens", "4096", "--max-num-seqs", "8"]}),
    ],
)
async def test_what_is_pinned_or_hopeless_stays(
    make_config: Make, tmp_path: Path, room: dict[str, Any], tier: dict[str, Any]
) -> None:
    engine, _ = vllm(make_config, tmp_path, tier, **room)
    with pytest.raises(DoesNotFit):
        await engine.start(Progress())
    await engine.stop()
    assert engine.shrink() is None


async def test_a_start_that_failed_for_another_reason_asks_for_no_less(
    make_config: Make, gguf: Path, tmp_path: Path
) -> None:
    config = make_config(engine="llama.cpp", model=str(gguf), flags=["--frobnicate", "3"])
    engine = create(config.tiers[0], config=config)
    assert engine.shrink() is None
    with pytest.raises(ConfigError):
        await engine.start(Progress())
    await engine.stop()
    assert engine.shrink() is None


def graphs(**figures: Any) -> BootFigures:
    card = DeviceFigures(device="GPU 0", components={"weights": 15_000.0})
    return BootFigures(engine="vllm", devices=[card], **figures)


OOM = DoesNotFit("it asked for another 3 GiB", gpu=0, needed_gib=3.0)


def test_room_for_the_graphs_is_taken_from_the_pool() -> None:
    tier = VllmTier(name="deep", model="m")
    figures = graphs(kv_tokens=100_000, gpu_memory_utilization=0.9, max_batched_tokens=8192)
    found = _shrink.for_vllm(tier, OOM, figures, Lowered())
    assert found == (Lowered(gpu_memory_utilization=0.83), "gpu_memory_utilization 0.9 → 0.83")
    again = _shrink.for_vllm(tier, OOM, figures, found[0])
    assert again == (Lowered(gpu_memory_utilization=0.76), "gpu_memory_utilization 0.83 → 0.76")


def test_weights_that_do_not_fit_are_helped_by_nothing() -> None:
    tier = VllmTier(name="deep", model="m")
    assert _shrink.for_vllm(tier, OOM, None, Lowered()) is None
    without = BootFigures(engine="vllm", devices=[DeviceFigures(device="GPU 0", total_mib=80_000.0)])
    assert _shrink.for_vllm(tier, OOM, without, Lowered()) is None
    fast = LlamaCppTier(name="fast", model="m")
    assert _shrink.for_llamacpp(fast, OOM, BootFigures(engine="llama.cpp"), Lowered()) is None


def test_without_chunks_a_step_keeps_its_size() -> None:
    tier = VllmTier(name="deep", model="m", max_concurrent=8)
    figures = graphs(max_batched_tokens=8192, chunked_prefill=False)
    assert _shrink.for_vllm(tier, OOM, figures, Lowered()) == (
        Lowered(max_sequences=8),
        "requests a step → 8",
    )


@pytest.mark.parametrize(
    "tier",
    [
        {"context_tokens": 4096},
        {"flags": ["--ctx-size", "4096"]},
        {"flags": ["-c", "4096"]},
        {"env": {"LLAMA_ARG_CTX_SIZE": "4096"}},
    ],
)
def test_a_context_that_is_pinned_stays(tier: dict[str, Any]) -> None:
    figures = BootFigures(engine="llama.cpp", context_tokens=131_072)
    fast = LlamaCppTier(name="fast", model="m", **tier)
    assert _shrink.for_llamacpp(fast, OOM, figures, Lowered()) is None
    fast = LlamaCppTier(name="fast", model="m")
    assert _shrink.for_llamacpp(fast, OOM, figures, Lowered()) == (
        Lowered(context_tokens=65_536),
        "context 131072 → 65536 tokens",
    )


@given(st.integers(1, 2_000_000))
def test_a_context_is_lowered_until_it_would_be_of_no_use(context: int) -> None:
    tier, asked = LlamaCppTier(name="fast", model="m"), [context]
    now = Lowered()
    while found := _shrink.for_llamacpp(
        tier, OOM, BootFigures(engine="llama.cpp", context_tokens=asked[-1]), now
    ):
        now = found[0]
        assert now.context_tokens is not None
        asked.append(now.context_tokens)
    assert asked == sorted(set(asked), reverse=True)
    assert all(tokens >= LEAST_CONTEXT_TOKENS for tokens in asked[1:])
    assert (asked[-1] == LEAST_CONTEXT_TOKENS) is (context >= LEAST_CONTEXT_TOKENS)


async def test_real_llamacpp_starts_with_half_the_context(make_config: Make, tmp_path: Path) -> None:
    # Half a KiB a token of cache and one of scratch: 4.5 GiB beside the program, then half of it.
    trained, limit = 3 * 2**20, 4 * 2**30
    model = tiny_gguf.write(tmp_path / "long.gguf", context=trained)
    config = make_config(engine="llama.cpp", model=str(model), parallel=1, threads=1)
    engine = create(config.tiers[0], config=config)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def bound(text: str) -> None:
        if text == "starting":
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))

    try:
        with pytest.raises(DoesNotFit):
            await engine.start(Progress(listeners=[bound]))
        await engine.stop()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert engine.shrink() == f"context {trained} → {trained // 2} tokens"
        await engine.start(Progress(listeners=[bound]))
        figures = engine.boot_figures()
        assert figures is not None
        assert figures.context_tokens == trained // 2
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        await engine.stop()
