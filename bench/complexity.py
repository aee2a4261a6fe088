"""Time scoring a prompt's complexity: features and score together, microseconds a prompt.

    python bench/complexity.py [--json] [--repeats 200]

Each repeat times a block of calls and divides; the spread is over blocks. Blocks of the prompts are
interleaved, so that a slow moment of the machine touches all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from typing import Any

from subcortex.routing import complexity, features

PROMPTS: dict[str, str] = {
    "short": "What is 7 + 5?",
    "paragraph": "Plan the migration of the journal, compare both options and explain why one is better. "
    * 4,
    "page": "The engine of tier 3 took 12 s to load, then it must answer 40 thoughts. " * 50,
    "log_1mb": "2026-11-21 10:00:00 ERROR worker 7 died, retry 12 of 40\n" * 18_000,
    "prose_1mb": "x = 12 + 4; why must it be so? " * 34_000,
    "chinese": "为什么天空是蓝色的？请解释。" * 30,
}
_BLOCK_S = 0.002


def _block_us(messages: list[dict[str, Any]], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        complexity(features(messages))
    return (time.perf_counter() - start) / calls * 1e6


def measure(repeats: int) -> dict[str, Any]:
    """Return, by prompt, its characters, score, and the median and spread in microseconds."""
    messages = {name: [{"role": "user", "content": text}] for name, text in PROMPTS.items()}
    # Also the warm-up: how many calls fill a block.
    calls = {name: max(1, round(_BLOCK_S * 1e6 / _block_us(asked, 20))) for name, asked in messages.items()}
    blocks: dict[str, list[float]] = {name: [] for name in PROMPTS}
    for _ in range(repeats):
        for name, asked in messages.items():
            blocks[name].append(_block_us(asked, calls[name]))
    result: dict[str, Any] = {}
    for name, values in blocks.items():
        low, _, high = statistics.quantiles(values, n=4)
        result[name] = {
            "chars": len(PROMPTS[name]),
            "score": round(complexity(features(messages[name])).score, 4),
            "us_p50": round(statistics.median(values), 2),
            "us_iqr": [round(low, 2), round(high, 2)],
            "us_max": round(max(values), 2),
            "n": len(values),
            "calls_a_block": calls[name],
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Time scoring a prompt's complexity, microseconds a prompt.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=200, help="blocks timed a prompt (at least 2)")
    options = parser.parse_args()
    result = measure(max(options.repeats, 2))
    if options.json:
        facts = {
            "unit": "us",
            "method": "perf_counter over blocks, interleaved",
            "python": platform.python_version(),
            "machine": platform.machine(),
            "prompts": result,
        }
        print(json.dumps(facts, indent=2))
        return
    print(f"{'prompt':12} {'chars':>9} {'score':>6} {'p50 µs':>9} {'quartiles µs':>20} {'n':>5}")
    for name, row in result.items():
        quartiles = f"{row['us_iqr'][0]:.1f} to {row['us_iqr'][1]:.1f}"
        figures = f"{row['score']:>6.2f} {row['us_p50']:>9.1f} {quartiles:>20} {row['n']:>5}"
        print(f"{name:12} {row['chars']:>9} {figures}")


if __name__ == "__main__":
    main()
