"""What is asked of a plan: a model, an engine, a context, and which settings a person left open. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from subcortex.models.shape import ModelShape
from subcortex.vram.setup import LlamaCppSetup, Setup, VllmSetup


class Free(StrEnum):
    """A setting that the plan may choose."""

    TENSOR_PARALLEL = "tensor_parallel_size"
    PIPELINE_PARALLEL = "pipeline_parallel_size"
    #: vLLM's pool; llama.cpp's slots.
    POOL = "pool"
    #: llama.cpp's ``--tensor-split``, and on how many GPUs it runs.
    SPLIT = "tensor_split"
    #: llama.cpp's layers on GPUs: all of them, unless an alternative gives some to the host.
    GPU_LAYERS = "gpu_layers"


EVERYTHING = frozenset(Free)
#: Stands for a model that the plan cannot name.
MODEL = "MODEL"
#: What is free if nobody says otherwise. Pipeline parallelism is slower for a single request, so it is taken
#: only where it is asked for, or offered where nothing else fits.
USUAL = EVERYTHING - {Free.PIPELINE_PARALLEL}


@dataclass(frozen=True, slots=True)
class TierAsk:
    """One tier to be placed.

    Args:
        name: Unlike any other in the plan.
        shape: The model.
        setup: How to run it; what is free in it will be chosen, ``context_tokens`` comes from below.
        context_tokens: Longest request; the plan holds at least one of them.
        concurrency: Requests of that length wanted at once; reached if there is room.
        rank: From least to most capable.
        devices: GPUs that it may use, None for all; empty for host memory alone.
        start: With the daemon, or at the first thought.
        sleepable: It may be put to sleep, and then gives back most of its GPU memory.
        free: Settings that the plan may choose.
        model: What to write after ``--model``.
        model_note: What that stands for, where it is no model's own name: a form of it that is to be found.
        flags: What a person passes to the engine; those that the plan does not set are passed on.
    """

    name: str
    shape: ModelShape
    setup: Setup
    context_tokens: int
    concurrency: int = 1
    rank: int = 0
    devices: tuple[int, ...] | None = None
    start: Literal["eager", "lazy"] = "eager"
    sleepable: bool = False
    free: frozenset[Free] = field(default=USUAL)
    model: str = ""
    model_note: str = ""
    flags: tuple[str, ...] = ()

    @property
    def engine(self) -> str:
        """``vllm`` or ``llama.cpp``."""
        return "vllm" if isinstance(self.setup, VllmSetup) else "llama.cpp"

    @property
    def grows(self) -> bool:
        """The plan may choose for how many requests at once there is room."""
        return Free.POOL in self.free

    def with_context(self, context_tokens: int) -> TierAsk:
        """Return the same ask for another length."""
        return replace(self, context_tokens=context_tokens, setup=_with_context(self, context_tokens))


def _with_context(ask: TierAsk, context_tokens: int) -> Setup:
    if isinstance(ask.setup, LlamaCppSetup):
        return replace(ask.setup, context_tokens=context_tokens * ask.setup.parallel)
    return replace(ask.setup, context_tokens=context_tokens)


def in_order(asks: Iterable[TierAsk]) -> tuple[TierAsk, ...]:
    """Return asks in the one order that plans are made in, so that theirs does not matter."""
    return tuple(sorted(asks, key=lambda ask: (ask.rank, ask.name)))
