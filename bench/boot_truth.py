"""Boot real shapes with random weights on this machine's GPUs and write down what vLLM measured of itself.

    python bench/boot_truth.py --models bench/shapes --jobs JOBS.json --out DIR [--limit-s 560]

JOBS.json is a list of ``{"model", "tp", "pp", "utilization", "flags", "sleep", "probe"}``; boots run side by
side on GPUs that are free, each alone on its own. DIR gets ``boots.jsonl`` (a line a boot: readings of
nvidia-smi at every stage) and ``logs/`` (vLLM's own words, at DEBUG). ``--device cpu`` rehearses on a machine
without GPUs. Standard library alone, so that it runs where only vLLM is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from dummy_models import write_tokenizer

_READY = re.compile(r"init engine \(profile")
_FAILED = re.compile(r"Engine core initialization failed|raise RuntimeError\(|error: unrecognized arguments")
_TOKENIZER_TOKENS = 512
_POLL_S = 0.5
_EMPTY_MIB = 1500


def nvidia_smi(query: str) -> list[str]:
    """Return the lines that nvidia-smi answers to a query; none on a machine without it."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return found.stdout.splitlines() if found.returncode == 0 else []


def used_mib() -> list[int]:
    """Return the memory in use of every GPU, MiB."""
    return [int(line) for line in nvidia_smi("--query-gpu=memory.used")]


def post(port: int, path: str, body: dict[str, Any] | None = None, limit_s: float = 60) -> Any:
    """Ask the server; None if it refuses or is silent."""
    data = json.dumps(body).encode() if body is not None else b""
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=limit_s) as answer:
            text = answer.read()
            return json.loads(text) if text else {}
    except (OSError, ValueError):
        return None


def healthy(port: int) -> bool:
    """Return whether the server answers its health route."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


class Bench:
    """The machine's GPUs, shared out to boots."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.out = Path(args.out)
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        self.work = Path(args.work)
        self.ends_s = time.monotonic() + args.limit_s
        self.lock = threading.Lock()
        self.freed = threading.Condition(self.lock)
        self.free = list(range(len(used_mib()))) or list(range(args.lanes))

    def run(self, jobs: list[dict[str, Any]]) -> None:
        """Boot every job, as many at once as there are GPUs for."""
        threads = []
        for number, job in enumerate(jobs):
            gpus = self._take(job.get("tp", 1) * job.get("pp", 1))
            if gpus is None:
                self._write({"job": job, "number": number, "outcome": "no time"})
                continue
            thread = threading.Thread(target=self._boot_and_free, args=(number, job, gpus))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _take(self, count: int) -> list[int] | None:
        with self.freed:
            while len(self.free) < count:
                left_s = self.ends_s - self.args.boot_s - time.monotonic()
                if left_s <= 0:
                    return None
                self.freed.wait(left_s)
            if time.monotonic() > self.ends_s - self.args.boot_s:
                return None
            taken, self.free = self.free[:count], self.free[count:]
            return taken

    def _boot_and_free(self, number: int, job: dict[str, Any], gpus: list[int]) -> None:
        try:
            self._write(self._boot(number, job, gpus))
        finally:
            with self.freed:
                self.free = sorted([*self.free, *gpus])
                self.freed.notify_all()

    def _boot(self, number: int, job: dict[str, Any], gpus: list[int]) -> dict[str, Any]:
        stages = f"-pp{job['pp']}" if job.get("pp") else ""
        name = f"{number:02d}-{job['model']}-tp{job.get('tp', 1)}{stages}"
        log = self.out / "logs" / f"{name}.log"
        port = 18100 + number
        command = self._command(job, self._folder(job["model"]), port)
        record: dict[str, Any] = {"job": job, "number": number, "gpus": gpus, "command": command[1:]}
        record["before_mib"] = self._reading(gpus)
        began_s = time.monotonic()
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, env=self._env(gpus), start_new_session=True
            )
        try:
            record["outcome"] = self._until_ready(process, log)
            record["boot_s"] = round(time.monotonic() - began_s, 1)
            record["used_mib"] = self._reading(gpus)
            record["processes"] = nvidia_smi("--query-compute-apps=gpu_uuid,pid,used_memory")
            if record["outcome"] == "ready":
                self._after(job, port, gpus, process, record)
        finally:
            self._end(process, gpus)
        return record

    def _after(
        self,
        job: dict[str, Any],
        port: int,
        gpus: list[int],
        process: subprocess.Popen[bytes],
        record: dict[str, Any],
    ) -> None:
        """Serve one long prompt, then sleep and wake, where the job asks for it."""
        if not (job.get("sleep") or job.get("probe")):
            return
        until_s = time.monotonic() + 30
        while not healthy(port) and process.poll() is None and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        if job.get("probe"):
            prompt = [7 + i % 400 for i in range(job["probe"])]
            said = post(port, "/v1/completions", {"model": "m", "prompt": prompt, "max_tokens": 4})
            record["probed"] = said is not None
            record["probed_mib"] = self._reading(gpus)
        if job.get("sleep"):
            began_s = time.monotonic()
            post(port, "/sleep?level=1", limit_s=90)
            record["sleep_s"] = round(time.monotonic() - began_s, 2)
            time.sleep(1)
            record["asleep_mib"] = self._reading(gpus)
            began_s = time.monotonic()
            post(port, "/wake_up", limit_s=60)
            record["wake_s"] = round(time.monotonic() - began_s, 2)
            record["awake_mib"] = self._reading(gpus)

    def _reading(self, gpus: list[int]) -> list[int]:
        used = used_mib()
        return [used[gpu] for gpu in gpus if gpu < len(used)]

    def _until_ready(self, process: subprocess.Popen[bytes], log: Path) -> str:
        while time.monotonic() < self.ends_s:
            text = log.read_text("utf-8", errors="replace")
            if _READY.search(text):
                time.sleep(1)
                return "ready"
            if process.poll() is not None or _FAILED.search(text):
                return "failed"
            time.sleep(_POLL_S)
        return "no time"

    def _end(self, process: subprocess.Popen[bytes], gpus: list[int]) -> None:
        """End the whole process group and wait until the driver has the memory back."""
        for _ in range(3):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                break
            time.sleep(0.3)
        process.wait()
        until_s = time.monotonic() + 30
        while any(mib > _EMPTY_MIB for mib in self._reading(gpus)) and time.monotonic() < until_s:
            time.sleep(_POLL_S)

    def _folder(self, name: str) -> Path:
        """Return a folder to serve: the shape's config and a tokenizer of our own."""
        folder = self.work / "models" / name
        with self.lock:
            if not (folder / "tokenizer.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(self.args.models) / name / "config.json", folder)
                write_tokenizer(folder, _TOKENIZER_TOKENS)
        return folder

    def _command(self, job: dict[str, Any], folder: Path, port: int) -> list[str]:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        command += ["--served-model-name", "m", "--load-format", "dummy"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--max-model-len", str(job.get("context", 8192))]
        command += ["--tensor-parallel-size", str(job.get("tp", 1))]
        if job.get("pp"):
            command += ["--pipeline-parallel-size", str(job["pp"])]
        if self.args.device == "gpu":
            command += ["--gpu-memory-utilization", str(job.get("utilization", 0.6))]
            if job.get("sleep_mode", True):
                command += ["--enable-sleep-mode"]
        return command + list(job.get("flags", []))

    def _env(self, gpus: list[int]) -> dict[str, str]:
        env = os.environ | {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_SERVER_DEV_MODE": "1"}
        env |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        if self.args.device == "gpu":
            return env | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus))}
        return env | {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}

    def _write(self, record: dict[str, Any]) -> None:
        with self.lock, (self.out / "boots.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(record["number"], record["job"]["model"], record["outcome"], record.get("boot_s"), flush=True)


def main() -> None:
    """Read the jobs and boot them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", required=True, help="one folder a model with its config.json")
    parser.add_argument("--jobs", required=True, help="JSON list of boots")
    parser.add_argument("--out", required=True, help="where the readings go")
    parser.add_argument("--work", default="/tmp/boot-truth", help="scratch folder")
    parser.add_argument("--limit-s", type=float, default=560, help="start nothing that would end later")
    parser.add_argument("--boot-s", type=float, default=75, help="seconds a boot takes at least")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--lanes", type=int, default=1, help="boots side by side without GPUs")
    args = parser.parse_args()
    Bench(args).run(json.loads(Path(args.jobs).read_text()))


if __name__ == "__main__":
    main()
