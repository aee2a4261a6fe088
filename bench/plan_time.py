"""How long a plan takes, from a machine and a configuration to flags, with nothing started.

    python bench/plan_time.py --json

``plan_ms``: the median of the slowest case. Each case also says how long reading its models' shapes took,
which a daemon does once. A refusal is timed with its alternatives, each of which is a plan of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from _bench import arguments, finish, machine, spread

from subcortex.hardware import Hardware, parse_gpus
from subcortex.models.read import read_shape
from subcortex.models.shape import ModelShape
from subcortex.vram.plan import Fit, TierAsk, alternatives, find, written
from subcortex.vram.plan.real import Estimates
from subcortex.vram.setup import LlamaCppSetup, VllmSetup

_SHAPES = Path(__file__).with_name("shapes")


def _hardware(gpus: str) -> Hardware:
    return Hardware(
        gpus=parse_gpus(gpus), host_memory_total_mib=262144, host_memory_available_mib=250000, cores=32
    )


def _asks(shapes: list[ModelShape], engine: str) -> list[TierAsk]:
    setup = VllmSetup(context_tokens=8192) if engine == "vllm" else LlamaCppSetup(context_tokens=8192)
    return [
        TierAsk(f"t{i}", shape, setup, 8192, 8, i, sleepable=engine == "vllm")
        for i, shape in enumerate(shapes)
    ]


#: Name → models, engine, GPUs.
CASES = {
    "two tiers, two cards": (["llama-3.1-8b", "llama-3.1-70b"], "vllm", "2x H200"),
    "two tiers in turns": (["qwen2.5-14b", "qwen2.5-32b"], "vllm", "4x RTX 3090"),
    "mixture of 94 layers, eight cards": (["qwen3-235b-a22b"], "vllm", "8x H100"),
    "mixture of 61 layers with latent attention": (["deepseek-v3"], "vllm", "8x H200"),
    "two tiers on llama.cpp": (["llama-3.2-3b", "llama-3.1-8b"], "llama.cpp", "RTX 3060 Ti + RTX 3090"),
    "four tiers, four cards": (
        ["llama-3.2-3b", "llama-3.1-8b", "qwen2.5-14b", "gemma-3-27b-text"],
        "vllm",
        "4x A6000",
    ),
}


def timed(work: Callable[[], Any], runs: int) -> list[float]:
    """Return how long ``work`` took each time, in milliseconds."""
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def case(models: list[str], engine: str, gpus: str, runs: int) -> dict[str, Any]:
    """Return the timings of one case."""
    hardware = _hardware(gpus)
    began = time.perf_counter()
    shapes = [read_shape(str(_SHAPES / model)) for model in models]
    read_ms = (time.perf_counter() - began) * 1e3
    asks = _asks(shapes, engine)

    def once() -> list[str]:
        found = find(asks, hardware, Estimates(hardware))
        return [tier.mode.value for tier in written(found).tiers] if isinstance(found, Fit) else []

    return {
        "plan_ms": spread(timed(once, runs)),
        "read_ms": round(read_ms, 1),
        "modes": once(),
        "layers": sum(len(shape.layers) for shape in shapes),
    }


def refusal(runs: int) -> dict[str, Any]:
    """Return the timings of a plan that is refused, with what would fit instead."""
    hardware = _hardware("2x RTX 3090")
    asks = _asks([read_shape(str(_SHAPES / "llama-3.1-70b"))], "vllm")
    asks = [replace(asks[0], sleepable=False)]
    offered: list[str] = []

    def once() -> None:
        estimates = Estimates(hardware)
        found = find(asks, hardware, estimates)
        assert not isinstance(found, Fit)
        others = alternatives(asks, hardware, estimates, found, estimates)
        offered[:] = [other.words for other in others]

    return {"refusal_ms": spread(timed(once, runs)), "offered": offered}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    cases = {name: case(*what, given.runs) for name, what in CASES.items()}
    result = {
        "plan_ms": max(found["plan_ms"]["p50"] for found in cases.values()),
        "n": given.runs,
        "cases": cases,
        "refusal": refusal(given.runs),
        "machine": machine(),
    }
    finish(result, given.json)


if __name__ == "__main__":
    main()
