"""vLLM's log, as it was written on real cards and on a CPU, is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subcortex.engines._vllm_log import diagnosis, progress
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed

RECORDED = Path(__file__).parent / "recorded"


def diagnosed(name_or_text: str) -> Any:
    file = RECORDED / name_or_text if name_or_text.endswith(".log") else None
    return diagnosis(file.read_text() if file else name_or_text, tier="deep", model="models/m")


def stages(name: str) -> list[str]:
    told = [text for line in (RECORDED / name).read_text().splitlines() if (text := progress(line))]
    return list(dict.fromkeys(told))


def test_a_boot_on_one_card_is_told_stage_by_stage() -> None:
    told = stages("vllm-0.26-8b-tp1-boot.log")
    graphs = [text for text in told if text.startswith("capturing CUDA graphs")]
    assert [text for text in told if text not in graphs] == [
        "reading the model's configuration",
        "starting the engine",
        "loading weights",
        "weights loaded, 15.0 GiB a GPU",
        "compiling",
        "compiled; profiling memory",
        "profiling memory",
        "18.6 GiB left for the KV cache",
        "KV cache of 152,512 tokens",
        "CUDA graphs captured",
        "opening the socket",
        "started",
    ]
    assert graphs[0] == "capturing CUDA graphs: 0 %"


def test_a_boot_on_two_cards_is_told_too() -> None:
    told = stages("vllm-0.26-70b-tp2-boot.log")
    assert "weights loaded, 65.7 GiB a GPU" in told
    assert "19.8 GiB left for the KV cache" in told
    assert "KV cache of 129,552 tokens" in told
    assert told[-1] == "started"


@pytest.mark.parametrize("name", ["vllm-0.26-8b-tp1-boot.log", "vllm-0.26-70b-tp2-boot.log"])
def test_a_boot_that_went_well_has_no_diagnosis(name: str) -> None:
    assert diagnosed(name) is None


def test_a_context_that_the_cache_cannot_hold() -> None:
    error = diagnosed("vllm-0.32-kv-too-small.log")
    assert isinstance(error, DoesNotFit)
    assert (error.details["needed_gib"], error.details["available_gib"]) == (3.81, 1.0)
    assert (error.details["short_gib"], error.details["largest_context_tokens"]) == (2.81, 1048448)
    assert "2.81 GiB short" in error.message
    assert "Set context_tokens to 1048448" in str(error.hint)


def test_nothing_left_for_the_cache() -> None:
    error = diagnosed(
        "(Worker pid=1) INFO 1 [x.py:1] Model loading took 15.0 GiB and 1.68 seconds\n"
        "(Worker pid=1) INFO 1 [x.py:1] Available KV cache memory: -1.27 GiB\n"
        + (RECORDED / "vllm-0.32-no-blocks.log").read_text()
        + "\n"
    )
    assert isinstance(error, DoesNotFit)
    assert (error.details["available_gib"], error.details["weights_gib"]) == (-1.27, 15.0)
    assert isinstance(diagnosed("vllm-0.32-no-blocks.log"), DoesNotFit)


def test_a_card_that_others_fill() -> None:
    error = diagnosed(
        "(EngineCore pid=9) ERROR 11-21 01:00:00 [core.py:1] ValueError: Free memory on device cuda:0 "
        "(7.03/23.64 GiB) on startup is less than desired GPU memory utilization (0.9, 21.28 GiB). "
        "Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )
    assert isinstance(error, DoesNotFit)
    assert (error.details["needed_gib"], error.details["available_gib"]) == (21.28, 7.03)
    assert error.details["short_gib"] == 14.25
    assert "cuda:0" in error.message
    # 7.03 of 23.64 GiB are 29.7 %: what is proposed must be below that.
    assert "gpu_memory_utilization to 0.28" in str(error.hint)


def test_memory_that_runs_out_while_it_loads() -> None:
    error = diagnosed(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 1 has a total "
        "capacity of 23.64 GiB of which 310.44 MiB is free. Including non-PyTorch memory, this process "
        "has 23.3 GiB in use."
    )
    assert isinstance(error, DoesNotFit)
    assert error.details["gpu"] == 1
    assert error.details["needed_gib"] == pytest.approx(0.4375)
    assert error.details["available_gib"] == pytest.approx(0.30316, abs=1e-4)
    assert isinstance(diagnosed("RuntimeError: CUDA out of memory"), DoesNotFit)


def test_heads_that_cannot_be_split() -> None:
    error = diagnosed("vllm-0.32-heads.log")
    assert isinstance(error, ConfigError)
    assert error.details["key"] == "tensor_parallel_size"
    assert "2 attention heads cannot be split over 4 GPUs" in error.message
    assert "one of 1, 2" in str(error.hint)


def test_weights_that_cannot_be_split() -> None:
    error = diagnosed("ValueError: 29568 is not divisible by 256 in group quantization")
    assert isinstance(error, ConfigError)
    assert error.details["key"] == "tensor_parallel_size"


def test_a_flag_it_does_not_know() -> None:
    error = diagnosed("vllm-0.32-unknown-flag.log")
    assert isinstance(error, ConfigError)
    assert error.details["key"] == "flags"
    assert "--frobnicate" in error.message


def test_a_context_longer_than_the_model_knows() -> None:
    error = diagnosed("vllm-0.32-context-too-long.log")
    assert isinstance(error, ConfigError)
    assert error.details["key"] == "context_tokens"
    assert "4096" in error.message
    assert "Set context_tokens to 512" in str(error.hint)


def test_fewer_cards_than_asked_for() -> None:
    error = diagnosed(
        "ValueError: World size (4) is larger than the number of available GPUs (2) in this node."
    )
    assert isinstance(error, ConfigError)
    assert "use 4 GPUs and sees 2" in error.message


def test_code_that_was_not_trusted() -> None:
    error = diagnosed(
        "ValueError: m contains custom code which must be executed to correctly load the model."
    )
    assert isinstance(error, ConfigError)
    assert error.details["key"] == "trust_remote_code"


def test_another_error_is_at_least_quoted() -> None:
    error = diagnosed("vllm-0.32-unknown-quantization.log")
    assert type(error) is EngineFailed
    assert "Unknown quantization method: nonsense" in error.message


def test_words_that_are_no_error_are_none() -> None:
    assert diagnosed("INFO loading\nWARNING this can cause errors like `OSError: [Errno 24]`") is None
    assert diagnosed("") is None
    assert progress("GET /health 200") is None
