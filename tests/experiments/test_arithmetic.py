"""What arithmetic says to claims: every verdict, with the figure that a wrong program would miss."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.experiments.arithmetic import known, settle
from subcortex.experiments.arithmetic.models import kv_bytes_per_token
from subcortex.journal.board import claims_in
from tests.journal.board.samples import COLLECTIVES, SESSION, TABLE


def verdicts(text: str) -> list[tuple[int | None, str, str | None]]:
    found: list[tuple[int | None, str, str | None]] = []
    for claim in claims_in(text):
        settled = settle(claim)
        found.append((claim.line, claim.kind, settled.verdict if settled else None))
    return found


def settled(line: str):
    (claim,) = claims_in(line)
    return settle(claim)


def test_a_session_of_two_cards():
    assert verdicts(SESSION) == [
        (9, "statement", None),
        (10, "fits", "confirmed"),
        (10, "figure", "confirmed"),
        (13, "statement", "refuted"),  # the 3090 takes a bridge
        (14, "figure", "confirmed"),
    ]


def test_a_table_of_models_and_what_fits():
    assert verdicts(TABLE) == [
        (3, "figure", "confirmed"),
        (9, "figure", "confirmed"),
        (9, "figure", None),
        (10, "figure", "refuted"),  # 4.9 GB: 7 is Q6_K's
        (10, "figure", None),
        (13, "fits", "confirmed"),
        (13, "figure", "confirmed"),
        (14, "fits", "confirmed"),
        (14, "figure", "confirmed"),
    ]


def test_collectives_are_worked_again():
    assert verdicts(COLLECTIVES) == [
        (8, "result", "confirmed"),
        (18, "result", "confirmed"),
        (19, "result", "refuted"),
    ]
    last = settle(claims_in(COLLECTIVES)[-1])
    assert last is not None
    assert "rank 1 = [10, 12]; written: [10, 13]" in last.working


@pytest.mark.parametrize(
    ("line", "verdict", "value", "unit"),
    [
        ("8GB + 3GB = 11GB VRAM", "confirmed", 11, "GB"),
        ("8GB + 3GB = 12GB VRAM", "refuted", 11, "GB"),
        ("4× A100 40GB = 160GB total", "confirmed", 160, "GB"),
        ("70B × 2 bytes = 140 GB", "confirmed", 140, "GB"),
        ("70B × 2 bytes = 150 GB", "refuted", 140, "GB"),
        ("Memory a card: 140 GB / 4 = 35 GB", "confirmed", 35, "GB"),
        ("8192 requests * 50 tokens = 409600", "confirmed", 409600, None),
        ("24 GiB + 24 GiB = 51.5 GB", "confirmed", 51.54, "GB"),
        ("PCIe 4.0 x16 = ~32GB/s each direction", "confirmed", 31.51, "GB/s"),
        ("PCIe 3.0 x16 = ~32GB/s each direction", "refuted", 15.75, "GB/s"),
        ("PCIe 3.0 x16 = ~32GB/s in both directions", "confirmed", 31.51, "GB/s"),
        ("Qwen3-1.7B in fp32: 6.8GiB", "refuted", 6.410, "GiB"),
        ("Qwen3-1.7B in fp32: 6.9GB", "confirmed", 6.882, "GB"),
        ("Llama 3.1 8B Q6_K is ~7GB", "confirmed", 6.588, "GB"),
        ("Qwen 2.5 14B Q6_K is ~10GB", "refuted", 12.12, "GB"),
        ("Qwen3-1.7B keeps 0.4375MiB per token", "refuted", 0.109375, "MiB"),
        ("Llama 3.1 8B keeps 128 KiB per token", "confirmed", 128, "KiB"),
        ("KV cache of Llama-2 70B (1024 tokens): ~40 GB", "refuted", 0.3355, "GB"),
        ("Qwen3-1.7B, KV cache for 2048 context length, 8 requests: 1.75 GiB", "confirmed", 1.75, "GiB"),
        ("Llama-2 70B has 80 layers", "confirmed", 80, "layers"),
        ("Llama-2 70B has 81 layers", "refuted", 80, "layers"),
        ("The GTX 1060 only has 3GB VRAM", "confirmed", 3, "GB"),
        ("The RTX 3090 has 16GB VRAM", "refuted", 24, "GB"),
    ],
)
def test_a_line_by_itself(line, verdict, value, unit):
    found = settled(line)
    assert found is not None
    assert (found.verdict, found.unit or None) == (verdict, unit)
    assert found.value == pytest.approx(value, rel=1e-3)
    assert "written: " in found.working


@pytest.mark.parametrize(
    "line",
    [
        "Llama 3.1 8B scores ~70% on MATH-500",
        "Decoding Llama 3.1 8B ran at 31 tok/s",
        "Llama 3.1 8B is ~7GB",  # in which form?
        "Plus KV cache of Llama-2 70B (~10-20 GB)",  # for how many tokens?
        "A model of somebody's own 5B Q4_K_M is ~3GB",
        "8GB + 3 = 11GB",
        "NVLink carries 600 GB/s",  # of which card?
    ],
)
def test_what_arithmetic_cannot_tell_stays_claimed(line):
    assert [settle(claim) for claim in claims_in(line)] == [None]


def test_a_sum_of_a_wrong_part_is_wrong():
    text = "Llama-2 70B:\n- Weights (FP16): 140 GB\n- KV cache (1024 tokens): 40 GB\n- Total: 180 GB\n"
    assert verdicts(text) == [(2, "figure", "confirmed"), (3, "figure", "refuted"), (4, "figure", "refuted")]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Llama-2 70B in FP16 on vLLM with TP=4\n\nFits on A100 80GB\n", "confirmed"),
        ("Llama-2 70B in FP16 on vLLM, single card\n\nFits on A100 80GB\n", "refuted"),
        ("Llama-2 70B on vLLM: H100 80GB: can't fit\n", "confirmed"),
        ("DeepSeek-R1-Distill-14B Q4_K_M (~9GB) fits on RTX 3060 Ti + GTX 1060\n", "refuted"),
        ("Qwen 2.5 7B (~5GB) won't fit on a GTX 1060\n", "confirmed"),
        ("Llama 3.1 8B Q6_K fits on a card nobody sells, the RTX 9990\n", None),
        ("Qwen 2.5 32B Q4_K_M won't fit on an RTX 3060 Ti even with RAM offload\n", None),
    ],
)
def test_what_fits(text, verdict):
    found = [settle(claim) for claim in claims_in(text) if claim.kind == "fits"]
    assert [one.verdict if one else None for one in found] == [verdict]


def test_a_cached_token_counts_kv_heads_and_not_the_width():
    llama, gemma = known.shape_of("llama-2-70b"), known.shape_of("gemma-3-27b")
    assert llama is not None
    assert gemma is not None
    assert kv_bytes_per_token(llama) == (
        2 * 80 * 8 * 128 * 2,
        "2 (K and V) × 80 layers × 8 KV heads × 128 × 2 bytes",
    )
    assert kv_bytes_per_token(gemma) is None  # most of its layers keep a window alone


def test_names_of_models():
    assert known.relative_of("deepseek-r1-distill-14b") == known.relative_of("deepseek-r1-distill-qwen-14b")
    assert known.relative_of("mistral-7b") is not None
    assert known.relative_of("qwen-3-30b-a3b") is not None
    assert known.relative_of("llama-8b") is None


_NUMBERS = st.lists(st.integers(-99, 99), min_size=3, max_size=3)


@given(st.lists(_NUMBERS, min_size=2, max_size=6))
def test_sums_over_any_ranks(vectors):
    summed = [sum(values) for values in zip(*vectors, strict=True)]
    given_lines = "".join(f"GPU {rank}: {vector}\n" for rank, vector in enumerate(vectors))
    right, wrong = (
        settle(claims_in(f"{given_lines}\nAfter all_reduce(sum):\nAll GPUs: {said}\n")[-1])
        for said in (summed, [summed[0] + 1, *summed[1:]])
    )
    assert right is not None
    assert wrong is not None
    assert (right.verdict, wrong.verdict) == ("confirmed", "refuted")


@given(st.integers(3, 500), st.integers(3, 500), st.integers(-3, 3))
def test_sums_of_memory(first, second, off):
    found = settled(f"{first}.0 GB + {second}.0 GB = {first + second + off}.0 GB")
    assert found is not None
    assert found.verdict == ("refuted" if off else "confirmed")


@given(st.text(alphabet="123 xX*+-=/~GB×()LlamaQ4_K7fits.,:\n", max_size=200))
def test_any_claim_is_settled_or_left(text):
    for claim in claims_in(text):
        settle(claim)
