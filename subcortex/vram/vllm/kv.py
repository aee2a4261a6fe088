"""The KV cache of one vLLM rank: blocks, tokens and requests of a pool, as vLLM 0.26 counts them. Pure.

vLLM cuts the pool into blocks of one size. A request takes, of each group of layers, as many blocks as that
group keeps of it; its log's "GPU KV cache size" is blocks, over the blocks of one request of the full
context, times that context (``kv_cache_utils.py``). For a model with full attention alone that is the tokens
that fit; for windows and recurrent states it depends on the context.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from subcortex.errors import InvalidRequest
from subcortex.models.shape import ModelShape, Recurrence
from subcortex.vram.setup import VllmSetup
from subcortex.vram.vllm.kv_groups import KvSpec, grouped, layer_specs, layers_of, pages
from subcortex.vram.vllm.weights import stages

#: Tokens of a step unless set: vLLM's own on cards of 70 GiB and more; smaller ones take 2048.
DEFAULT_BATCHED_TOKENS = 8192
#: Mixtures that vLLM 0.26 runs with its second model runner (``config/vllm.py``); dense models all do.
_SECOND_RUNNER = frozenset({"DeepseekV2ForCausalLM", "GraniteMoeForCausalLM", "Qwen2MoeForCausalLM"})


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers that share a block table.

    Args:
        spec: What each of them keeps.
        layers: How many of them the stage has; fewer than other groups have leaves memory unused.
    """

    spec: KvSpec
    layers: int


@dataclass(frozen=True, slots=True)
class KvLayout:
    """The cache of one rank of one pipeline stage.

    Args:
        groups: In vLLM's order; those of all stages, with this stage's layers.
        block_bytes: Bytes of a block of the pool, all layers of a group together; 0 if nothing is kept.
        in_flight_tokens: Tokens that are scheduled and not yet settled at most: windows keep them too.
        context_tokens: Longest request, for which vLLM counts the pool's tokens; 0 if not known.
    """

    groups: tuple[KvGroup, ...]
    block_bytes: int
    in_flight_tokens: int
    context_tokens: int = 0

    @property
    def page_bytes(self) -> int:
        """Bytes of one layer's part of a block, that of the largest group's layers."""
        return max((group.spec.page_bytes for group in self.groups), default=0)

    @property
    def growth_bytes_per_token(self) -> float:
        """Bytes that a request grows by with a token, once its windows are full."""
        return self.block_bytes * sum(
            1 / group.spec.block_tokens for group in self.groups if group.spec.kind == "full"
        )

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the pool for one of the tokens that vLLM counts at this context.

        Raises:
            InvalidRequest: The context is not known.
        """
        context = self._context(None)
        return self.request_bytes(context) / context

    def blocks(self, pool_bytes: float) -> int:
        """Return the blocks that a pool comes to; 0 where the stage keeps nothing."""
        return max(0, int(pool_bytes // self.block_bytes)) if self.block_bytes else 0

    def request_blocks(self, length_tokens: int) -> int:
        """Return the most blocks that one request of that length holds."""
        return sum(group.spec.blocks(length_tokens, self.in_flight_tokens) for group in self.groups)

    def request_bytes(self, length_tokens: int) -> int:
        """Return the most bytes of the pool that one request of that length holds."""
        return self.request_blocks(length_tokens) * self.block_bytes

    def requests(self, pool_bytes: float, length_tokens: int) -> float:
        """Return how many requests of that length fit: vLLM's "Maximum concurrency"."""
        return self.requests_of_blocks(self.blocks(pool_bytes), length_tokens)

    def requests_of_blocks(self, blocks: int, length_tokens: int) -> float:
        """Return how many requests of that length ``blocks`` hold; without end where nothing is kept."""
        each = self.request_blocks(length_tokens)
        return blocks / each if each else inf

    def tokens(self, pool_bytes: float, context_tokens: int | None = None) -> int:
        """Return what vLLM logs as "GPU KV cache size".

        Args:
            pool_bytes: Bytes for the cache on this rank.
            context_tokens: ``--max-model-len``; None or 0: that of the layout.

        Raises:
            InvalidRequest: The context is not known.
        """
        return self.tokens_of_blocks(self.blocks(pool_bytes), context_tokens)

    def tokens_of_blocks(self, blocks: int, context_tokens: int | None = None) -> int:
        """Return the tokens that vLLM logs for ``blocks``; 0 where nothing is kept.

        Raises:
            InvalidRequest: The context is not known.
        """
        context = self._context(context_tokens)
        # The same two operations in floating point as vLLM's, so that they round alike.
        return int(self.requests_of_blocks(blocks, context) * context) if self.groups else 0

    def pool_bytes(self, tokens: int, context_tokens: int | None = None) -> int:
        """Return the smallest pool for which vLLM logs at least ``tokens``.

        Raises:
            InvalidRequest: The context is not known.
        """
        context = self._context(context_tokens)
        blocks = tokens * self.request_blocks(context) // context
        while self.groups and self.tokens_of_blocks(blocks, context) < tokens:
            blocks += 1
        return blocks * self.block_bytes

    def longest_tokens(self, pool_bytes: float, most_tokens: int | None = None) -> int:
        """Return the longest request that a pool holds, as vLLM proposes it when the context does not fit.

        Args:
            pool_bytes: Bytes for the cache on this rank.
            most_tokens: Longest of interest; None: the context of the layout.

        Raises:
            InvalidRequest: No length is given and the context is not known.
        """
        blocks, most = self.blocks(pool_bytes), self._context(most_tokens)
        if not self.groups:
            return most
        # Blocks never shrink with the length, so the first length that needs more is one past the answer.
        return bisect_right(range(1, most + 1), blocks, key=self.request_blocks)

    def max_sequences(self, pool_bytes: float) -> int | None:
        """Return the largest ``--max-num-seqs`` that the pool allows; None if it sets no limit.

        With recurrent layers vLLM captures no full graphs for more sequences than blocks, since each needs a
        state (``config/compilation.py``); it then refuses to start, unless ``eager``.
        """
        recurrent = any(group.spec.kind == "recurrent" for group in self.groups)
        return self.blocks(pool_bytes) if recurrent else None

    def _context(self, asked: int | None) -> int:
        context = asked or self.context_tokens
        if context <= 0:
            raise InvalidRequest(
                "how long a request may be is not known, and vLLM counts a pool's tokens by it",
                hint="Set context_tokens.",
                param="context_tokens",
            )
        return context


def layout(shape: ModelShape, setup: VllmSetup, *, stage: int = 0) -> KvLayout:
    """Return the cache of one rank; all tensor-parallel ranks of a stage have the same.

    Args:
        shape: The model.
        setup: How it is run; without ``max_batched_tokens`` 8192 are taken.
        stage: Pipeline stage, from 0.

    Raises:
        InvalidRequest: The layers cannot be divided over the stages, or there is no such stage.
    """
    divided = stages(len(shape.layers), setup.pipeline_parallel_size)
    if not 0 <= stage < len(divided):
        raise InvalidRequest(f"no stage {stage} of {len(divided)}", hint="Stages count from 0.")
    specs = layer_specs(shape, setup)
    found = grouped(specs)
    groups = tuple(KvGroup(spec, layers_of(indices, divided[stage])) for spec, indices in found)
    if len(groups) == 1:
        block_bytes = sum(pages(specs, divided[stage]))
    else:
        block_bytes = max((group.spec.page_bytes * group.layers for group in groups), default=0)
    return KvLayout(
        groups,
        block_bytes,
        in_flight_tokens(shape, setup),
        setup.context_tokens or shape.max_context_tokens,
    )


def in_flight_tokens(shape: ModelShape, setup: VllmSetup) -> int:
    """Return the most tokens that are scheduled and not settled.

    ``max_in_flight_tokens`` of vLLM ``config/vllm.py``: batches under way, times their tokens. Scheduling
    ahead makes that two batches on one stage, and one more than stages under the second model runner; the
    first one has one batch a stage.
    """
    stages_count = setup.pipeline_parallel_size
    recurrent = any(isinstance(kept, Recurrence) for kept in shape.attentions)
    second = not recurrent and (not shape.is_moe or shape.architecture in _SECOND_RUNNER)
    batches = stages_count + 1 if second or stages_count == 1 else stages_count
    return batches * (setup.max_batched_tokens or DEFAULT_BATCHED_TOKENS)


def pipeline_tokens(
    layouts: Sequence[KvLayout], pool_bytes: float | Sequence[float], context_tokens: int | None = None
) -> int:
    """Return the tokens that vLLM logs for a pipeline: those of the stage with the fewest blocks.

    Args:
        layouts: One a stage.
        pool_bytes: Of each rank, or stage by stage.
        context_tokens: ``--max-model-len``; None or 0: that of the layouts.

    Raises:
        InvalidRequest: The context is not known.
    """
    each = [pool_bytes] * len(layouts) if isinstance(pool_bytes, int | float) else list(pool_bytes)
    blocks = [held.blocks(pool) for held, pool in zip(layouts, each, strict=True)]
    return layouts[0].tokens_of_blocks(min(blocks), context_tokens)


def pipeline_pool_bytes(layouts: Sequence[KvLayout], tokens: int, context_tokens: int | None = None) -> int:
    """Return the smallest pool a rank, the same on all, for which vLLM logs at least ``tokens``.

    Raises:
        InvalidRequest: The context is not known.
    """
    return max(held.pool_bytes(tokens, context_tokens) for held in layouts)


def concurrency_table(
    held: KvLayout, pool_bytes: float, lengths: Iterable[int]
) -> tuple[tuple[int, float], ...]:
    """Return ``(length_tokens, requests)`` for each of ``lengths``: what a pool holds of one length alone."""
    return tuple((length, held.requests(pool_bytes, length)) for length in lengths)
