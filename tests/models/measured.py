"""What llama.cpp itself says that a model takes: its own fit step over a file whose tensors are not loaded.

Works on `synthetic.py`'s files of any size, in milliseconds and without the memory (``no_alloc``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The process may end badly after the fit step (a server without weights); what is asked is printed before.
_CHILD = """
import json, resource, sys, xllamacpp
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
asked = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = asked.pop("path")
params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
for name, value in asked.items():
    if name in ("cache_type_k", "cache_type_v"):
        value = getattr(xllamacpp.ggml_type, value)
    setattr(params, name, value)
xllamacpp.Server(params)
"""
_ROW = re.compile(r"- (?P<device>\S+) +\|.*?(?P<model>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+) ")


@dataclass(frozen=True, slots=True)
class Measured:
    """MiB that llama.cpp reckons with on one device (``Host`` where there is no GPU)."""

    model_mib: int
    context_mib: int
    compute_mib: int


def llamacpp_memory(path: Path, **params: Any) -> dict[str, Measured]:
    """Device → what llama.cpp's fit step says, in whole MiB.

    Args:
        path: A GGUF file, see `synthetic.write_gguf_header`.
        params: Attributes of xllamacpp's CommonParams: ``n_ctx=4096``, ``n_parallel=1``, ``n_ubatch=512``,
            ``cache_type_k="GGML_TYPE_Q8_0"``, ``no_extra_bufts=False`` for the repacking that is off here.
    """
    asked = {
        "path": str(path), "no_alloc": True, "fit_params": True, "verbosity": 4, "warmup": False,
        "no_extra_bufts": True, "n_ctx": 4096, "n_parallel": 1,
    } | params  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, json.dumps(asked)],
        capture_output=True,
        timeout=120,
        check=False,
        text=True,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        stdin=subprocess.DEVNULL,
    )
    log = done.stdout + done.stderr
    found: dict[str, Measured] = {}
    for line in log.splitlines():
        if "common_memory_breakdown_print" in line and (row := _ROW.search(line)):
            sizes = (int(row[part]) for part in ("model", "context", "compute"))
            found.setdefault(row["device"], Measured(*sizes))
    if not found:
        raise AssertionError(f"llama.cpp said nothing of memory:\n{log[-2000:]}")
    return found
