"""Which forms of a model vLLM can split over how many GPUs. Pure, and free: nothing is booted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from subcortex.errors import SubcortexError
from subcortex.models import catalogue
from subcortex.models.huggingface import from_config
from subcortex.models.quantisation import requantised
from subcortex.models.shape import ModelShape
from subcortex.vram.plan.forms import on_the_fly
from subcortex.vram.vllm.legality import tensor_parallel_problems

SIZES = (1, 2, 4, 8)
#: What a model is called that is stored as it is configured, and in the forms that a checkpoint may have.
AS_IT_IS, WHILE_LOADING = "as it is", "fp8 while loading"
METHODS = {
    "fp8 in blocks of 128": "fp8",
    "AWQ in groups of 128": "awq",
    "GPTQ in groups of 128": "gptq",
    "int8": "int8",
    "w4a16 in groups of 128": "w4a16",
    "NVFP4 in groups of 16": "nvfp4",
}
#: Models of the catalogue that stand for the others: two that divide well, one that does not, and a mixture.
EXAMPLES = ("Llama-3.1-8B-Instruct", "Llama-3.1-70B-Instruct", "Qwen2.5-72B-Instruct", "Qwen3-30B-A3B")


@dataclass(frozen=True, slots=True)
class Splits:
    """What of one model can be split.

    Args:
        legal: Sizes of tensor parallelism by form.
        refused: The first reason against the smallest size that is refused, by form; absent without any.
    """

    model: str
    legal: Mapping[str, tuple[int, ...]]
    refused: Mapping[str, str]

    def at(self, size: int) -> tuple[list[str], list[str]]:
        """Return the forms that can be split over so many, and those that cannot."""
        can = [form for form, sizes in self.legal.items() if size in sizes]
        return can, [form for form in self.legal if form not in can]


def splits(shape: ModelShape, name: str, sizes: Sequence[int] = SIZES) -> Splits:
    """Return which forms of a model can be split over which sizes."""
    legal: dict[str, tuple[int, ...]] = {}
    refused: dict[str, str] = {}
    for form, made in _forms(shape).items():
        problems = {size: _problems(made, size) for size in sizes}
        legal[form] = tuple(size for size, found in problems.items() if not found)
        against = next((found[0] for found in problems.values() if found), None)
        if against is not None:
            refused[form] = against
    return Splits(name, legal, refused)


@cache
def examples() -> tuple[Splits, ...]:
    """Return those of well-known models."""
    known = [relative for name in EXAMPLES if (relative := catalogue.named(name)) is not None]
    return tuple(splits(from_config(one.config(), one.name), one.name) for one in known)


def _problems(shape: ModelShape, size: int) -> list[str]:
    return [shape.not_loaded.rstrip(".")] if shape.not_loaded else tensor_parallel_problems(shape, size)


def _forms(shape: ModelShape) -> dict[str, ModelShape]:
    found = {AS_IT_IS: shape}
    if shape.quantisation is None:
        found[WHILE_LOADING] = on_the_fly(shape)
    for form, method in METHODS.items():
        try:
            found[form] = requantised(shape, method)
        except SubcortexError:
            # Not every model can be had in every form.
            continue
    return found
