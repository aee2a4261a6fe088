"""Formats of quantised weights, held against their definitions: bits, groups, scales, zero points."""

from __future__ import annotations

from typing import Any

import pytest

from subcortex.errors import ConfigError
from tests.models.quantised import (
    EXPERT,
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
from tests.models.test_huggingface import shape_of

DYNAMIC: dict[str, Any] = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 128,
    "dynamic": {
        "+:.*\\.(?:1[0-5])\\..*": {"bits": 8},
        ".*\\.(?:1[6-9]|20|21)\\..*": {"bits": 8, "group_size": 64},
        "-:.*\\.2\\.mlp\\..*": {},
        "+:.*down_proj": {"desc_act": True},
    },
}
_INDEX = 4 * INPUTS


@pytest.mark.parametrize(
    ("module", "taken"),
    [
        ("0.mlp.up_proj", WEIGHTS / 2 + 2.5 * WEIGHTS / 128 + _INDEX),
        ("2.mlp.up_proj", PLAIN),
        ("2.mlp.down_proj", PLAIN),
        ("12.mlp.up_proj", WEIGHTS + 3 * WEIGHTS / 128 + _INDEX),
        ("22.mlp.up_proj", WEIGHTS / 2 + 2.5 * WEIGHTS / 128 + _INDEX),
        ("21.mlp.up_proj", WEIGHTS + 3 * WEIGHTS / 64 + _INDEX),
    ],
)
def test_the_first_dynamic_rule_that_matches_holds(module: str, taken: float) -> None:
    assert bytes_of(DYNAMIC, f"model.layers.{module}") == taken


def test_a_dynamic_order_of_activations_is_the_modules() -> None:
    # Every rank has all scales, the index and its sorted twin.
    down = method_in(DYNAMIC).cost("model.layers.0.mlp.down_proj", INPUTS, OUTPUTS, row=True)

    assert (down.sharded, down.whole) == (WEIGHTS / 2 + 2 * _INDEX, 2 * WEIGHTS / 128)


def test_an_order_of_activations_without_groups_is_none() -> None:
    one = {"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": True}

    assert bytes_of(one, row=True) == bytes_of(one | {"desc_act": False}, row=True)
    assert not method_in(one).quantisation.act_order  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("quantization", "why"),
    [
        ({"quant_method": "gptq", "bits": 3, "sym": True}, "GPTQ of 3 bits: it takes 4 and 8"),
        ({"quant_method": "gptq", "bits": 4, "sym": False}, "not symmetric"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {".*": {"bits": 2}}}, "GPTQ of 2 bits"),
        ({"quant_method": "awq", "bits": 8}, "AWQ of 8 bits: it takes 4"),
        ({"quant_method": "auto-round", "bits": 5}, "AutoRound of 5 bits"),
        ({"quant_method": "auto-round", "bits": 4, "data_type": "mx_fp"}, "AutoRound of mx_fp"),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"},
            "bfloat16",
        ),
        ({"quant_method": "exl2", "bits": 4.65}, "exl2"),
        ({"quant_method": "hqq"}, "hqq"),
        ({"quant_method": "aqlm", "bits": 2}, "aqlm"),
        ({"quant_method": "torchao", "quant_type": "int4wo"}, "quant_type"),
        ({"quant_method": "quark"}, "export"),
    ],
)
def test_what_vllm_does_not_load_is_said(quantization: dict[str, Any], why: str) -> None:
    if quantization["quant_method"] == "torchao":
        with pytest.raises(ConfigError, match=why):
            method_in(quantization)
        return
    assert why in refusals_of(quantization)[0]


def test_bits_that_are_no_whole_number_are_counted() -> None:
    assert bytes_of({"quant_method": "exl2", "bits": 4.65}) == pytest.approx(WEIGHTS * 4.65 / 8)


def test_modules_outside_the_quantised_ones_are_plain() -> None:
    some = {"quant_method": "gptq", "bits": 4, "modules_in_block_to_quantize": [["mlp.up_proj"], ["o_proj"]]}

    assert bytes_of(some) < WEIGHTS
    assert bytes_of(some, "model.layers.0.mlp.down_proj") == PLAIN
    assert bytes_of(some, EXPERT) < WEIGHTS


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("model.layers.0.mlp.up_proj", WEIGHTS / 2 + 2.5 * WEIGHTS / 128 + _INDEX),
        ("model.layers.1.mlp.up_proj", WEIGHTS + 3 * WEIGHTS / 32 + _INDEX),
        ("model.layers.2.mlp.up_proj", PLAIN),
        ("model.layers.3.mlp.shared_experts.up_proj", PLAIN),
        ("other.layers.0.mlp.up_proj", PLAIN),
    ],
)
def test_autoround_has_bits_by_module(path: str, taken: float) -> None:
    mixed = {
        "quant_method": "auto-round",
        "bits": 4,
        "group_size": 128,
        "block_name_to_quantize": "model.layers,visual.blocks",
        "extra_config": {
            "model.layers.1.mlp.up_proj": {"bits": 8, "group_size": 32},
            "model.layers.2.mlp.up_proj": {"bits": 16, "data_type": "fp"},
            "shared_expert.*": {"bits": 16},
        },
    }

    assert bytes_of(mixed, path) == taken


def test_double_quantisation_is_undone_as_it_is_loaded() -> None:
    nf4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    double = nf4 | {"bnb_4bit_use_double_quant": True}
    shape = shape_of("llama-3.1-8b", quantization_config=double)
    table = next(tensor.bytes for tensor in shape.tensors if tensor.name == "rotary.cos_sin")

    assert bytes_of(double) == bytes_of(nf4) == WEIGHTS / 2 + 4 * WEIGHTS / 64
    assert shape.weights_bytes - table == LINEAR / 2 + LINEAR / 16 + REST
    # The file has scales of a byte, and a float32 for 256 of those; as published: 5.70 GB.
    file_bytes = LINEAR / 2 + LINEAR / 64 + 4 * LINEAR / 64 / 256 + REST
    assert file_bytes / 1e9 == pytest.approx(5.70, abs=0.005)
    assert shape.weights_bytes - table - file_bytes == LINEAR / 64 * (3 - 4 / 256)


def test_bitsandbytes_skips_whole_components() -> None:
    nf4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "llm_int8_skip_modules": ["gate", "o_proj"]}

    assert bytes_of(nf4, "model.layers.0.mlp.gate_proj") == WEIGHTS * 9 / 16
    assert bytes_of(nf4, "model.layers.0.self_attn.o_proj") == PLAIN


@pytest.mark.parametrize("old", [{"load_in_4bit": True}, {"load_in_8bit": True}, {"bits": 4}])
def test_without_a_method_vllm_takes_weights_as_plain(old: dict[str, Any]) -> None:
    method = method_in(old)

    assert method.cost(UP, INPUTS, OUTPUTS).sharded == PLAIN
    assert method.quantisation is None
    assert "quant_method" in method.notes[0]


def test_fbgemm_needs_a_flag_and_leaves_experts_plain() -> None:
    fbgemm = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["model.layers.0.mlp.up_proj"]}

    assert bytes_of(fbgemm, "model.layers.1.mlp.up_proj") == WEIGHTS + 4 * OUTPUTS
    assert bytes_of(fbgemm) == PLAIN
    assert bytes_of(fbgemm, EXPERT) == PLAIN
    assert "--allow-deprecated-quantization" in method_in(fbgemm).notes[0]


def test_fp_quant_is_fp4_in_groups_and_needs_a_flag() -> None:
    assert bytes_of({"quant_method": "fp_quant", "forward_dtype": "mxfp4"}) == WEIGHTS * 17 / 32
    assert bytes_of({"quant_method": "fp_quant", "forward_dtype": "nvfp4"}) == WEIGHTS * 9 / 16
    assert "--allow-deprecated-quantization" in method_in({"quant_method": "fp_quant"}).notes[0]


def test_experts_in_int8_have_a_scale_a_channel() -> None:
    assert bytes_of({"quant_method": "experts_int8"}, EXPERT) == WEIGHTS + 4 * OUTPUTS
    assert bytes_of({"quant_method": "experts_int8"}) == PLAIN


def _quark(weight: object, inputs: object = None, **more: Any) -> dict[str, Any]:
    settings = {"weight": weight, "input_tensors": inputs}
    return {"quant_method": "quark", "export": {"kv_cache_group": []}, "global_quant_config": settings} | more


_FP8 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}
_MXFP4 = {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}


@pytest.mark.parametrize(
    ("weight", "taken"),
    [
        (_FP8, WEIGHTS + 8),
        (_FP8 | {"qscheme": "per_channel"}, WEIGHTS + 4 * OUTPUTS),
        ({"dtype": "int8", "qscheme": "per_channel"}, WEIGHTS + 4 * OUTPUTS),
        (_MXFP4, WEIGHTS * 17 / 32),
        (_MXFP4 | {"dtype": "fp6_e3m2"}, WEIGHTS * (6 / 8 + 1 / 32)),
        ([{"dtype": "fp4", "qscheme": "per_group", "group_size": 16}, _FP8], WEIGHTS * 9 / 16),
        ([_FP8, {"dtype": "int4", "qscheme": "per_channel"}], WEIGHTS / 2 + 4 * OUTPUTS),
    ],
)
def test_quark_takes_what_its_numbers_define(weight: object, taken: float) -> None:
    quantization = _quark(weight, _FP8)

    assert bytes_of(quantization) == taken
    assert refusals_of(quantization) == []


def test_quark_has_layers_of_their_own_and_plain_ones() -> None:
    quantization = _quark(
        _MXFP4,
        exclude=["lm_head", "re:.*self_attn.*"],
        layer_quant_config={"*down_proj": {"weight": _FP8, "input_tensors": _FP8}},
    )

    assert bytes_of(quantization) == WEIGHTS * 17 / 32
    assert bytes_of(quantization, "model.layers.0.mlp.down_proj") == WEIGHTS + 8
    assert bytes_of(quantization, "model.layers.0.self_attn.q_proj") == PLAIN


@pytest.mark.parametrize(
    "weight", [{"dtype": "uint4", "qscheme": "per_group", "group_size": 128}, _FP8, {"dtype": "int3"}]
)
def test_quark_for_weights_alone_is_refused_but_for_micro_scales(weight: object) -> None:
    assert len(refusals_of(_quark(weight))) == 1
    assert refusals_of(_quark(_MXFP4)) == []


def _torchao(kind: str, **data: Any) -> dict[str, Any]:
    return {"quant_method": "torchao", "quant_type": {"default": {"_type": kind, "_data": data}}}


@pytest.mark.parametrize(
    ("quantization", "taken"),
    [
        (_torchao("Int4WeightOnlyConfig", group_size=64), WEIGHTS / 2 + 4 * WEIGHTS / 64),
        (_torchao("Int8WeightOnlyConfig"), WEIGHTS + 2 * OUTPUTS),
        (_torchao("Float8WeightOnlyConfig"), WEIGHTS + 4 * OUTPUTS),
        (
            _torchao("Float8DynamicActivationFloat8WeightConfig", granularity=[{"_type": "PerRow"}]),
            WEIGHTS + 4096,
        ),
        (
            _torchao("Float8DynamicActivationFloat8WeightConfig", granularity=[{"_type": "PerTensor"}]),
            WEIGHTS + 4,
        ),
        (_torchao("BrandNewConfig"), PLAIN),
    ],
)
def test_torchao_takes_what_its_class_defines(quantization: dict[str, Any], taken: float) -> None:
    assert bytes_of(quantization) == taken
    assert bytes_of(quantization, EXPERT) == PLAIN
    assert "torchao" in method_in(quantization).notes[0]


def test_torchao_has_classes_by_module() -> None:
    int4 = {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 128}}
    int8 = {"_type": "Int8WeightOnlyConfig", "_data": {}}
    modules = {"_default": int4, "re:.*\\.self_attn\\..*_proj": int8, "model.layers.3.mlp.up_proj": None}
    quantization = _torchao("ModuleFqnToConfig", module_fqn_to_config=modules)

    assert bytes_of(quantization) == WEIGHTS / 2 + 4 * WEIGHTS / 128
    assert bytes_of(quantization, "model.layers.0.self_attn.q_proj") == WEIGHTS + 2 * OUTPUTS
    assert bytes_of(quantization, "model.layers.3.mlp.up_proj") == PLAIN


def test_a_head_that_is_quantised_is_noted() -> None:
    assert "head is quantised" in method_in({"quant_method": "gptq", "bits": 4, "lm_head": True}).notes[0]
