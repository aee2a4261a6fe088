"""What vLLM's log says of its own memory, rank by rank. Pure.

The sentences are those of 0.26 and 0.32, of the builds for GPUs and for CPUs. The two versions sum up the
same boot differently: 0.26 tells weights from what is outside torch, 0.32 gives both in one figure and adds
its estimate of the CUDA graphs to the activations. Both come out here as the same parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from subcortex.types import BootFigures, DeviceFigures

_GIB = 1024.0
#: vLLM rounds every figure to a hundredth of a GiB.
RESOLUTION_MIB = 0.01 * _GIB

_NUMBER = r"(-?\d+(?:\.\d+)?) ?"
_PROCESS = re.compile(r"^\((?P<process>[\w -]+?) pid=(?P<pid>\d+)\) ")
_RANK = re.compile(r"world_size=(?P<world>\d+) rank=(?P<rank>\d+) ")
_NAMED_RANK = re.compile(r"(?P<kind>TP|PP)(?P<number>\d+)")

_VERSION = re.compile(r"LLM engine \(v(?P<version>[^)]+)\) with config: ")
_TP = re.compile(r" tensor_parallel_size=(\d+)")
_CONTEXT = re.compile(r" max_seq_len=(\d+)")
_KV_DTYPE = re.compile(r" kv_cache_dtype=(\w+)")
_DEVICE = re.compile(r" device_config=(\w+)")
_CHUNKED = re.compile(r" enable_chunked_prefill=(\w+)")
_BATCHED = re.compile(r"Chunked prefill is (?P<on>enabled|disabled)(?: with max_num_batched_tokens=(\d+))?")
_BATCHED_BY_DEFAULT = re.compile(r"Defaulting max_num_batched_tokens to (\d+)")
_KV_TOKENS = re.compile(r"KV cache size: (\d[\d,]*) tokens")
_CONCURRENCY = re.compile(r"Maximum concurrency for [\d,]+ tokens per request: (\d+(?:\.\d+)?)x")

_WEIGHTS = re.compile(rf"Model loading took {_NUMBER}GiB")
_AVAILABLE_KV = re.compile(rf"Available KV cache memory: {_NUMBER}GiB")
_GRAPHS = re.compile(rf"Graph capturing finished in [\d.]+ secs, took {_NUMBER}GiB")
_GRAPHS_GUESSED = re.compile(rf"CUDA graph pool memory: [\d.]+ GiB \(actual\), {_NUMBER}GiB \(estimated\)")
_GUESS_APPLIED = "CUDA graph memory profiling is enabled"
_AT_START = re.compile(
    rf"Free memory on device (?:\S+ )?\({_NUMBER}/{_NUMBER}GiB\) on startup.*?"
    rf"GPU memory utilization (?:is )?\({_NUMBER}, {_NUMBER}GiB\)"
)
_USAGE_026 = re.compile(
    rf"Actual usage is {_NUMBER}GiB for weight, {_NUMBER}GiB for peak activation, "
    rf"{_NUMBER}GiB for non-torch memory, and {_NUMBER}GiB for CUDAGraph"
)
_USAGE_032 = re.compile(
    rf"Actual usage is {_NUMBER}GiB for consumed memory \(weights \+ non-torch\), "
    rf"{_NUMBER}GiB for peak activation, and {_NUMBER}GiB for CUDAGraph"
)
_KV_IN_USE = re.compile(rf"Current kv cache memory in use is {_NUMBER}GiB")
_KV_PINNED = re.compile(rf"Initial free memory {_NUMBER}GiB, reserved {_NUMBER}GiB memory for KV Cache")
_SNAPSHOT = re.compile(
    rf"worker init memory snapshot: .*?free_memory={_NUMBER}GiB, total_memory={_NUMBER}GiB"
)
_PROFILE_026 = re.compile(
    rf"torch peak memory increase: {_NUMBER}GiB; "
    rf"non-torch forward increase memory: {_NUMBER}GiB; weights memory: {_NUMBER}GiB"
)
_PROFILE_032 = re.compile(
    rf"Total non KV cache memory: {_NUMBER}GiB; torch peak memory increase: [-\d.]+GiB; "
    rf"total consumed \(from mem_get_info\): {_NUMBER}GiB; weights memory: {_NUMBER}GiB"
)
_CPU_KV = re.compile(rf"(Explicitly|Auto) set \({_NUMBER}/{_NUMBER}\) GiB for KV cache")
_CPU_TAKEN = re.compile(rf"{_NUMBER}GiB memory was consumed by non-kv")
_CPU_FREE = re.compile(rf"Available RAM: {_NUMBER}GiB")


@dataclass(slots=True)
class _Rank:
    """What one rank has said so far, GiB."""

    weights: float | None = None
    activations: float | None = None
    other: float | None = None
    #: Weights and what is outside torch in one figure (0.32).
    consumed: float | None = None
    graphs: float | None = None
    graphs_guessed: float = 0.0
    kv: float | None = None
    free: float | None = None
    total: float | None = None


@dataclass(slots=True)
class _Boot:
    """What all of them have said so far."""

    ranks: dict[int, _Rank] = field(default_factory=dict)
    rank_of_pid: dict[str, int] = field(default_factory=dict)
    tp: int = 1
    figures: dict[str, object] = field(default_factory=dict)
    guess_applied: bool = False
    kv_pinned: bool = False
    cpu: bool = False

    def rank(self, line: str) -> _Rank:
        """Return the rank that wrote a line; what has no rank of its own is the first's."""
        number = 0
        if found := _PROCESS.match(line):
            number = self.rank_of_pid.get(found["pid"], -1)
            if number < 0:
                named = {part["kind"]: int(part["number"]) for part in _NAMED_RANK.finditer(found["process"])}
                number = named.get("PP", 0) * self.tp + named.get("TP", 0)
        return self.ranks.setdefault(number, _Rank())


def read_boot(log_lines: Iterable[str]) -> BootFigures | None:
    """Return what a boot's log says of its memory, also of one that failed half way.

    Args:
        log_lines: The log in order. Figures that only ``VLLM_LOGGING_LEVEL=DEBUG`` shows are used where the
            summary at the end of the boot is missing.

    Returns:
        A device a rank in MiB (the CPU build: host memory, all ranks together); None if the log says
        nothing of memory.
    """
    boot = _Boot()
    for line in log_lines:
        _read_settings(boot, line)
        for pattern, take in _SENTENCES:
            if found := pattern.search(line):
                take(boot, boot.rank(line), found)
    ranks = [boot.ranks[number] for number in sorted(boot.ranks)]
    if boot.cpu:
        devices, host = [], _host(ranks)
    else:
        devices = [_device(number, boot.ranks[number], boot) for number in sorted(boot.ranks)]
        devices, host = [device for device in devices if _says(device)], None
    if not devices and host is None:
        return None
    return BootFigures.model_validate(
        {
            "engine": "vllm",
            "devices": devices,
            "host": host,
            "kv_pinned": boot.kv_pinned,
            "resolution_mib": RESOLUTION_MIB,
            **boot.figures,
        }
    )


def of_interest(line: str) -> bool:
    """Return whether ``read_boot`` could take anything from a line; progress bars are most of a log."""
    return "GiB" in line or "max_num_batched_tokens" in line or any(sign in line for sign in _SIGNS)


_SIGNS = ("LLM engine (v", "world_size=", "KV cache size", "Maximum concurrency", _GUESS_APPLIED)


def _read_settings(boot: _Boot, line: str) -> None:
    figures = boot.figures
    if found := _VERSION.search(line):
        figures["version"] = found["version"]
        if tp := _TP.search(line):
            boot.tp = int(tp[1])
        if context := _CONTEXT.search(line):
            figures["context_tokens"] = int(context[1])
        if dtype := _KV_DTYPE.search(line):
            figures["kv_dtype"] = dtype[1]
        if chunked := _CHUNKED.search(line):
            figures["chunked_prefill"] = chunked[1] == "True"
        if device := _DEVICE.search(line):
            boot.cpu = device[1] == "cpu"
    if (found := _RANK.search(line)) and (process := _PROCESS.match(line)):
        boot.rank_of_pid[process["pid"]] = int(found["rank"])
    if found := _BATCHED.search(line):
        figures["chunked_prefill"] = found["on"] == "enabled"
        if found[2]:
            figures["max_batched_tokens"] = int(found[2])
    if found := _BATCHED_BY_DEFAULT.search(line):
        figures.setdefault("max_batched_tokens", int(found[1]))
    if found := _KV_TOKENS.search(line):
        figures["kv_tokens"] = int(found[1].replace(",", ""))
    if found := _CONCURRENCY.search(line):
        figures["max_concurrency"] = float(found[1])
    if _GUESS_APPLIED in line:
        boot.guess_applied = True


def _take_weights(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.weights = float(found[1])


def _take_available(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.kv = float(found[1])


def _take_graphs(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.graphs = float(found[1])


def _take_guess(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.graphs_guessed = float(found[1])


def _take_start(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.free, rank.total = float(found[1]), float(found[2])
    boot.figures["gpu_memory_utilization"] = float(found[3])


def _take_usage_026(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.weights, rank.activations, rank.other, rank.graphs = (float(found[i]) for i in (1, 2, 3, 4))


def _take_usage_032(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.consumed, rank.graphs = float(found[1]), float(found[3])
    # The estimate of the graphs stands in this figure, and they are counted by themselves.
    guess = rank.graphs_guessed if boot.guess_applied else 0.0
    rank.activations = max(0.0, float(found[2]) - guess)


def _take_in_use(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.kv = float(found[1])


def _take_pinned(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.free, rank.kv = float(found[1]), float(found[2])
    boot.kv_pinned = True


def _take_snapshot(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.free, rank.total = float(found[1]), float(found[2])


def _take_profile_026(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.activations, rank.other, rank.weights = (float(found[i]) for i in (1, 2, 3))


def _take_profile_032(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    in_all, rank.consumed, rank.weights = (float(found[i]) for i in (1, 2, 3))
    rank.activations = max(0.0, in_all - rank.consumed)


def _take_cpu_kv(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    boot.cpu = True
    boot.kv_pinned = found[1] == "Explicitly"
    rank.kv, rank.total = float(found[2]), float(found[3])


def _take_cpu_taken(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    rank.other = float(found[1])


def _take_cpu_free(boot: _Boot, rank: _Rank, found: re.Match[str]) -> None:
    # Of host memory: a figure of a card, if one comes, is later and right.
    rank.free = float(found[1])


_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[_Boot, _Rank, re.Match[str]], None]], ...] = (
    (_WEIGHTS, _take_weights),
    (_AVAILABLE_KV, _take_available),
    (_GRAPHS, _take_graphs),
    (_GRAPHS_GUESSED, _take_guess),
    (_AT_START, _take_start),
    (_USAGE_026, _take_usage_026),
    (_USAGE_032, _take_usage_032),
    (_KV_IN_USE, _take_in_use),
    (_KV_PINNED, _take_pinned),
    (_SNAPSHOT, _take_snapshot),
    (_PROFILE_026, _take_profile_026),
    (_PROFILE_032, _take_profile_032),
    (_CPU_KV, _take_cpu_kv),
    (_CPU_TAKEN, _take_cpu_taken),
    (_CPU_FREE, _take_cpu_free),
)


def _device(number: int, rank: _Rank, boot: _Boot) -> DeviceFigures:
    other = rank.other
    if other is None and rank.consumed is not None and rank.weights is not None:
        other = max(0.0, rank.consumed - rank.weights)
    parts = {"weights": rank.weights, "activations": rank.activations, "graphs": rank.graphs}
    # What a host has free is said of the first rank alone, and is no figure of its card.
    card_known = rank.total is not None or boot.kv_pinned
    return DeviceFigures(
        device=f"GPU {number}",
        components={name: gib * _GIB for name, gib in parts.items() if gib is not None},
        other_mib=_mib(other),
        kv_pool_mib=_mib(rank.kv),
        free_at_start_mib=_mib(rank.free) if card_known else None,
        total_mib=_mib(rank.total),
    )


def _says(device: DeviceFigures) -> bool:
    return bool(device.components) or device.kv_pool_mib is not None or device.total_mib is not None


def _host(ranks: list[_Rank]) -> DeviceFigures | None:
    pools = [rank.kv for rank in ranks if rank.kv is not None]
    others = [rank.other for rank in ranks if rank.other is not None]
    if not pools:
        return None
    totals = [rank.total for rank in ranks if rank.total is not None]
    frees = [rank.free for rank in ranks if rank.free is not None]
    return DeviceFigures(
        device="CPU",
        kv_pool_mib=sum(pools) * _GIB,
        other_mib=sum(others) * _GIB if others else None,
        free_at_start_mib=_mib(min(frees)) if frees else None,
        total_mib=_mib(max(totals)) if totals else None,
    )


def _mib(gib: float | None) -> float | None:
    return None if gib is None else gib * _GIB
