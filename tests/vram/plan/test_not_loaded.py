"""Checkpoints that vLLM does not load: refused, with what it would load instead; and what notes mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from subcortex.errors import DoesNotFit
from subcortex.hardware import Hardware, parse_gpus
from subcortex.models.huggingface import from_config
from subcortex.models.quantisation import requantised
from subcortex.models.shape import Doubt, ModelShape, Note
from subcortex.vram.legality import refusals
from subcortex.vram.plan import TierAsk, plan
from subcortex.vram.plan.real import Estimates
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup
from tests.vram.weight_cases import config_of

EXL2 = {"quant_method": "exl2", "bits": 4.0}


def shape_with(quantization: dict[str, Any] | None) -> ModelShape:
    config = config_of("llama-3.1-8b")
    return from_config(config | ({"quantization_config": quantization} if quantization else {}), "me/model")


def machine(gpus: str) -> Hardware:
    return Hardware(
        gpus=parse_gpus(gpus), host_memory_total_mib=262144, host_memory_available_mib=250000, cores=16
    )


def refused(shape: ModelShape, gpus: str) -> DoesNotFit:
    hardware = machine(gpus)
    ask = TierAsk("t", shape, VllmSetup(context_tokens=8192), 8192, model="me/model")
    with pytest.raises(DoesNotFit) as caught:
        plan([ask], hardware, Estimates(hardware), Estimates(hardware))
    return caught.value


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (EXL2, "does not load exl2"),
        (
            {"quant_method": "gptq", "bits": 3, "group_size": 128},
            "load GPTQ of 3 bits: it takes 4 and 8",
        ),
        ({"quant_method": "awq", "bits": 8, "group_size": 128}, "does not load AWQ of 8 bits: it takes 4"),
        ({"quant_method": "made_up"}, "does not load made_up"),
    ],
)
def test_what_vllm_does_not_load_is_refused_before_memory_is_asked(quantization, words) -> None:
    error = refused(shape_with(quantization), "2x H200")
    assert error.exit_code == 5
    assert words in error.details["refused"]["t"]
    assert words in error.message
    assert "llama.cpp" in str(error.hint)


def test_the_nearest_that_it_loads_is_the_model_in_16_bits_where_that_fits() -> None:
    error = refused(shape_with(EXL2), "H200")
    first = error.details["alternatives"][0]
    assert first["words"] == "take a checkpoint of me/model in 16 bits"
    assert first["gives_up"] == "nothing"
    assert first["loss"]["quality"] == 0
    assert str(error.hint).startswith("This fits: take a checkpoint of me/model in 16 bits. Serve t from")


def test_and_a_smaller_form_where_it_does_not() -> None:
    error = refused(shape_with(EXL2), "RTX 3060 Ti")
    words = [one["words"].partition(",")[0] for one in error.details["alternatives"]]
    assert words[0] == "quantise: take a checkpoint of me/model quantised as awq"
    assert "a checkpoint of meta-llama/Llama-3.2-3B-Instruct quantised as awq" in words[1]


@pytest.mark.parametrize(
    "setup", [VllmSetup(context_tokens=8192), VllmSetup(tensor_parallel_size=2, context_tokens=8192)]
)
def test_no_setup_repairs_what_is_not_loaded(setup: Setup) -> None:
    first: Sequence[Any] = refusals(shape_with(EXL2), setup, gpu_count=2)
    assert (first[0].key, first[0].nearest, first[0].alternative) == ("quantization", (), None)


def test_llama_cpp_is_not_asked_what_vllm_loads() -> None:
    setup = LlamaCppSetup(context_tokens=8192)
    assert refusals(shape_with(EXL2), setup, gpu_count=1) == refusals(shape_with(None), setup, gpu_count=1)


def test_what_is_loaded_is_not_refused_for_its_notes() -> None:
    shape = shape_with({"quant_method": "mxfp4"})
    assert shape.notes
    assert refusals(shape, VllmSetup(context_tokens=8192), gpu_count=1) == ()


def test_words_alone_mean_nothing() -> None:
    shape = replace(shape_with(None), notes=("vLLM 0.26 does not load this, it says.",))
    assert shape.doubts == Doubt.NONE
    assert refusals(shape, VllmSetup(context_tokens=8192), gpu_count=1) == ()


def test_in_another_form_nothing_of_the_old_one_is_said() -> None:
    shape = replace(shape_with(EXL2), notes=(*shape_with(EXL2).notes, Note("It is young.")))
    assert requantised(shape, "awq").notes == ("It is young.",)
