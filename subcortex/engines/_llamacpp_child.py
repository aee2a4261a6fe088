"""The embedded llama.cpp server: run as a script in a process of its own, never imported.

Takes one argument, a JSON object: ``set`` are attributes of xllamacpp's ``CommonParams`` (dots allowed)
and ``flags`` what the user adds in llama-server's spelling; ``verbosity_once_up`` is the log's from then on.
Exits with code 64 at a flag it does not know.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any, NoReturn

_BAD_FLAG_EXIT = 64
#: llama-server's spelling where it is not the attribute's own name.
_ALIASES = {
    "batch_size": "n_batch",
    "cache_ram": "cache_ram_mib",
    "ctx_size": "n_ctx",
    "flash_attn": "flash_attn_type",
    "gpu_layers": "n_gpu_layers",
    "parallel": "n_parallel",
    "predict": "n_predict",
    "temp": "sampling.temp",
    "threads": "cpuparams.n_threads",
    "threads_batch": "cpuparams_batch.n_threads",
    "threads_http": "n_threads_http",
    "top_k": "sampling.top_k",
    "top_p": "sampling.top_p",
    "ubatch_size": "n_ubatch",
}
#: Set where the installed release has them; nothing depends on them.
_NICETIES = {"cache_ram_mib", "endpoint_metrics", "ui", "verbosity"}
_CACHE_TYPES = {"cache_type_k", "cache_type_v"}


def _main() -> None:
    import xllamacpp

    asked = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    socket = asked["socket"]
    # The attribute's name changed between releases.
    if hasattr(params, "hostnames"):
        params.hostnames = [socket]
    else:
        params.hostname = socket
    for name, value in asked["set"].items():
        if name not in _NICETIES or hasattr(params, name):
            _set(xllamacpp, params, name, value)
    for name, value in _pairs(asked["flags"]):
        try:
            _set(xllamacpp, params, name, value)
        except (AttributeError, TypeError, ValueError, KeyError) as error:
            _refuse(f"--{name.replace('_', '-')}", error)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        # What went wrong stands above in the log; a traceback would only push it out of sight.
        sys.exit(f"llama.cpp did not start: {error}")
    if asked.get("verbosity_once_up") is not None:
        _be_quieter(xllamacpp, asked["verbosity_once_up"])
    # The server's threads do the work. Some releases take these signals over and then never end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while server is not None:
        signal.pause()


def _be_quieter(xllamacpp: Any, verbosity: int) -> None:
    """Set the log's verbosity of the running server; its Python face has no way to."""
    import ctypes

    try:
        library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        library._Z30common_log_set_verbosity_tholdi(ctypes.c_int(verbosity))
    except (AttributeError, OSError):
        return  # a release that hides it logs more lines a request


def _pairs(flags: list[str]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for flag in flags:
        if flag.startswith("--"):
            name, equals, value = flag[2:].partition("=")
            pairs.append((name.replace("-", "_"), value if equals else True))
        elif pairs and pairs[-1][1] is True:
            pairs[-1] = (pairs[-1][0], flag)
        else:
            _refuse(flag, ValueError("a value without a flag"))
    return pairs


def _set(xllamacpp: Any, params: Any, name: str, value: Any) -> None:
    if name.startswith("no_") and value is True and not hasattr(params, name):
        name, value = name[3:], False
    *path, last = _ALIASES.get(name, name).split(".")
    for part in path:
        params = getattr(params, part)
    now = getattr(params, last)
    if last == "tensor_split":
        shares = [float(share) for share in (value.split(",") if isinstance(value, str) else value)]
        value = shares + [0.0] * (len(now) - len(shares))
    elif last in _CACHE_TYPES:
        value = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{value.upper()}")
    elif hasattr(type(now), "__members__"):
        value = _member(type(now), str(value))
    elif isinstance(now, bool):
        value = value is True or str(value).lower() in ("1", "true", "on")
    elif isinstance(now, (int, float)):
        value = type(now)(value)
    elif isinstance(now, set):
        value = {str(value)}
    setattr(params, last, value)


def _member(enumeration: Any, word: str) -> Any:
    wanted = {"ON": "ENABLED", "OFF": "DISABLED", "TRUE": "ENABLED"}.get(word.upper(), word.upper())
    for name, member in enumeration.__members__.items():
        if name == wanted or name.endswith(f"_{wanted}"):
            return member
    raise ValueError(f"one of {', '.join(enumeration.__members__)}")


def _refuse(flag: str, error: Exception) -> NoReturn:
    print(f"unknown flag {flag}: {error}", file=sys.stderr, flush=True)
    sys.exit(_BAD_FLAG_EXIT)


if __name__ == "__main__":
    _main()
