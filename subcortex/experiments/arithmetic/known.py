"""Shapes of models by the names that notes give them; nothing is read from a disk or a network. Pure.

The planner's catalogue, and beside it models that notes speak of and no one serves any more. Figures are
those of the models' public config.json.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from subcortex.journal.board.subjects import model_name
from subcortex.models.catalogue import FAMILIES, Kind, Relative
from subcortex.models.huggingface import from_config
from subcortex.models.mixtures import MIXTURES
from subcortex.models.quantisation import requantised
from subcortex.models.shape import ModelShape

_LLAMA = Kind("LlamaForCausalLM", "llama", "llama")
_ALSO: tuple[Relative, ...] = (
    Relative("meta-llama/Llama-2-7b-hf", 6.74, _LLAMA, 4096, 32, 32, 32, 128, 11008, 32000, False, 4096),
    Relative("meta-llama/Llama-2-13b-hf", 13.02, _LLAMA, 5120, 40, 40, 40, 128, 13824, 32000, False, 4096),
    Relative("meta-llama/Llama-2-70b-hf", 68.98, _LLAMA, 8192, 80, 64, 8, 128, 28672, 32000, False, 4096),
    Relative("meta-llama/Meta-Llama-3-8B", 8.03, _LLAMA, 4096, 32, 32, 8, 128, 14336, 128256, False, 8192),
    Relative("meta-llama/Meta-Llama-3-70B", 70.55, _LLAMA, 8192, 80, 64, 8, 128, 28672, 128256, False, 8192),
)
#: Form → bytes a weight, where every weight has the same.
PLAIN_BYTES = {
    "FP32": 4.0, "FP16": 2.0, "BF16": 2.0, "INT8": 1.0, "FP8": 1.0, "W8A8": 1.0, "INT4": 0.5, "FP4": 0.5,
}  # fmt: skip
#: A form that notes name loosely → what it may stand for; the first is the usual one.
_LOOSE = {
    "Q2": ("Q2_K",), "Q3": ("Q3_K_M",), "Q4": ("Q4_K_M", "awq", "gptq"), "Q5": ("Q5_K_M",), "Q6": ("Q6_K",),
    "Q8": ("Q8_0",), "Q4_K": ("Q4_K_M",), "Q5_K": ("Q5_K_M",), "Q3_K": ("Q3_K_M",),
    "AWQ": ("awq",), "GPTQ": ("gptq",), "NVFP4": ("nvfp4",), "W4A16": ("w4a16",),
}  # fmt: skip


def relative_of(model: str) -> Relative | None:
    """Return a model of the tables by its name in the board's spelling; None if it is not there."""
    return _by_name().get(model)


@cache
def shape_of(model: str) -> ModelShape | None:
    """Return a model's shape in 16 bits; None if it is not known."""
    found = relative_of(model)
    return None if found is None else from_config(found.config(), found.name)


def forms_of(form: str) -> tuple[str, ...]:
    """Return what a form as notes write it may stand for, as ``requantised`` names them; empty if unknown."""
    if form in MIXTURES:
        return (form,)
    return _LOOSE.get(form, ())


@cache
def in_form(model: str, form: str) -> ModelShape | None:
    """Return a model's shape in a form that ``requantised`` knows, or in one of ``PLAIN_BYTES``."""
    shape = shape_of(model)
    if shape is None:
        return None
    if form in ("FP16", "BF16"):
        return shape
    if form in PLAIN_BYTES:
        each = PLAIN_BYTES[form]
        return replace(shape, tensors=tuple(replace(one, bytes=one.elements * each) for one in shape.tensors))
    return requantised(shape, form)


@cache
def _by_name() -> dict[str, Relative]:
    found: dict[str, Relative] = {}
    distilled: dict[str, list[Relative]] = {}
    everyone = (*_ALSO, *(one for relatives in FAMILIES.values() for one in relatives))
    for one in everyone:
        name = _to_its_size(model_name(one.name))
        found.setdefault(name, one)
        if "-distill-" in name:
            short = name.replace("-qwen-", "-").replace("-llama-", "-")
            distilled.setdefault(short, []).append(one)
    # ``DeepSeek-R1-Distill-14B``: there is one of that size.
    found.update({name: ones[0] for name, ones in distilled.items() if len(ones) == 1})
    return found


def _to_its_size(name: str) -> str:
    """Return a name up to its size: what comes behind are versions and dates."""
    words = name.split("-")
    last = max(
        (n for n, word in enumerate(words) if word.endswith("b") and word[:-1].replace(".", "").isdigit()),
        default=-1,
    )
    after = words[last + 1 : last + 2]
    active = bool(after) and after[0].startswith("a") and after[0].endswith("b")
    return "-".join(words[: last + 1 + active]) if last >= 0 else name
