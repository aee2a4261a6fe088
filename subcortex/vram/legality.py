"""What an engine would refuse of a setup before it measures any memory, and what it would take instead. Pure.

A rule that only costs speed, or that the engine settles itself (padding a vocabulary, sharing experts out
unevenly), is none. Whether a legal setup fits is for the estimates to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from subcortex.models.shape import ModelShape
from subcortex.vram.llamacpp.legality import llamacpp_problems, repaired_llamacpp
from subcortex.vram.setup import Setup, VllmSetup
from subcortex.vram.vllm.legality import Problem, legal_depths, legal_sizes, repaired_vllm, vllm_problems


@dataclass(frozen=True, slots=True)
class Refusal:
    """A setting that the engine would refuse.

    Args:
        what: A sentence with the figures.
        key: The setting.
        nearest: Legal values of that setting near the one asked for; empty if no value would do.
        alternative: A setup that has no refusals, as near as can be; None if no setup has none.
    """

    what: str
    key: str
    nearest: tuple[object, ...]
    alternative: Setup | None


def refusals(shape: ModelShape, setup: Setup, *, gpu_count: int | None = None) -> tuple[Refusal, ...]:
    """Return why the engine would not take the setup, the gravest first; none if it would.

    Args:
        shape: The model.
        setup: As asked for.
        gpu_count: GPUs that it may have; None leaves them out of account.
    """
    if isinstance(setup, VllmSetup):
        found: list[Problem] = list(vllm_problems(shape, setup, gpu_count))
        other: Setup | None = repaired_vllm(shape, setup, gpu_count) if found else None
    else:
        found = list(llamacpp_problems(shape, setup, gpu_count))
        other = repaired_llamacpp(shape, setup, gpu_count) if found else None
    return tuple(Refusal(what, key, nearest, other) for what, key, nearest in found)


def legal_tensor_parallel_sizes(
    shape: ModelShape, most: int, *, expert_parallel: bool = False
) -> tuple[int, ...]:
    """Return the tensor-parallel sizes up to ``most`` that vLLM can split the model over; 1 is always one.

    Args:
        shape: The model.
        most: Largest size of interest, e.g. the GPUs of the machine.
        expert_parallel: Experts are shared out whole, so their width does not matter.
    """
    return legal_sizes(shape, most, expert_parallel=expert_parallel)


def legal_pipeline_parallel_sizes(shape: ModelShape, most: int) -> tuple[int, ...]:
    """Return the numbers of pipeline stages up to ``most`` that vLLM can cut the model into."""
    return legal_depths(shape, most)
