"""A layer to hold quantisations against, and what they make of it."""

from __future__ import annotations

from collections.abc import Mapping

from subcortex.models._config import Config
from subcortex.models.quantisation import Method, method_of
from subcortex.models.shape import Doubt, doubt_of

#: A layer of 1024 outputs and 4096 inputs.
INPUTS, OUTPUTS = 4096, 1024
WEIGHTS = INPUTS * OUTPUTS
PLAIN = 2 * WEIGHTS
UP = "model.layers.0.mlp.up_proj"
EXPERT = "model.layers.0.mlp.experts.up_proj"
#: The weights of Llama 3.1 8B in linear layers, and the plain rest: two tables and 65 norms.
LINEAR, REST = 32 * 218_103_808, 2 * (2 * 128_256 * 4096 + 65 * 4096)


def method_in(quantization: Mapping[str, object]) -> Method:
    """Return how a quantisation stores layers."""
    return method_of(Config({"quantization_config": quantization}, "m"))


def bytes_of(quantization: Mapping[str, object], path: str = UP, **how: bool) -> float:
    """Return what a layer takes."""
    cost = method_in(quantization).cost(path, INPUTS, OUTPUTS, **how)
    return cost.sharded + cost.whole


def refusals_of(quantization: Mapping[str, object]) -> list[str]:
    """Return the notes of what vLLM does not load."""
    return [note for note in method_in(quantization).notes if Doubt.NOT_LOADED in doubt_of(note)]
