"""Real children that will not die, leave children behind, flood, or fall over: all are dealt with."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from subcortex.engines import _processes, _remains, reap_leftovers
from subcortex.engines.process import EngineProcess
from subcortex.errors import EngineFailed


class Nursery:
    """Starts children from Python source, and ends what a failing test leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[EngineProcess] = []

    async def spawn(self, source: str, *arguments: str) -> EngineProcess:
        process = await EngineProcess.spawn(
            [sys.executable, "-c", textwrap.dedent(source), *arguments],
            env=dict(os.environ),
            folder=self.folder / "run" / "engines" / "fast",
            log_path=self.folder / "logs" / "fast.log",
        )
        self.started.append(process)
        return process

    async def said(self, process: EngineProcess, count: int = 1) -> list[str]:
        """Wait for that many lines of output."""
        async with asyncio.timeout(30):
            while len(lines := process.log.tail().splitlines()) < count:
                await asyncio.sleep(0.01)
        return lines


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    for process in nursery.started:
        with contextlib.suppress(EngineFailed):
            await process.stop(0.0)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_child_that_ends_when_asked_is_asked_only(nursery: Nursery) -> None:
    process = await nursery.spawn(
        """
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), sys.exit(0)))
        print("up", flush=True)
        signal.pause()
        """
    )
    await nursery.said(process)
    await process.stop(30.0)
    assert process.log.tail() == "up\nasked"
    assert await process.exited() == "exited with code 0"
    assert gone(process.info.pid)


async def test_a_child_that_ignores_the_asking_is_killed(nursery: Nursery) -> None:
    process = await nursery.spawn(
        """
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up", flush=True)
        while True: signal.pause()
        """
    )
    await nursery.said(process)
    await process.stop(0.2)
    assert "SIGKILL" in await process.exited()
    assert gone(process.info.pid)


DESERTER = """
    import os, signal, subprocess, sys
    clean = {key: value for key, value in os.environ.items() if key != "SUBCORTEX_ENGINE_ID"}
    loop = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\\nwhile True: signal.pause()"
    marked = subprocess.Popen([sys.executable, "-c", loop], start_new_session=True)
    unmarked = subprocess.Popen([sys.executable, "-c", loop], env=clean, start_new_session=True)
    same_session = subprocess.Popen([sys.executable, "-c", loop], env=clean)
    os.write(1, f"{marked.pid} {unmarked.pid} {same_session.pid}\\n".encode())
"""


async def test_grandchildren_go_too_wherever_they_went(nursery: Nursery) -> None:
    process = await nursery.spawn(DESERTER + "    signal.pause()")
    pids = [int(pid) for pid in (await nursery.said(process))[0].split()]
    assert not any(gone(pid) for pid in pids)
    await process.stop(0.2)
    assert all(gone(pid) for pid in (*pids, process.info.pid))


async def test_what_a_dead_engine_left_behind_goes_when_it_is_stopped(nursery: Nursery) -> None:
    process = await nursery.spawn(DESERTER + "    unmarked.kill()\n    os.kill(os.getpid(), signal.SIGKILL)")
    marked, _, same_session = [int(pid) for pid in (await nursery.said(process))[0].split()]
    assert "SIGKILL" in await process.exited()
    assert not gone(marked)
    assert not gone(same_session)
    await process.stop(0.2)
    assert gone(marked)
    assert gone(same_session)


async def test_a_child_that_forks_while_it_is_being_ended_is_ended_whole(nursery: Nursery) -> None:
    process = await nursery.spawn(
        """
        import os, signal, subprocess, sys
        def flee(*_):
            loop = "import signal; signal.pause()"
            child = subprocess.Popen([sys.executable, "-c", loop], start_new_session=True)
            print(child.pid, flush=True)
            os._exit(0)
        signal.signal(signal.SIGTERM, flee)
        print("up", flush=True)
        signal.pause()
        """
    )
    await nursery.said(process)
    await process.stop(20.0)
    _, fled = process.log.tail().splitlines()
    assert gone(int(fled))


async def test_a_flood_of_output_neither_blocks_nor_fills_the_disk(nursery: Nursery) -> None:
    process = await nursery.spawn(
        """
        import sys
        row = b"x" * 199 + b"\\n"
        for _ in range(400): sys.stdout.buffer.write(row * 500)
        print("the end", flush=True)
        """
    )
    async with asyncio.timeout(120):
        assert await process.exited() == "exited with code 0"
    await process.stop(1.0)
    assert process.log.tail(1) == "the end"
    kept = sum(file.stat().st_size for file in (nursery.folder / "logs").iterdir())
    assert kept < 4 * 10 * 1024 * 1024 + 1024


async def test_shared_memory_of_a_killed_engine_is_given_back(nursery: Nursery) -> None:
    process = await nursery.spawn(
        """
        import os, signal
        from multiprocessing import resource_tracker, shared_memory
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kept = shared_memory.SharedMemory(create=True, size=4096)
        resource_tracker.unregister(kept._name, "shared_memory")
        print(kept.name, flush=True)
        while True: signal.pause()
        """
    )
    segment = Path("/dev/shm") / (await nursery.said(process))[0]
    assert segment.exists()
    await process.stop(0.1)
    assert not segment.exists()


#: Makes a piece of shared memory that nobody gives back when it is killed.
SHARER = """
import os, signal
from multiprocessing import resource_tracker, shared_memory
kept = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(kept._name, "shared_memory")
print(kept.name, flush=True)
signal.pause()
"""


async def sharing(nursery: Nursery) -> tuple[EngineProcess, Path]:
    """Return an engine that has said it is ready and was killed, and the memory it has left."""
    process = await nursery.spawn(SHARER)
    segment = Path("/dev/shm") / (await nursery.said(process))[0]
    await process.note(version=None, boot=[])
    os.kill(process.info.pid, signal.SIGKILL)
    await process.exited()
    assert segment.exists()
    return process, segment


async def test_shared_memory_of_an_engine_that_is_dead_already_is_given_back(nursery: Nursery) -> None:
    process, segment = await sharing(nursery)
    await process.stop(0.1)
    assert not segment.exists()


async def test_so_it_is_by_the_next_daemon(nursery: Nursery) -> None:
    process, segment = await sharing(nursery)
    record = process.record
    await process.stop(0.1)
    segment.touch()
    folder = nursery.folder / "run" / "engines" / "fast"
    _remains.write(folder, record)
    reap_leftovers(nursery.folder / "run")
    assert not segment.exists()


def test_nothing_but_shared_memory_is_removed_on_a_records_word(tmp_path: Path) -> None:
    precious = tmp_path / "psm_precious"
    precious.touch()
    for path in (precious, f"/dev/shm/psm_x/../../..{precious}", f"{precious}\n/dev/shm/psm_x"):
        _remains.write(tmp_path, _remains.Record("0" * 32, shared=(str(path),)))
        _remains.reap(tmp_path)
        assert precious.exists()
        assert _remains.read(tmp_path) is None


def test_a_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    _remains.write(tmp_path, _remains.Record("0" * 32, version="1", ready=True))
    file = tmp_path / _remains.FILE
    data = json.loads(file.read_text())
    del data["shared"]
    file.write_text(json.dumps(data))
    assert _remains.read(tmp_path) == _remains.Record("0" * 32, version="1", ready=True)


async def test_an_exit_and_its_code_are_seen(nursery: Nursery) -> None:
    process = await nursery.spawn("import sys; print('no such option', file=sys.stderr); sys.exit(3)")
    async with asyncio.timeout(30):
        assert await process.exited() == "exited with code 3"
    assert not process.running
    await process.stop(1.0)
    assert process.log.tail() == "no such option"


async def test_a_kill_from_outside_is_seen(nursery: Nursery) -> None:
    process = await nursery.spawn("import signal; print('up', flush=True); signal.pause()")
    await nursery.said(process)
    os.kill(process.info.pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        assert (await process.exited()).startswith("was killed by SIGKILL")


async def test_a_program_that_cannot_be_run_says_so(nursery: Nursery) -> None:
    process = await EngineProcess.spawn(
        ["/no/such/program"],
        env={},
        folder=nursery.folder / "engine",
        log_path=nursery.folder / "logs" / "fast.log",
    )
    nursery.started.append(process)
    assert await process.exited() == "exited with code 1"
    await process.stop(1.0)
    assert "cannot run /no/such/program: No such file or directory" in process.log.tail()


async def test_a_process_that_cannot_be_recorded_is_not_left_running(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    (folder / "process.json.new").mkdir(parents=True)
    before = psutil.Process().children()
    with pytest.raises(EngineFailed, match="cannot record"):
        await EngineProcess.spawn(
            [sys.executable, "-c", "import signal; signal.pause()"],
            env=dict(os.environ),
            folder=folder,
            log_path=tmp_path / "logs" / "fast.log",
        )
    assert psutil.Process().children() == before


async def test_out_of_files_nothing_is_left_open_or_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("subcortex.engines.process.socket.socketpair", none_left)
    before = psutil.Process().num_fds()
    with pytest.raises(EngineFailed, match="Too many open files"):
        await EngineProcess.spawn(
            [sys.executable, "-c", "pass"],
            env=dict(os.environ),
            folder=tmp_path / "engine",
            log_path=tmp_path / "logs" / "fast.log",
        )
    assert psutil.Process().num_fds() == before
    assert not (tmp_path / "engine" / "process.json").exists()


async def test_a_child_that_cannot_be_looked_at_is_not_taken_for_gone(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon out of handles once took a running engine for ended, and waited for its end for ever."""
    process = await nursery.spawn("import time; print('up', flush=True); time.sleep(600)")
    await nursery.said(process)
    asked, read = 0, _processes._read

    def out_of_handles(path: str) -> bytes:
        nonlocal asked
        asked += 1
        if asked <= 200:
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    monkeypatch.setattr(_processes, "_read", out_of_handles)
    async with asyncio.timeout(60):
        await process.stop(0.5)
    assert asked > 200
    assert gone(process.info.pid)
    assert not process.running


async def test_the_child_is_what_the_command_says_with_nothing_of_ours_open(nursery: Nursery) -> None:
    secret = os.open("/dev/null", os.O_RDONLY)
    process = await nursery.spawn(
        """
        import os, signal, sys
        print(sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:4], os.getsid(0) == os.getpid())
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, sys.argv[1])
        """,
        "an argument; with $(shell) 'characters'",
    )
    await process.exited()
    await process.stop(1.0)
    os.close(secret)
    opened, handlers = process.log.tail().splitlines()
    assert opened == "[0, 1, 2, 3] True"  # 3 is the listing itself
    assert handlers == "True an argument; with $(shell) 'characters'"


async def test_stopping_twice_is_stopping_once(nursery: Nursery) -> None:
    process = await nursery.spawn("import signal; signal.pause()")
    await process.stop(5.0)
    await process.stop(5.0)
    assert not (nursery.folder / "run" / "engines" / "fast" / "process.json").exists()


async def test_the_engine_ends_when_its_daemon_is_killed(tmp_path: Path) -> None:
    daemon = _daemon_with_engine(tmp_path)
    assert daemon.stdout is not None
    engine = int(await asyncio.to_thread(daemon.stdout.readline))
    assert not gone(engine)
    daemon.kill()
    daemon.wait()
    async with asyncio.timeout(30):
        while not gone(engine):
            await asyncio.sleep(0.01)


async def test_what_a_killed_daemon_left_is_reaped_by_the_next(tmp_path: Path) -> None:
    daemon = _daemon_with_engine(tmp_path, stubborn=True)
    assert daemon.stdout is not None
    engine = int(await asyncio.to_thread(daemon.stdout.readline))
    worker = int(await asyncio.to_thread(daemon.stdout.readline))
    daemon.kill()
    daemon.wait()
    assert not gone(engine)
    done = await asyncio.to_thread(reap_leftovers, tmp_path / "run")
    assert gone(engine)
    assert gone(worker)
    assert done == [f"fast: ended 2 processes of a former daemon (engine {engine})"]
    assert await asyncio.to_thread(reap_leftovers, tmp_path / "run") == []


def _daemon_with_engine(folder: Path, *, stubborn: bool = False) -> subprocess.Popen[str]:
    """Start a process that starts an engine, and prints the process ids of the engine and its worker."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    worker = f"import signal;{ignore}\nwhile True: signal.pause()"
    engine = (
        f"import signal, subprocess, sys;{ignore}"
        f"child = subprocess.Popen([sys.executable, '-c', {worker!r}], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "while True: signal.pause()"
    )
    daemon = f"""
import asyncio, os, sys
from pathlib import Path
from subcortex.engines.process import EngineProcess
async def main():
    folder = Path({str(folder)!r})
    p = await EngineProcess.spawn([sys.executable, "-c", {engine!r}], env=dict(os.environ),
                            folder=folder / "run/engines/fast",
                            log_path=folder / "logs/fast.log", adopt_s={60.0 if stubborn else 0.0})
    while not p.log.tail(): await asyncio.sleep(0.01)
    print(p.info.pid, p.log.tail(), sep="\\n", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
    return subprocess.Popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE, text=True)


def test_a_stranger_with_a_recorded_id_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        identity = _processes.identify(stranger.pid)
        assert identity is not None
        folder = tmp_path / "engines" / "fast"
        folder.mkdir(parents=True)
        for start_ticks in (identity.start_ticks, identity.start_ticks + 1):
            claimed = _processes.Identity(stranger.pid, start_ticks)
            _remains.write(folder, _remains.Record("0" * 32, engine=claimed, keeper=claimed))
            assert reap_leftovers(tmp_path) == []
            assert not (folder / "process.json").exists()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_record_that_cannot_be_read_is_put_away(tmp_path: Path) -> None:
    folder = tmp_path / "engines" / "fast"
    folder.mkdir(parents=True)
    (folder / "process.json").write_text('{"pid": ')
    assert reap_leftovers(tmp_path) == ["fast: removed an unreadable process record"]
    assert reap_leftovers(tmp_path) == []


def test_start_times_agree_with_another_reader_of_proc() -> None:
    identity = _processes.identify(os.getpid())
    assert identity is not None
    assert _processes.start_time_s(identity) == pytest.approx(psutil.Process().create_time(), abs=1.1)
