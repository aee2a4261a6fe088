"""The parts that layers are made of, and the tensors that vLLM holds for each. Pure.

A part is a small hashable value, so that alike layers are worked out once. Biases, norms and the like are
given to the byte; what tensor parallelism does to each follows vLLM's own layers (``model_executor``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from subcortex.models.shape import (
    Attention,
    Experts,
    FullAttention,
    LatentAttention,
    SlidingAttention,
    Split,
    Tensor,
)

#: Bytes of a plain weight: vLLM runs float32 checkpoints in 16 bits too.
PLAIN = 2
FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Cost:
    """What one linear layer takes.

    Args:
        sharded: Bytes that tensor parallelism divides.
        whole: Bytes that every rank has.
        units: See `Tensor.units`.
    """

    sharded: float
    whole: float = 0.0
    units: int = 0


class Pricing(Protocol):
    """How linear layers are stored; see ``quantisation.py``."""

    def absorbs(self, path: str) -> bool:
        """Tell whether MLA keeps a plain copy of the projection at ``path`` beside it: it is quantised."""

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
        """Return what a linear layer takes.

        Args:
            path: Its name, as lists of unquantised modules have it.
            inputs, outputs: Its sizes; ``outputs`` of all its parts together.
            row: Tensor parallelism divides the inputs.
            parts: Matrices of equal size fused into it.
            follows: It is the rest of a layer whose inputs were counted already.
        """


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part is: the width of the model, the layer's path and how linear layers are stored."""

    hidden: int
    path: str
    pricing: Pricing

    def column(
        self, name: str, inputs: int, outputs: int, *, bias: bool = False, parts: int = 1
    ) -> Iterator[Tensor]:
        """Yield a linear layer whose outputs are divided."""
        cost = self.pricing.cost(f"{self.path}.{name}", inputs, outputs, parts=parts)
        extra = PLAIN * outputs if bias else 0
        yield from _tensors(name, inputs * outputs, outputs if bias else 0, cost, Split.SHARDED, extra, 0)

    def grouped(
        self, name: str, inputs: int, outputs: int, heads: int, *, bias: bool = False, parts: int = 1
    ) -> Iterator[Tensor]:
        """Yield what belongs to ``heads`` that ranks may repeat, of a layer counted before."""
        cost = self.pricing.cost(f"{self.path}.{name}", inputs, outputs, parts=parts, follows=True)
        extra = PLAIN * outputs if bias else 0
        yield from _tensors(
            name, inputs * outputs, outputs if bias else 0, cost, Split.KV_HEADS, extra, 0, heads
        )

    def row(self, name: str, inputs: int, outputs: int, *, bias: bool = False) -> Iterator[Tensor]:
        """Yield a linear layer whose inputs are divided; every rank has the bias."""
        cost = self.pricing.cost(f"{self.path}.{name}", inputs, outputs, row=True)
        extra = PLAIN * outputs if bias else 0
        yield from _tensors(name, inputs * outputs, outputs if bias else 0, cost, Split.SHARDED, 0, extra)

    def replicated(self, name: str, inputs: int, outputs: int, *, bias: bool = False) -> Iterator[Tensor]:
        """Yield a linear layer that every rank has."""
        cost = self.pricing.cost(f"{self.path}.{name}", inputs, outputs)
        extra = outputs if bias else 0
        size = cost.sharded + cost.whole + PLAIN * extra
        yield Tensor(name, inputs * outputs + extra, size, Split.WHOLE)


def _tensors(
    name: str,
    elements: int,
    bias_elements: int,
    cost: Cost,
    split: Split,
    sharded_extra: int,
    whole_extra: int,
    heads: int = 0,
) -> Iterator[Tensor]:
    """Yield a layer's divided bytes as one tensor, and what every rank has as another."""
    inside = bias_elements if sharded_extra else 0
    yield Tensor(name, elements + inside, cost.sharded + sharded_extra, split, heads=heads, units=cost.units)
    if cost.whole or whole_extra:
        outside = bias_elements if whole_extra else 0
        yield Tensor(f"{name}.whole", outside, cost.whole + whole_extra, Split.WHOLE)


class Block(Protocol):
    """A part of a layer."""

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield what vLLM holds of it, without the layer's number."""


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms and other small plain tensors, together.

    Args:
        elements: Of all of them.
        bytes: A number's.
        split: How they are divided.
        name: What they are called.
    """

    elements: int
    bytes: int = PLAIN
    split: Split = Split.WHOLE
    name: str = "norms"

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield them as one tensor."""
        if self.elements:
            yield Tensor(self.name, self.elements, self.elements * self.bytes, self.split)


@dataclass(frozen=True, slots=True)
class GroupedQuery:
    """Attention with grouped queries.

    Args:
        heads, kv_heads: Query heads and key/value heads.
        key_dim, value_dim: Elements a head.
        window: Tokens a token sees; 0 for all.
        chunked: The window is a chunk.
        bias, out_bias: Of the first and the last projection.
        qk_norm: ``head``: one norm a head size; ``full``: over all heads, on every rank; ``shared``: over all
            heads, divided with them.
        sinks: A learned logit a head (gpt-oss).
        gate: The queries' projection makes a gate of equal size too (Qwen3-Next).
        inputs: Width of what goes in, if not the model's.
        module: Its name in the layer.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int = 0
    chunked: bool = False
    bias: bool = False
    out_bias: bool = False
    qk_norm: Literal["", "head", "full", "shared"] = ""
    norm_bias: bool = False
    sinks: bool = False
    gate: bool = False
    inputs: int = 0
    module: str = "self_attn"

    def kept(self) -> Attention:
        """Return what it keeps of a token."""
        if self.window:
            return SlidingAttention(
                self.heads, self.kv_heads, self.key_dim, self.value_dim, self.window, self.chunked
            )
        return FullAttention(self.heads, self.kv_heads, self.key_dim, self.value_dim)

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections, and norms and sinks."""
        inputs, name = self.inputs or at.hidden, self.module
        queries = self.heads * self.key_dim * (2 if self.gate else 1)
        keys, values = self.kv_heads * self.key_dim, self.kv_heads * self.value_dim
        yield from at.column(f"{name}.q_proj", inputs, queries, bias=self.bias)
        parts = 2 if keys == values else 1
        yield from at.grouped(
            f"{name}.k_proj", inputs, keys + values, self.kv_heads, bias=self.bias, parts=parts
        )
        yield from at.row(f"{name}.o_proj", self.heads * self.value_dim, at.hidden, bias=self.out_bias)
        times = 2 if self.norm_bias else 1
        if self.qk_norm == "head":
            yield from Norms(times * 2 * self.key_dim, name=f"{name}.qk_norm").tensors(at)
        elif self.qk_norm == "full":
            full = self.heads * self.key_dim + keys
            yield from Norms(times * full, name=f"{name}.qk_norm").tensors(at)
        elif self.qk_norm == "shared":
            queries_norm = times * self.heads * self.key_dim
            yield Tensor(f"{name}.q_norm", queries_norm, PLAIN * queries_norm, Split.SHARDED)
            keys_norm = times * keys
            yield Tensor(f"{name}.k_norm", keys_norm, PLAIN * keys_norm, Split.KV_HEADS, heads=self.kv_heads)
        if self.sinks:
            yield Tensor(f"{name}.sinks", self.heads, PLAIN * self.heads, Split.SHARDED)


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention.

    Args:
        heads: Query heads.
        kv_rank, q_rank: Elements of the compressed keys and values, and queries; ``q_rank`` 0 for plain ones.
        rope_dim, nope_dim, value_dim: Elements a head.
        absorbed: vLLM caches the compressed vector; otherwise whole keys and values (MiniCPM3).
        bias: Of the projections that compress.
    """

    heads: int
    kv_rank: int
    q_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    absorbed: bool = True
    bias: bool = False

    def kept(self) -> Attention:
        """Return what it keeps of a token."""
        if self.absorbed:
            return LatentAttention(
                self.heads, self.kv_rank, self.rope_dim, self.nope_dim, self.value_dim, self.q_rank or None
            )
        # Values are padded to the keys' size for the attention kernel.
        wide = self.nope_dim + self.rope_dim
        return FullAttention(self.heads, self.heads, wide, wide)

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections and norms, and the copies that vLLM makes of quantised ones."""
        wide, compressed = self.nope_dim + self.rope_dim, self.kv_rank + self.rope_dim
        if self.q_rank:
            yield from at.replicated("self_attn.q_a_proj", at.hidden, self.q_rank, bias=self.bias)
            yield from at.column("self_attn.q_b_proj", self.q_rank, self.heads * wide)
        else:
            yield from at.column("self_attn.q_proj", at.hidden, self.heads * wide)
        yield from at.replicated("self_attn.kv_a_proj_with_mqa", at.hidden, compressed, bias=self.bias)
        outputs = self.heads * (self.nope_dim + self.value_dim)
        yield from at.column("self_attn.kv_b_proj", self.kv_rank, outputs)
        yield from at.row("self_attn.o_proj", self.heads * self.value_dim, at.hidden)
        yield from Norms(self.kv_rank + self.q_rank, name="self_attn.norms").tensors(at)
        if self.absorbed and at.pricing.absorbs(f"{at.path}.self_attn.kv_b_proj"):
            # process_weights_after_loading of vLLM mla_attention.py: W_UV and W_UK_T, beside kv_b_proj.
            yield Tensor("self_attn.absorbed", 0, PLAIN * self.kv_rank * outputs, Split.SHARDED)


@dataclass(frozen=True, slots=True)
class Dense:
    """A feed-forward part.

    Args:
        width: Its inner width.
        gated: It has a gate beside the up-projection.
        bias: Its projections have one.
        module: Its name in the layer.
    """

    width: int
    gated: bool = True
    bias: bool = False
    module: str = "mlp"

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield its projections."""
        parts = 2 if self.gated else 1
        name = "gate_proj" if self.gated else "up_proj"
        yield from at.column(
            f"{self.module}.{name}", at.hidden, parts * self.width, bias=self.bias, parts=parts
        )
        yield from at.row(f"{self.module}.down_proj", self.width, at.hidden, bias=self.bias)


@dataclass(frozen=True, slots=True)
class Mixture:
    """A mixture of experts.

    Args:
        count, top_k: Experts, and those that a token goes through.
        width: Inner width of one.
        shared: Width of what every token goes through; 0 for nothing.
        shared_gate: That has a gate of its own, one number a token.
        gated: Experts have a gate beside the up-projection.
        bias: Experts and router have biases (gpt-oss).
        router_bytes: Of one of the router's weights.
        correction: The router has a bias that balances the load.
        correction_bytes: Of an element of that.
        idle: Experts without weights, which the router knows all the same (LongCat).
        module: Its name in the layer.
    """

    count: int
    top_k: int
    width: int
    shared: int = 0
    shared_gate: bool = False
    gated: bool = True
    bias: bool = False
    router_bytes: int = PLAIN
    correction: bool = False
    correction_bytes: int = FLOAT32
    idle: int = 0
    module: str = "mlp"

    def kept(self) -> Experts:
        """Return it as the shape has it."""
        return Experts(self.count, self.top_k, self.width, self.shared)

    def tensors(self, at: Place) -> Iterator[Tensor]:
        """Yield the router, what is shared, and one expert with their count."""
        ways = self.count + self.idle
        router = at.hidden * ways
        size = self.router_bytes * router
        extra = ways * ((PLAIN if self.bias else 0) + (self.correction_bytes if self.correction else 0))
        own = ways * (self.bias + self.correction)
        yield Tensor(f"{self.module}.router", router + own, size + extra, Split.WHOLE)
        if self.shared:
            yield from Dense(self.shared, self.gated, module=f"{self.module}.shared_experts").tensors(at)
        if self.shared_gate:
            yield Tensor(f"{self.module}.shared_expert_gate", at.hidden, PLAIN * at.hidden, Split.WHOLE)
        parts = 2 if self.gated else 1
        name = f"{at.path}.{self.module}.experts"
        up = at.pricing.cost(f"{name}.gate_proj", at.hidden, parts * self.width, parts=parts)
        down = at.pricing.cost(f"{name}.down_proj", self.width, at.hidden, row=True)
        weights = (parts + 1) * at.hidden * self.width
        inner, outer = (parts * self.width, at.hidden) if self.bias else (0, 0)
        yield Tensor(
            f"{self.module}.experts",
            weights + inner,
            up.sharded + down.sharded + PLAIN * inner,
            Split.SHARDED,
            count=self.count,
            expert=True,
            units=up.units,
        )
        whole = up.whole + down.whole + PLAIN * outer
        if whole:
            yield Tensor(
                f"{self.module}.experts.whole", outer, whole, Split.WHOLE, count=self.count, expert=True
            )
