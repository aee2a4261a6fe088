"""Start an engine on a model folder and stop it again: no more than measuring accuracy needs.

Apart from `subcortex.engines` on purpose: the figures in the model card are the engines' own.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SERVE = """
import sys, threading
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
params.n_parallel, params.n_ctx, params.cpuparams.n_threads = slots, 1024 * slots, 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def post(url: str, body: dict[str, Any], timeout_s: float = 300.0) -> dict[str, Any]:
    """POST JSON, and read JSON back."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ready(base_url: str, process: "subprocess.Popen[str]", limit_s: float) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the engine ended with {process.returncode} before it answered")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(base_url + "/models", timeout=5).close()
            return
        time.sleep(0.1)
    raise TimeoutError(f"the engine did not answer in {limit_s:.0f} s")


def _end(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def llama_cpp(gguf: Path, slots: int = 4) -> Iterator[str]:
    """llama.cpp (xllamacpp in a child process) on a GGUF file; gives the base URL, `/v1` included."""
    port = _free_port()
    command = [sys.executable, "-c", _SERVE, str(gguf), str(port), str(slots)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        _ready(base_url, process, 60)
        yield base_url
    finally:
        _end(process)


@contextlib.contextmanager
def vllm(python: str, folder: Path, tensor_parallel: int, log: Path) -> Iterator[str]:
    """vLLM on the CPU, in the environment of interpreter `python`, on a model folder; gives the base URL."""
    port = _free_port()
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--port",
        str(port),
    ]
    command += [
        "--served-model-name",
        folder.name,
        "--max-model-len",
        "1024",
        "--max-num-seqs",
        "16",
        "--enforce-eager",
    ]
    command += ["--tensor-parallel-size", str(tensor_parallel)]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "0|1" if tensor_parallel == 2 else "0",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
        )
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        _ready(base_url, process, 400)
        yield base_url
    finally:
        _end(process)
