"""Which lines say something, of what, and with which figures; and that no text takes long or fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.journal.board import claims_in, gaps_in
from tests.journal.board.samples import COLLECTIVES, SESSION, TABLE


def figures(text: str) -> list[tuple[int | None, str | None, str | None, float, str | None]]:
    return [
        (claim.line, figure.quantity, figure.subject, figure.value, figure.unit)
        for claim in claims_in(text)
        if claim.kind == "figure"
        for figure in claim.figures
    ]


def test_statements_figures_and_fits_of_a_session():
    found = [(claim.line, claim.kind) for claim in claims_in(SESSION)]
    assert found == [(9, "statement"), (10, "fits"), (10, "figure"), (13, "statement"), (14, "figure")]
    fits = claims_in(SESSION)[1]
    assert (fits.fits, fits.model, fits.form) == (True, "llama-3.1-70b", "Q4")
    assert fits.cards == ("24GB", "24GB")
    assert fits.engine == "vllm"


def test_figures_have_their_quantity_and_subject():
    assert figures(SESSION) == [
        (10, "weights_size", "llama-3.1-70b Q4", 37.5, "GB"),
        (14, "bandwidth", "PCIe 4.0 x16", 32, "GB/s"),
    ]


def test_a_cell_has_its_rows_model_and_its_columns_quantity():
    cells = [one for one in figures(TABLE) if one[0] in (9, 10)]
    assert cells == [
        (9, "weights_size", "deepseek-r1-distill-qwen-14b Q4_K_M", 9, "GB"),
        (9, "score:math-500", "deepseek-r1-distill-qwen-14b", 93.9, "%"),
        (10, "weights_size", "llama-3.1-8b Q4_K_M", 7, "GB"),
        (10, "score:math-500", "llama-3.1-8b", 70, "%"),
    ]
    assert claims_in(TABLE)[1].statement.endswith("File (Q4_K_M) ~9GB")


def test_what_fits_knows_its_cards_and_its_context():
    one, two = (claim for claim in claims_in(TABLE) if claim.kind == "fits")
    assert (one.fits, one.model, one.form, one.cards) == (True, "llama-3.1-8b", "Q6_K", ("RTX 3060 Ti 8GB",))
    assert (two.fits, two.model) == (False, "qwen-2.5-32b")
    assert {one.context_tokens, two.context_tokens} == {8192}


def test_sums_dates_boxes_and_commands():
    lines = {claim.line for claim in claims_in(TABLE)}
    assert 3 in lines
    assert lines.isdisjoint({5, 7, 8, 17, 18})
    assert (
        figures(
            "**Duration:** ~25 min\n**Drive:** LEARNING (137%)\n09:00-09:30 reads 4 GB\nIs 4 GB enough?\n"
        )
        == []
    )


def test_vectors_of_collectives():
    found = [(claim.line, claim.collected.operation) for claim in claims_in(COLLECTIVES) if claim.collected]
    assert found == [(8, "all_reduce"), (18, "reduce_scatter"), (19, "reduce_scatter")]


@pytest.mark.parametrize(
    ("line", "quantity", "subject"),
    [
        ("- KV cache of Llama 3.1 8B: 128 KiB per token", "kv_per_token", "llama-3.1-8b"),
        ("Restart took ~5-10 seconds on vLLM", "restart_time", "vLLM"),
        ("Decoding ran at 31 tok/s with Qwen3-8B", "speed", "qwen-3-8b"),
        ("The GTX 1060 only has 3GB VRAM", "vram", "GTX 1060"),
        ("GPU 1: 95% util all day", "utilisation", "GPU 1"),
        ("hidden_size = 4096", "hidden_size", None),
        ("PagedAttention uses blocks of 16 tokens", "block_size", "PagedAttention"),
    ],
)
def test_quantities_and_subjects(line, quantity, subject):
    (claim,) = claims_in(line)
    assert (claim.figures[0].quantity, claim.figures[0].subject) == (quantity, subject)


def test_a_comment_in_code_says_what_its_number_is():
    (claim,) = claims_in(
        "```python\nlink = 600  # GB/s for NVLink\nport = 8000\nx = f(4)  # four GPUs\n```\n"
    )
    assert [(figure.value, figure.unit) for figure in claim.figures] == [(600, "GB/s")]


def test_a_claim_keeps_its_key_when_lines_move():
    before = {claim.key("s") for claim in claims_in(TABLE)}
    assert before == {claim.key("s") for claim in claims_in("\n\n" + TABLE)}
    assert len(before) == len(claims_in(TABLE))


_HOSTILE = (
    "9" * 10**6, "-" * 10**6, "1-" * 10**5, "|-" * 10**5, "a|b\n|-|-|\n" + "|x" * 10**5, "*" * 10**5,
    "GPU 0: [" + "1," * 10**5, "1 + " * 10**5 + "= 3", "Open question: " * 10**4, "> " * 10**5,
    ("llama " * 600 + "\n") * 20, ("9 GB " * 800 + "\n") * 20, ("RTX 3090 " * 400 + "\n") * 20,
    "".join(" " * n + "- x 3GB\n" for n in range(400)), "x:\n" * 10**4,
)  # fmt: skip


@pytest.mark.parametrize("text", _HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_lines_end(text):
    assert len(claims_in(text)) <= 2000
    assert len(gaps_in(text)) <= 500


@given(st.text(alphabet="#*-1.9?: \n\t>|`[]()=~+×x/GBk%LlamaRTX3090Q4_K√\x00\ud800", max_size=400))
def test_any_text_makes_claims_or_none(text):
    for claim in claims_in(text):
        assert claim.statement
        assert len(claim.key("s")) == 32
