"""NVIDIA's ModelOpt, held against its algorithms' definitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subcortex.errors import ConfigError
from subcortex.models.huggingface import from_config
from subcortex.models.read import read_shape
from tests.models.quantised import (
    INPUTS,
    LINEAR,
    OUTPUTS,
    PLAIN,
    REST,
    UP,
    WEIGHTS,
    bytes_of,
    method_in,
    refusals_of,
)
from tests.models.test_huggingface import config_of, shape_of


@pytest.mark.parametrize(
    ("algorithm", "taken"),
    [
        ("FP8", WEIGHTS + 8),
        ("FP8_PER_CHANNEL_PER_TOKEN", WEIGHTS + 4 * OUTPUTS),
        ("fp8_pb_wo", WEIGHTS + 4 * (1024 // 128) * (4096 // 128)),
        ("NVFP4", WEIGHTS / 2 + WEIGHTS / 16),
        ("W4A16_NVFP4", WEIGHTS / 2 + WEIGHTS / 16),
        ("MXFP8", WEIGHTS + WEIGHTS / 32),
    ],
)
def test_modelopt_takes_what_its_algorithm_defines(algorithm: str, taken: float) -> None:
    flat = {"quant_method": "modelopt", "quant_algo": algorithm}

    assert bytes_of(flat) == taken
    assert bytes_of({"quant_method": "modelopt", "quantization": {"quant_algo": algorithm}}) == taken
    assert refusals_of(flat) == []


def test_mxfp8_by_its_own_name_is_modelopts() -> None:
    mxfp8 = {"quant_method": "mxfp8", "ignored_layers": ["model.layers.0.self_attn.q_proj"]}

    assert bytes_of(mxfp8) == WEIGHTS * 33 / 32
    assert bytes_of(mxfp8, "model.layers.0.self_attn.q_proj") == PLAIN
    assert method_in(mxfp8).quantisation.method == "mxfp8"  # type: ignore[union-attr]


@pytest.mark.parametrize("algorithm", ["W4A8_AWQ", "W4A16_AWQ"])
def test_modelopts_awq_is_refused_and_counted(algorithm: str) -> None:
    awq = {"quant_method": "modelopt", "quant_algo": algorithm, "group_size": 128}

    assert refusals_of(awq) == [f"vLLM 0.26 does not load ModelOpt's {algorithm}."]
    assert bytes_of(awq) == WEIGHTS / 2 + 2 * WEIGHTS / 128


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "modelopt", "quant_algo": None},
        {"quant_method": "modelopt", "quant_algo": "INT8_SQ"},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "modelopt", "quant_algo": "W4A8_NVFP4_FP8"},
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "W4A16_AWQ"}},
    ],
)
def test_what_modelopt_writes_and_vllm_refuses_is_said(quantization: dict[str, Any]) -> None:
    assert len(refusals_of(quantization)) == 1


def test_an_old_file_of_modelopt_may_hold_less() -> None:
    old = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "MXFP8"}}

    assert refusals_of(old) == [
        "vLLM 0.26 does not load ModelOpt's MXFP8 of a file that names no quant_method."
    ]
    assert refusals_of(old | {"quantization": {"quant_algo": "NVFP4"}}) == []


def test_a_cache_alone_leaves_weights_plain() -> None:
    method = method_in({"producer": {"name": "modelopt"}, "quantization": {"kv_cache_quant_algo": "FP8"}})

    assert method.cost(UP, INPUTS, OUTPUTS).sharded == PLAIN
    assert method.quantisation.kv_bits == 8  # type: ignore[union-attr]
    assert method.notes == ()


@pytest.mark.parametrize(
    ("cache", "bits"),
    [
        ({"kv_cache_quant_algo": "FP8"}, 8),
        ({"kv_cache_quant_algo": "NVFP4"}, 4.5),
        ({"kv_cache_quant_algo": "INT8"}, 0),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False}}, 8),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": True}}, 0),
        ({"kv_cache_scheme": {"num_bits": 4, "type": "float"}}, 4.5),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "int"}}, 0),
        ({}, 0),
    ],
)
def test_a_cache_has_the_bits_that_vllm_takes_from_modelopt(cache: dict[str, Any], bits: float) -> None:
    method = method_in({"quant_method": "modelopt", "quant_algo": "FP8"} | cache)

    assert method.quantisation.kv_bits == bits  # type: ignore[union-attr]


MIXED: dict[str, Any] = {
    "quant_algo": "MIXED_PRECISION",
    "exclude_modules": ["model.layers.0.mlp.down*"],
    "quantized_layers": {
        "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "model.layers.0.mlp.down_proj": {"quant_algo": "FP8"},
        "model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4", "group_size": 32},
        "language_model.model.layers.1.mlp.up_proj": {"quant_algo": "MXFP8"},
        "model.layers.0.mlp.experts.0.up_proj": {"quant_algo": "W4A16_NVFP4"},
        "model.layers.0.self_attn.o_proj": {"quant_algo": "W4A8_AWQ"},
    },
}


@pytest.mark.parametrize(
    ("module", "taken"),
    [
        ("0.self_attn.q_proj", WEIGHTS + 8),
        ("0.mlp.up_proj", WEIGHTS / 2 + WEIGHTS / 32),
        ("1.mlp.up_proj", WEIGHTS * 33 / 32),
        ("0.mlp.experts.gate_proj", WEIGHTS * 9 / 16),
        ("0.mlp.down_proj", PLAIN),
        ("0.self_attn.o_proj", PLAIN),
        ("1.self_attn.q_proj", PLAIN),
    ],
)
def test_layers_of_a_mixture_take_what_each_defines(module: str, taken: float) -> None:
    mixed = {"quant_method": "modelopt", **MIXED}

    assert bytes_of(mixed, f"model.layers.{module}") == taken
    assert "W4A8_AWQ stay plain" in method_in(mixed).notes[0]


def test_modelopt_excludes_whatever_holds_a_name() -> None:
    nvfp4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"} | {
        "ignore": ["lm_head", "model.layers.0.self_attn*", "*.mlp.gate.*", "layers.2.mlp"]
    }

    assert bytes_of(nvfp4, "model.layers.0.self_attn.o_proj") == PLAIN
    assert bytes_of(nvfp4, "model.layers.2.mlp.up_proj") == PLAIN
    assert bytes_of(nvfp4, "model.layers.1.self_attn.o_proj") == WEIGHTS * 9 / 16


def test_latent_attention_that_stays_plain_keeps_no_copies() -> None:
    nvfp4 = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    kept = shape_of("deepseek-v3", quantization_config=nvfp4 | {"ignore": ["*self_attn.kv_b_proj"]})
    copied = shape_of("deepseek-v3", quantization_config=nvfp4)
    outputs = 128 * (128 + 128)

    assert "self_attn.absorbed" not in {tensor.name for tensor in kept.tensors}
    assert kept.weights_bytes - copied.weights_bytes == 61 * 512 * outputs * (2 - 9 / 16 - 2)


def _folder(path: Path, config: dict[str, Any], beside: object = None) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    if beside is not None:
        (path / "hf_quant_config.json").write_text(json.dumps(beside))
    return path


def test_modelopts_own_file_is_read_where_the_config_is_silent(tmp_path: Path) -> None:
    config = config_of("llama-3.1-8b")
    beside = {
        "producer": {"name": "modelopt", "version": "0.23.0"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    shape = read_shape(_folder(tmp_path, config, beside))
    table = next(tensor.bytes for tensor in shape.tensors if tensor.name == "rotary.cos_sin")

    # Four scales a layer, of weights and inputs of the four fused layers.
    assert shape.weights_bytes - table == LINEAR + REST + 32 * 4 * 8
    # As published: 9.08 GB.
    assert shape.weights_bytes / 1e9 == pytest.approx(9.08, rel=0.005)
    assert shape.quantisation is not None
    assert shape.quantisation.kv_bits == 8


def test_a_config_that_says_its_quantisation_is_believed(tmp_path: Path) -> None:
    config = config_of("llama-3.1-8b-awq")
    shape = read_shape(_folder(tmp_path, config, ["no object"]))

    assert shape.weights_bytes == from_config(config, "m").weights_bytes


def test_a_mixture_may_keep_its_layers_in_the_other_file(tmp_path: Path) -> None:
    own = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}
    config = config_of("llama-3.1-8b") | {"quantization_config": own}
    shape = read_shape(_folder(tmp_path, config, {"quantization": MIXED}))
    plain = shape_of("llama-3.1-8b").weights_bytes

    # Of its layers this model has the queries of the first, and what it excludes.
    assert plain - shape.weights_bytes == 4096 * 4096 - 8


def test_a_broken_file_of_modelopt_is_named(tmp_path: Path) -> None:
    (tmp_path / "hf_quant_config.json").write_text("{")

    with pytest.raises(ConfigError, match="hf_quant_config.json is no JSON"):
        read_shape(_folder(tmp_path, config_of("llama-3.1-8b")))
