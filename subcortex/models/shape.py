"""The shape of a model: what decides its memory, its traffic and how it can be split. Pure values.

A shape is read from a ``config.json`` (``huggingface.py``), refined by safetensors headers, or read from a
GGUF header. What estimates memory sees this alone, never a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from typing import Literal


class Split(StrEnum):
    """How tensor parallelism divides a tensor."""

    #: On every rank: norms, the MoE router, MLA's down-projections, act-order scales.
    WHOLE = "whole"
    #: An equal share on each rank.
    SHARDED = "sharded"
    #: Rows are tokens; padded to a multiple, then an equal share on each rank.
    VOCABULARY = "vocabulary"
    #: Key or value heads, or the groups of a state: shared out until each rank has one, then repeated.
    KV_HEADS = "kv_heads"


class Doubt(Flag):
    """What a note means to programs."""

    NONE = 0
    #: Of how the weights are stored: in another form it is void.
    FORM = auto()
    #: vLLM does not load the weights as they are stored.
    NOT_LOADED = auto()
    #: The family or the form is not known here: what the config promises is a guess.
    UNFAMILIAR = auto()
    #: A size is estimated that headers of the weights tell.
    ESTIMATED = auto()


class Note(str):
    """A sentence about a shape, for people; and what programs need to know of it."""

    __slots__ = ("doubt",)
    doubt: Doubt

    def __new__(cls, text: str, doubt: Doubt = Doubt.NONE) -> Note:
        """Return the sentence ``text``, with what it means."""
        made = super().__new__(cls, text)
        made.doubt = doubt
        return made


def doubt_of(note: str) -> Doubt:
    """Return what a note means; a bare sentence means nothing to programs."""
    return note.doubt if isinstance(note, Note) else Doubt.NONE


class Part(StrEnum):
    """Where in the model a tensor belongs, which decides its pipeline stage."""

    EMBEDDING = "embedding"  # first stage; on the last too where the head is tied to it
    LAYER = "layer"
    HEAD = "head"  # the last stage: output projection
    FINAL = "final"  # the last stage: final norm and the like


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor, or several alike of one layer (``count``), as held in memory by an engine.

    Args:
        name: As in the model, e.g. ``mlp.gate_up_proj``.
        elements: Weights in one of them.
        bytes: Bytes of one of them, scales and zero points of quantised ones included.
        split: How tensor parallelism divides it.
        part: Where it belongs.
        layer: Index of its layer, None outside layers.
        rows: Rows of a vocabulary tensor, for its padding; 0 for others.
        count: How many there are of it (experts).
        expert: It is an expert's, so expert parallelism shares out whole ones.
        heads: Key/value heads or groups that a ``KV_HEADS`` tensor holds; 0: the kv_heads of its layer.
        units: A ``SHARDED`` tensor consists of so many units, of which a rank holds a whole number (rounded
            up: kernels want padded widths); 0: it is divided at any place.
    """

    name: str
    elements: int
    bytes: float
    split: Split
    part: Part = Part.LAYER
    layer: int | None = None
    rows: int = 0
    count: int = 1
    expert: bool = False
    heads: int = 0
    units: int = 0


@dataclass(frozen=True, slots=True)
class FullAttention:
    """Keys and values of every token are kept.

    Args:
        heads: Query heads.
        kv_heads: Key/value heads; fewer than ``heads`` with grouped queries.
        key_dim, value_dim: Elements a head.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    kind: Literal["full"] = "full"


@dataclass(frozen=True, slots=True)
class SlidingAttention:
    """Keys and values of the last ``window`` tokens are kept; the rest as for :class:`FullAttention`.

    Args:
        window: Tokens that a token sees, itself included.
        chunked: The window does not slide: a token sees those of its own chunk (Llama 4).
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int
    chunked: bool = False
    kind: Literal["sliding"] = "sliding"


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (MLA): one compressed vector a token, the same on every TP rank.

    Args:
        heads: Query heads.
        kv_lora_rank: Elements of the compressed keys and values.
        rope_dim: Elements of the shared rotary key.
        nope_dim, value_dim: Elements a head of the uncompressed key part and value.
        q_lora_rank: Elements of the compressed query; None if queries are not compressed.
    """

    heads: int
    kv_lora_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    q_lora_rank: int | None = None
    kind: Literal["latent"] = "latent"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A state of constant size a sequence (Mamba, gated delta net, short convolution).

    Args:
        state_elements: Elements of the recurrent state a sequence, all ranks together.
        conv_elements: Elements of the convolution's state a sequence, all ranks together.
        state_bytes_per_element, conv_bytes_per_element: Bytes of each.
        family: ``mamba``, ``mamba2``, ``gated_delta_net``, ``short_conv``, …
        heads: What tensor parallelism shares out: heads, or channels without heads; 0 if not known.
        groups: Groups that heads share (``n_groups`` of Mamba 2, key heads of a delta net); 0 for none.
        group_conv_elements: Those of ``conv_elements`` that one group has, where ranks repeat it (Mamba 2).
    """

    state_elements: int
    conv_elements: int
    state_bytes_per_element: float
    conv_bytes_per_element: float
    family: str
    heads: int = 0
    groups: int = 0
    group_conv_elements: int = 0
    kind: Literal["recurrent"] = "recurrent"


Attention = FullAttention | SlidingAttention | LatentAttention | Recurrence


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a mixture layer.

    Args:
        count: Routed experts.
        top_k: Experts a token goes through.
        intermediate: Width of one expert.
        shared_intermediate: Width of what every token goes through beside them; 0 for none.
    """

    count: int
    top_k: int
    intermediate: int
    shared_intermediate: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: what it keeps of a token, and its feed-forward part.

    Args:
        attention: The parts that keep something of the past; usually one, two in parallel hybrids, none in
            layers that are feed-forward alone.
        intermediate: Width of the dense feed-forward part; 0 if there is none.
        experts: The mixture, None for a dense layer.
        gated: The feed-forward part has a gate beside its up-projection.
    """

    attention: tuple[Attention, ...]
    intermediate: int = 0
    experts: Experts | None = None
    gated: bool = True


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How weights are stored.

    Args:
        method: ``awq``, ``gptq``, ``fp8``, ``compressed-tensors``, ``mxfp4``, ``gguf``, …
        bits: Bits a quantised weight.
        group_size: Weights that share a scale along the input; 0 for one scale a tensor or channel.
        block: Rows and columns of a block with one scale (FP8), None otherwise.
        act_order: GPTQ with ``desc_act``.
        kv_bits: Bits of a cached key or value that the checkpoint asks for; 0 if it does not say.
    """

    method: str
    bits: float
    group_size: int = 0
    block: tuple[int, int] | None = None
    act_order: bool = False
    kv_bits: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A model as memory planning sees it.

    Args:
        name: What it is called here: a folder, a file or a hub name.
        architecture: As the source says: ``LlamaForCausalLM``, or ``llama`` of a GGUF.
        source: What it was read from.
        hidden: Width of the residual stream.
        vocabulary: Rows of the embedding.
        layers: In order.
        tensors: Everything held in memory, exact where read from headers.
        tied: The head is the embedding, held once.
        max_context_tokens: Context it was trained for (RoPE table length in vLLM).
        rope_dim: Elements of a head that are rotated; 0 without rotary embedding.
        dtype_bytes: Bytes of an activation.
        quantisation: None for plain weights.
        file_bytes: Size of the file or files, if read from them.
        exact: Tensor bytes come from headers, not from arithmetic on a config.
        notes: How the figures may be off, and what an engine makes of the model; see `Note`.
    """

    name: str
    architecture: str
    source: Literal["config.json", "safetensors", "gguf", "hub", "written"]
    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    tied: bool = False
    max_context_tokens: int = 0
    rope_dim: int = 0
    dtype_bytes: float = 2.0
    quantisation: Quantisation | None = None
    file_bytes: int | None = None
    exact: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def doubts(self) -> Doubt:
        """What its notes mean, all together."""
        found = Doubt.NONE
        for note in self.notes:
            found |= doubt_of(note)
        return found

    @property
    def not_loaded(self) -> str:
        """Why vLLM does not load it as it is stored; empty if it does."""
        return next((note for note in self.notes if Doubt.NOT_LOADED in doubt_of(note)), "")

    @property
    def parameters(self) -> int:
        """Weights in all; a quantised one counts as one, scales do not."""
        return sum(tensor.elements * tensor.count for tensor in self.tensors)

    @property
    def weights_bytes(self) -> float:
        """Bytes of all tensors on one device."""
        return total_bytes(self.tensors)

    @property
    def heads(self) -> int:
        """Query heads of the widest attention; 0 for a model without attention."""
        return max((kept.heads for kept in self.attentions if not isinstance(kept, Recurrence)), default=0)

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """What each layer keeps, in order."""
        return tuple(kept for layer in self.layers for kept in layer.attention)

    @property
    def is_moe(self) -> bool:
        """Some layer is a mixture of experts."""
        return any(layer.experts for layer in self.layers)

    @property
    def active_bytes_per_token(self) -> float:
        """Bytes of weights that one token reads: all but the experts it does not go through."""
        share = {
            index: layer.experts.top_k / layer.experts.count
            for index, layer in enumerate(self.layers)
            if layer.experts
        }
        return sum(
            tensor.bytes * tensor.count * (share.get(tensor.layer or 0, 1.0) if tensor.expert else 1.0)
            for tensor in self.tensors
            if tensor.part is not Part.EMBEDDING or self.tied
        )


def total_bytes(tensors: Iterable[Tensor]) -> float:
    """Return the bytes of all ``tensors`` together."""
    return sum(tensor.bytes * tensor.count for tensor in tensors)
