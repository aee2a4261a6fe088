"""What llama.cpp's log says of its buffers, device by device. Pure.

It lists them at verbosity 4 (before May 2026: always): one line a buffer, in MiB to a hundredth.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from subcortex.types import BootFigures, DeviceFigures

#: Verbosity from which on llama.cpp lists its buffers, and the one it has by itself.
BUFFERS_VERBOSITY, USUAL_VERBOSITY = 4, 3
RESOLUTION_MIB = 0.01

_BUFFER = re.compile(
    r": +(?P<device>[\w()]+) +(?P<what>model|KV|RS|compute|output) buffer size *= *(?P<mib>\d+(?:\.\d+)?) MiB"
)
_PART = {"model": "weights", "KV": "kv", "RS": "kv", "compute": "activations", "output": "activations"}
_CACHE = re.compile(r"llama_kv_cache: size = .*?\( *(\d+) cells, .*?(?:\d+/ *(\d+) seqs)?\), K \((\w+)\)")
_CONTEXT = re.compile(r"n_ctx_seq +(?:\(per seq\) )?= (\d+)")
_MICRO_BATCH = re.compile(r"n_ubatch += (\d+)")
_MEMORY = re.compile(r"- (?P<device>\w+) *: .*\((?P<total>\d+) MiB, (?P<free>\d+) MiB free\)")
#: Before the load it may lay out the same buffers without having them, to see what fits.
_REHEARSED = re.compile(r"fitting params to free memory took")
_HOST = re.compile(r"^(?:CPU\w*|Host|\w+_Host|BLAS)$")


def read_boot(log_lines: Iterable[str]) -> BootFigures | None:
    """Return what a boot's log says of its memory; None if it lists no buffer.

    Buffers of rows split over GPUs count with their GPU; pinned host buffers (``CUDA_Host``) with the host.
    Weights that are pages of the mapped file are ``mapped``, not ``weights``: the system may drop them.
    """
    parts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    memory: dict[str, tuple[float, float]] = {}
    cells: list[int] = []
    figures: dict[str, object] = {}
    for line in log_lines:
        if found := _BUFFER.search(line):
            device = "CPU" if _HOST.match(found["device"]) else found["device"].removesuffix("_Split")
            mapped = found["device"].endswith("_Mapped")
            parts[device]["mapped" if mapped else _PART[found["what"]]] += float(found["mib"])
        elif found := _CACHE.search(line):
            cells.append(int(found[1]) * int(found[2] or 1))
            figures["kv_dtype"] = found[3]
        elif found := _CONTEXT.search(line):
            figures["context_tokens"] = int(found[1])
        elif found := _MICRO_BATCH.search(line):
            figures["max_batched_tokens"] = int(found[1])
        elif found := _MEMORY.search(line):
            memory[found["device"]] = float(found["total"]), float(found["free"])
        elif _REHEARSED.search(line):
            parts.clear()
            cells.clear()
    if not parts:
        return None
    # Of models with windowed layers there are several caches; the longest holds whole requests.
    if cells:
        figures["kv_tokens"] = max(cells)
    devices = [_device(name, parts[name], memory.get(name)) for name in sorted(parts) if name != "CPU"]
    host = _device("CPU", parts["CPU"], memory.get("CPU")) if "CPU" in parts else None
    return BootFigures.model_validate(
        {
            "engine": "llama.cpp",
            "devices": devices,
            "host": host,
            "resolution_mib": RESOLUTION_MIB,
            **figures,
        }
    )


def of_interest(line: str) -> bool:
    """Return whether ``read_boot`` could take anything from a line."""
    return "MiB" in line or "n_ctx_seq" in line or "n_ubatch" in line or "fitting params" in line


def _device(name: str, parts: dict[str, float], memory: tuple[float, float] | None) -> DeviceFigures:
    total, free = memory or (None, None)
    return DeviceFigures(
        device=name,
        components={part: round(mib, 2) for part, mib in parts.items() if part != "kv"},
        kv_pool_mib=round(parts["kv"], 2) if "kv" in parts else None,
        free_at_start_mib=free,
        total_mib=total,
    )
