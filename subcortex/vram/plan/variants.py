"""Another form of a model, as alternatives ask for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from subcortex.models.shape import ModelShape
from subcortex.vram.plan._given import VLLM_NAMES, without
from subcortex.vram.plan.ask import TierAsk


@dataclass(frozen=True, slots=True)
class Variant:
    """Another form of a model: a quantisation of it, or a smaller relative.

    Args:
        name: As a person says it.
        shape: The model.
        loss: Quality given up, 0 to 1, only to be compared.
        model: What to write after ``--model``; empty to leave that as it is.
        note: What ``model`` stands for; see `TierAsk.model_note`.
        flags: What the engine needs besides.
    """

    name: str
    shape: ModelShape
    loss: float
    model: str = ""
    note: str = ""
    flags: tuple[str, ...] = ()

    def of(self, ask: TierAsk) -> TierAsk:
        """Return the ask for this form; a quantisation that was asked for by a flag was the model's own."""
        kept = without(ask.flags, VLLM_NAMES, ("--quantization",)) if ask.engine == "vllm" else ask.flags
        found = replace(ask, shape=self.shape, flags=(*kept, *self.flags))
        return replace(found, model=self.model, model_note=self.note) if self.model else found


class Variants(Protocol):
    """What other forms of a model there are."""

    def quantised(self, ask: TierAsk) -> Sequence[Variant]:
        """Return quantisations smaller than the model as it is, the best first."""
        ...

    def smaller(self, ask: TierAsk) -> Sequence[Variant]:
        """Return smaller models of its family, the largest first."""
        ...
