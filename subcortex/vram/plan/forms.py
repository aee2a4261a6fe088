"""What other forms of a model there are, and how a person comes by them. Pure.

vLLM makes FP8 of a plain checkpoint while it loads; for all else somebody has to have made a checkpoint.
(bitsandbytes would do it too, but left vLLM with 0.28.) llama.cpp loads nothing but GGUF.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from subcortex.errors import SubcortexError
from subcortex.models import catalogue
from subcortex.models.catalogue import Relative
from subcortex.models.huggingface import from_config
from subcortex.models.mixtures import MIXTURES
from subcortex.models.quantisation import requantised
from subcortex.models.shape import ModelShape
from subcortex.vram.plan.ask import MODEL, TierAsk
from subcortex.vram.plan.variants import Variant

#: Method → quality given up, 0 to 1. An order, not a measurement: what fewer bits cost differs by model, and
#: llama.cpp's own perplexities (``tools/quantize/README.md``) rise slowly to 4 bits and steeply below.
VLLM_METHODS = {"fp8": 0.03, "awq": 0.12}
#: Spellings of 16 bits.
PLAIN_METHODS = ("bf16", "fp16", "none")
ON_THE_FLY = ("--quantization", "fp8")
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


@dataclass(frozen=True, slots=True)
class Source:
    """How a model is to be had in a form.

    Args:
        model: What to write after ``--model``.
        note: What that stands for; empty where it is the model's own name.
        flags: What the engine needs beside.
    """

    model: str
    note: str = ""
    flags: tuple[str, ...] = ()


def source(
    shape: ModelShape, name: str, engine: str, method: str | None = None, *, on_gpus: bool = True
) -> Source:
    """Return how to come by a model in another form.

    Args:
        shape: The model as it is.
        name: Its own name: a folder, a file or a hub name.
        engine: ``vllm`` or ``llama.cpp``.
        method: As ``models.quantisation.requantised`` takes it; None for the model as it is.
        on_gpus: It runs on GPUs, where alone vLLM quantises while loading.
    """
    gguf = shape.source == "gguf"
    if method is None and gguf == (engine == "llama.cpp"):
        return Source(name)
    if engine == "llama.cpp":
        kind = f" of type {method}" if method in MIXTURES else ""
        return Source(MODEL, f"a GGUF{kind} {'in place' if gguf else 'made'} of {name}")
    plain = shape.quantisation is None and not gguf
    if plain and method in PLAIN_METHODS:
        return Source(name)
    if plain and method == "fp8" and on_gpus:
        return Source(name, flags=ON_THE_FLY)
    kind = "in 16 bits" if method is None or method in PLAIN_METHODS else f"quantised as {method}"
    return Source(MODEL, f"a checkpoint of {name} {kind}")


def in_form(shape: ModelShape, method: str, found: Source) -> ModelShape:
    """Return the shape of a model in a form that is had so.

    Raises:
        InvalidRequest: No such method is known.
    """
    return on_the_fly(shape) if found.flags == ON_THE_FLY else requantised(shape, method)


def on_the_fly(shape: ModelShape) -> ModelShape:
    """Return a model of 16 bits as vLLM makes FP8 of it while loading: a scale a matrix, no blocks."""
    made = requantised(shape, "fp8")
    assert made.quantisation is not None
    return replace(made, quantisation=replace(made.quantisation, block=None))


def quantised(ask: TierAsk, *, on_gpus: bool = True) -> list[Variant]:
    """Return quantisations of a model that are smaller than it is, the best first."""
    found = []
    # A model that is to be found already goes by the name of what it is made of.
    name = ask.shape.name if ask.model_note or not ask.model else ask.model
    methods = VLLM_METHODS if ask.engine == "vllm" else LLAMACPP_METHODS
    # What the engine does not load as it is will do in any form that it loads.
    unloaded = ask.engine == "vllm" and bool(ask.shape.not_loaded)
    if unloaded:
        methods = {PLAIN_METHODS[0]: 0.0, **methods}
    for method, loss in methods.items():
        had = source(ask.shape, name, ask.engine, method, on_gpus=on_gpus)
        shape = _in_form(ask.shape, method, had)
        smaller_by = 0.0 if shape is None else 1 - shape.weights_bytes / max(1.0, ask.shape.weights_bytes)
        if shape is not None and (unloaded or smaller_by > _LEAST_SAVED):
            words = f"add {' '.join(had.flags)}" if had.flags else f"take {had.note}"
            found.append(Variant(words, shape, loss, had.model, had.note, had.flags))
    return found


def smaller(ask: TierAsk, *, on_gpus: bool = True) -> list[Variant]:
    """Return smaller models of the family, the largest first, stored as the model itself is."""
    method = _method(ask)
    found = []
    for relative in catalogue.smaller(ask.shape):
        shape = catalogued(relative)
        had = source(shape, relative.name, ask.engine, method, on_gpus=on_gpus)
        changed = shape if method is None else _in_form(shape, method, had)
        if changed is None:
            continue
        share = relative.billions * 1e9 / max(1, ask.shape.parameters)
        loss = round(_SMALLER_LOSS + (1 - _SMALLER_LOSS) * (1 - share), 4)
        words = had.note or " with ".join(filter(None, (had.model, " ".join(had.flags))))
        found.append(Variant(words, changed, loss, had.model, had.note, had.flags))
    return found


@cache
def catalogued(relative: Relative) -> ModelShape:
    """Return the shape of a model of the catalogue."""
    return from_config(relative.config(), relative.name)


def _in_form(shape: ModelShape, method: str, found: Source) -> ModelShape | None:
    try:
        return in_form(shape, method, found)
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
