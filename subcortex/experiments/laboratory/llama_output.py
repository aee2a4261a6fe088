"""What llama.cpp's own tools print, parsed strictly. Pure.

Their output has changed from build to build. What this file does not know is an error that names it: a
figure read from the wrong place would be worse than none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from subcortex.errors import EngineFailed

BENCH, BATCHED_BENCH, PERPLEXITY = "llama-bench", "llama-batched-bench", "llama-perplexity"

#: What is read of a line of llama-bench, and its type.
_BENCH_READ: dict[str, type] = {
    "build_commit": str, "build_number": int, "gpu_info": str, "backends": str, "model_size": int,
    "model_n_params": int, "n_threads": int, "n_gpu_layers": int, "split_mode": str, "main_gpu": int,
    "tensor_split": str, "n_prompt": int, "n_gen": int, "n_depth": int, "avg_ts": float, "stddev_ts": float,
    "samples_ns": list, "samples_ts": list,
}  # fmt: skip
#: Other fields of builds since 2025: settings that are left as they are.
_BENCH_KNOWN = frozenset((
    "cpu_info", "model_filename", "model_type", "n_batch", "n_ubatch", "cpu_mask", "cpu_strict", "poll",
    "type_k", "type_v", "n_cpu_moe", "no_kv_offload", "flash_attn", "devices", "tensor_buft_overrides",
    "load_mode", "lazy_mode", "use_mmap", "use_direct_io", "embeddings", "no_op_offload", "no_host", "repack",
    "fit_target", "fit_min_ctx", "test_time", "avg_ns", "stddev_ns",
))  # fmt: skip
_BATCHED_READ: dict[str, type] = {
    "n_threads": int, "pp": int, "tg": int, "pl": int, "t_pp": float, "t_tg": float, "t": float,
    "speed_pp": float, "speed_tg": float, "speed": float,
}  # fmt: skip
_BATCHED_KNOWN = frozenset((
    "n_kv_max", "n_batch", "n_ubatch", "flash_attn", "is_pp_shared", "n_gpu_layers",
    "n_threads_batch", "n_kv",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """One test of llama-bench.

    Args:
        prompt_tokens, generated_tokens: What it did; one of them is 0.
        tokens_per_s: One figure a repetition, in order.
        seconds: What each repetition took.
        threads, gpu_layers, split_mode, main_gpu, tensor_split: As it took them; the split as ``8.00/3.00``.
        model_bytes, parameters: Of the model.
        build: ``b9000 (1a2b3c4)``.
        gpus, backends: In its own words.
    """

    prompt_tokens: int
    generated_tokens: int
    tokens_per_s: tuple[float, ...]
    seconds: tuple[float, ...]
    threads: int
    gpu_layers: int
    split_mode: str
    main_gpu: int
    tensor_split: str
    model_bytes: int
    parameters: int
    build: str
    gpus: str
    backends: str


@dataclass(frozen=True, slots=True)
class BatchedBench:
    """One line of llama-batched-bench: so many sequences at once, each with a prompt and an answer.

    Args:
        prompt_tokens, generated_tokens: Of each sequence.
        sequences: At once.
        prompt_tokens_per_s, generated_tokens_per_s: Of all sequences together.
        seconds: In all.
        threads: CPU threads.
    """

    prompt_tokens: int
    generated_tokens: int
    sequences: int
    prompt_tokens_per_s: float
    generated_tokens_per_s: float
    seconds: float
    threads: int


@dataclass(frozen=True, slots=True)
class Divergence:
    """What llama-perplexity says of two arms' next-token distributions over one text.

    Args:
        mean_nats: Mean KL divergence; the base's distributions are stored in 16 bits, so an arm against
            itself is a little above zero.
        mean_error_nats: Its standard error.
        median_nats, largest_nats: Of the tokens' divergences.
        same_top, same_top_error: Share of tokens with the same likeliest successor (0 to 1), standard error.
    """

    mean_nats: float
    mean_error_nats: float
    median_nats: float
    largest_nats: float
    same_top: float
    same_top_error: float


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What a run held of one device at its end, MiB: weights, context (KV cache) and compute buffers."""

    device: str
    model_mib: float
    context_mib: float
    compute_mib: float

    @property
    def total_mib(self) -> float:
        """All three together."""
        return self.model_mib + self.context_mib + self.compute_mib


def parse_bench(text: str) -> tuple[Bench, ...]:
    """Return the tests in llama-bench's output, ``-o json`` or ``-o jsonl``.

    Raises:
        EngineFailed: It is neither, or a field is missing, unknown or of another type.
    """
    return tuple(_bench(row) for row in _rows(BENCH, text))


def parse_batched_bench(text: str) -> tuple[BatchedBench, ...]:
    """Return the lines of llama-batched-bench, ``--output-format jsonl``.

    Raises:
        EngineFailed: As ``parse_bench``.
    """
    found = []
    for row in _rows(BATCHED_BENCH, text):
        of = _checked(BATCHED_BENCH, row, _BATCHED_READ, _BATCHED_KNOWN)
        found.append(
            BatchedBench(
                of["pp"], of["tg"], of["pl"], of["speed_pp"], of["speed_tg"], of["t"], of["n_threads"]
            )
        )
    return tuple(found)


_FIGURE = r"(-?\d+(?:\.\d+)?)"
_KLD = {
    "Mean KLD": re.compile(rf"^Mean +KLD: +{_FIGURE} ± +{_FIGURE}$", re.MULTILINE),
    "Median KLD": re.compile(rf"^Median +KLD: +{_FIGURE}$", re.MULTILINE),
    "Maximum KLD": re.compile(rf"^Maximum +KLD: +{_FIGURE}$", re.MULTILINE),
    "Same top p": re.compile(rf"^Same top p: +{_FIGURE} ± +{_FIGURE} %$", re.MULTILINE),
}


def parse_divergence(text: str) -> Divergence:
    """Return the summary of llama-perplexity's ``--kl-divergence``.

    Raises:
        EngineFailed: A line is missing, there twice, or no number; it ends with 0 also where it failed.
    """
    found: dict[str, tuple[float, ...]] = {}
    for name, pattern in _KLD.items():
        matches = pattern.findall(text)
        if len(matches) != 1:
            raise strange(PERPLEXITY, f"has {len(matches) or 'no'} lines {name!r} with a figure", text)
        figures = matches[0] if isinstance(matches[0], tuple) else (matches[0],)
        found[name] = tuple(float(one) for one in figures)
    mean, top = found["Mean KLD"], found["Same top p"]
    if not 0 <= top[0] <= 100:
        raise strange(PERPLEXITY, f"has {top[0]} % of tokens with the same top", text)
    return Divergence(
        mean[0], mean[1], found["Median KLD"][0], found["Maximum KLD"][0], top[0] / 100, top[1] / 100
    )


_LOAD = re.compile(rf"load time = +{_FIGURE} ms")


def parse_load_s(log: str) -> float:
    """Return the seconds from the start of loading to the first evaluation, of a tool's log.

    Raises:
        EngineFailed: The log does not say.
    """
    found = _LOAD.findall(log)
    if not found:
        raise strange("llama.cpp", "has no load time", log)
    return float(found[-1]) / 1000


_TABLE = "memory breakdown [MiB]"
_DEVICE = re.compile(r"\| +- (\S+)[^|]*\|")
#: Own memory = weights + context + compute, of a device or of the host.
_OWN = re.compile(r"\b(\d+) = +(\d+) \+ +(\d+) \+ +(\d+)\b")


def parse_memory(log: str) -> tuple[DeviceMemory, ...]:
    """Return what each device held, from the table of memory at the end of a log; the host is ``Host``.

    Raises:
        EngineFailed: The log has no such table, or its sums do not come out.
    """
    found = []
    # A rehearsal of the same comes earlier, where the tool fits its settings to the memory.
    for line in log[max(0, log.rfind(_TABLE)) :].splitlines():
        device, own = _DEVICE.search(line), _OWN.search(line)
        if device is None or own is None:
            continue
        total, *parts = (float(one) for one in own.groups())
        # Each is rounded down by itself.
        if not 0 <= total - sum(parts) <= len(parts):
            raise strange("llama.cpp", f"has {own[0]} in its table of memory", line)
        found.append(DeviceMemory(device[1], *parts))
    if not found:
        raise strange("llama.cpp", "has no table of memory in its log", log)
    return tuple(found)


def _bench(row: dict[str, Any]) -> Bench:
    of = _checked(BENCH, row, _BENCH_READ, _BENCH_KNOWN)
    speeds, times_ns = of["samples_ts"], of["samples_ns"]
    if not speeds or len(speeds) != len(times_ns) or not all(_positive(one) for one in speeds + times_ns):
        raise strange(BENCH, f"has the samples {speeds!r} and {times_ns!r}", "")
    # The two say the same thing twice: where they do not, one has changed its meaning.
    tokens = of["n_prompt"] + of["n_gen"]
    if any(abs(speed * ns / 1e9 / tokens - 1) > 0.01 for speed, ns in zip(speeds, times_ns, strict=True)):
        raise strange(BENCH, f"did {tokens} tokens in {times_ns} ns at {speeds} tokens/s", "")
    return Bench(
        of["n_prompt"],
        of["n_gen"],
        tuple(map(float, speeds)),
        tuple(one / 1e9 for one in times_ns),
        of["n_threads"],
        of["n_gpu_layers"],
        of["split_mode"],
        of["main_gpu"],
        of["tensor_split"],
        of["model_size"],
        of["model_n_params"],
        f"b{of['build_number']} ({of['build_commit']})",
        of["gpu_info"],
        of["backends"],
    )


def _rows(tool: str, text: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON array, or of JSON lines."""
    try:
        if text.lstrip().startswith("["):
            found = json.loads(text)
        else:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise strange(tool, f"is no JSON: {error}", text) from None
    if not found or not all(isinstance(row, dict) for row in found):
        raise strange(tool, "has no lines of figures", text)
    rows: list[dict[str, Any]] = found
    return rows


def _checked(
    tool: str, row: dict[str, Any], read: Mapping[str, type], known: frozenset[str]
) -> dict[str, Any]:
    if missing := sorted(read.keys() - row.keys()):
        raise strange(tool, f"lacks {', '.join(missing)}", "")
    if unknown := sorted(row.keys() - read.keys() - known):
        raise strange(tool, f"has fields that are not known here: {', '.join(unknown)[:200]}", "")
    for name, kind in read.items():
        value = row[name]
        fine = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fine or isinstance(value, bool) or (kind is float and not math.isfinite(value)):
            raise strange(tool, f"has {value!r:.60} for {name}", "")
        if kind in (int, float) and name != "n_gpu_layers" and value < 0:
            raise strange(tool, f"has {value!r} for {name}", "")
    return {name: row[name] for name in read}


def _positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def strange(tool: str, what: str, text: str) -> EngineFailed:
    """Return the error that a tool's output is not what was expected: what of it, and the end of it."""
    return EngineFailed(
        f"{tool}'s output {what}",
        hint="This program knows other builds of llama.cpp than this one; try another.",
        log_tail="\n".join(text[-4000:].splitlines()[-20:]),
    )
