"""llama.cpp's log of a failed start is understood."""

from __future__ import annotations

from typing import Any

import pytest

from subcortex.engines._llamacpp_log import diagnosis, progress
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed


def diagnosed(log: str) -> Any:
    return diagnosis(log, tier="fast", model="m.gguf")


def test_a_card_that_is_too_small() -> None:
    error = diagnosed(
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4403.49 MiB on device 1: cudaMalloc failed: "
        "out of memory\n"
        "alloc_tensor_range: failed to allocate CUDA1 buffer of size 4617390080\n"
        "llama_model_load: error loading model: unable to allocate CUDA1 buffer\n"
    )
    assert isinstance(error, DoesNotFit)
    assert error.details["needed_gib"] == pytest.approx(4403.49 / 1024)
    assert error.details["gpu"] == 1
    assert "4.30 GiB could not be had on GPU 1" in error.message


def test_a_host_that_is_too_small() -> None:
    error = diagnosed(
        "E ggml_aligned_malloc: insufficient memory (attempted to allocate 8192.00 MB)\n"
        "E ggml_backend_buft_alloc_buffer_n_default: failed to allocate CPU buffer of size 8589934592\n"
        "E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache\n"
    )
    assert isinstance(error, DoesNotFit)
    assert error.details["needed_gib"] == 8.0
    assert error.details["gpu"] is None


def test_memory_that_ran_out_without_a_figure() -> None:
    error = diagnosed("terminate called after throwing an instance of 'std::bad_alloc'")
    assert isinstance(error, DoesNotFit)
    assert error.details["needed_gib"] is None


@pytest.mark.parametrize(
    "line",
    [
        "llama_model_load: error loading model: unknown model architecture: 'lxama'",
        "gguf_init_from_reader: failed to read key-value pairs",
        "error loading model: tensor 'blk.0.ffn_down.weight' data is not within the file bounds",
    ],
)
def test_a_file_that_it_cannot_load(line: str) -> None:
    error = diagnosed(f"I loading\nE {line}\nE common_init_: failed to load model 'm.gguf'")
    assert isinstance(error, ConfigError)
    assert error.details["key"] == "model"
    assert line.split(": ")[-1] in error.message


@pytest.mark.parametrize(
    "line", ["unknown flag --frobnicate: no attribute", "error: invalid argument: --frobnicate"]
)
def test_a_flag_it_does_not_know(line: str) -> None:
    error = diagnosed(line)
    assert isinstance(error, ConfigError)
    assert "--frobnicate" in error.message
    assert error.details["key"] == "flags"


def test_another_error_is_at_least_quoted() -> None:
    error = diagnosed(
        "0.00.008.985 E llama_init_from_model: K cache type q8_0 with block size 32 does not divide 16\n"
        "0.00.009.755 E srv    load_model: failed to create_context with model 'm.gguf'\n"
    )
    assert type(error) is EngineFailed
    assert "K cache type q8_0 with block size 32 does not divide 16" in error.message


def test_a_log_without_a_known_failure_has_no_diagnosis() -> None:
    assert diagnosed("I srv init: model loaded\nGGML_ASSERT(false) failed") is None


def test_stages_are_told() -> None:
    assert progress("0.1 I srv load_model: loading model '/m.gguf'") == "loading weights"
    assert progress("0.2 I srv init: model loaded") == "loaded"
    assert progress("0.3 I slot launch_slot_: id 3") is None
