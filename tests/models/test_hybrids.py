"""Hybrids in GGUF: what their layers keep, held against llama.cpp's own memory of the same headers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from subcortex.models.gguf_shape import shape_of_gguf
from subcortex.models.shape import FullAttention, LatentAttention, ModelShape, Recurrence
from subcortex.vram.llamacpp.buffers import layer_kept_bytes, run_of
from subcortex.vram.setup import LlamaCppSetup
from tests.models.hybrids import ATTENTION, HYBRIDS, write_hybrid

_ORACLE = Path(__file__).parents[2] / "bench" / "_llamacpp_oracle.py"
_CONTEXT_TOKENS = 4096
_MIXED = sorted(name for name, (_, _, _, other) in HYBRIDS.items() if other is not None)


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hybrids")
    return {name: write_hybrid(folder / f"{name}.gguf", name) for name in HYBRIDS}


@pytest.fixture(scope="module")
def kept_by_llamacpp(headers: dict[str, Path]) -> dict[str, int]:
    """Name → bytes of llama.cpp's memory of the past, in one sequence of 4096 tokens."""
    questions = [
        json.dumps({"file": str(path), "context_tokens": _CONTEXT_TOKENS}) for path in headers.values()
    ]
    done = subprocess.run(
        [sys.executable, str(_ORACLE)],
        input="\n".join(questions) + "\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    refused = {
        name: answer["log"][-500:] for name, answer in zip(headers, answers, strict=True) if answer["error"]
    }
    assert not refused
    return {name: answer["buffers"]["CPU"]["context"] for name, answer in zip(headers, answers, strict=True)}


def _kept_bytes(shape: ModelShape) -> float:
    setup = LlamaCppSetup(context_tokens=_CONTEXT_TOKENS)
    return sum(layer_kept_bytes(layer, setup, run_of(shape, setup)) for layer in shape.layers)


@pytest.mark.parametrize("name", HYBRIDS)
def test_what_is_kept_is_what_llama_cpp_keeps(
    name: str, headers: dict[str, Path], kept_by_llamacpp: dict[str, int]
) -> None:
    assert _kept_bytes(shape_of_gguf(headers[name])) == kept_by_llamacpp[name]


@pytest.mark.parametrize("name", _MIXED)
def test_tokens_are_kept_by_the_layers_of_attention_alone(name: str, headers: dict[str, Path]) -> None:
    layers = shape_of_gguf(headers[name]).layers
    keeping = [
        index
        for index, layer in enumerate(layers)
        if any(not isinstance(kept, Recurrence) for kept in layer.attention)
    ]
    assert keeping == list(ATTENTION)


def test_a_layer_of_both_keeps_both(headers: dict[str, Path]) -> None:
    for name in ("falcon-h1", "falcon-h1, fused"):
        for layer in shape_of_gguf(headers[name]).layers:
            assert [type(kept) for kept in layer.attention] == [FullAttention, Recurrence]


def test_a_layer_of_feed_forward_alone_keeps_nothing(headers: dict[str, Path]) -> None:
    assert shape_of_gguf(headers["nemotron-h"]).layers[1].attention == ()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("jamba", "mamba"),
        ("granite", "mamba2"),
        ("qwen3next", "gated_delta_net"),
        ("qwen35", "gated_delta_net"),
        ("lfm2", "short_conv"),
        ("kimi", "kimi_delta"),
        ("rwkv7", "rwkv"),
    ],
)
def test_a_state_is_called_by_its_kind(name: str, family: str, headers: dict[str, Path]) -> None:
    states = [kept for kept in shape_of_gguf(headers[name]).attentions if isinstance(kept, Recurrence)]
    assert {kept.family for kept in states} == {family}


def test_deepseek_of_before_latent_caches_keeps_whole_heads(headers: dict[str, Path]) -> None:
    old, new = shape_of_gguf(headers["deepseek2 of old"]), shape_of_gguf(headers["deepseek2"])
    assert old.attentions == (FullAttention(4, 4, 64, 32),) * 4
    assert new.attentions == (LatentAttention(4, 128, 32, 32, 32, 16),) * 4
    # 4 heads · (64 + 32) elements against 128 + 32, in 16 bits.
    assert _kept_bytes(old) == 4096 * 4 * 384 * 2
    assert _kept_bytes(new) == 4096 * 4 * 160 * 2
