"""How vLLM groups layers for its KV cache. Pure; the rules are those of vLLM 0.26 ``kv_cache_utils.py``.

Every block of the pool has the same size. Layers that keep the same go into groups of as many layers, each
group has a block table of its own, and a block is a page of one layer times the layers of a group.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from subcortex.models.shape import (
    Attention,
    FullAttention,
    LatentAttention,
    ModelShape,
    Recurrence,
    SlidingAttention,
)
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.weights import kv_heads_per_rank

Kind = Literal["full", "sliding", "chunked", "recurrent"]
#: Tokens of the smallest block that the attention kernels take; windowed layers start from it.
KERNEL_BLOCK_TOKENS = 16
#: Block of FlashMLA, which takes over MLA with an FP8 cache on Hopper (vLLM ``flashmla.py``).
FLASHMLA_BLOCK_TOKENS = 64
#: Unlike layers may fill up to this many times the smallest kind before it sets the size of groups.
_ALIKE = 1.5


@dataclass(frozen=True, slots=True)
class KvSpec:
    """What one layer keeps on one rank.

    Args:
        kind: How long it keeps it.
        page_bytes: Bytes of a block.
        block_tokens: Tokens of a block; 0 for a state, which is one page a sequence.
        window: Tokens of the window or chunk.
        form: What else tells it from layers of the same size.
    """

    kind: Kind
    page_bytes: int
    block_tokens: int
    window: int = 0
    form: tuple[int, ...] = ()

    def blocks(self, length_tokens: int, in_flight_tokens: int) -> int:
        """Return the most blocks that a request of ``length_tokens`` holds (vLLM ``kv_cache_interface.py``).

        A window gives blocks back once their tokens are settled, so what is in flight counts beside it, and
        it may begin in the middle of a block.
        """
        match self.kind:
            case "full":
                return ceil(length_tokens / self.block_tokens)
            case "sliding":
                kept = min(self.window - 1 + in_flight_tokens, length_tokens)
                return ceil(kept / self.block_tokens) + 1
            case "chunked":
                return ceil(min(self.window + in_flight_tokens, length_tokens) / self.block_tokens)
            case "recurrent":
                return 1


def layer_specs(shape: ModelShape, setup: VllmSetup) -> list[tuple[int, KvSpec]]:
    """Return ``(layer, what it keeps)`` in order, pages of all layers made alike where they must be."""
    kept = [(index, one) for index, layer in enumerate(shape.layers) for one in layer.attention]
    if not kept:
        return []
    states = max((_state_bytes(one, setup) for _, one in kept if isinstance(one, Recurrence)), default=0)
    token = next((_token_bytes(one, shape, setup) for _, one in kept if not isinstance(one, Recurrence)), 0)
    block = block_tokens(shape, setup)
    if states and token:
        # A hybrid: attention's block grows until its page holds a state (vLLM platforms/interface.py).
        block *= ceil(states / (block * token))
        states = round(block * token)
    specs = [(index, _spec(one, shape, setup, block, states)) for index, one in kept]
    return _alike_pages(specs)


def block_tokens(shape: ModelShape, setup: VllmSetup) -> int:
    """Return the tokens of a block of attention, before a hybrid's states make it larger."""
    latent = any(isinstance(kept, LatentAttention) for kept in shape.attentions)
    if latent and kv_element_bytes(shape, setup) < shape.dtype_bytes:
        return max(setup.block_size_tokens, FLASHMLA_BLOCK_TOKENS)
    return setup.block_size_tokens


def kv_element_bytes(shape: ModelShape, setup: VllmSetup) -> float:
    """Return the bytes of a cached element: as asked, as the checkpoint says, or as activations."""
    asked = setup.kv_bytes_per_element
    if asked is None and shape.quantisation and shape.quantisation.kv_bits:
        asked = shape.quantisation.kv_bits / 8
    return asked or shape.dtype_bytes


def grouped(specs: Sequence[tuple[int, KvSpec]]) -> list[tuple[KvSpec, tuple[int, ...]]]:
    """Return vLLM's groups: what their layers keep, and the layers (``get_kv_cache_groups``).

    The size of a group is that of the rarest kind, unless the commonest is within half of it. A kind that is
    not a multiple leaves slots of its last groups empty, and their memory unused.
    """
    layers: dict[KvSpec, list[int]] = defaultdict(list)
    for index, spec in specs:
        layers[spec].append(index)
    if not layers:
        return []
    if one := _one_type(layers):
        return [one]
    fewest, most = min(map(len, layers.values())), max(map(len, layers.values()))
    size = most if most < fewest * _ALIKE else fewest
    groups = []
    for spec, indices in layers.items():
        count = ceil(len(indices) / size)
        groups += [(spec, tuple(indices[first::count])) for first in range(count)]
    return groups


def _one_type(layers: dict[KvSpec, list[int]]) -> tuple[KvSpec, tuple[int, ...]] | None:
    """Return the single group of layers that need the same tokens though not the same bytes, if they do.

    Its page is that of the first layer; the sum of pages is the layout's to make.
    """
    first = next(iter(layers))
    if any(
        (s.kind, s.block_tokens, s.window) != (first.kind, first.block_tokens, first.window) for s in layers
    ):
        return None
    return first, tuple(sorted(index for indices in layers.values() for index in indices))


def _alike_pages(specs: list[tuple[int, KvSpec]]) -> list[tuple[int, KvSpec]]:
    """Return the specs with equal pages: smaller ones get longer blocks, or are padded.

    Layers of one type keep their own sizes: they share a group without it
    (``unify_kv_cache_spec_page_size``).
    """
    if len({spec.page_bytes for _, spec in specs}) <= 1 or _one_type({spec: [] for _, spec in specs}):
        return specs
    largest = max(spec.page_bytes for _, spec in specs)
    result = []
    for index, spec in specs:
        times, rest = divmod(largest, spec.page_bytes)
        tokens = spec.block_tokens if rest or spec.kind == "recurrent" else spec.block_tokens * times
        result.append((index, replace(spec, page_bytes=largest, block_tokens=tokens)))
    return result


def _spec(kept: Attention, shape: ModelShape, setup: VllmSetup, block: int, state_page: int) -> KvSpec:
    if isinstance(kept, Recurrence):
        own = _state_bytes(kept, setup)
        return KvSpec("recurrent", max(state_page, own), 0, form=(own,))
    token = _token_bytes(kept, shape, setup)
    if isinstance(kept, LatentAttention):
        return KvSpec("full", round(block * token), block, form=(1, kept.kv_lora_rank + kept.rope_dim))
    form = (kv_heads_per_rank(kept.kv_heads, setup.tensor_parallel_size), kept.key_dim, kept.value_dim)
    if isinstance(kept, SlidingAttention):
        kind: Kind = "chunked" if kept.chunked else "sliding"
        # A window has the kernel's smallest block, a chunk the one that was set (vLLM attention.py).
        tokens = block if kept.chunked else min(block, KERNEL_BLOCK_TOKENS)
        return KvSpec(kind, round(tokens * token), tokens, kept.window, form)
    return KvSpec("full", round(block * token), block, form=form)


def _token_bytes(kept: Attention, shape: ModelShape, setup: VllmSetup) -> float:
    """Return the bytes of one token in one layer on one rank."""
    size = kv_element_bytes(shape, setup)
    match kept:
        case LatentAttention():
            return (kept.kv_lora_rank + kept.rope_dim) * size
        case FullAttention() | SlidingAttention():
            heads = kv_heads_per_rank(kept.kv_heads, setup.tensor_parallel_size)
            return heads * (kept.key_dim + kept.value_dim) * size
        case Recurrence():
            return 0.0


def _state_bytes(kept: Recurrence, setup: VllmSetup) -> int:
    """Return the bytes of one sequence's state in one layer on one rank (vLLM ``mamba_utils.py``).

    Where tensor parallelism does not divide Mamba 2's groups each rank has a copy of one.
    """
    ranks = setup.tensor_parallel_size
    copies = ranks - kept.groups if kept.groups and kept.groups % ranks else 0
    convolution = kept.conv_elements + copies * kept.group_conv_elements
    return round(
        kept.state_elements * kept.state_bytes_per_element / ranks
        + convolution * kept.conv_bytes_per_element / ranks
    )


def pages(specs: Sequence[tuple[int, KvSpec]], layers: range) -> tuple[int, ...]:
    """Return the page of each layer of a stage that keeps something."""
    return tuple(spec.page_bytes for index, spec in specs if index in layers)


def layers_of(group: tuple[int, ...], layers: range) -> int:
    """Return how many of a group's layers a stage has."""
    count = Counter(group)
    return sum(count[index] for index in count if index in layers)
