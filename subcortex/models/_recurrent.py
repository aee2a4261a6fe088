"""Recurrent parts of layers: Mamba 1 and 2, delta nets, linear attention, short convolutions. Pure.

Tensors and states are those of vLLM's ``model_executor/layers/mamba``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from subcortex.models._blocks import FLOAT32, PLAIN, Norms, Place
from subcortex.models.shape import Recurrence, Split, Tensor


@dataclass(frozen=True, slots=True)
class Mamba1:
    """Mamba 1: a state of ``state`` numbers a channel.

    Args:
        inner: Channels.
        state: Numbers a channel.
        kernel: Taps of the convolution.
        rank: Width of the time step's projection.
        bias, conv_bias: Of the projections and the convolution.
        norms: Norms on the time step and on B and C (Jamba).
        module: Its name in the layer.
    """

    inner: int
    state: int
    kernel: int
    rank: int
    bias: bool = False
    conv_bias: bool = True
    norms: bool = False
    module: str = "mamba"

    def kept(self) -> Recurrence:
        """Return its states."""
        conv = self.inner * (self.kernel - 1)
        return Recurrence(self.inner * self.state, conv, PLAIN, PLAIN, "mamba", heads=self.inner)

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections, convolution and constants."""
        name, inner = self.module, self.inner
        yield from at.column(f"{name}.in_proj", at.hidden, 2 * inner, bias=self.bias, parts=2)
        yield from at.row(f"{name}.x_proj", inner, self.rank + 2 * self.state)
        yield from at.column(f"{name}.dt_proj", self.rank, inner, bias=True)
        yield from at.row(f"{name}.out_proj", inner, at.hidden, bias=self.bias)
        plain = inner * (self.kernel + 1 + self.conv_bias)
        decay = inner * self.state
        yield Tensor(f"{name}.conv1d", plain + decay, PLAIN * plain + FLOAT32 * decay, Split.SHARDED)
        if self.norms:
            yield from Norms(self.rank + 2 * self.state, name=f"{name}.norms").tensors(at)


@dataclass(frozen=True, slots=True)
class Mamba2:
    """Mamba 2: heads with a state of head size · ``state``; groups of heads share B and C.

    Args:
        heads, head_dim: Heads and elements of each; together the inner width.
        state: Numbers an element.
        groups: Groups that share B and C; ranks beyond them have copies.
        kernel: Taps of the convolution.
        norm: It has a norm before the last projection.
        scaled: Each output of the first projection has a factor (Falcon-H1).
        state_bytes: Of a number of the state.
        module: Its name in the layer.
    """

    heads: int
    head_dim: int
    state: int
    groups: int
    kernel: int
    bias: bool = False
    conv_bias: bool = True
    norm: bool = True
    scaled: bool = False
    state_bytes: int = PLAIN
    module: str = "mamba"

    def kept(self) -> Recurrence:
        """Return its states."""
        inner, shared, taps = self.heads * self.head_dim, 2 * self.state, self.kernel - 1
        return Recurrence(
            inner * self.state,
            (inner + self.groups * shared) * taps,
            self.state_bytes,
            PLAIN,
            "mamba2",
            heads=self.heads,
            groups=self.groups,
            group_conv_elements=shared * taps,
        )

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections, convolution and constants; what groups share stands apart."""
        name, inner, shared = self.module, self.heads * self.head_dim, 2 * self.groups * self.state
        yield from at.column(f"{name}.in_proj", at.hidden, 2 * inner + self.heads, bias=self.bias)
        yield from at.grouped(f"{name}.in_proj", at.hidden, shared, self.groups, bias=self.bias)
        yield from at.row(f"{name}.out_proj", inner, at.hidden, bias=self.bias)
        taps = self.kernel + self.conv_bias
        own = inner * (taps + self.norm) + 2 * self.heads
        factors = PLAIN * (2 * inner + self.heads) if self.scaled else 0
        size = PLAIN * own + FLOAT32 * self.heads + factors
        yield Tensor(f"{name}.conv1d", own + self.heads, size, Split.SHARDED)
        factors = PLAIN * shared if self.scaled else 0
        elements = shared * taps
        yield Tensor(
            f"{name}.conv1d.groups", elements, PLAIN * elements + factors, Split.KV_HEADS, heads=self.groups
        )


@dataclass(frozen=True, slots=True)
class DeltaNet:
    """The gated delta net of Qwen3-Next, Qwen3.5 and OLMo Hybrid.

    Args:
        key_heads, value_heads: Heads of queries and keys, and of values and gates.
        key_dim, value_dim: Elements a head.
        kernel: Taps of the convolution.
        decay_bytes: Of one of the heads' decays.
        state_bytes: Of a number of the state.
        module: Its name in the layer.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    decay_bytes: int = FLOAT32
    state_bytes: int = PLAIN
    module: str = "linear_attn"

    def kept(self) -> Recurrence:
        """Return its states."""
        mixed = 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
        return Recurrence(
            self.value_heads * self.value_dim * self.key_dim,
            mixed * (self.kernel - 1),
            self.state_bytes,
            PLAIN,
            "gated_delta_net",
            heads=self.value_heads,
            groups=0,
        )

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections, convolution and constants."""
        name = self.module
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        yield from at.column(f"{name}.in_proj_qkvz", at.hidden, 2 * keys + 2 * values)
        yield from at.column(f"{name}.in_proj_ba", at.hidden, 2 * self.value_heads)
        yield from at.row(f"{name}.out_proj", values, at.hidden)
        own = (2 * keys + values) * self.kernel + self.value_heads
        size = PLAIN * own + self.decay_bytes * self.value_heads
        yield Tensor(f"{name}.conv1d", own + self.value_heads, size, Split.SHARDED)
        yield from Norms(self.value_dim, name=f"{name}.norm").tensors(at)


@dataclass(frozen=True, slots=True)
class KimiDelta:
    """Kimi's delta attention: a decay for each channel, made through a narrow projection.

    Args:
        heads, head_dim: Heads and elements of each, of keys and values alike.
        kernel: Taps of each of its three convolutions.
        module: Its name in the layer.
    """

    heads: int
    head_dim: int
    kernel: int
    module: str = "self_attn"

    def kept(self) -> Recurrence:
        """Return its states; vLLM keeps the recurrent one in float32."""
        inner = self.heads * self.head_dim
        return Recurrence(
            inner * self.head_dim,
            3 * inner * (self.kernel - 1),
            FLOAT32,
            PLAIN,
            "kimi_delta_attention",
            heads=self.heads,
        )

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections, convolutions and constants; the last two in float32."""
        name, inner = self.module, self.heads * self.head_dim
        for one in ("q_proj", "k_proj", "v_proj"):
            yield from at.column(f"{name}.{one}", at.hidden, inner)
        for one in ("f", "g"):
            yield from at.replicated(f"{name}.{one}_a_proj", at.hidden, self.head_dim)
            yield from at.column(f"{name}.{one}_b_proj", self.head_dim, inner)
        yield from at.column(f"{name}.b_proj", at.hidden, self.heads)
        yield from at.row(f"{name}.o_proj", inner, at.hidden)
        own = 3 * inner * self.kernel + inner + self.heads
        yield Tensor(f"{name}.conv1d", own, FLOAT32 * own, Split.SHARDED)
        yield from Norms(self.head_dim, name=f"{name}.o_norm").tensors(at)


@dataclass(frozen=True, slots=True)
class Lightning:
    """The linear attention of MiniMax-01: a state of head size squared a head, and no convolution.

    Args:
        heads, head_dim: Heads and elements of each.
        module: Its name in the layer.
    """

    heads: int
    head_dim: int
    module: str = "self_attn"

    def kept(self) -> Recurrence:
        """Return its state."""
        state = self.heads * self.head_dim * self.head_dim
        return Recurrence(state, 0, PLAIN, PLAIN, "lightning_attention", heads=self.heads)

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections, gate and norm."""
        name, inner = self.module, self.heads * self.head_dim
        yield from at.column(f"{name}.qkv_proj", at.hidden, 3 * inner, parts=3)
        yield from at.column(f"{name}.output_gate", at.hidden, inner)
        yield from at.row(f"{name}.out_proj", inner, at.hidden)
        yield from Norms(inner, split=Split.SHARDED, name=f"{name}.norm").tensors(at)


@dataclass(frozen=True, slots=True)
class ShortConv:
    """The short convolution of LFM2, whose last inputs are its only state.

    Args:
        width: Channels.
        kernel: Taps.
        bias: Of projections and convolution.
        module: Its name in the layer.
    """

    width: int
    kernel: int
    bias: bool = False
    module: str = "conv"

    def kept(self) -> Recurrence:
        """Return its state."""
        return Recurrence(
            0, self.width * (self.kernel - 1), PLAIN, PLAIN, "short_conv", heads=self.width, groups=0
        )

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections and convolution."""
        name = self.module
        yield from at.column(f"{name}.in_proj", at.hidden, 3 * self.width, bias=self.bias, parts=3)
        yield from at.row(f"{name}.out_proj", self.width, at.hidden, bias=self.bias)
        own = self.width * (self.kernel + self.bias)
        yield Tensor(f"{name}.conv", own, PLAIN * own, Split.SHARDED)


#: Parts that keep a state.
Recurrent = Mamba1 | Mamba2 | DeltaNet | KimiDelta | Lightning | ShortConv
