"""What engines say of their own memory, as recorded from real boots and as they write it now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.engines import _llamacpp_memory, _vllm_memory, create
from subcortex.engines.protocol import Progress
from subcortex.errors import ConfigError
from subcortex.types import BootFigures, DeviceFigures

RECORDED = Path(__file__).parent / "recorded"
GIB = 1024.0


def lines(name: str) -> list[str]:
    return (RECORDED / name).read_text().splitlines()


def vllm(text: str) -> BootFigures:
    found = _vllm_memory.read_boot(text.splitlines())
    assert found is not None
    return found


def gib(device: DeviceFigures) -> dict[str, float | None]:
    """Return what was read of a device in GiB to a hundredth, as the log has it."""
    parts: dict[str, float | None] = dict(device.components)
    parts |= {"other": device.other_mib, "kv": device.kv_pool_mib}
    parts |= {"free": device.free_at_start_mib, "total": device.total_mib}
    return {name: None if mib is None else round(mib / GIB, 2) for name, mib in parts.items()}


def test_vllm_026_on_one_h200() -> None:
    figures = _vllm_memory.read_boot(lines("vllm-0.26-8b-tp1-memory.log"))
    assert figures is not None
    assert figures.model_dump(exclude={"devices", "resolution_mib"}) == {
        "engine": "vllm",
        "version": "0.26.0",
        "host": None,
        "kv_tokens": 152512,
        "max_concurrency": 18.62,
        "kv_pinned": False,
        "kv_dtype": "auto",
        "context_tokens": 8192,
        "max_batched_tokens": 8192,
        "chunked_prefill": True,
        "gpu_memory_utilization": 0.25,
    }
    (card,) = figures.devices
    assert gib(card) == {
        "weights": 15.0,
        "activations": 1.1,
        "graphs": 0.98,
        "other": 0.22,
        "kv": 18.62,
        "free": 139.29,
        "total": 139.8,
    }


def test_vllm_026_on_two_h200_tells_the_ranks_apart_whatever_their_order() -> None:
    figures = _vllm_memory.read_boot(lines("vllm-0.26-70b-tp2-memory.log"))
    assert figures is not None
    same = {"weights": 65.74, "activations": 1.16, "graphs": 1.53, "other": 0.0, "kv": 19.77, "total": 139.8}
    # The second rank's summary stands first in the log; the first rank's card was shared with another engine.
    assert [gib(card) for card in figures.devices] == [{**same, "free": 102.19}, {**same, "free": 138.34}]
    assert [card.device for card in figures.devices] == ["GPU 0", "GPU 1"]
    assert (figures.kv_tokens, figures.max_concurrency) == (129552, 15.81)


@pytest.mark.parametrize("name", [file.name for file in RECORDED.glob("vllm-*.log")])
def test_the_lines_that_are_kept_say_all_that_the_log_says(name: str) -> None:
    kept = [line for line in lines(name) if _vllm_memory.of_interest(line)]
    assert _vllm_memory.read_boot(kept) == _vllm_memory.read_boot(lines(name))


def test_vllm_on_a_cpu_takes_host_memory_of_every_rank() -> None:
    figures = _vllm_memory.read_boot(lines("vllm-0.32-cpu-tp2-boot.log"))
    assert figures is not None
    assert figures.devices == []
    assert figures.host is not None
    assert gib(figures.host) == {"other": None, "kv": 2.0, "free": 21.21, "total": 23.54}
    assert figures.kv_pinned
    assert (figures.version, figures.kv_tokens, figures.max_batched_tokens) == ("0.32.0", 1048576, 4096)
    assert (figures.max_concurrency, figures.context_tokens, figures.chunked_prefill) == (1024.0, 1024, True)


# The sentences of 0.32 as its source writes them, in the order of a boot; the figures are made up.
BOOT_032 = """
(EngineCore pid=9) INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: \
model='m', max_seq_len=8192, tensor_parallel_size=1, kv_cache_dtype=fp8, device_config=cuda, \
enable_chunked_prefill=True
(EngineCore pid=9) INFO [model_runner.py:425] Model loading took 15.0 GiB memory and 1.68 seconds
(EngineCore pid=9) INFO [gpu_worker.py:760] Available KV cache memory: 17.5 GiB
(EngineCore pid=9) INFO [gpu_worker.py:775] CUDA graph memory profiling is {applied} \
(default since v0.21.0). The current --gpu-memory-utilization=0.2500 is equivalent to
(EngineCore pid=9) INFO [kv_cache_utils.py:2327] GPU KV cache size: 143,360 tokens, \
Maximum concurrency for 8,192 tokens per request: 17.50x
(EngineCore pid=9) INFO [model_runner.py:1128] Graph capturing finished in 4 secs, took 0.98 GiB
(EngineCore pid=9) INFO [gpu_worker.py:972] CUDA graph pool memory: 0.98 GiB (actual), \
0.9 GiB (estimated), difference: 0.08 GiB (8.2%).
(EngineCore pid=9) INFO [gpu_worker.py:1034] Free memory on device (139.29/139.8 GiB) on startup. \
Desired GPU memory utilization is (0.25, 34.95 GiB). Actual usage is 15.45 GiB for consumed memory \
(weights + non-torch), 2.0 GiB for peak activation, and 0.98 GiB for CUDAGraph memory. Replace \
gpu_memory_utilization config with `--kv-cache-memory=1` (0.0 GiB) to fit into requested memory, or \
`--kv-cache-memory=1` (0.0 GiB) to fully utilize gpu memory. Current kv cache memory in use is 17.5 GiB.
"""


@pytest.mark.parametrize(("applied", "activations"), [("enabled", 1.1), ("disabled", 2.0)])
def test_vllm_032_comes_out_as_the_same_parts(applied: str, activations: float) -> None:
    figures = vllm(BOOT_032.replace("{applied}", applied))
    (card,) = figures.devices
    assert gib(card) == {
        "weights": 15.0,
        "activations": activations,
        "graphs": 0.98,
        "other": 0.45,
        "kv": 17.5,
        "free": 139.29,
        "total": 139.8,
    }
    assert (figures.kv_dtype, figures.kv_tokens, figures.max_concurrency) == ("fp8", 143360, 17.5)


PINNED = """
(EngineCore pid=7) INFO [core.py:116] Initializing a V1 LLM engine (v0.26.0) with config: model='m', \
tensor_parallel_size=2, pipeline_parallel_size=2, max_seq_len=4096, device_config=cuda
(Worker_PP1_TP0 pid=13) INFO [model_runner.py:305] Model loading took 3.5 GiB and 2.4 seconds
(Worker_PP0_TP1 pid=12) INFO [model_runner.py:305] Model loading took 4.0 GiB and 2.4 seconds
(Worker_PP1_TP0 pid=13) INFO [gpu_worker.py:479] Initial free memory 23.1 GiB, reserved 6.5 GiB memory for \
KV Cache as specified by kv_cache_memory_bytes config and skipped memory profiling.
"""


def test_a_pinned_pool_and_ranks_by_their_names() -> None:
    figures = vllm(PINNED)
    assert figures.kv_pinned
    first, second = figures.devices
    assert (first.device, gib(first)["weights"]) == ("GPU 1", 4.0)
    assert second.device == "GPU 2"
    assert gib(second) == {"weights": 3.5, "other": None, "kv": 6.5, "free": 23.1, "total": None}


DEBUG = """
(Worker pid=5) INFO [parallel_state.py:1615] world_size=2 rank=1 local_rank=1 distributed_init_method=x
(Worker_TP1 pid=5) DEBUG [gpu_worker.py:390] worker init memory snapshot: torch_peak=0.0GiB, \
free_memory=138.34GiB, total_memory=139.8GiB, cuda_memory=1.46GiB, torch_memory=0.0GiB, \
non_torch_memory=1.46GiB, timestamp=1.0, auto_measure=True
"""
PROFILES = {
    "0.26": "Total non KV cache memory: 68.0GiB; torch peak memory increase: 1.2GiB; "
    "non-torch forward increase memory: 0.3GiB; weights memory: 66.5GiB.",
    "0.32": "Total non KV cache memory: 68.0GiB; torch peak memory increase: 67.9GiB; "
    "total consumed (from mem_get_info): 66.8GiB; weights memory: 66.5GiB.",
}


@pytest.mark.parametrize("version", PROFILES)
def test_debug_lines_tell_a_boot_that_did_not_come_to_its_summary(version: str) -> None:
    text = f"{DEBUG}(Worker_TP1 pid=5) DEBUG Memory profiling takes 2.00 seconds. {PROFILES[version]}"
    (card,) = vllm(text).devices
    assert card.device == "GPU 1"
    assert gib(card) == {
        "weights": 66.5,
        "activations": 1.2,
        "other": 0.3,
        "kv": None,
        "free": 138.34,
        "total": 139.8,
    }


def test_the_cpu_build_that_sizes_its_pool_itself() -> None:
    text = """
(Worker pid=8) INFO [cpu_worker.py:260] Auto set (10.0/23.54) GiB for KV cache on node 0, with 11.77 GiB \
requested memory for the worker. 1.77 GiB memory was consumed by non-kv usages."""
    host = vllm(text).host
    assert host is not None
    assert gib(host) == {"other": 1.77, "kv": 10.0, "free": None, "total": 23.54}
    assert not vllm(text).kv_pinned


@pytest.mark.parametrize("text", ["", "INFO Starting vLLM server", "Model loading took long", "GiB"])
def test_a_log_that_says_nothing_of_memory_gives_nothing(text: str) -> None:
    assert _vllm_memory.read_boot([text]) is None
    assert _llamacpp_memory.read_boot([text]) is None


_ALL = [line for file in RECORDED.glob("*boot*.log") for line in file.read_text().splitlines()]
_CUTS = st.integers(0, 400)


@given(st.lists(st.builds(lambda line, a, b: line[a:][:b], st.sampled_from(_ALL), _CUTS, _CUTS)))
def test_torn_lines_in_any_order_are_never_an_error(torn: list[str]) -> None:
    for module in (_vllm_memory, _llamacpp_memory):
        figures = module.read_boot(torn)
        kept = [line for line in torn if module.of_interest(line)]
        assert module.read_boot(kept) == figures


@given(st.text(alphabet="0123456789.,-", max_size=12))
def test_numbers_that_are_none_are_no_figures(number: str) -> None:
    for text in (
        f"Model loading took {number} GiB and 1 seconds",
        f"GPU KV cache size: {number} tokens, Maximum concurrency for 1 tokens per request: {number}x",
        f"Graph capturing finished in 1 secs, took {number} GiB",
        f"llama_kv_cache:        CPU KV buffer size =     {number} MiB",
    ):
        _vllm_memory.read_boot([text])
        _llamacpp_memory.read_boot([text])


def test_llamacpp_on_a_cpu() -> None:
    figures = _llamacpp_memory.read_boot(lines("llamacpp-b11549-cpu-boot.log"))
    assert figures is not None
    assert figures.devices == []
    assert figures.host == DeviceFigures(
        device="CPU",
        components={"mapped": 9.19, "activations": 9.4},
        kv_pool_mib=8.0,
        free_at_start_mib=24105.0,
        total_mib=24105.0,
    )
    assert (figures.kv_tokens, figures.context_tokens) == (4096, 1024)
    assert (figures.max_batched_tokens, figures.kv_dtype) == (512, "f16")
    kept = [line for line in lines("llamacpp-b11549-cpu-boot.log") if _llamacpp_memory.of_interest(line)]
    assert _llamacpp_memory.read_boot(kept) == figures


# In llama.cpp's own forms: a model with windowed layers over two cards, after a rehearsal of the load.
TWO_CARDS = """
0.1 I cmn  common_param:   - CUDA0   : NVIDIA GeForce RTX 3060 Ti (7840 MiB, 7700 MiB free)
0.1 I cmn  common_param:   - CUDA1   : NVIDIA GeForce GTX 1060 (3012 MiB, 2950 MiB free)
0.2 D load_tensors:        CUDA0 model buffer size =  9999.00 MiB
0.3 I common_fit_params: fitting params to free memory took 0.30 seconds
0.4 I load_tensors:   CPU_Mapped model buffer size =   410.98 MiB
0.4 I load_tensors:        CUDA0 model buffer size =  3512.25 MiB
0.4 I load_tensors:        CUDA1 model buffer size =  1204.50 MiB
0.5 I llama_context:  CUDA_Host  output buffer size =     0.98 MiB
0.5 I llama_kv_cache:      CUDA0 KV buffer size =   300.00 MiB
0.5 I llama_kv_cache:      CUDA1 KV buffer size =   100.00 MiB
0.5 I llama_kv_cache: size =  400.00 MiB (  4096 cells,  10 layers,  1/1 seqs), K (q8_0): 200.00 MiB, \
V (q8_0): 200.00 MiB
0.5 I llama_kv_cache:      CUDA0 KV buffer size =    60.00 MiB
0.5 I llama_kv_cache: size =   60.00 MiB (  1024 cells,  20 layers,  1/1 seqs), K (q8_0): 30.00 MiB, \
V (q8_0): 30.00 MiB
0.6 I llama_memory_recurrent:      CUDA1 RS buffer size =     2.50 MiB
0.7 I sched_reserve:      CUDA0 compute buffer size =   554.00 MiB
0.7 I sched_reserve:      CUDA1 compute buffer size =   410.00 MiB
0.7 I sched_reserve:  CUDA_Host compute buffer size =    36.01 MiB
"""


def test_llamacpp_over_two_cards_counts_each_buffer_once() -> None:
    figures = _llamacpp_memory.read_boot(TWO_CARDS.splitlines())
    assert figures is not None
    first, second = figures.devices
    assert first == DeviceFigures(
        device="CUDA0",
        components={"weights": 3512.25, "activations": 554.0},
        kv_pool_mib=360.0,
        free_at_start_mib=7700.0,
        total_mib=7840.0,
    )
    assert (second.components, second.kv_pool_mib) == ({"weights": 1204.5, "activations": 410.0}, 102.5)
    assert figures.host is not None
    assert figures.host.components == {"mapped": 410.98, "activations": 36.99}
    assert (figures.kv_tokens, figures.kv_dtype) == (4096, "q8_0")


async def test_llamacpp_says_it_of_a_boot_here(running: Any) -> None:
    async with running(context_tokens=256, parallel=2) as engine:
        figures = engine.boot_figures()
        assert figures is not None
        assert figures.version == engine.version
        assert figures.host is not None
        assert {*figures.host.components} == {"mapped", "activations"}
        # 2 layers, keys and values, 64 elements of two bytes, for two slots of 256 tokens.
        assert figures.kv_tokens == 2 * 256
        assert figures.host.kv_pool_mib == 2 * 2 * 64 * 2 * 512 / 2**20


async def test_a_verbosity_of_the_users_own_stands(running: Any) -> None:
    async with running(flags=["--verbosity", "3"]) as engine:
        assert engine.boot_figures() is None


async def test_a_start_that_failed_before_it_said_anything_has_no_figures(make_config: Any) -> None:
    config = make_config(engine="llama.cpp", model="/nowhere.gguf")
    engine = create(config.tiers[0], config=config)
    with pytest.raises(ConfigError):
        await engine.start(Progress())
    assert engine.boot_figures() is None
    await engine.stop()
