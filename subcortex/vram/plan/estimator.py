"""What the plan asks of estimates, as a protocol, so that its rules can be tested on simple arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from subcortex.hardware import Gpu
from subcortex.models.shape import ModelShape
from subcortex.vram.footprint import Footprint
from subcortex.vram.setup import LlamaCppSetup, Setup


class KvPool(Protocol):
    """How one rank keeps keys and values; see ``vram.kv.KvLayout``."""

    def request_bytes(self, length: int, /) -> float:
        """Return the bytes of one request of ``length`` tokens."""
        ...

    def requests(self, pool_bytes: float, length: int, /) -> float:
        """Return how many requests of ``length`` tokens a pool holds."""
        ...

    def tokens(self, pool_bytes: float, context_tokens: int, /) -> int:
        """Return the tokens that a pool holds."""
        ...


class Illegal(Protocol):
    """A setting that the engine would refuse; see ``vram.legality.Refusal``."""

    @property
    def what(self) -> str:
        """What is wrong, with its figure."""
        ...

    @property
    def key(self) -> str:
        """The setting."""
        ...


class Estimator(Protocol):
    """Everything that planning needs to know of engines and models."""

    def footprint(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Footprint:
        """Return what an engine takes of each of ``gpus``, in its own order, and of the host."""
        ...

    def pools(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Sequence[KvPool]:
        """Return how each pipeline stage keeps keys and values; one for llama.cpp."""
        ...

    def refusals(self, shape: ModelShape, setup: Setup, gpu_count: int) -> Sequence[Illegal]:
        """Return why the engine would not take the setup on that many GPUs; none if it would."""
        ...

    def split(self, shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu]) -> tuple[float, ...]:
        """Return the share of each GPU, which have ``memory_free_mib`` for it: the best, fitting or not."""
        ...
