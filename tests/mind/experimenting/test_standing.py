"""Which answers count: what a tier's last start said of its KV pool, as it is configured now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from subcortex.config import parse
from subcortex.experiments.consequences.suggestions import suggestions
from subcortex.journal import BootRecord
from subcortex.mind.experimenting.standing import pools
from subcortex.types import BootFigures

CONFIG = parse(
    {
        "tiers": [
            {"name": "fast", "engine": "llama.cpp", "model": "a.gguf"},
            {"name": "deep", "engine": "vllm", "model": "b", "context_tokens": 8192, "max_concurrent": 8},
        ]
    }
)


def start(kv_tokens: int | None = 500_000, context_tokens: int = 8192, **changes: Any) -> BootRecord:
    figures = BootFigures(engine="vllm", kv_tokens=kv_tokens, context_tokens=context_tokens)
    given: dict[str, Any] = {
        "id": "b1",
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "run_id": "r1",
        "tier": "deep",
    }
    given |= {"engine": "vllm", "model": "b", "outcome": "ready", "measured": figures, **changes}
    return BootRecord(**given)


def test_the_last_start_that_said_so_counts():
    [found] = pools([start(None), start(400_000), start(500_000)], CONFIG)
    assert found.answer.details == {"kv_tokens": 400_000}
    [one] = suggestions(CONFIG, [found], longest_tokens={"deep": 131_072})
    assert (one.key, one.old, one.new, one.run_ids) == ("context_tokens", 8192, 47_104, ())


@pytest.mark.parametrize(
    "other",
    [
        start(model="c"),
        start(tier="gone"),
        start(tier="fast"),
        start(outcome="failed"),
        start(context_tokens=4096),
        start(tensor_parallel_size=2),
        start(measured=None),
    ],
)
def test_a_start_of_anything_else_does_not(other):
    assert pools([other], CONFIG) == []
