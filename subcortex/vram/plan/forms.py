"""What other forms of a model there are: quantisations of it, and smaller relatives. Pure."""

from __future__ import annotations

from functools import cache

from subcortex.errors import SubcortexError
from subcortex.models import catalogue
from subcortex.models.catalogue import Relative
from subcortex.models.huggingface import from_config
from subcortex.models.mixtures import MIXTURES
from subcortex.models.quantisation import requantised
from subcortex.models.shape import ModelShape
from subcortex.vram.plan.alternatives import Variant
from subcortex.vram.plan.ask import TierAsk

#: Method → quality given up, 0 to 1. An order, not a measurement: what fewer bits cost differs by model, and
#: llama.cpp's own perplexities (``tools/quantize/README.md``) rise slowly to 4 bits and steeply below.
VLLM_METHODS = {"fp8": 0.03, "awq": 0.12}
LLAMACPP_METHODS = {
    "Q8_0": 0.02,
    "Q6_K": 0.04,
    "Q5_K_M": 0.07,
    "Q4_K_M": 0.11,
    "IQ4_XS": 0.13,
    "Q3_K_M": 0.2,
    "Q2_K": 0.35,
}
#: A smaller model gives up at least this much, and more the smaller it is.
_SMALLER_LOSS = 0.5
#: A form must save this share of the weights to be worth naming.
_LEAST_SAVED = 0.05


def quantised(ask: TierAsk) -> list[Variant]:
    """Return quantisations of a model that are smaller than it is, the best first."""
    methods = VLLM_METHODS if ask.engine == "vllm" else LLAMACPP_METHODS
    found = []
    for method, loss in methods.items():
        shape = _requantised(ask.shape, method)
        if shape is not None and shape.weights_bytes < (1 - _LEAST_SAVED) * ask.shape.weights_bytes:
            found.append(Variant(f"{ask.shape.name} in {method}", shape, loss))
    return found


def smaller(ask: TierAsk) -> list[Variant]:
    """Return smaller models of the family, the largest first, stored as the model itself is."""
    method = _method(ask)
    found = []
    for relative in catalogue.smaller(ask.shape):
        shape = catalogued(relative)
        changed = shape if method is None else _requantised(shape, method)
        if changed is None:
            continue
        share = relative.billions * 1e9 / max(1, ask.shape.parameters)
        name = relative.name if method is None else f"{relative.name} in {method}"
        found.append(Variant(name, changed, round(_SMALLER_LOSS + (1 - _SMALLER_LOSS) * (1 - share), 4)))
    return found


@cache
def catalogued(relative: Relative) -> ModelShape:
    """Return the shape of a model of the catalogue."""
    return from_config(relative.config(), relative.name)


def _requantised(shape: ModelShape, method: str) -> ModelShape | None:
    try:
        return requantised(shape, method)
    except SubcortexError:
        # Not every model can be had in every form.
        return None


def _method(ask: TierAsk) -> str | None:
    """Return how a relative should be stored to be like the model; None for plain weights."""
    if ask.engine == "vllm":
        kept = ask.shape.quantisation
        if kept is None:
            return None
        return "fp8" if kept.bits >= 8 else "awq"
    bits = 8 * ask.shape.weights_bytes / max(1, ask.shape.parameters)
    if bits > 12:
        return None
    return min(LLAMACPP_METHODS, key=lambda name: abs(MIXTURES[name] - bits))
