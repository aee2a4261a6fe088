"""What the plan asks of estimates, as a protocol, so that its rules can be tested on simple arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

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


class Remembered:
    """An estimator that makes each estimate once, however many plans ask for it."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self._made: dict[tuple[object, ...], Any] = {}
        # Shapes are told apart by identity, so they must live as long.
        self._shapes: dict[int, ModelShape] = {}

    def __getattr__(self, name: str) -> Any:
        """Return what the estimator has besides, such as its links."""
        return getattr(self._estimator, name)

    def _once(self, what: str, shape: ModelShape, *rest: object) -> Any:
        key = (what, id(shape), *rest)
        if key not in self._made:
            self._shapes[id(shape)] = shape
            self._made[key] = getattr(self._estimator, what)(shape, *rest)
        return self._made[key]

    def footprint(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Footprint:
        """Return what an engine takes of each GPU and of the host."""
        made: Footprint = self._once("footprint", shape, setup, tuple(gpus))
        return made

    def pools(self, shape: ModelShape, setup: Setup, gpus: Sequence[Gpu]) -> Sequence[KvPool]:
        """Return how each pipeline stage keeps keys and values."""
        made: Sequence[KvPool] = self._once("pools", shape, setup, tuple(gpus))
        return made

    def refusals(self, shape: ModelShape, setup: Setup, gpu_count: int) -> Sequence[Illegal]:
        """Return why the engine would not take a setup."""
        made: Sequence[Illegal] = self._once("refusals", shape, setup, gpu_count)
        return made

    def split(self, shape: ModelShape, setup: LlamaCppSetup, gpus: Sequence[Gpu]) -> tuple[float, ...]:
        """Return the share of each GPU."""
        made: tuple[float, ...] = self._once("split", shape, setup, tuple(gpus))
        return made
