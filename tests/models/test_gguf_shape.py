"""A GGUF header as a shape: layers, bytes and windows, for the testbed's files and for real shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from subcortex.errors import ConfigError
from subcortex.models.gguf import GgufFile, read_gguf
from subcortex.models.gguf_shape import from_gguf, shape_of_gguf
from subcortex.models.shape import FullAttention, Part, SlidingAttention
from tests.vram.llamacpp_cases import MODELS, header, model_shape

TESTBED = Path(__file__).parents[2] / "testbed" / "models"


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_header_gives_the_shape_that_was_written(model: str, tmp_path: Path) -> None:
    quantization = "Q4_K_M"
    expected = model_shape(model, quantization)
    found = shape_of_gguf(header(tmp_path, model, quantization))

    assert expected.layers == found.layers
    assert (expected.hidden, expected.vocabulary) == (found.hidden, found.vocabulary)
    assert (expected.tied, expected.max_context_tokens) == (found.tied, found.max_context_tokens)
    assert expected.weights_bytes == found.weights_bytes
    where = {(tensor.name, tensor.part, tensor.layer, tensor.expert) for tensor in expected.tensors}
    assert where == {(tensor.name, tensor.part, tensor.layer, tensor.expert) for tensor in found.tensors}


@pytest.mark.parametrize("name", ["fast", "deep"])
def test_the_testbed_is_read_to_the_byte(name: str) -> None:
    (path,) = TESTBED.glob(f"**/*{name}*.gguf")
    file = read_gguf(path)
    shape = shape_of_gguf(path)

    assert file.tensor_bytes == shape.weights_bytes
    assert path.stat().st_size == shape.file_bytes
    assert file.get("block_count") == len(shape.layers)
    assert all(isinstance(kept, FullAttention) for kept in shape.attentions)
    assert {Part.EMBEDDING, Part.LAYER, Part.FINAL} <= {tensor.part for tensor in shape.tensors}


def test_gemma_sees_everything_in_every_sixth_layer(tmp_path: Path) -> None:
    (model,) = [name for name in MODELS if name.startswith("gemma-3-12b")]
    shape = shape_of_gguf(header(tmp_path, model, "Q4_K_M"))
    windowed = [isinstance(kept, SlidingAttention) for kept in shape.attentions]
    assert [(index + 1) % 6 != 0 for index in range(len(windowed))] == windowed


@pytest.mark.parametrize("value", [None, -1, "many", 10**12, True])
def test_a_file_that_does_not_say_its_layers_is_refused_by_name(value: object) -> None:
    (path,) = TESTBED.glob("**/*fast*.gguf")
    file = read_gguf(path)
    key = f"{file.architecture}.block_count"
    metadata = {name: said for name, said in file.metadata.items() if name != key}
    if value is not None:
        metadata[key] = value  # type: ignore[assignment]
    broken: GgufFile = replace(file, metadata=metadata)
    with pytest.raises(ConfigError) as caught:
        from_gguf(broken, "broken")
    assert "block_count" in caught.value.message
    assert str(path) in caught.value.message
