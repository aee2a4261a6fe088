"""What crosses links, against sums anyone can do."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from subcortex.vram.communication import (
    Span,
    all_reduces,
    duration,
    latency,
    layer_seconds,
    pipeline_traffic,
    tensor_traffic,
    words,
)
from tests.vram.plan.toys import toy

SHAPE = toy(8, layers=32)
HIDDEN_BYTES, LOGITS_BYTES = 4096 * 2, 32000 * 2


@dataclass(frozen=True)
class Wire:
    kind: str = "PHB"
    words: str = "PCIe 4 x16"
    gb_per_s: float = 31.5
    measured: bool = False
    peer: bool | None = True
    latency_s: float | None = None


def test_a_layer_has_two_all_reduces_and_the_embedding_one():
    assert all_reduces(SHAPE) == 65


def test_tensor_parallelism_sends_a_ring_s_share_of_each_message():
    traffic = tensor_traffic(SHAPE, tp=4)
    assert traffic.messages == 66
    assert traffic.sent_bytes == pytest.approx(65 * HIDDEN_BYTES * 2 * 3 / 4 + LOGITS_BYTES * 3 / 4)


def test_a_prefill_sends_its_tokens_and_the_logits_once():
    traffic = tensor_traffic(SHAPE, tp=2, tokens=1000)
    assert traffic.sent_bytes == pytest.approx(65 * 1000 * HIDDEN_BYTES + LOGITS_BYTES / 2)


def test_one_rank_says_nothing():
    assert tensor_traffic(SHAPE, tp=1).sent_bytes == 0
    assert pipeline_traffic(SHAPE, pp=1).sent_bytes == 0
    assert layer_seconds(SHAPE, 1, Wire()) == Span(0.0)


def test_a_border_is_crossed_by_the_residual_stream():
    assert pipeline_traffic(SHAPE, pp=4, tensors=1).sent_bytes == 3 * HIDDEN_BYTES
    assert pipeline_traffic(SHAPE, pp=4).sent_bytes == 3 * 2 * HIDDEN_BYTES


def test_a_stage_of_two_ranks_sends_halves_and_gathers_the_other():
    assert pipeline_traffic(SHAPE, pp=2, tp=2, tensors=1).sent_bytes == HIDDEN_BYTES / 2 + HIDDEN_BYTES / 2


def test_a_measured_link_is_taken_as_it_is_and_a_nominal_one_is_not():
    traffic = tensor_traffic(SHAPE, tp=2)
    nominal = duration(traffic, Wire(), Span(0.0))
    measured = duration(traffic, Wire(measured=True), Span(0.0))
    assert measured.mean_s == pytest.approx(traffic.sent_bytes / 31.5e9)
    assert nominal.mean_s == pytest.approx(traffic.sent_bytes / (31.5e9 * 0.8))
    assert nominal.sigma_s > measured.sigma_s


def test_latency_rules_a_token_and_bandwidth_a_prefill():
    token = duration(tensor_traffic(SHAPE, tp=2), Wire())
    assert token.mean_s == pytest.approx(66 * 15e-6, rel=0.05)
    prefill = tensor_traffic(SHAPE, tp=2, tokens=8192)
    assert duration(prefill, Wire()).mean_s == pytest.approx(prefill.sent_bytes / (31.5e9 * 0.8), rel=0.01)


def test_pcie_costs_a_layer_microseconds_not_the_milliseconds_of_the_seed():
    # Seed 001 says 20 to 40 ms a layer over PCIe. Even without peer access, at a quarter of the lanes
    # and one σ late, a decoded token pays less than a tenth of a millisecond.
    poor = Wire(words="PCIe 3 x4", gb_per_s=3.9, peer=False)
    layer = layer_seconds(SHAPE, 2, poor)
    assert layer.mean_s + layer.sigma_s < 1e-4
    # Only a prefill of thousands of tokens comes near.
    assert layer_seconds(SHAPE, 2, Wire(), tokens=8192).mean_s < 0.01


def test_words_name_the_source():
    span = Span(0.00042, 0.0001)
    assert words(span, Wire()) == "PCIe 4 x16 (PHB), nominal 31.5 GB/s: +0.42 ± 0.1 ms a token"
    assert words(span, Wire(measured=True)) == "PHB, measured 31.5 GB/s: +0.42 ± 0.1 ms a token"


def test_latency_is_least_between_peers_and_least_sure_where_nobody_knows():
    peers, strangers, unknown = (latency(Wire(peer=peer)) for peer in (True, False, None))
    assert peers.mean_s < unknown.mean_s < strangers.mean_s
    assert unknown.sigma_s > strangers.sigma_s > peers.sigma_s
