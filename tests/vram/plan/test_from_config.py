"""What a configuration says of memory, as an ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import ConfigError
from subcortex.vram.plan import Free
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.setup import LlamaCppSetup, VllmSetup
from tests.vram.plan.toys import toy

SHAPE = toy(5)


def test_what_a_vllm_tier_leaves_out_is_free():
    ask = ask_from(VllmTier(name="t", model="m"), SHAPE, rank=3)
    assert ask.free == {Free.POOL, Free.TENSOR_PARALLEL}
    assert (ask.rank, ask.context_tokens, ask.concurrency, ask.sleepable) == (3, 131072, 32, True)
    assert ask.devices is None


def test_what_a_vllm_tier_says_is_kept():
    tier = VllmTier(
        name="t",
        model="m",
        gpus=[1, 0],
        tensor_parallel_size=1,
        gpu_memory_utilization=0.5,
        context_tokens=4096,
        max_concurrent=8,
        start="lazy",
    )
    ask = ask_from(tier, SHAPE)
    assert ask.free == set()
    assert ask.devices == (1, 0)
    assert ask.start == "lazy"
    assert ask.setup == VllmSetup(context_tokens=4096, gpu_memory_utilization=0.5)


def test_flags_of_vllm_count():
    flags = [
        *("--max-num-seqs", "16", "--max_num_batched_tokens=2048", "--enforce-eager"),
        *("--kv-cache-dtype", "fp8", "--kv-cache-memory-bytes", "2G", "--enable-sleep-mode"),
        *("--disable-custom-all-reduce", "--max-model-len", "16k"),
    ]
    ask = ask_from(VllmTier(name="t", model="m", flags=flags), SHAPE)
    assert ask.setup == VllmSetup(
        context_tokens=16000,
        max_batched_tokens=2048,
        max_sequences=16,
        kv_bytes_per_element=1.0,
        eager=True,
        sleep_mode=True,
        custom_all_reduce=False,
        kv_pool_bytes=2 * 1024**3,
    )
    assert ask.free == {Free.TENSOR_PARALLEL}
    assert ask.concurrency == 16


def test_an_unreadable_flag_names_the_tier():
    with pytest.raises(ConfigError, match="tier 't': --max-num-seqs is 'many'"):
        ask_from(VllmTier(name="t", model="m", flags=["--max-num-seqs", "many"]), SHAPE)


def test_every_slot_of_llama_cpp_has_the_whole_context():
    tier = LlamaCppTier(name="t", model="m.gguf", executable=Path("llama-server"), context_tokens=4096)
    ask = ask_from(tier, SHAPE)
    assert (ask.context_tokens, ask.concurrency) == (4096, 4)
    assert ask.setup == LlamaCppSetup(context_tokens=16384, parallel=4)
    assert ask.free == {Free.SPLIT}


def test_without_a_context_the_slots_share_the_model_s():
    tier = LlamaCppTier(name="t", model="m.gguf", executable=Path("llama-server"))
    assert ask_from(tier, SHAPE).setup == LlamaCppSetup(context_tokens=131072, parallel=4, kv_unified=True)


def test_the_embedded_llama_cpp_has_no_gpu():
    assert ask_from(LlamaCppTier(name="t", model="m.gguf", gpus=[0]), SHAPE).devices == ()


def test_flags_of_llama_cpp_count():
    flags = ["-ctk", "q8_0", "--cache-type-v", "q8_0", "-fa", "on", "-ub", "256", "--no-mmap", "-ngl", "20"]
    tier = LlamaCppTier(
        name="t",
        model="m.gguf",
        executable=Path("llama-server"),
        context_tokens=4096,
        parallel=1,
        tensor_split=[8, 3],
        flags=flags,
    )
    ask = ask_from(tier, SHAPE)
    assert ask.setup == LlamaCppSetup(
        context_tokens=4096,
        micro_batch_tokens=256,
        gpu_layers=20,
        tensor_split=(8.0, 3.0),
        kv_type_k="q8_0",
        kv_type_v="q8_0",
        flash_attention=True,
        mmap=False,
    )
    assert ask.free == set()
