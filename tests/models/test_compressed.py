"""compressed-tensors, held against its schemes' definitions."""

from __future__ import annotations

from typing import Any

import pytest

from subcortex.models.huggingface import from_config
from tests.models.quantised import EXPERT, OUTPUTS, PLAIN, WEIGHTS, bytes_of, method_in, refusals_of
from tests.models.test_huggingface import config_of


def _weights(**settings: Any) -> dict[str, Any]:
    return {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"} | settings


def _group(*targets: str, **settings: Any) -> dict[str, Any]:
    return {"targets": list(targets), "weights": _weights(**settings)}


def _compressed(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {f"group_{number}": group for number, group in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "config_groups": named} | more


@pytest.mark.parametrize(
    ("settings", "form", "taken"),
    [
        ({"strategy": "channel"}, "int-quantized", WEIGHTS + 4 * OUTPUTS),
        ({"strategy": "channel"}, "pack-quantized", WEIGHTS + 2 * OUTPUTS),
        ({"strategy": "tensor", "type": "float"}, "float-quantized", WEIGHTS + 8),
        ({"strategy": "block", "type": "float", "block_structure": [128, 128]}, "", WEIGHTS + 4 * 8 * 32),
        (
            {"strategy": "group", "group_size": 32, "num_bits": 4},
            "pack-quantized",
            WEIGHTS / 2 + WEIGHTS / 16,
        ),
        (
            {"strategy": "group", "group_size": 128, "num_bits": 4, "symmetric": False},
            "pack-quantized",
            WEIGHTS / 2 + 2.5 * WEIGHTS / 128,
        ),
        (
            {"strategy": "tensor_group", "group_size": 16, "num_bits": 4, "type": "float"},
            "nvfp4-pack-quantized",
            WEIGHTS * 9 / 16,
        ),
        (
            {"strategy": "group", "group_size": 32, "num_bits": 4, "type": "float"},
            "mxfp4-pack-quantized",
            WEIGHTS * 17 / 32,
        ),
        (
            {
                "strategy": "group",
                "group_size": 32,
                "num_bits": 8,
                "type": "float",
                "scale_dtype": "torch.uint8",
            },
            "mxfp8-quantized",
            WEIGHTS * 33 / 32,
        ),
        (
            {"strategy": "group", "group_size": 128, "num_bits": 3},
            "pack-quantized",
            WEIGHTS * 3 / 8 + 2 * WEIGHTS / 128,
        ),
    ],
)
def test_compressed_tensors_take_what_their_scheme_defines(
    settings: dict[str, Any], form: str, taken: float
) -> None:
    quantization = _compressed(_group("Linear", **settings), format=form)

    assert bytes_of(quantization) == taken
    assert refusals_of(quantization) == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (
            {"strategy": "group", "group_size": 128, "num_bits": 3, "symmetric": False},
            "3 bits with zero points",
        ),
        (
            {"strategy": "group", "group_size": 64, "num_bits": 8, "type": "float"},
            "floats of 8 bits in groups of 64",
        ),
        ({"strategy": "group", "group_size": 128, "num_bits": 1}, "whole numbers of 1 bits"),
    ],
)
def test_schemes_that_vllm_has_no_kernel_for_are_said(settings: dict[str, Any], why: str) -> None:
    assert why in refusals_of(_compressed(_group("Linear", **settings)))[0]


def test_each_group_of_layers_has_its_own_scheme() -> None:
    quantization = _compressed(
        _group("re:.*self_attn\\.(q|k|v|o)_proj$", strategy="tensor", type="float"),
        _group("model.layers.5.mlp.down_proj", strategy="channel"),
        _group(
            "re:.*mlp\\.(gate|up|down)_proj$",
            strategy="tensor_group",
            group_size=16,
            num_bits=4,
            type="float",
        ),
        _group("LlamaAttention", strategy="tensor", type="float"),
        ignore=["re:.*layers\\.7\\..*"],
    )

    assert bytes_of(quantization, "model.layers.5.self_attn.q_proj") == WEIGHTS + 8
    assert bytes_of(quantization, "model.layers.5.mlp.down_proj") == WEIGHTS + 4 * OUTPUTS
    assert bytes_of(quantization, "model.layers.6.mlp.down_proj") == WEIGHTS * 9 / 16
    assert bytes_of(quantization, "model.layers.7.mlp.down_proj") == PLAIN
    assert bytes_of(quantization, "model.layers.6.linear_attn.out_proj") == PLAIN
    assert method_in(quantization).notes == ()


def test_names_and_patterns_go_before_classes() -> None:
    quantization = _compressed(
        _group("Linear", strategy="channel"), _group("re:.*down_proj$", strategy="tensor", type="float")
    )

    assert bytes_of(quantization, "model.layers.0.mlp.down_proj") == WEIGHTS + 8
    assert bytes_of(quantization) == WEIGHTS + 4 * OUTPUTS
    assert "Conv1d are not understood" in method_in(_compressed(_group("Linear", "Conv1d"))).notes[0]


def test_experts_alone_may_be_quantised() -> None:
    quantization = _compressed(
        _group("re:.*mlp.experts.*", strategy="group", group_size=32, num_bits=4), ignore=["re:.*self_attn.*"]
    )

    assert bytes_of(quantization, EXPERT) == WEIGHTS / 2 + 2 * WEIGHTS / 32
    assert bytes_of(quantization, "model.layers.0.mlp.shared_experts.up_proj") == PLAIN


def test_sparse_checkpoints_are_refused() -> None:
    dense = _compressed(_group("Linear"), sparsity_config={"format": "dense", "targets": []})
    sparse = _compressed(
        _group("Linear"), sparsity_config={"format": "sparse-24-bitmask", "targets": ["Linear"]}
    )

    assert refusals_of(dense) == []
    assert len(refusals_of(sparse)) == 1


def test_a_multimodal_model_finds_its_list_under_its_own_names() -> None:
    text = config_of("gemma-3-12b-text")
    ignore = [
        "vision_tower",
        "language_model.model.layers.3.mlp.down_proj",
        "model.language_model.layers.4.mlp",
    ]
    quantization = _compressed(_group("Linear"), ignore=ignore, format="int-quantized")
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": text,
    }
    shape = from_config(config | {"quantization_config": quantization}, "gemma")
    plain = {(t.layer, t.name) for t in shape.tensors if "proj" in t.name and t.bytes == 2 * t.elements}

    assert plain == {(3, "mlp.down_proj"), (4, "mlp.down_proj"), (4, "mlp.gate_proj")}
