"""What a quantised linear layer takes in vLLM's memory, whatever its format is called. Pure.

The formats and their files are many, the arithmetic is not: so many bits a weight, so many bytes a group of
weights, a channel, a block or a tensor. The rules are those of vLLM 0.26 ``layers/quantization``, after its
kernels have rearranged what was loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from subcortex.models._blocks import PLAIN, Cost
from subcortex.models._modules import Modules
from subcortex.models.shape import Quantisation

Kind = Literal["group", "channel", "block", "tensor", "mxfp4"]
#: MXFP4 kernels take experts whose width, on a rank, is a multiple of this (vLLM ``mxfp4`` round-up).
_MXFP4_WIDTH = 64
MXFP4_GROUP = 32


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way of storing a linear layer.

    Args:
        kind: What shares a scale.
        bits: Bits a weight.
        group: Weights along the input that share a scale; 0 for all of them.
        scale: Bytes of a scale.
        zero: Bytes of a group's zero point.
        expert_zero: The same where experts' kernels keep it otherwise.
        index: Bytes that every input takes (GPTQ's group index).
        block: Rows and columns of a block.
        act_order: Any input may belong to any group (GPTQ with ``desc_act``).
        linears, experts: It is for these; the others stay plain.
    """

    kind: Kind
    bits: float
    group: int = 0
    scale: float = PLAIN
    zero: float = 0.0
    expert_zero: float = 0.0
    index: float = 0.0
    block: tuple[int, int] = (128, 128)
    act_order: bool = False
    linears: bool = True
    experts: bool = True

    def cost(self, inputs: int, outputs: int, *, expert: bool, row: bool, parts: int, follows: bool) -> Cost:
        """Return what a layer takes; see `Pricing`."""
        weights = inputs * outputs * self.bits / 8
        match self.kind:
            case "mxfp4":
                return _mxfp4(inputs, outputs, row=row, parts=parts)
            case "block":
                rows, columns = self.block
                blocks = parts * ceil(outputs / parts / rows) * ceil(inputs / columns)
                return Cost(weights + blocks * self.scale)
            case "channel":
                scales = self.scale * outputs
                return Cost(weights, scales) if row else Cost(weights + scales)
            case "tensor":
                return Cost(weights, 0 if follows else self.scale)
        return self._grouped(weights, inputs, outputs, row=row, expert=expert, follows=follows)

    def _grouped(
        self, weights: float, inputs: int, outputs: int, *, row: bool, expert: bool, follows: bool
    ) -> Cost:
        groups = ceil(inputs / self.group) if self.group else 1
        zero = self.expert_zero if expert else self.zero
        index = 0.0 if follows else self.index * inputs
        scales, zeros = groups * outputs * self.scale, groups * outputs * zero
        if self.act_order and row:
            # Any input may belong to any group: every rank needs all scales, and a sorted index beside the
            # index. Zero points go once the layer is rearranged.
            return Cost(weights + 2 * index, scales)
        if not row:
            return Cost(weights + scales + zeros, index)
        return (
            Cost(weights + index, scales + zeros) if groups == 1 else Cost(weights + scales + zeros + index)
        )


def _mxfp4(inputs: int, outputs: int, *, row: bool, parts: int) -> Cost:
    """Return an expert's layer in MXFP4: 4 bits, and a byte for 32 of them; the width padded a rank."""
    units = ceil((inputs if row else outputs / parts) / _MXFP4_WIDTH)
    width = units * _MXFP4_WIDTH
    elements = width * outputs if row else inputs * parts * width
    return Cost(elements / 2 + elements / MXFP4_GROUP, units=units)


#: Microscaling and NVIDIA's FP4: a byte scales 32 or 16 weights; global scales are left out.
MXFP4 = Scheme("group", 4, MXFP4_GROUP, scale=1)
MXFP8 = Scheme("group", 8, 32, scale=1)
NVFP4 = Scheme("group", 4, 16, scale=1)
#: Scales of a weight and of its input.
FP8_TENSOR = Scheme("tensor", 8, scale=8)
FP8_CHANNEL = Scheme("channel", 8, scale=4)
FP8_BLOCK = Scheme("block", 8, scale=4)


@dataclass(frozen=True, slots=True)
class Rule:
    """Modules that are stored otherwise than the rest.

    Args:
        modules: Which.
        scheme: How; None for plain.
    """

    modules: Modules
    scheme: Scheme | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """How a checkpoint stores its linear layers.

    Args:
        quantisation: It as the shape has it; None for plain weights.
        scheme: How, where no rule says otherwise; None for plain.
        rules: Exceptions; the first that means a module holds.
        only: The linear layers that are quantised at all; None for all.
        notes: What is not certain about it, and what vLLM refuses.
    """

    quantisation: Quantisation | None = None
    scheme: Scheme | None = None
    rules: tuple[Rule, ...] = ()
    only: Modules | None = None
    notes: tuple[str, ...] = ()
    _schemes: dict[str, Scheme | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def unread(self) -> str:
        """The first entry of its lists that is not understood; empty if all are."""
        return next((each.unread[0] for each in self._lists() if each.unread), "")

    def absorbs(self, path: str) -> bool:
        """Tell whether MLA keeps plain copies of the projection at ``path`` beside it."""
        scheme = self._scheme_of(path)
        return scheme is not None and scheme.kind != "mxfp4"

    def marks(self, path: str, count: int) -> Sequence[tuple[int, ...]]:
        """Return for each layer what tells it from others: layers of equal kinds and marks are alike.

        Args:
            path: Where layers lie.
            count: Of layers.

        Raises:
            ConfigError: The lists of modules take too long.
        """
        lists = self._lists()
        return [tuple(each.mark(f"{path}.{layer}.") for each in lists) for layer in range(count)]

    def cost(
        self,
        path: str,
        inputs: int,
        outputs: int,
        *,
        row: bool = False,
        parts: int = 1,
        follows: bool = False,
    ) -> Cost:
        """Return what a linear layer takes; see `Pricing`."""
        scheme = self._scheme_of(path)
        if scheme is None:
            return Cost(PLAIN * inputs * outputs)
        expert = _is_expert(path)
        return scheme.cost(inputs, outputs, expert=expert, row=row, parts=parts, follows=follows)

    def _lists(self) -> list[Modules]:
        found = [rule.modules for rule in self.rules]
        return [*found, self.only] if self.only is not None else found

    def _scheme_of(self, path: str) -> Scheme | None:
        if path not in self._schemes:
            self._schemes[path] = self._looked_up(path)
        return self._schemes[path]

    def _looked_up(self, path: str) -> Scheme | None:
        expert = _is_expert(path)
        if self.only is not None and not expert and not self.only.has(path):
            return None
        scheme = next((rule.scheme for rule in self.rules if rule.modules.has(path)), self.scheme)
        if scheme is None or not (scheme.experts if expert else scheme.linears):
            return None
        return scheme


def _is_expert(path: str) -> bool:
    return ".experts." in path
