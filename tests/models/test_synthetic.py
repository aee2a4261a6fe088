"""The files that the tests make of real shapes: gguf-py reads them, and llama.cpp takes their measure."""

from __future__ import annotations

import gguf
import pytest

from subcortex.models.mixtures import mixture_bytes
from tests.models.measured import llamacpp_memory
from tests.models.synthetic import SHAPES, Shape, tensors_of, write_gguf_header


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_a_real_shape_costs_no_disk(tmp_path, name):
    path = write_gguf_header(tmp_path / "model.gguf", name)
    reader = gguf.GGUFReader(path)
    tensors = tensors_of(*SHAPES[name])
    assert sum(int(tensor.n_bytes) for tensor in reader.tensors) == mixture_bytes("Q4_K_M", tensors)
    assert sum(int(tensor.n_elements) for tensor in reader.tensors) == sum(
        tensor.elements for tensor in tensors
    )
    assert path.stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("name", ["llama-3.1-70b", "qwen3-30b-a3b", "gemma-3-4b", "deepseek-v3"])
def test_llama_cpp_loads_it_and_takes_its_measure(tmp_path, name):
    path = write_gguf_header(tmp_path / "model.gguf", name)
    measured = llamacpp_memory(path, n_ctx=4096)["Host"]
    weights = mixture_bytes("Q4_K_M", tensors_of(*SHAPES[name]))
    assert measured.model_mib == pytest.approx(weights / 2**20, abs=1)
    assert measured.context_mib > 0
    assert measured.compute_mib > 0


def test_llama_cpp_loads_a_vocabulary_too(tmp_path):
    path = write_gguf_header(tmp_path / "model.gguf", "llama", quantization="Q8_0", tokens=True)
    shape = Shape()
    assert (
        llamacpp_memory(path)["Host"].context_mib
        == 2 * shape.layers * shape.kv_heads * 64 * 2 * 4096 // 2**20
    )
