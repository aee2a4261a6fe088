"""The catalogue says of each model what its config.json says, and what adds up to its size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subcortex.models.catalogue import FAMILIES, Relative, family_of, named, smaller
from subcortex.models.shape import FullAttention, Layer, ModelShape, Split, Tensor

_SHAPES = Path(__file__).parents[2] / "bench" / "shapes"
_ALL = [relative for relatives in FAMILIES.values() for relative in relatives]
#: Our folder of public configs → the model of the catalogue.
_PUBLIC = {
    "llama-3.1-70b": "meta-llama/Llama-3.3-70B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "llama-3.2-3b": "meta-llama/Llama-3.2-3B-Instruct",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "qwen2.5-72b": "Qwen/Qwen2.5-72B-Instruct",
    "qwen2.5-32b": "Qwen/Qwen2.5-32B-Instruct",
    "qwen2.5-14b": "Qwen/Qwen2.5-14B-Instruct",
    "qwen2.5-7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen3-235b-a22b": "Qwen/Qwen3-235B-A22B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "qwen3-30b-a3b": "Qwen/Qwen3-30B-A3B",
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-1.7b": "Qwen/Qwen3-1.7B",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "gemma-3-27b-text": "google/gemma-3-27b-it",
    "gemma-3-12b-text": "google/gemma-3-12b-it",
    "gemma-3-1b": "google/gemma-3-1b-it",
    "mistral-small-24b": "mistralai/Mistral-Small-24B-Instruct-2501",
    "nemo-12b": "mistralai/Mistral-Nemo-Instruct-2407",
    "r1-distill-qwen-14b": "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
}


def _counted(one: Relative) -> float:
    attention = one.hidden * one.head_dim * (2 * one.heads + 2 * one.kv_heads)
    forward = 3 * one.hidden * one.intermediate
    if one.experts:
        count, _, width = one.experts
        forward = count * (3 * one.hidden * width + one.hidden)
    vocabulary = one.vocabulary * one.hidden * (1 if one.tied else 2)
    return one.layers * (attention + forward) + vocabulary


def _shape(one: Relative, name: str = "") -> ModelShape:
    attention = FullAttention(one.heads, one.kv_heads, one.head_dim, one.head_dim)
    return ModelShape(
        name=name or one.name,
        architecture=one.kind.gguf,
        source="written",
        hidden=one.hidden,
        vocabulary=one.vocabulary,
        layers=(Layer((attention,), one.intermediate),) * one.layers,
        tensors=(Tensor("all", int(one.billions * 1e9), one.billions * 1e9, Split.SHARDED),),
    )


@pytest.mark.parametrize("one", _ALL, ids=lambda one: one.name)
def test_parameters_add_up(one):
    assert _counted(one) / 1e9 == pytest.approx(one.billions, rel=0.01)


@pytest.mark.parametrize(("folder", "name"), _PUBLIC.items())
def test_figures_are_those_of_the_public_config(folder, name):
    public = json.loads((_SHAPES / folder / "config.json").read_text())
    ours = next(one for one in _ALL if one.name == name).config()
    head_dim = public["hidden_size"] // public["num_attention_heads"]
    expected = {"head_dim": head_dim, **public}
    assert {key: expected.get(key, ours[key]) for key in ours} == ours


@pytest.mark.parametrize("relatives", FAMILIES.values(), ids=FAMILIES)
def test_a_family_runs_from_large_to_small(relatives):
    sizes = [one.billions for one in relatives]
    assert sizes == sorted(sizes, reverse=True)


def test_smaller_relatives_are_of_the_same_family():
    seventy = next(one for one in _ALL if one.name.endswith("3.3-70B-Instruct"))
    names = [one.name.split("/")[1] for one in smaller(_shape(seventy))]
    assert names == ["Llama-3.1-8B-Instruct", "Llama-3.2-3B-Instruct", "Llama-3.2-1B-Instruct"]


def test_a_distilled_model_stays_among_its_own():
    fourteen = next(one for one in _ALL if one.name.endswith("Distill-Qwen-14B"))
    shape = _shape(fourteen, name="DeepSeek-R1-Distill-Qwen-14B-Q4_K_M.gguf")
    assert family_of(shape) == "DeepSeek R1 distilled"
    assert [one.name.rsplit("-", 1)[1] for one in smaller(shape)] == ["8B", "7B", "1.5B"]


def test_a_stranger_has_no_family():
    shape = _shape(_ALL[0])
    stranger = ModelShape("x", "Odd", "written", 17, shape.vocabulary, shape.layers, shape.tensors)
    assert family_of(stranger) is None
    assert smaller(stranger) == ()


def test_a_model_is_found_by_its_name_with_or_without_its_owner():
    one = named("qwen/qwen3-8b")
    assert one is not None
    assert named("QWEN3-8B") is one
    assert named("qwen3") is None
