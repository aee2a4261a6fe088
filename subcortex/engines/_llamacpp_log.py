"""What llama.cpp's log says: how far the start is, and why it failed. Pure."""

from __future__ import annotations

import re

from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, SubcortexError

_MIB = 1024 * 1024

_PROGRESS = (
    ("loading model", "loading weights"),
    ("load_tensors", "loading weights"),
    ("llama_context", "making the KV cache"),
    ("warming up", "warming up"),
    ("model loaded", "loaded"),
)
_UNKNOWN_FLAG = re.compile(r"unknown flag (?P<flag>\S+):? ?(?P<why>.*)|invalid argument: (?P<other>\S+)")
_CUDA_ALLOC = re.compile(r"allocating (?P<mib>[\d.]+) MiB on device (?P<gpu>\d+): cudaMalloc failed")
_BUFFER_ALLOC = re.compile(r"failed to allocate (?:(?P<device>\w+) )?buffer of size (?P<bytes>\d+)")
_OUT_OF_MEMORY = re.compile(r"out of memory|cannot allocate memory|std::bad_alloc", re.IGNORECASE)
_FIRST_ERROR = re.compile(r"^[\d.]+ E \s*(?:\w+ +)?\w+: (?P<what>[^\n]+)", re.MULTILINE)
_BROKEN_FILE = re.compile(
    r"(?:tensor '[^']*' data is not within the file bounds|unknown model architecture|"
    r"failed to load model|error loading model|invalid magic|failed to read)[^\n]*"
)


def progress(line: str) -> str | None:
    """Return the stage of the start that ``line`` shows, None if it shows none."""
    return next((text for sign, text in _PROGRESS if sign in line), None)


def diagnosis(log: str, *, tier: str, model: str) -> SubcortexError | None:
    """Return the error that the log of a failed start shows, None if none is known."""
    tail = "\n".join(log.splitlines()[-20:])
    if found := _UNKNOWN_FLAG.search(log):
        flag = found["flag"] or found["other"]
        return ConfigError(
            f"tier {tier!r}: llama.cpp does not take the flag {flag} {found['why'] or ''}".rstrip(),
            hint="Flags are llama-server's; the embedded one takes those that set a value in CommonParams.",
            key="flags",
            log_tail=tail,
        )
    needed_mib, where, gpu = None, "memory", None
    if found := _CUDA_ALLOC.search(log):
        needed_mib, gpu = float(found["mib"]), int(found["gpu"])
        where = f"GPU {gpu}"
    elif found := _BUFFER_ALLOC.search(log):
        needed_mib, where = int(found["bytes"]) / _MIB, found["device"] or "memory"
    if needed_mib is not None or _OUT_OF_MEMORY.search(log):
        size = f"{needed_mib / 1024:.2f} GiB more than there is" if needed_mib is not None else "more memory"
        return DoesNotFit(
            f"{model} does not fit: it asked for {size} on {where}"
            if needed_mib is None
            else f"{model} does not fit: a buffer of {needed_mib / 1024:.2f} GiB could not be had on {where}",
            hint="Lower context_tokens or parallel, lower gpu_layers, or take a smaller quantisation.",
            needed_gib=None if needed_mib is None else needed_mib / 1024,
            gpu=gpu,
            log_tail=tail,
        )
    if found := _BROKEN_FILE.search(log):
        return ConfigError(
            f"tier {tier!r}: llama.cpp cannot load {model}: {found[0].strip()}",
            hint="The file may be cut short or too new for this llama.cpp; compare its size with its source.",
            key="model",
            log_tail=tail,
        )
    if found := _FIRST_ERROR.search(log):
        return EngineFailed(
            f"llama.cpp could not start {model}: {found['what'].strip()}",
            hint="`subcortex logs` shows what led to it.",
            log_tail=tail,
        )
    return None
