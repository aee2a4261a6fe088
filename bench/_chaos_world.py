"""One daemon in a folder of its own, and every process, socket and file that comes from it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from subcortex import Client, Reader, think
from subcortex.config import load
from subcortex.errors import DaemonUnreachable, SubcortexError
from subcortex.types import Status, ThoughtStatus

ROOT = Path(__file__).parent.parent
MARK, ENGINE_MARK = "CHAOS_WORLD", "SUBCORTEX_ENGINE_ID"
ADOPT_S = 12.0
#: What is left of a dead engine has this long to end: its keeper's patience, its grace, and the looks.
STRAY_S = ADOPT_S + 12.0
_LOOK_EVERY_S = 0.3
_PAUSE_S = 0.2
_HEAD = """
[subcortex]
version = 1
[daemon]
runtime_dir = "run"
idle_stop_s = 600
[journal]
database = "journal.db"
[drives]
dir = "{drives}"
[fleet]
host_limit_gib = {limit_gib}
max_wait_s = {max_wait_s}
look_every_s = 1
adopt_s = {adopt_s}
"""
FAST = """
[[tiers]]
name = "fast"
engine = "llama.cpp"
model = "{models}/fast/fast.gguf"
context_tokens = 1024
threads = 1
max_restarts = 1000
"""
DEEP = FAST.replace("fast", "deep")
STANDIN = """
[[tiers]]
name = "odd"
engine = "vllm"
start = "lazy"
model = "{models}/deep"
executable = "{folder}/standin"
sleep_mode = true
start_timeout_s = 8
max_restarts = 1000
[tiers.env]
CHAOS_MOOD = "{folder}/mood"
CHAOS_BALLAST_MIB = "{ballast_mib}"
"""


VLLM = """
[[tiers]]
name = "vllm"
engine = "vllm"
model = "{models}/deep"
python = "{vllm_python}"
tensor_parallel_size = {ranks}
context_tokens = 1024
max_restarts = 1000
flags = ["--enforce-eager", "--dtype", "bfloat16", "--max-num-seqs", "8"]
[tiers.env]
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "{cores}"
OMP_NUM_THREADS = "1"
HF_HUB_OFFLINE = "1"
VLLM_NO_USAGE_STATS = "1"
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a world is set up.

    Args:
        tiers: TOML with fields to fill in.
        limit_gib: ``fleet.host_limit_gib``.
        serving: Tiers that must serve again after each fault.
        bound_s: Longest that a thought without a deadline may take.
        recovery_s: Longest that a recovery is waited for.
    """

    tiers: str
    limit_gib: float
    serving: tuple[str, ...]
    max_wait_s: float = 2.0
    ballast_mib: int = 300
    bound_s: float = 90.0
    recovery_s: float = 90.0
    vllm_python: str = ""
    ranks: int = 1


@dataclass(slots=True)
class Findings:
    """What was found wrong in one world."""

    leaked: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    shm: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)


class World:
    """A configuration in a folder, its daemon, and all that comes from it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.token = secrets.token_hex(8)
        # Whatever the daemon starts carries this on, wherever it goes.
        os.environ[MARK] = self.token
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.file = self.folder / "config.toml"
        values = {
            "drives": ROOT / "drives",
            "models": ROOT / "testbed" / "models",
            "folder": self.folder,
            "limit_gib": plan.limit_gib,
            "max_wait_s": plan.max_wait_s,
            "adopt_s": ADOPT_S,
            "ballast_mib": plan.ballast_mib,
            "vllm_python": plan.vllm_python,
            "ranks": plan.ranks,
            "cores": "|".join(map(str, range(plan.ranks))),
        }
        self.file.write_text((_HEAD + plan.tiers).format(**values))
        self._foretell()
        standin = self.folder / "standin"
        script = Path(__file__).with_name("_chaos_standin.py")
        standin.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        standin.chmod(0o755)
        self.mood = self.folder / "mood"
        self.client = Client(load(self.file, {}))
        self._shm: set[str] = set()
        self._short = set(Path(tempfile.gettempdir()).glob("subcortex-*"))
        self._seen: dict[int, psutil.Process] = {}
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def _foretell(self) -> None:
        site = self.folder / "site"
        site.mkdir()
        begins = "'subcortex.daemon' in sys.orig_argv"
        body = f"    sys.path.append({str(ROOT / 'bench')!r})\n    import _chaos_foretold\n"
        lines = f"import sys\nif {begins}:\n{body}"
        (site / "sitecustomize.py").write_text(lines)
        # The daemon is the one beside this file, wherever another is installed.
        os.environ["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])

    def open(self) -> None:
        """Begin to watch processes."""
        self._watcher.start()

    def status(self, limit_s: float = 40.0) -> Status:
        """Return how things stand, starting the daemon if none is up."""
        until_s = time.monotonic() + limit_s
        while True:
            try:
                return self.client.status()
            except DaemonUnreachable:
                with suppress(SubcortexError):
                    self.client.start_daemon()
            if time.monotonic() > until_s:
                raise TimeoutError(f"no daemon came up within {limit_s:g} s")
            time.sleep(0.05)

    def daemon(self) -> psutil.Process:
        """Return the daemon's process."""
        return psutil.Process(self.status().daemon.pid)

    def engine(self, tier: str, limit_s: float = 60.0) -> psutil.Process:
        """Return a tier's main process, having the tier brought up if it is not."""
        until_s = time.monotonic() + limit_s
        while True:
            for one in self.status().tiers:
                if one.name == tier and one.pid and one.state == "ready":
                    with suppress(psutil.NoSuchProcess):
                        return psutil.Process(one.pid)
            self.serves(tier, 15.0)
            if time.monotonic() > until_s:
                raise TimeoutError(f"{tier} did not come up within {limit_s:g} s")

    def serves(self, tier: str, limit_s: float) -> bool:
        """Return whether a tier answers."""
        try:
            think("What is 7 + 5?", tier=tier, max_tokens=4, deadline=max(0.1, limit_s), client=self.client)
        except SubcortexError:
            return False
        return True

    def recovered(self) -> str | None:
        """Wait until every tier serves and the journal is whole; return what does not."""
        until_s = time.monotonic() + self.plan.recovery_s
        wrong = set(self.plan.serving)

        def probe(tier: str) -> None:
            while time.monotonic() < until_s:
                if self.serves(tier, until_s - time.monotonic()):
                    wrong.discard(tier)
                    return
                time.sleep(_PAUSE_S)

        probes = [threading.Thread(target=probe, args=(tier,), daemon=True) for tier in self.plan.serving]
        for thread in probes:
            thread.start()
        for thread in probes:
            thread.join(max(0.0, until_s + 5.0 - time.monotonic()))
        if wrong:
            return f"{', '.join(sorted(wrong))} did not serve within {self.plan.recovery_s:g} s"
        while (journal := self.status().daemon.journal) != "ok":
            if time.monotonic() > until_s:
                return f"the journal is {journal}"
            time.sleep(_PAUSE_S)
        return None

    def strays(self) -> list[str]:
        """Return engines that run and are not on record, once what is dying has had time to."""
        until_s = time.monotonic() + STRAY_S
        while (found := self._strays()) and time.monotonic() < until_s:
            time.sleep(_PAUSE_S)
        return found

    def _strays(self) -> list[str]:
        records = [path.read_text() for path in self.folder.glob("run/engines/*/process.json")]
        found = []
        for process in self.ours():
            mark = _environment(process.pid).get(ENGINE_MARK)
            if mark and not any(mark in record for record in records):
                found.append(_words(process))
        return found

    def ours(self) -> list[psutil.Process]:
        """Return the living processes that come from this world."""
        alive = [process for process in list(self._seen.values()) if _lives(process)]
        known = {process.pid for process in alive}
        alive += [
            process
            for process in psutil.process_iter()
            if process.pid not in known
            and _environment(process.pid).get(MARK) == self.token
            and _lives(process)
        ]
        return [process for process in alive if process.pid != os.getpid()]

    def close(self, acknowledged: dict[str, str]) -> Findings:
        """Stop the daemon, look at what is left, and remove it all.

        Args:
            acknowledged: Texts of the thoughts that clients got, by id.
        """
        found = Findings()
        with suppress(DaemonUnreachable):
            self.client.stop()
        self.client.close()
        until_s = time.monotonic() + STRAY_S
        while (left := self.ours()) and time.monotonic() < until_s:
            time.sleep(_PAUSE_S)
        self._over.set()
        self._watcher.join()
        found.leaked = [_words(process) for process in left]
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        found.torn = self._torn(acknowledged)
        found.events = self._events()
        found.sockets = [str(path.relative_to(self.folder)) for path in self._sockets()]
        found.sockets += [
            str(path) for path in set(Path(tempfile.gettempdir()).glob("subcortex-*")) - self._short
        ]
        found.shm = sorted(name for name in self._shm if Path("/dev/shm", name).exists())
        return found

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sockets(self) -> list[Path]:
        return [
            path
            for path in (self.folder / "run").rglob("*")
            if path.is_socket() or path.name == "process.json"
        ]

    def _torn(self, acknowledged: dict[str, str]) -> list[str]:
        file = self.client.config.database_path
        torn = []
        with sqlite3.connect(file) as database:
            checked = [row[0] for row in database.execute("PRAGMA integrity_check")]
            torn += [f"integrity: {words}" for words in checked if words != "ok"]
            torn += [f"foreign key: {row}" for row in database.execute("PRAGMA foreign_key_check")]
            rows = database.execute("SELECT id FROM thoughts WHERE status = 'running'").fetchall()
            torn += [f"{row[0]} still runs" for row in rows]
        with Reader.open(file) as reader:
            for number, text in acknowledged.items():
                kept = reader.thought(number)
                if kept is None:
                    torn.append(f"{number} was answered and is not there")
                elif kept.status is not ThoughtStatus.COMPLETED:
                    torn.append(f"{number} was answered and is {kept.status}")
                elif kept.text != text:
                    torn.append(f"{number} was answered with another text")
        return torn

    def _events(self) -> Counter[str]:
        found: Counter[str] = Counter()
        with sqlite3.connect(self.client.config.database_path) as database:
            for kind, text in database.execute("SELECT kind, detail FROM events"):
                detail = json.loads(text)
                came = detail.get("was") if kind == "ready" else None
                found["adopted"] += came == "starting" and detail.get("load_s") is None
                found["woken"] += came == "waking"
                found["restarts"] += kind == "backing_off"
                found["swaps"] += kind == "draining" and str(detail.get("why")).startswith("room for")
        return found

    def _watch(self) -> None:
        """Remember every process of ours, since some hide what they were started with."""
        while not self._over.wait(_LOOK_EVERY_S):
            for process in psutil.process_iter():
                known = self._seen.get(process.pid) == process
                if not known and self._from_here(process):
                    self._seen[process.pid] = process
                if known:
                    self._shm |= _shared(process.pid)

    def _from_here(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            marked = _environment(process.pid).get(MARK) == self.token
            return marked or (process.ppid() in self._seen and process.ppid() != 1)
        return False


def _environment(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (part.partition(b"=") for part in raw.split(b"\0"))
    return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, _, value in pairs}


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:160]}"
    return str(process.pid)


def _shared(pid: int) -> set[str]:
    """Return the files in ``/dev/shm`` that a process has open."""
    with suppress(OSError):
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        named = (line.rpartition("/dev/shm/")[2] for line in maps if "/dev/shm/" in line)
        return {name for name in named if not name.endswith(" (deleted)")}
    return set()


def facts(status: Status) -> list[dict[str, Any]]:
    """Return what of the tiers is worth a line in the log."""
    return [
        tier.model_dump(
            include={"name", "state", "pid", "in_flight", "queued", "waits_for", "error"}, mode="json"
        )
        for tier in status.tiers
    ]
