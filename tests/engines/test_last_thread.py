"""A process whose first thread has ended and whose last has not is no zombie yet: it may hold memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from subcortex.engines import _processes
from subcortex.fleet.trees import trees

#: The first thread ends alone (``exit``, not ``exit_group``) once another says that it runs.
_HEADLESS = """
import ctypes, platform, sys, threading, time
def work():
    print("at work", flush=True)
    time.sleep(600)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.fixture
def headless():
    child = subprocess.Popen([sys.executable, "-c", _HEADLESS], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"at work\n"
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        os.sched_yield()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_it_counts_as_alive_until_its_last_thread_has_ended(headless):
    identity = _processes.identify(headless.pid)
    assert identity is not None
    assert _processes.alive(identity)
    assert headless.pid in trees([headless.pid])
    _processes.kill([identity])
    os.waitid(os.P_PID, headless.pid, os.WEXITED | os.WNOWAIT)
    assert not _processes.alive(identity)
    assert trees([headless.pid]) == {}


def test_it_is_ended_like_any_other(headless):
    identity = _processes.identify(headless.pid)
    assert identity is not None
    left = _processes.end(lambda: {identity}, grace_s=0.0)
    assert left == set()
    assert headless.wait() == -signal.SIGKILL


def test_what_has_begun_to_end_or_carries_a_mark_is_an_engines(headless):
    assert _processes.is_engines(headless.pid)
    assert _processes.is_engines(_gone())
    mark = {_processes.MARK_VARIABLE: "1" * 32}
    for added, expected in ((mark, True), ({}, False)):
        with subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            env={**os.environ, **added},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            # Until its program runs it has no environment either.
            child.stdout.readline()
            assert _processes.is_engines(child.pid) is expected
            child.communicate(b"\n")


def _gone() -> int:
    with subprocess.Popen(["true"]) as child:
        return child.pid
