"""The first estimate against what vLLM measured of itself, and its own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.vram import Shape, kv_mib_per_token, llamacpp_need, usable_mib, vllm_need, weights_mib

LLAMA_8B = Shape(weights_mib(8.03e9, 16), layers=32, kv_heads=8, head_dim=128)
LLAMA_70B = Shape(weights_mib(70.55e9, 16), layers=80, kv_heads=8, head_dim=128)

#: vLLM 0.26.0 on H200, from its boot logs: shape, TP, weights GiB, KV GiB, KV tokens, the rest GiB (peak
#: activations, graphs, memory outside torch).
BOOTS = [
    (LLAMA_8B, 1, 15.0, 18.62, 152_512, 1.10 + 0.98 + 0.22),
    (LLAMA_8B, 2, 7.54, 75.57, 1_238_048, 0.71 + 0.72 + 0.06),
    (LLAMA_70B, 2, 65.74, 19.77, 129_552, 1.16 + 1.53 + 0.0),
]


@pytest.mark.parametrize(("shape", "tp", "weights_gib", "kv_gib", "kv_tokens", "rest_gib"), BOOTS)
def test_measured_boots(shape, tp, weights_gib, kv_gib, kv_tokens, rest_gib):
    need = vllm_need(shape, kv_tokens=kv_tokens, tensor_parallel_size=tp)

    assert need.weights_mib / 1024 == pytest.approx(weights_gib, rel=0.01)
    assert need.kv_mib / 1024 == pytest.approx(kv_gib, rel=0.001)
    # The constants lean to the large side, by 2 GiB at most; 0.45 of it is the context, and at TP=2
    # the communication buffers lie outside what the log counts.
    beside_gib = 0.45 + (1.2 if tp > 1 else 0.0)
    assert 0 <= need.overhead_mib / 1024 - rest_gib - beside_gib <= 2


def test_kv_goes_by_key_value_heads_and_stops_shrinking_below_one():
    assert kv_mib_per_token(LLAMA_70B) * 1024 == 320
    assert kv_mib_per_token(LLAMA_70B, tensor_parallel_size=8) * 1024 == 40
    assert kv_mib_per_token(LLAMA_70B, tensor_parallel_size=16) * 1024 == 40


def test_weights_by_hand():
    assert weights_mib(8e9, 16) * 2**20 == 16e9
    assert weights_mib(70e9, 4) * 2**20 == 35e9


shapes = st.builds(
    Shape,
    weights_mib=st.floats(1, 1e6),
    layers=st.integers(1, 200),
    kv_heads=st.integers(1, 128),
    head_dim=st.sampled_from([32, 64, 128, 256]),
)


@given(shapes, st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_context_never_needs_less(shape, one, other):
    fewer, more = sorted((one, other))

    assert vllm_need(shape, kv_tokens=fewer).total_mib <= vllm_need(shape, kv_tokens=more).total_mib
    assert llamacpp_need(shape, kv_tokens=fewer).total_mib <= llamacpp_need(shape, kv_tokens=more).total_mib


@given(shapes, st.integers(0, 10**6), st.integers(0, 3))
def test_more_gpus_never_hold_more_weights_or_kv_each(shape, tokens, power):
    small, large = (
        vllm_need(shape, kv_tokens=tokens, tensor_parallel_size=size) for size in (2**power, 2 ** (power + 1))
    )

    assert large.weights_mib <= small.weights_mib
    assert large.kv_mib <= small.kv_mib


@given(shapes, st.integers(0, 10**5), st.floats(0, 1))
def test_a_split_places_every_weight_once(shape, tokens, share):
    whole = llamacpp_need(shape, kv_tokens=tokens)
    parts = [llamacpp_need(shape, kv_tokens=tokens, share=part) for part in (share, 1 - share)]

    assert sum(part.weights_mib for part in parts) == pytest.approx(whole.weights_mib)
    assert sum(part.kv_mib for part in parts) == pytest.approx(whole.kv_mib, abs=1e-9)
    assert sum(part.total_mib for part in parts) == pytest.approx(whole.total_mib + whole.overhead_mib)


def test_what_others_use_cannot_be_planned():
    assert usable_mib(24576) == pytest.approx(24576 * 0.97)
    assert usable_mib(24576, 4000) == pytest.approx(24576 * 0.97 - 4000)
    assert usable_mib(1000, 5000) == 0
