"""What a figure measures, told by the words around it. Pure.

Of the words that go with a unit's dimension, one right behind the figure counts first (``11GB VRAM``), then
the nearest before it, then what leads the line: the line above, the column, the heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from subcortex.journal.board.figures import Figure
from subcortex.journal.board.units import UNITS, Dimension

#: Dimension → words that tell a quantity of it, and the quantity; of two at one place the first counts.
_WORDS: dict[Dimension, tuple[tuple[str, str], ...]] = {
    "memory": (
        (r"kv[ -]?cache", "kv_cache"),
        (r"total cache", "kv_cache"),
        (r"\bkv\b", "kv_cache"),
        (r"activations?", "activations"),
        (r"(?:total|memory|vram)[ ]per[ -]gpu|per[ -]gpu memory", "memory_per_gpu"),
        (r"vram", "vram"),
        (r"\bgpu memory", "vram"),
        (r"\b(?:host |system |cpu )?ram\b", "ram"),
        (r"weights?|checkpoint|file size|\bsize\b|model size", "weights_size"),
        (r"\b(?:fp|bf|bp|int)(?:32|16|8|4)\b|\bI?Q[1-8](?:_|\b)|\bAWQ\b|\bGPTQ\b", "weights_size"),
        (r"overhead", "overhead"),
        (r"\btotal\b(?: memory)?|altogether|in all", "memory_total"),
        (r"memory", "memory"),
        (r"cache", "kv_cache"),
        (r"disk|download", "disk"),
        (r"\bgpus?\b", "vram"),
    ),
    "bandwidth": ((r"busbw", "bus_bandwidth"), (r"algbw", "algorithm_bandwidth"), (r".", "bandwidth")),
    "time": (
        (r"re-?start", "restart_time"),
        (r"cold[ -]start|start[ -]?up|\bboot", "start_time"),
        (r"\bload|loading", "load_time"),
        (r"\bwak(?:e|ing)", "wake_time"),
        (r"\bsleep", "sleep_time"),
        (r"swap|switch", "swap_time"),
        (r"ttft|first token", "ttft"),
        (r"tpot|itl\b|(?:per|a|each)[ ]token|inter-token", "tpot"),
        (r"communicat|all-?reduce", "communication_time"),
        (r"compute\b|computation", "compute_time"),
        (r"latency", "latency"),
    ),
    "share": (
        (r"aime[ -]?(?:20)?(?:2[0-9])?", "score"),
        (r"math-?500|\bmath\b|mmlu(?:-pro)?|gsm-?8k|human-?eval|gpqa|\barc(?:-c)?\b", "score"),
        (r"hellaswag|ifeval|swe-bench|mbpp", "score"),
        (r"accuracy", "accuracy"),
        (r"\butil", "utilisation"),
        (r"communicat", "communication_share"),
        (r"comput", "compute_share"),
        (r"overhead", "overhead"),
        (r"slower|faster|speed-?up|throughput|penalty", "speed_change"),
    ),
    "ratio": (
        (r"concurren|users|requests", "concurrency_gain"),
        (r"memory|footprint|smaller|compress", "memory_ratio"),
        (r"slower|faster|speed|throughput|quicker", "speed_ratio"),
    ),
    "tokens": (
        (r"block", "block_size"),
        (r"context|ctx|sequence|seq[ _]len", "context"),
        (r"wasted|reserve", "reserved_tokens"),
    ),
    "speed": ((r"prefill|prompt", "prefill_speed"), (r".", "speed")),
    "parameters": ((r".", "parameters"),),
    "density": ((r".", "bytes_per_parameter"),),
    "compute": ((r".", "compute"),),
    "power": ((r".", "power"),),
    "frequency": ((r".", "clock"),),
    "temperature": ((r".", "temperature"),),
}  # fmt: skip
_BY_COUNT = {
    "layers": "layers", "heads": "heads", "KV heads": "kv_heads", "GPUs": "gpus", "experts": "experts",
    "requests": "requests", "all-reduces": "all_reduces_per_layer",
}  # fmt: skip
#: What a bare number is of, where the words right before it say so.
_BARE = re.compile(
    r"(?:(?P<hidden_size>hidden[ _-]?(?:size|dim)|d_model)|(?P<kv_heads>num_key_value_heads|kv[ _-]?heads)|"
    r"(?P<heads>num_attention_heads)|(?P<layers>n_?layers?|num(?:_hidden)?_layers)|"
    r"(?P<head_dim>head[ _-]?dim)|"
    r"(?P<bytes_per_parameter>(?:fp|bf|int)(?:32|16|8)))[ \t]{0,2}[=:(][ \t]{0,2}$",
    re.IGNORECASE,
)
_COMPILED: dict[Dimension, tuple[tuple[re.Pattern[str], str], ...]] = {
    dimension: tuple((re.compile(words, re.IGNORECASE), quantity) for words, quantity in rows)
    for dimension, rows in _WORDS.items()
}
_PER_TOKEN = re.compile(r"[ \t]?(?:per|a|each|/)[ \t]?token", re.IGNORECASE)
_PER_GPU = re.compile(r"[ \t]?(?:per|a|each|/)[ \t]?(?:gpu|card)\b", re.IGNORECASE)
#: What is measured in such a unit if no word says more.
_OTHERWISE: dict[Dimension, str] = {"time": "duration", "share": "share", "ratio": "ratio"}
#: Characters after a figure in which a word counts as right behind it.
_NEAR = 16


def quantity_of(figure: Figure, line: str, around: Iterable[str] = ()) -> str | None:
    """Return what a figure measures, None if nothing says so.

    Args:
        figure: With its place in the line.
        line: The line's words.
        around: What leads the line, the nearest first: lines above, its column's heading, headings.
    """
    if figure.unit is None:
        bare = _BARE.search(line[max(0, figure.at - 40) : figure.at])
        return bare.lastgroup if bare else None
    unit = UNITS[figure.unit]
    if unit.dimension == "count":
        return _BY_COUNT[unit.of]
    if unit.dimension == "memory" and _PER_TOKEN.match(line, figure.end):
        return "kv_per_token"
    words = _COMPILED[unit.dimension]
    found = _behind(line, figure, words) or _before(
        f"{line[: figure.at]} {_word_of(figure, unit.dimension)}", words
    )
    if found in ("memory", "memory_total") and _PER_GPU.match(line, figure.end):
        return "memory_per_gpu"
    for text in () if found else around:
        found = found or _before(text[:200], words)
    found = found or _OTHERWISE.get(unit.dimension)
    return _benchmark(line, figure, around) if found == "score" else found


def _word_of(figure: Figure, dimension: Dimension) -> str:
    """Return a unit's own word where it tells the quantity: ``2048 context length``."""
    return figure.written if dimension == "tokens" else ""


def _behind(line: str, figure: Figure, words: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    after = line[figure.end : figure.end + _NEAR]
    stop = re.search(r"[,;:()+=]|\band\b|[0-9]", after)
    after = after[: stop.start()] if stop else after
    return next((quantity for pattern, quantity in words if pattern.search(after)), None)


def _before(text: str, words: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    """Return the quantity whose word ends last in a text."""
    best, where = None, -1
    for pattern, quantity in words:
        last = max((match.end() for match in pattern.finditer(text[-400:])), default=-1)
        if last > where:
            best, where = quantity, last
    return best


_BENCHMARK = re.compile(
    r"aime(?:[ -]?20[0-9]{2})?|math-?500|mmlu(?:-pro)?|gsm-?8k|human-?eval|gpqa|hellaswag|ifeval|"
    r"swe-bench|mbpp|\bmath\b|\barc(?:-c)?\b",
    re.IGNORECASE,
)


def _benchmark(line: str, figure: Figure, around: Iterable[str]) -> str:
    """Return ``score`` with the benchmark's name, e.g. ``score:aime-2024``."""
    for text in (line[figure.end : figure.end + _NEAR], line[: figure.at], *around):
        if named := _BENCHMARK.search(text[-400:]):
            return f"score:{named[0].lower().replace(' ', '-')}"
    return "score"
