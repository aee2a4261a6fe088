"""What goes wrong, one thing at a time."""

from __future__ import annotations

import os
import random
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import psutil
from _chaos_load import kill_a_client
from _chaos_world import World

from subcortex.errors import SubcortexError

#: Does its harm, ends what of it passes, and returns what it did in words.
Fault = Callable[[World, random.Random], str]

FAULTS: dict[str, Fault] = {}
#: Faults of a real vLLM.
VLLM_FAULTS: dict[str, Fault] = {}

_FOREIGN_MIB = 1024
_MOOD_S = 30.0
_HOG = """
import sys, time
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
print("held", flush=True)
time.sleep(60)
"""
_GARBAGE = (
    b"",
    b"{",
    b"null",
    b"[1, 2]",
    b"\xff\xfe\x00",
    b'{"mark": 7}',
    b'{"mark": "x", "engine": [1, 2]}',
)
_REAL = ("fast", "deep")


def _fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def _vllm_fault(function: Fault) -> Fault:
    VLLM_FAULTS[function.__name__] = function
    return function


@_fault
def daemon_killed(world: World, rng: random.Random) -> str:
    """The daemon is killed; the next call of a client starts another."""
    daemon = world.daemon()
    daemon.kill()
    return f"daemon {daemon.pid}"


@_fault
def daemon_killed_twice(world: World, rng: random.Random) -> str:
    """The next daemon is killed too, while it adopts and starts."""
    first = world.daemon()
    first.kill()
    second = world.daemon()
    time.sleep(rng.uniform(0.0, 0.6))
    with suppress(psutil.NoSuchProcess):
        second.kill()
    return f"daemons {first.pid} and {second.pid}"


@_fault
def daemon_ends(world: World, rng: random.Random) -> str:
    """The daemon is told to end by a signal."""
    daemon = world.daemon()
    daemon.terminate()
    _next(world, daemon)
    return f"daemon {daemon.pid}"


@_fault
def daemon_stands_still(world: World, rng: random.Random) -> str:
    """The daemon is stopped for a moment."""
    daemon = world.daemon()
    daemon.suspend()
    time.sleep(rng.uniform(0.5, 2.0))
    daemon.resume()
    return f"daemon {daemon.pid}"


@_fault
def two_daemons(world: World, rng: random.Random) -> str:
    """Two daemons are started at once where one was killed."""
    world.daemon().kill()
    command = [sys.executable, "-m", "subcortex.daemon", "--config", str(world.file)]
    quiet = subprocess.DEVNULL
    both = [
        subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, cwd=world.folder)
        for _ in range(2)
    ]
    _take_note(both)
    return f"daemons {both[0].pid} and {both[1].pid}"


@_fault
def engine_killed(world: World, rng: random.Random) -> str:
    """An engine is killed."""
    tier = rng.choice(world.plan.serving)
    engine = world.engine(tier)
    engine.kill()
    return f"{tier} {engine.pid}"


@_fault
def keeper_killed(world: World, rng: random.Random) -> str:
    """An engine's keeper is killed."""
    tier = rng.choice(world.plan.serving)
    keeper = world.engine(tier).parent()
    assert keeper is not None
    keeper.kill()
    return f"keeper {keeper.pid} of {tier}"


@_fault
def keeper_and_daemon_killed(world: World, rng: random.Random) -> str:
    """The daemon and a keeper are killed, in either order."""
    tier = rng.choice(world.plan.serving)
    keeper, daemon = world.engine(tier).parent(), world.daemon()
    assert keeper is not None
    both = [keeper, daemon]
    rng.shuffle(both)
    for process in both:
        process.kill()
    return f"keeper {keeper.pid} of {tier}, daemon {daemon.pid}"


@_fault
def engine_and_daemon_killed(world: World, rng: random.Random) -> str:
    """An engine dies while no daemon is there."""
    tier = rng.choice(world.plan.serving)
    engine, daemon = world.engine(tier), world.daemon()
    daemon.kill()
    time.sleep(rng.uniform(0.0, 0.3))
    with suppress(psutil.NoSuchProcess):
        engine.kill()
    return f"daemon {daemon.pid}, {tier} {engine.pid}"


@_fault
def engine_stands_still(world: World, rng: random.Random) -> str:
    """An engine is stopped for a moment."""
    tier = rng.choice(world.plan.serving)
    engine = world.engine(tier)
    engine.suspend()
    time.sleep(rng.uniform(0.5, 2.0))
    with suppress(psutil.NoSuchProcess):
        engine.resume()
    return f"{tier} {engine.pid}"


@_fault
def engine_stopped_for_ever(world: World, rng: random.Random) -> str:
    """An engine is stopped and never goes on."""
    tier = rng.choice(_REAL)
    engine = world.engine(tier)
    engine.suspend()
    return f"{tier} {engine.pid}"


def _put_into(world: World, mood: str) -> psutil.Process:
    """Put the stand-in into a mood and return its process; TimeoutError if it takes none."""
    until_s = time.monotonic() + _MOOD_S
    while time.monotonic() < until_s:
        engine = world.engine("odd")
        if _takes(world, engine, mood):
            return engine
    raise TimeoutError(f"odd takes no mood within {_MOOD_S:g} s")


def _takes(world: World, engine: psutil.Process, mood: str) -> bool:
    world.mood.write_text(mood)
    _wait(lambda: not world.mood.exists() or not engine.is_running(), 2.0)
    taken = not world.mood.exists()
    world.mood.unlink(missing_ok=True)
    return taken


def _mooded(mood: str, *, sleeps: bool) -> Fault:
    def fault(world: World, rng: random.Random) -> str:
        engine = _put_into(world, mood)
        if sleeps:
            with suppress(SubcortexError):
                world.client.yield_gpus(1.0)
        return f"odd {engine.pid} is {mood}"

    fault.__doc__ = f"The stand-in's mood is {mood}."
    return fault


FAULTS["child_deserts"] = _mooded("desert", sleeps=False)
FAULTS["engine_crashes"] = _mooded("crash", sleeps=False)
FAULTS["tokens_stand_still"] = _mooded("stuck", sleeps=False)
FAULTS["hangs_in_sleep"] = _mooded("hang", sleeps=True)
FAULTS["refuses_to_wake"] = _mooded("refuse", sleeps=True)
FAULTS["corrupt_after_wake"] = _mooded("corrupt", sleeps=True)


@_fault
def ignores_sigterm(world: World, rng: random.Random) -> str:
    """An engine ignores SIGTERM, and its daemon is told to end, or killed with the engine's keeper."""
    engine, daemon = _put_into(world, "deaf"), world.daemon()
    keeper = engine.parent()
    if rng.random() < 0.5 or keeper is None:
        daemon.terminate()
        _next(world, daemon)
        return f"odd {engine.pid}, daemon {daemon.pid} told to end"
    daemon.kill()
    keeper.kill()
    return f"odd {engine.pid}, daemon {daemon.pid} and keeper {keeper.pid} killed"


@_fault
def deserter_outlives_its_daemon(world: World, rng: random.Random) -> str:
    """A child leaves the session; then the engine and the daemon are killed."""
    engine = _put_into(world, "desert")
    time.sleep(0.1)
    daemon = world.daemon()
    daemon.kill()
    with suppress(psutil.NoSuchProcess):
        engine.kill()
    return f"odd {engine.pid}, daemon {daemon.pid}"


@_fault
def disk_full(world: World, rng: random.Random) -> str:
    """The daemon can write no more, for a while: a limit on file sizes fails as a full disk does."""
    with _limited(world, resource.RLIMIT_FSIZE, 4096) as pid:
        time.sleep(rng.uniform(0.5, 2.0))
    return f"daemon {pid}"


@_fault
def out_of_handles(world: World, rng: random.Random) -> str:
    """The daemon can open no more files, for a while."""
    daemon = world.daemon()
    with _limited(world, resource.RLIMIT_NOFILE, daemon.num_fds() + rng.randint(0, 4)) as pid:
        time.sleep(rng.uniform(0.5, 2.0))
    return f"daemon {pid}"


@_fault
def journal_locked(world: World, rng: random.Random) -> str:
    """Another program holds the database locked for seconds."""
    for_s = rng.uniform(1.0, 4.0)
    with closing(
        sqlite3.connect(world.client.config.database_path, isolation_level=None, timeout=5)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(for_s)
        other.execute("ROLLBACK")
    return f"for {for_s:.1f} s"


@_fault
def memory_taken(world: World, rng: random.Random) -> str:
    """Another program takes more host memory than all tiers together may."""
    hog = subprocess.Popen([sys.executable, "-c", _HOG, str(_FOREIGN_MIB)], stdout=subprocess.PIPE)
    assert hog.stdout is not None
    hog.stdout.readline()
    time.sleep(rng.uniform(0.5, 1.5))
    hog.kill()
    hog.wait()
    hog.stdout.close()
    return f"{_FOREIGN_MIB} MiB"


@_fault
def yielded(world: World, rng: random.Random) -> str:
    """All tiers are told to make way for a second, by the command line."""
    said = subprocess.run(
        [sys.executable, "-m", "subcortex.cli", "yield", "--for", "1s", "--config", str(world.file)],
        capture_output=True,
        text=True,
    )
    return f"exit code {said.returncode} {said.stderr[-100:].strip()}"


@_fault
def client_killed(world: World, rng: random.Random) -> str:
    """A program is killed in the middle of its stream."""
    tier = rng.choice(world.plan.serving)
    came = kill_a_client(str(world.file), "What is 4812 * 377?", tier, 20.0)
    return f"in the middle of {tier}" if came else f"before {tier} said a word"


@_fault
def stale_files(world: World, rng: random.Random) -> str:
    """Between two daemons the folder is littered: a dead socket, another's pid, garbage for records."""
    daemon = world.daemon()
    tier = rng.choice(_REAL)
    record = world.folder / "run" / "engines" / tier / "process.json"
    daemon.kill()
    config = world.client.config
    garbage = rng.choice(_GARBAGE)
    with suppress(OSError):
        record.write_bytes(garbage)
    with suppress(OSError):
        config.socket_path.unlink(missing_ok=True)
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(config.socket_path))
        stale.close()
    with suppress(OSError):
        (config.runtime_dir / "daemon.lock").write_text(rng.choice(("1\n", "x", "", str(os.getpid()))))
    return f"daemon {daemon.pid}; {garbage!r} for the record of {tier}"


@_vllm_fault
def vllm_daemon_killed(world: World, rng: random.Random) -> str:
    """The daemon is killed while vLLM serves."""
    world.engine("vllm", 300.0)
    return daemon_killed(world, rng)


@_vllm_fault
def vllm_core_killed(world: World, rng: random.Random) -> str:
    """vLLM's EngineCore, or one of its workers, is killed."""
    workers = [
        child for child in world.engine("vllm", 300.0).children(recursive=True) if child.num_threads() > 4
    ]
    worker = rng.choice(workers)
    words = f"{worker.pid} {worker.name()}"
    worker.kill()
    return words


@_vllm_fault
def vllm_server_killed(world: World, rng: random.Random) -> str:
    """vLLM's API server is killed, which leaves its workers."""
    server = world.engine("vllm", 300.0)
    server.kill()
    return str(server.pid)


@_vllm_fault
def vllm_keeper_killed(world: World, rng: random.Random) -> str:
    """vLLM's keeper is killed."""
    keeper = world.engine("vllm", 300.0).parent()
    assert keeper is not None
    keeper.kill()
    return str(keeper.pid)


@_vllm_fault
def vllm_core_stopped(world: World, rng: random.Random) -> str:
    """vLLM's EngineCore is stopped and never goes on, while its API server answers its health route."""
    children = world.engine("vllm", 300.0).children()
    cores = [child for child in children if child.num_threads() > 4]
    for core in cores:
        core.suspend()
    return ", ".join(str(core.pid) for core in cores)


@contextmanager
def _limited(world: World, what: int, most: int) -> Iterator[int]:
    """Hold the daemon to a limit; engines that were started meanwhile are let off it too."""
    daemon = world.daemon()
    before = daemon.rlimit(what)
    daemon.rlimit(what, (most, before[1]))
    try:
        yield daemon.pid
    finally:
        for process in world.ours():
            with suppress(psutil.Error):
                if process.rlimit(what)[0] == most:
                    process.rlimit(what, before)


def _take_note(programs: list[subprocess.Popen[bytes]]) -> None:
    """Have somebody wait for their ends, whenever those are."""
    for program in programs:
        threading.Thread(target=program.wait, daemon=True).start()


def _next(world: World, daemon: psutil.Process) -> None:
    """Wait for the daemon after one that was told to end, which serves until it has heard that."""
    _wait(lambda: world.status().daemon.pid != daemon.pid, 5.0)


def _wait(condition: Callable[[], bool], limit_s: float) -> None:
    until_s = time.monotonic() + limit_s
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.02)
