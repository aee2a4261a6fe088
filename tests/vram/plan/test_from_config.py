"""What a configuration says of memory, as an ask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from subcortex.config import LlamaCppTier, VllmTier
from subcortex.errors import ConfigError
from subcortex.vram.plan import Free, TierAsk, plan
from subcortex.vram.plan.from_config import ask_from
from subcortex.vram.plan.place import layouts
from subcortex.vram.plan.real import Estimates
from subcortex.vram.plan.seat import Book
from subcortex.vram.setup import LlamaCppSetup, VllmSetup
from tests.vram.plan.toys import machine, toy

SHAPE = toy(5)


def vllm(*flags: str, **said: object) -> TierAsk:
    return ask_from(VllmTier.model_validate({"name": "t", "model": "m", "flags": list(flags), **said}), SHAPE)


def llamacpp(*flags: str, **said: object) -> TierAsk:
    values = {"name": "t", "model": "m.gguf", "executable": "llama-server", "flags": list(flags), **said}
    return ask_from(LlamaCppTier.model_validate(values), SHAPE)


def gguf_setup(*flags: str, **said: object) -> LlamaCppSetup:
    setup = llamacpp(*flags, **said).setup
    assert isinstance(setup, LlamaCppSetup)
    return setup


def vllm_setup(*flags: str, **said: object) -> VllmSetup:
    setup = vllm(*flags, **said).setup
    assert isinstance(setup, VllmSetup)
    return setup


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


@pytest.mark.parametrize("length", ["auto", "-1", "AUTO"])
def test_a_context_that_vllm_is_to_find_is_planned_at_the_model_s_full_length(length):
    # The flag stands after the tier's own on vLLM's command line, and the last one counts.
    ask = vllm("--max-model-len", length, context_tokens=4096)
    assert (ask.context_tokens, ask.setup.context_tokens) == (131072, 131072)


@pytest.mark.parametrize(
    ("words", "tokens"),
    [("25.6k", 25600), ("16K", 16384), ("8_192", 8192), ("1T", 2**40), ("1.5m", 1_500_000)],
)
def test_sizes_are_read_as_vllm_reads_them(words, tokens):
    assert vllm("--max-model-len", words).context_tokens == tokens


@pytest.mark.parametrize(
    "flags",
    [
        ("--max-model-len", "0"),
        ("--max-model-len", "-2"),
        ("--max-model-len", "1.5K"),
        ("--max-model-len", "long"),
        ("--max-num-seqs", "0"),
        ("--max-num-seqs", "1k"),
        ("--max-num-batched-tokens", "0"),
        ("--block-size", "0"),
        ("-tp", "0"),
        ("-pp", "-1"),
        ("--gpu-memory-utilization", "0"),
        ("--gpu-memory-utilization", "1.01"),
        ("--gpu-memory-utilization", "nan"),
        ("--kv-cache-memory-bytes", "-1"),
        ("--kv-cache-memory-bytes", "2x"),
        ("--max-num-seqs",),
    ],
)
def test_what_vllm_would_refuse_is_said_with_the_tier(flags):
    with pytest.raises(ConfigError, match="tier 't': --") as caught:
        vllm(*flags)
    assert caught.value.details["key"] == "flags"
    assert flags[-1] in caught.value.message


def test_a_pool_of_nothing_is_none_given():
    ask = vllm("--kv-cache-memory-bytes", "0")
    assert vllm_setup("--kv-cache-memory-bytes", "0").kv_pool_bytes is None
    assert Free.POOL in ask.free


def test_of_two_flags_of_a_kind_the_last_counts():
    assert vllm_setup("-tp", "2", "--tensor-parallel-size=4").tensor_parallel_size == 4
    assert vllm_setup("--tensor_parallel_size", "4", "-tp", "2").tensor_parallel_size == 2
    assert not vllm_setup("--enforce-eager", "--no-enforce-eager").eager
    assert vllm_setup("--no-enforce-eager", "--enforce-eager").eager
    assert gguf_setup("-c", "4096", "--ctx-size", "8192").context_tokens == 8192


def test_a_size_of_tensor_parallelism_that_a_flag_names_is_not_free():
    assert Free.TENSOR_PARALLEL not in vllm("-tp", "1").free


def test_weights_that_vllm_makes_fp8_while_loading_are_counted_so():
    ask = vllm("--quantization", "fp8")
    assert ask.shape.weights_bytes == pytest.approx(SHAPE.weights_bytes / 2, rel=0.01)
    # One scale a matrix: no blocks that a split must keep whole.
    assert ask.shape.quantisation is not None
    assert ask.shape.quantisation.block is None
    assert vllm("--quantization", "awq").shape is SHAPE


@pytest.mark.parametrize("flag", ["-c", "--ctx-size", "--ctx_size", "--n-ctx"])
def test_the_whole_cache_of_llama_cpp_is_what_the_flag_says(flag):
    own = llamacpp(flag, "8192", context_tokens=4096, parallel=4)
    assert (own.context_tokens, own.setup.context_tokens) == (2048, 8192)
    shared = llamacpp(flag, "8192", parallel=4)
    assert (shared.context_tokens, shared.setup.context_tokens) == (8192, 8192)


def test_a_context_of_0_is_the_model_s_own():
    assert gguf_setup("-c", "0", context_tokens=4096, parallel=2).context_tokens == 2 * 131072
    assert gguf_setup("-c", "0", parallel=2).context_tokens == 131072


@pytest.mark.parametrize("flag", ["-np", "--parallel", "--n-parallel"])
def test_slots_that_a_flag_names_divide_what_the_tier_s_own_would_have(flag):
    # The engine reckons with its own slots before it passes the flag on.
    ask, setup = llamacpp(flag, "8", context_tokens=4096, parallel=2), LlamaCppSetup(8192, 8)
    assert (ask.concurrency, ask.context_tokens, ask.setup) == (8, 1024, setup)


def test_slots_can_be_told_not_to_share():
    assert gguf_setup("--no-kv-unified", parallel=2) == LlamaCppSetup(2 * 131072, 2)
    assert gguf_setup("-kvu", context_tokens=4096, parallel=2).kv_unified is True


@pytest.mark.parametrize(("flags", "kept"), [((), None), (("-c", "8192", "--verbose"), 8192)])
def test_slots_that_share_keep_the_length_of_their_cache(flags, kept):
    ask = replace(llamacpp(*flags), shape=toy(2))
    hardware = machine(48)
    found = plan([ask], hardware, Estimates(hardware)).tiers[0]
    assert "context_tokens" not in found.launch.keys
    assert found.launch.arguments[:2] == ("--ctx-size", str(kept or 131072))
    assert "--kv-unified" in found.launch.arguments
    # Pasted into the tier, it means the same again.
    again = LlamaCppTier.model_validate(
        {"name": "t", "model": "m.gguf", "executable": "llama-server", **found.launch.keys}
    )
    setup = ask_from(again, ask.shape).setup
    assert isinstance(setup, LlamaCppSetup)
    assert (setup.context_tokens, setup.kv_unified) == (kept or 131072, True)


@pytest.mark.parametrize(
    ("words", "layers"), [("20", 20), ("0", 0), ("999", 999), ("auto", None), ("all", 9)]
)
def test_layers_on_gpus_are_read_in_numbers_and_words(words, layers):
    for flag in ("-ngl", "--n-gpu-layers", "--gpu-layers"):
        assert gguf_setup(flag, words, gpu_layers=3).gpu_layers == layers


@pytest.mark.parametrize("words", ["8,3", "8/3"])
def test_shares_of_gpus_come_from_flags_too(words):
    flags = ("-ts", words, "-sm", "row", "-mg", "1")
    setup = gguf_setup(*flags, tensor_split=[1, 1])
    assert (setup.tensor_split, setup.split_mode, setup.main_gpu) == ((8.0, 3.0), "row", 1)
    assert Free.SPLIT not in llamacpp(*flags).free


@pytest.mark.parametrize(
    ("words", "flash"),
    [
        (("on",), True),
        (("1",), True),
        (("off",), False),
        (("0",), False),
        (("disabled",), False),
        (("auto",), None),
        ((), True),
    ],
)
def test_flash_attention_is_read_as_llama_cpp_reads_it(words, flash):
    for flag in ("-fa", "--flash-attn"):
        assert gguf_setup(flag, *words, "-ctk", "q8_0").flash_attention is flash


def test_batches_of_llama_cpp_come_from_flags():
    setup = gguf_setup("-b", "1024", "-ub", "0", "--cache-ram", "2048")
    assert (setup.batch_tokens, setup.micro_batch_tokens, setup.prompt_cache_mib) == (1024, 1024, 2048)
    assert gguf_setup("--n-batch", "64", "--n-ubatch", "32").micro_batch_tokens == 32
    assert gguf_setup("--no-mmap").mmap is False


@pytest.mark.parametrize(
    "flags",
    [
        ("-np", "0"),
        ("-np", "-1"),
        ("-c", "-1"),
        ("-c", "8k"),
        ("-ngl", "-1"),
        ("-ngl", "some"),
        ("-sm", "column"),
        ("-fa", "maybe"),
        ("-b", "0"),
        ("-mg", "-1"),
        ("-ts", "8,x"),
        ("-ts", "nan,1"),
        ("--cache-ram", "-1"),
        ("-ctk",),
    ],
)
def test_what_llama_cpp_would_not_take_or_no_plan_can_hold_is_said(flags):
    with pytest.raises(ConfigError, match="tier 't': --"):
        llamacpp(*flags)


NO_SHARES = ([0.0, 0.0], [1.0, -1.0], [float("nan"), 1.0], [1.0, float("inf")], [0.0])


@pytest.mark.parametrize("shares", NO_SHARES)
def test_shares_that_give_nobody_anything_are_refused_at_once(shares):
    with pytest.raises(ConfigError, match="tier 't': tensor_split") as caught:
        llamacpp(tensor_split=shares)
    assert caught.value.details["key"] == "tensor_split"
    with pytest.raises(ConfigError, match="-1|0, 0"):
        llamacpp("-ts", "0,0") if 0.0 in shares else llamacpp("-ts", "1,-1")


@pytest.mark.parametrize("shares", NO_SHARES)
def test_shares_that_are_none_are_no_layout(shares):
    ask = llamacpp()
    ask = replace(ask, setup=replace(gguf_setup(), tensor_split=tuple(shares)), free=frozenset())
    hardware = machine(24, 24)
    book = Book(hardware, Estimates(hardware), 0.95)
    found, refused = layouts(book, ask)
    assert (found, len(refused)) == ([], 1)
    assert "tensor_split" in refused[0]
