"""What vLLM's log says: how far the start is, what it measured, and why it failed. Pure.

The sentences are those of 0.26 and 0.32; a sentence that has changed is not recognised, never misread.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, SubcortexError

_PREFIX = re.compile(r"^\((?P<process>[\w ]+?) pid=\d+\) ")
_SHARDS = re.compile(r"Loading \w+ checkpoint shards:\s+(?P<percent>\d+)%")
_GRAPHS = re.compile(r"Capturing CUDA graphs? ?(?:\((?P<kind>[^)]*)\))?:\s+(?P<percent>\d+)%")
_LOADED = re.compile(r"Model loading took (?P<gib>[\d.]+) GiB")
_KV_MEMORY = re.compile(r"Available KV cache memory: (?P<gib>[-\d.]+) GiB")
_KV_TOKENS = re.compile(r"(?:GPU|CPU) KV cache size: (?P<tokens>[\d,]+) tokens")
_STAGES = (
    ("Resolved architecture", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Loading model from scratch", "loading weights"),
    ("Starting to load model", "loading weights"),
    ("Dynamo bytecode transform", "compiling"),
    ("Compiling a graph", "compiling"),
    ("torch.compile took", "compiled; profiling memory"),
    ("Initial profiling", "profiling memory"),
    ("Graph capturing finished", "CUDA graphs captured"),
    ("Starting vLLM", "opening the socket"),
    ("Application startup complete", "started"),
)

_GIB = r"(?P<{}>-?[\d.]+) ?GiB"
_UTILISATION = re.compile(
    rf"Free memory on device (?P<device>\S+)? ?\((?P<free>[\d.]+)/{_GIB.format('total')}\) on startup "
    rf"is less than desired GPU memory utilization \((?P<share>[\d.]+), {_GIB.format('wanted')}\)"
)
_KV_TOO_SMALL = re.compile(
    rf"max(?:imum)? (?:seq|model) len(?:gth)? \((?P<context>\d+)\), "
    rf"\(?{_GIB.format('needed')} KV cache is needed, "
    rf"which is larger than the available KV cache memory \({_GIB.format('available')}\)"
)
_LARGEST_CONTEXT = re.compile(r"estimated maximum model length is (?P<context>\d+)")
_NO_BLOCKS = re.compile(r"No available memory for the cache blocks")
_CUDA_OOM = re.compile(
    r"Tried to allocate (?P<size>[\d.]+) (?P<unit>[KMG]iB)\.(?: GPU (?P<gpu>\d+) has a total capacity of "
    r"(?P<total>[\d.]+) GiB of which (?P<free>[\d.]+) (?P<free_unit>[KMG]iB) is free)?"
)
_ANY_OOM = re.compile(
    r"CUDA out of memory|torch\.OutOfMemoryError|DefaultCPUAllocator: can't allocate memory"
)
_HEADS = re.compile(
    r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by [^(]*\((?P<tp>\d+)\)"
)
_DIVISIBLE = re.compile(
    r"(?:ValueError|AssertionError)[^\n]*?(?P<what>[^\n:]*(?:must be|is not) divisible by [^\n]*)"
)
_ARGUMENT = re.compile(r"error: (?P<what>(?:unrecognized arguments|argument --?|ambiguous option)[^\n]*)")
_CONTEXT_TOO_LONG = re.compile(
    r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
    r"\([^=]*=(?P<derived>[\d.]+)"
)
_REMOTE_CODE = re.compile(r"trust_remote_code=True|contains custom code which must be executed")
_WORLD_SIZE = re.compile(
    r"World size \((?P<world>\d+)\) is larger than the number of available GPUs \((?P<gpus>\d+)\)"
)
_NO_DEVICE = re.compile(r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver")
_RAISED = re.compile(
    r"^(?:ERROR [\d-]+ [\d:]+ \[[\w.]+:\d+\] )?(?P<kind>[A-Za-z_][\w.]*(?:Error|Exception)): (?P<what>.+)"
)
_CAUSE_CHARS = 500
_IN_GIB = {"KiB": 1 / 1024**2, "MiB": 1 / 1024, "GiB": 1.0}


def progress(line: str) -> str | None:
    """Return the stage of the start that ``line`` shows, None if it shows none."""
    if found := _SHARDS.search(line):
        return f"loading weights: {found['percent']} %"
    if found := _GRAPHS.search(line):
        return f"capturing CUDA graphs: {found['percent']} %"
    if found := _LOADED.search(line):
        return f"weights loaded, {float(found['gib']):.1f} GiB a GPU"
    if found := _KV_MEMORY.search(line):
        return f"{float(found['gib']):.1f} GiB left for the KV cache"
    if found := _KV_TOKENS.search(line):
        return f"KV cache of {found['tokens']} tokens"
    return next((text for sign, text in _STAGES if sign in line), None)


def diagnosis(log: str, *, tier: str, model: str) -> SubcortexError | None:
    """Return the error that the log of a failed start shows, None if none is known."""
    log = "\n".join(_PREFIX.sub("", line) for line in log.splitlines())
    for known in _KNOWN:
        if (error := known(log, f"tier {tier!r}", model)) is not None:
            error.details.setdefault("log_tail", "\n".join(log.splitlines()[-20:]))
            return error
    if cause := _cause(log):
        return EngineFailed(
            f"vllm could not start {model}: {cause}",
            hint="`subcortex logs` shows what led to it.",
            log_tail="\n".join(log.splitlines()[-20:]),
        )
    return None


def _cause(log: str) -> str | None:
    """Return the first error that a traceback ends in; those after it are its echoes."""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if found := _RAISED.search(line):
            said = found["what"].strip()
            if found["kind"].endswith("ValidationError") and number + 1 < len(lines):
                said = lines[number + 1].strip().removeprefix("Value error, ")
            return said[:_CAUSE_CHARS]
    return None


def _utilisation(log: str, tier: str, model: str) -> SubcortexError | None:
    if not (found := _UTILISATION.search(log)):
        return None
    free, total, wanted = float(found["free"]), float(found["total"]), float(found["wanted"])
    where = found["device"] or "the GPU"
    # A hundredth below what is free: the snapshot is taken again at the next start.
    possible = max(0.0, int(free / total * 100 - 1) / 100)
    return DoesNotFit(
        f"{model} does not fit on {where}: it was to take {wanted:g} GiB and {free:g} of {total:g} GiB "
        f"are free ({wanted - free:.2f} GiB short)",
        hint=f"Set gpu_memory_utilization to {possible:g} or less, or end what else holds memory there.",
        device=where,
        needed_gib=wanted,
        available_gib=free,
        short_gib=round(wanted - free, 2),
        utilization=float(found["share"]),
        possible_utilization=possible,
    )


def _kv_too_small(log: str, tier: str, model: str) -> SubcortexError | None:
    if not (found := _KV_TOO_SMALL.search(log)):
        return None
    needed, available = float(found["needed"]), float(found["available"])
    largest = _LARGEST_CONTEXT.search(log)
    hint = f"Set context_tokens to {largest['context']} or less" if largest else "Lower context_tokens"
    return DoesNotFit(
        f"{model}: one request of {found['context']} tokens needs {needed:g} GiB of KV cache and "
        f"{available:g} GiB are left for it ({needed - available:.2f} GiB short)",
        hint=f"{hint}, or raise gpu_memory_utilization.",
        needed_gib=needed,
        available_gib=available,
        short_gib=round(needed - available, 2),
        context_tokens=int(found["context"]),
        largest_context_tokens=int(largest["context"]) if largest else None,
    )


def _no_blocks(log: str, tier: str, model: str) -> SubcortexError | None:
    if not _NO_BLOCKS.search(log):
        return None
    left = _KV_MEMORY.search(log)
    loaded = _LOADED.search(log)
    weights = f"; the weights alone take {float(loaded['gib']):g} GiB a GPU" if loaded else ""
    short = f" ({left['gib']} GiB)" if left else ""
    return DoesNotFit(
        f"{model}: nothing is left for the KV cache{short}{weights}",
        hint="Raise gpu_memory_utilization, split over more GPUs, or take a smaller quantisation.",
        available_gib=float(left["gib"]) if left else None,
        weights_gib=float(loaded["gib"]) if loaded else None,
    )


def _out_of_memory(log: str, tier: str, model: str) -> SubcortexError | None:
    found = _CUDA_OOM.search(log)
    if not found and not _ANY_OOM.search(log):
        return None
    hint = "Lower gpu_memory_utilization or context_tokens, split over more GPUs, or quantise."
    if not found:
        return DoesNotFit(f"{model} does not fit: memory ran out while it loaded", hint=hint)
    asked = float(found["size"]) * _IN_GIB[found["unit"]]
    free = float(found["free"]) * _IN_GIB[found["free_unit"]] if found["free"] else None
    gpu = int(found["gpu"]) if found["gpu"] else None
    where = "the GPU" if gpu is None else f"GPU {gpu}"
    rest = "" if free is None else f" and {free:.2f} GiB were free"
    return DoesNotFit(
        f"{model} does not fit on {where}: it asked for another {asked:.2f} GiB{rest}",
        hint=hint,
        gpu=gpu,
        needed_gib=asked,
        available_gib=free,
    )


def _indivisible(log: str, tier: str, model: str) -> SubcortexError | None:
    if found := _HEADS.search(log):
        heads = int(found["heads"])
        sizes = [size for size in (1, 2, 4, 8) if heads % size == 0]
        return ConfigError(
            f"{tier}: {heads} attention heads cannot be split over {found['tp']} GPUs",
            hint=f"Set tensor_parallel_size to one of {', '.join(map(str, sizes))}.",
            key="tensor_parallel_size",
        )
    if found := _DIVISIBLE.search(log):
        return ConfigError(
            f"{tier}: {model} cannot be split so: {found['what'].strip()}",
            hint="Lower tensor_parallel_size; group-quantised weights may allow 1 alone.",
            key="tensor_parallel_size",
        )
    return None


def _argument(log: str, tier: str, model: str) -> SubcortexError | None:
    if not (found := _ARGUMENT.search(log)):
        return None
    return ConfigError(
        f"{tier}: vLLM does not take its arguments: {found['what'].strip()}",
        hint="Check flags against the version installed (`vllm serve --help`).",
        key="flags",
    )


def _context_too_long(log: str, tier: str, model: str) -> SubcortexError | None:
    if not (found := _CONTEXT_TOO_LONG.search(log)):
        return None
    derived = int(float(found["derived"]))
    return ConfigError(
        f"{tier}: context_tokens is {found['asked']} and {model} was trained for {derived}",
        hint=f"Set context_tokens to {derived} or less.",
        key="context_tokens",
    )


def _remote_code(log: str, tier: str, model: str) -> SubcortexError | None:
    if "Error" not in log or not _REMOTE_CODE.search(log):
        return None
    return ConfigError(
        f"{tier}: {model} brings code of its own and was not allowed to run it",
        hint="Read that code; if you trust it, set trust_remote_code = true in this tier.",
        key="trust_remote_code",
    )


def _devices(log: str, tier: str, model: str) -> SubcortexError | None:
    if found := _WORLD_SIZE.search(log):
        return ConfigError(
            f"{tier}: it is to use {found['world']} GPUs and sees {found['gpus']}",
            hint="Check gpus, tensor_parallel_size and pipeline_parallel_size of the tier.",
            key="tensor_parallel_size",
        )
    if _NO_DEVICE.search(log):
        return ConfigError(
            f"{tier}: vLLM finds no GPU it can use",
            hint="Check `nvidia-smi` and gpus of the tier; `subcortex doctor` compares driver and CUDA.",
            key="gpus",
        )
    return None


def _no_sleep(log: str, tier: str, model: str) -> SubcortexError | None:
    if "Sleep mode is not supported on current platform" not in log:
        return None
    return ConfigError(
        f"{tier}: vLLM cannot put a model to sleep on this hardware",
        hint="Drop sleep_mode and --enable-sleep-mode from the tier; it needs GPUs.",
        key="sleep_mode",
    )


_KNOWN: tuple[Callable[[str, str, str], SubcortexError | None], ...] = (
    _argument,
    _utilisation,
    _kv_too_small,
    _no_blocks,
    _indivisible,
    _context_too_long,
    _devices,
    _no_sleep,
    _out_of_memory,
    _remote_code,
)
