"""A tensor as a model file stores it: the record that GGUF and safetensors headers share."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a model file.

    Args:
        name: As in the file: ``model.layers.0.mlp.up_proj.weight`` or ``blk.0.ffn_up.weight``.
        shape: Row-major in both formats: ``shape[0]`` is the rows (out_features, tokens of a vocabulary, or
            the experts of a stacked tensor) and ``shape[-1]`` the length of a row. ggml writes the same
            figures the other way round (``ne``).
        dtype: As in the format: ``BF16``, ``F8_E4M3``, ``U8`` of safetensors, ``Q4_K``, ``F32`` of ggml.
        bytes: Bytes in the file, without padding.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def elements(self) -> int:
        """Return the number of stored values (of packed formats: of the carriers, not of the weights)."""
        return prod(self.shape)
