"""How long `import subcortex` and `subcortex ps` take, as whole processes and inside one.

    python bench/import_time.py --json

``import_ms``: the import alone, inside a fresh interpreter. ``ps_ms``: the whole process of
``subcortex ps --json`` with a daemon up. Both medians; a bare interpreter is timed beside them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _bench import arguments, finish, machine, spread

_TIMED = "import time; t = time.perf_counter(); {}; print((time.perf_counter() - t) * 1e3)"
_IMPORT = _TIMED.format("import subcortex")
_THINK = _TIMED.format("from subcortex import think")
_CONFIG = """
[subcortex]
version = 1
[[tiers]]
name = "fast"
engine = "remote"
url = "http://127.0.0.1:9/v1"
model = "none"
start = "lazy"
"""


def inside(code: str, runs: int) -> list[float]:
    """Return what ``code`` printed, in milliseconds, from ``runs`` fresh interpreters."""
    command = [sys.executable, "-c", code]
    return [float(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(runs)]


def whole(command: list[str], env: dict[str, str], runs: int) -> list[float]:
    """Return how long ``command`` took as a process, in milliseconds, ``runs`` times."""
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run(command, env=env, capture_output=True, check=True)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=int, default=21)
    given = parser.parse_args()
    imports = inside(_IMPORT, given.runs)
    thinks = inside(_THINK, given.runs)
    with tempfile.TemporaryDirectory(prefix="sub-") as folder:
        config = Path(folder) / "config.toml"
        config.write_text(_CONFIG)
        env = {
            **os.environ,
            "SUBCORTEX_CONFIG": str(config),
            "SUBCORTEX_DAEMON__RUNTIME_DIR": folder,
            "SUBCORTEX_JOURNAL__DATABASE": f"{folder}/journal.db",
        }
        program = [sys.executable, "-m", "subcortex.cli"]
        subprocess.run([*program, "up"], env=env, check=True, capture_output=True)
        try:
            ps = whole([*program, "ps", "--json"], env, given.runs)
            ps_table = whole([*program, "ps"], env, given.runs)
        finally:
            subprocess.run([*program, "down"], env=env, check=True, capture_output=True)
    bare = whole([sys.executable, "-c", "pass"], dict(os.environ), given.runs)
    result = {
        "import_ms": round(statistics.median(imports), 1),
        "ps_ms": round(max(statistics.median(ps), statistics.median(ps_table)), 1),
        "think_import_ms": round(statistics.median(thinks), 1),
        "bare_interpreter_ms": round(statistics.median(bare), 1),
        "spread": {
            "import_ms": spread(imports),
            "ps_json_ms": spread(ps),
            "ps_table_ms": spread(ps_table),
            "think_import_ms": spread(thinks),
        },
        "machine": machine(),
    }
    finish(result, given.json)


if __name__ == "__main__":
    main()
