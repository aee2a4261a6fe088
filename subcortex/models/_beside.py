"""Parts of layers and of models beside attention and feed-forward parts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from subcortex.models._blocks import PLAIN, GroupedQuery, Place
from subcortex.models.shape import Attention, Split, Tensor


@dataclass(frozen=True, slots=True)
class Kept:
    """Attention whose weights stand elsewhere: it keeps keys and values in this layer all the same."""

    of: GroupedQuery

    def kept(self) -> Attention:
        """Return what it keeps of a token."""
        return self.of.kept()

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield nothing."""
        return iter(())


@dataclass(frozen=True, slots=True)
class Borrowing:
    """Attention that reads the keys and values of an earlier layer: it has weights and keeps nothing."""

    of: GroupedQuery

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections and norms."""
        return self.of.tensors(at)


@dataclass(frozen=True, slots=True)
class Linear:
    """A plain linear layer beside attention and feed-forward parts.

    Args:
        name: As in the layer.
        inputs, outputs: Its sizes.
        whole: Every rank has it; otherwise the outputs are divided.
    """

    name: str
    inputs: int
    outputs: int
    whole: bool = True

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield it."""
        make = at.replicated if self.whole else at.column
        yield from make(self.name, self.inputs, self.outputs)


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding beside the model's own."""

    name: str
    rows: int
    width: int

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield it."""
        size = self.rows * self.width
        yield Tensor(self.name, size, PLAIN * size, Split.VOCABULARY, rows=self.rows)
