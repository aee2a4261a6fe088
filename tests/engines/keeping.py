"""A daemon of one engine that can be killed, and a server with a family that will not go by itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from subcortex.config import Config, load
from subcortex.engines import create
from subcortex.engines.protocol import Progress

#: Serves the health route as llama-server would, after starting a worker in a session of its own, one that
#: has left by a double fork, and a piece of shared memory; none of these heeds SIGTERM.
SERVER = (
    f"#!{sys.executable}\n"
    + '''
import http.server, json, os, signal, socketserver, subprocess, sys
from multiprocessing import resource_tracker, shared_memory
stubborn = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "away" in sys.argv:
    os.setsid()
    if os.fork():
        os._exit(0)
print(os.getpid(), flush=True)
os.close(1)
while True: signal.pause()
"""
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = []
for where in ("here", "away"):
    child = subprocess.Popen(
        [sys.executable, "-c", stubborn, where], stdout=subprocess.PIPE, start_new_session=where == "here"
    )
    pids.append(int(child.stdout.readline()))
kept = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(kept._name, "shared_memory")
print("family", json.dumps({"pids": pids, "shared": kept.name}), flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked", self.path, flush=True)
        body = json.dumps({"build_info": "b7", "is_sleeping": bool(os.environ.get("SLEEPS"))}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

flag = "--host" if "--host" in sys.argv else "--uds"
with socketserver.UnixStreamServer(sys.argv[sys.argv.index(flag) + 1], Handler) as server:
    server.serve_forever()
'''
)


def write_config(folder: Path, *, adopt_s: float = 60.0, tier: str = "", engine: str = "llama.cpp") -> Path:
    """Write a configuration of one tier on the server above; everything it makes lies in ``folder``."""
    program = folder / "server"
    program.write_text(SERVER)
    program.chmod(0o755)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model.gguf").write_bytes(b"GGUF")
    model = "model.gguf" if engine == "llama.cpp" else "model"
    file = folder / "config.toml"
    file.write_text(
        f"""
        [subcortex]
        version = 1
        [daemon]
        runtime_dir = "run"
        [journal]
        database = "journal.db"
        [fleet]
        adopt_s = {adopt_s}
        [[tiers]]
        name = "fast"
        engine = "{engine}"
        model = "{model}"
        executable = "{program}"
        {tier}
        """
    )
    return file


def family(folder: Path) -> tuple[list[int], Path]:
    """Return the process ids of the server's family, and its shared memory, as the log has them."""
    log = (folder / "logs" / "fast.log").read_text()
    said = json.loads(next(line for line in log.splitlines() if line.startswith("family"))[7:])
    return said["pids"], Path("/dev/shm") / said["shared"]


def left(folder: Path) -> list[int]:
    """Return the living processes whose environment or command line names a test's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join([*process.cmdline(), *process.environ().values()])
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and str(folder) in words:
            found.append(process.pid)
    return found


class Daemon:
    """A process that adopts the configured tier's engine, or starts it, and then does as it is told."""

    def __init__(self, config: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engines.keeping", str(config)],
            # So that all that comes of it can be found.
            env={**os.environ, "WHOSE": str(config.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        first = self._heard()
        self.adopted: bool = first["adopted"]
        self.pid: int = first["pid"]
        self.version: str = first["version"]

    def told(self, order: str) -> Any:
        """Give an order and return what came of it: ``stop``, ``exited`` or ``tail``."""
        assert self._process.stdin is not None
        print(order, file=self._process.stdin, flush=True)
        return self._heard()

    def kill(self) -> None:
        """Kill it without a chance to clear anything away."""
        self._process.kill()
        self._process.communicate()

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the daemon died"
        return json.loads(line)


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def _main(config: Config) -> None:
    engine = create(config.tiers[0], config=config)
    adopted = await engine.adopt(Progress())
    if not adopted:
        await engine.start(Progress())
    assert engine.process is not None
    _say({"adopted": adopted, "pid": engine.process.pid, "version": engine.version})
    while order := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if order == "stop":
            await engine.stop(grace_s=0.2)
            _say("stopped")
        elif order == "exited":
            _say(await engine.exited())
        elif order == "tail":
            _say(engine.log_tail(200))


if __name__ == "__main__":
    asyncio.run(_main(load(sys.argv[1], {})))
