"""vLLM's memory: what each rank holds, how large its pool becomes, and what it would refuse.

``weights`` and ``kv`` count, ``overheads`` estimates, ``estimate`` puts them together, ``legality`` refuses.
"""

from __future__ import annotations

from subcortex.vram.vllm.estimate import (
    RankEstimate,
    estimate,
    footprint,
    kv_tokens,
    pool_tokens,
    pools,
    resolved,
)

__all__ = [
    "RankEstimate",
    "estimate",
    "footprint",
    "kv_tokens",
    "pool_tokens",
    "pools",
    "resolved",
]
