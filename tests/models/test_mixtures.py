"""The table of types against gguf-py's, and the mixtures against the sizes of published files."""

from __future__ import annotations

import gguf
import pytest
from gguf.constants import GGML_QUANT_SIZES

from subcortex.errors import InvalidRequest
from subcortex.models.gguf_types import BY_ID, BY_NAME, FILE_TYPES, TYPES
from subcortex.models.mixtures import MIXTURES, mixture_bytes, mixture_types
from subcortex.models.stored import StoredTensor
from tests.models.synthetic import SHAPES, tensors_of

#: bartowski's cards and llama.cpp's README: decimal GB of the whole file.
PUBLISHED_GB = {
    ("llama-3.1-8b", "Q8_0"): 8.54,
    ("llama-3.1-8b", "Q6_K"): 6.60,
    ("llama-3.1-8b", "Q5_K_M"): 5.73,
    ("llama-3.1-8b", "Q5_K_S"): 5.60,
    ("llama-3.1-8b", "Q4_K_M"): 4.92,
    ("llama-3.1-8b", "Q4_K_S"): 4.69,
    ("llama-3.1-8b", "Q4_0"): 4.66,
    ("llama-3.1-8b", "IQ4_XS"): 4.45,
    ("llama-3.1-8b", "Q3_K_L"): 4.32,
    ("llama-3.1-8b", "Q3_K_M"): 4.02,
    ("llama-3.1-8b", "IQ3_M"): 3.78,
    ("llama-3.1-8b", "Q3_K_S"): 3.66,
    ("llama-3.1-8b", "IQ3_XS"): 3.52,
    ("llama-3.1-8b", "Q2_K"): 3.18,
    ("llama-3.1-8b", "IQ2_M"): 2.95,
    ("llama-3.1-70b", "Q8_0"): 74.98,
    ("llama-3.1-70b", "Q6_K"): 57.89,
    ("llama-3.1-70b", "Q5_K_M"): 49.95,
    ("llama-3.1-70b", "Q5_K_S"): 48.66,
    ("llama-3.1-70b", "Q4_K_M"): 42.52,
    ("llama-3.1-70b", "Q4_K_S"): 40.35,
    ("llama-3.1-70b", "IQ4_XS"): 37.90,
    ("llama-3.1-70b", "Q3_K_L"): 37.14,
    ("llama-3.1-70b", "Q3_K_M"): 34.27,
    ("llama-3.1-70b", "IQ3_M"): 31.94,
    ("llama-3.1-70b", "Q3_K_S"): 30.91,
}


def test_every_type_that_gguf_knows_is_known_with_its_sizes():
    theirs = {kind.name: (int(kind), *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {kind.name: (kind.id, kind.block_elements, kind.block_bytes) for kind in TYPES} == theirs
    assert len(BY_ID) == len(BY_NAME) == len(TYPES)


def test_every_file_type_is_known_by_name():
    theirs = {
        int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")
        for kind in gguf.LlamaFileType
        if kind.name != "GUESSED"
    }
    assert theirs == FILE_TYPES


def test_a_tensor_takes_whole_blocks():
    assert BY_NAME["Q4_K"].tensor_bytes((3, 512)) == 3 * 2 * 144
    assert BY_NAME["Q4_K"].bits_per_weight == 4.5
    assert BY_NAME["F32"].tensor_bytes(()) == 4
    with pytest.raises(ValueError, match="a row of 100"):
        BY_NAME["Q4_K"].tensor_bytes((256, 100))


@pytest.mark.parametrize(("model", "mixture"), PUBLISHED_GB, ids=lambda name: name)
def test_mixtures_have_the_size_of_published_files(model, mixture):
    tensors = tensors_of(*SHAPES[model])
    vocabulary = 7.8e6  # what the files hold besides: 128,256 tokens, 280,147 merges
    assert (mixture_bytes(mixture, tensors) + vocabulary) / 1e9 == pytest.approx(
        PUBLISHED_GB[model, mixture], rel=0.004
    )


@pytest.mark.parametrize("mixture", MIXTURES)
def test_average_bits_are_those_of_the_rules(mixture):
    tensors = tensors_of(*SHAPES["llama-3.1-8b"])
    bits = 8 * mixture_bytes(mixture, tensors) / sum(tensor.elements for tensor in tensors)
    assert bits == pytest.approx(MIXTURES[mixture], rel=0.01)


def test_which_tensors_of_q4_k_m_get_more():
    types = mixture_types("Q4_K_M", tensors_of(*SHAPES["llama-3.1-8b"]))
    more = [n for n in range(32) if types[f"blk.{n}.ffn_down.weight"] == "Q6_K"]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert more == [n for n in range(32) if types[f"blk.{n}.attn_v.weight"] == "Q6_K"]
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_K"
    assert types["blk.0.attn_norm.weight"] == "F32"


def test_tied_embeddings_are_quantised_as_the_output_is():
    assert mixture_types("Q4_K_M", tensors_of(*SHAPES["llama-3.2-1b"]))["token_embd.weight"] == "Q6_K"


def test_rows_that_are_no_multiple_of_256_fall_back():
    types = mixture_types("Q4_K_M", tensors_of(*SHAPES["qwen2.5-0.5b"]))  # rows of 896
    assert types["blk.0.attn_q.weight"] == "Q5_0"
    assert types["blk.0.attn_v.weight"] == "Q8_0"
    odd = mixture_types("Q4_K_M", [StoredTensor("blk.0.attn_q.weight", (8, 33), "F32", 1056)])
    assert odd == {"blk.0.attn_q.weight": "F16"}


def test_routers_stay_in_full_precision_and_eight_experts_have_rules_of_their_own():
    types = mixture_types("Q4_K_M", tensors_of(*SHAPES["mixtral-8x7b"]))
    assert types["blk.0.ffn_gate_inp.weight"] == "F32"
    assert types["blk.0.attn_v.weight"] == types["blk.9.attn_k.weight"] == "Q8_0"
    assert types["blk.9.attn_output.weight"] == "Q5_K"
    assert (
        mixture_types("MXFP4_MOE", tensors_of(*SHAPES["qwen3-30b-a3b"]))["blk.0.ffn_up_exps.weight"]
        == "MXFP4"
    )


def test_an_unknown_mixture_names_the_known_ones():
    with pytest.raises(InvalidRequest, match="Q4_K_M"):
        mixture_bytes("Q4_K_XL", ())
