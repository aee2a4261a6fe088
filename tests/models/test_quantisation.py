"""What quantised layers take, and the same model in another form."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from subcortex.errors import InvalidRequest
from subcortex.models._config import Config
from subcortex.models.mixtures import mixture_bytes
from subcortex.models.quantisation import method_of, requantised
from subcortex.models.read import read_shape
from subcortex.models.shape import Doubt, doubt_of
from tests.models.synthetic import SHAPES, tensors_of, write_gguf_header
from tests.models.test_huggingface import PARAMETERS, shape_of


def _bytes(
    quantization: Mapping[str, object], path: str = "model.layers.0.mlp.up_proj", **how: bool
) -> float:
    method = method_of(Config({"quantization_config": quantization}, "m"))
    cost = method.cost(path, 4096, 1024, **how)
    return cost.sharded + cost.whole


_WEIGHTS = 4096 * 1024
_GROUPS = 32 * 1024


@pytest.mark.parametrize(
    ("quantization", "taken"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, _WEIGHTS / 2 + 4 * _GROUPS),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, _WEIGHTS + 3 * _GROUPS + 4 * 4096),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, _WEIGHTS / 2 + 2.5 * 1024 + 4 * 4096),
        ({"quant_method": "fp8"}, _WEIGHTS + 8),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, _WEIGHTS + 4 * 8 * 32),
        ({"quant_method": "fbgemm_fp8"}, _WEIGHTS + 4 * 1024),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, _WEIGHTS / 2 + 4 * 64 * 1024),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, _WEIGHTS + 4 * 1024),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, _WEIGHTS / 2 + 256 * 1024),
        ({"quant_method": "mxfp4"}, 2 * _WEIGHTS),
        ({"quant_method": "odd"}, 2 * _WEIGHTS),
        ({"quant_method": "odd", "bits": 4, "group_size": 128}, _WEIGHTS / 2 + 2.5 * _GROUPS),
    ],
)
def test_a_layer_takes_its_weights_scales_and_zero_points(quantization, taken):
    assert _bytes(quantization) == taken


def test_what_is_not_known_is_said():
    method = method_of(Config({"quantization_config": {"quant_method": "odd"}}, "m"))
    assert "odd is not known here" in method.notes[0]
    known, loaded = map(doubt_of, method.notes)
    assert known == Doubt.FORM | Doubt.UNFAMILIAR
    assert loaded == Doubt.FORM | Doubt.NOT_LOADED


def test_layers_left_plain_are_plain():
    fp8 = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.0.mlp.up_proj", "lm_head"]}
    assert _bytes(fp8) == 2 * _WEIGHTS
    assert _bytes(fp8, "model.layers.1.mlp.up_proj") == _WEIGHTS + 8
    awq = {"quant_method": "awq", "modules_to_not_convert": ["self_attn"]}
    assert _bytes(awq, "model.layers.7.self_attn.q_proj") == 2 * _WEIGHTS


def test_one_layer_left_plain_is_counted_in_that_layer():
    plain = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.5.mlp.down_proj"]}
    tensors = shape_of("llama-3.1-8b", quantization_config=plain).tensors
    down = {t.layer: t.bytes / t.elements for t in tensors if t.name == "mlp.down_proj"}
    assert [layer for layer, each in down.items() if each == 2] == [5]


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3", "falcon-h1-7b"])
def test_another_form_keeps_every_weight_and_plain_is_as_before(model):
    shape = shape_of(model)
    for method in ("bf16", "fp8", "awq", "gptq", "nvfp4", "Q4_K_M", "Q8_0", "IQ2_XS"):
        other = requantised(shape, method)
        assert other.parameters == shape.parameters, method
        assert not other.exact
    plain = shape_of(model, quantization_config=None)
    assert requantised(shape, "bf16").weights_bytes == plain.weights_bytes


@pytest.mark.parametrize(
    ("model", "method", "published"),
    [
        ("llama-3.1-8b", "awq", "llama-3.1-8b-awq"),
        ("llama-3.1-70b", "awq", "llama-3.1-70b-awq"),
        ("llama-3.1-8b", "gptq", "llama-3.1-8b-gptq"),
        ("llama-3.1-8b", "fp8", "llama-3.1-8b-fp8"),
        ("llama-3.1-8b", "w4a16", "llama-3.1-8b-w4a16"),
        ("llama-3.1-8b", "int8", "llama-3.1-8b-w8a8"),
        ("llama-3.1-70b", "nvfp4", "llama-3.3-70b-nvfp4"),
        ("qwen3-30b-a3b", "fp8", "qwen3-30b-a3b-fp8"),
        ("qwen3-8b", "fp8", "qwen3-8b-fp8"),
    ],
)
def test_another_form_takes_what_the_published_one_does(model, method, published):
    made, real = requantised(shape_of(model), method), shape_of(published)
    assert made.weights_bytes == pytest.approx(real.weights_bytes, rel=0.002)


@pytest.mark.parametrize(
    ("model", "mixture", "bits"),
    # llama.cpp's own table of Llama 3.1 8B; bartowski's files of the others (bytes · 8 / weights).
    [
        ("llama-3.1-8b", "Q4_K_M", 4.8944),
        ("llama-3.1-8b", "Q8_0", 8.5008),
        ("llama-3.1-8b", "Q2_K", 3.1593),
        ("llama-3.1-8b", "IQ3_M", 3.7628),
        ("llama-3.1-70b", "Q4_K_M", 42.52e9 * 8 / PARAMETERS["llama-3.1-70b"]),
        ("mixtral-8x7b", "Q8_0", 8.5),
    ],
)
def test_a_mixture_takes_what_llama_quantize_makes(model, mixture, bits):
    made = requantised(shape_of(model), mixture)
    assert 8 * made.weights_bytes / made.parameters == pytest.approx(bits, rel=0.003)


def test_quantised_latent_attention_keeps_plain_copies():
    names = {t.name for t in requantised(shape_of("deepseek-v2-lite"), "fp8").tensors}
    assert "self_attn.absorbed" in names
    assert "self_attn.absorbed" not in {t.name for t in shape_of("deepseek-v2-lite").tensors}
    absorbed = [t for t in shape_of("deepseek-v3").tensors if t.name == "self_attn.absorbed"]
    assert sum(t.bytes for t in absorbed) == 2_046_820_352


def test_an_unknown_form_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="q5"):
        requantised(shape_of("llama-3.1-8b"), "q5")


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite", "mixtral-8x7b"])
@pytest.mark.parametrize("mixture", ["Q4_K_M", "Q2_K", "IQ3_M", "Q8_0"])
def test_a_mixture_of_any_form_takes_what_llama_quantize_gives_each_tensor(tmp_path, model, mixture):
    architecture, figures = SHAPES[model]
    path = tmp_path / "model.gguf"
    write_gguf_header(path, architecture, shape=figures, quantization="F16")
    written = mixture_bytes(mixture, tensors_of(architecture, figures))
    for shape in (shape_of(model), read_shape(path)):
        assert requantised(shape, mixture).weights_bytes == pytest.approx(written, rel=0.0015)


@pytest.mark.parametrize(
    ("model", "mixture", "published_gb"),
    [
        ("qwen2.5-7b", "Q4_K_M", 4.683),
        ("qwen2.5-14b", "Q4_K_M", 8.988),
        ("qwen2.5-14b", "Q5_K_M", 10.509),
        ("qwen2.5-32b", "Q4_K_M", 19.851),
        ("llama-3.1-8b", "Q4_K_M", 4.921),
    ],
)
def test_biases_beside_a_matrix_do_not_change_its_type(model: str, mixture: str, published_gb: float) -> None:
    # Files as published hold 6 to 10 MB of vocabulary besides the tensors.
    shape = requantised(shape_of(model), mixture)
    assert shape.weights_bytes / 1e9 == pytest.approx(published_gb, rel=0.003)
