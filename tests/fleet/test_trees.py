"""Process trees of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from subcortex.fleet.trees import trees

# A shell-less family: the root starts a child, which leaves for a session of its own and starts another.
FAMILY = """
import os, subprocess, sys
code = "import sys; held = bytearray(64 * 2**20); print('up', flush=True); sys.stdin.read()"
child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
child.wait()
"""


@pytest.fixture
def root() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    yield process
    process.communicate()


def test_a_tree_has_its_descendants_and_what_they_hold(root: subprocess.Popen[bytes]) -> None:
    family = [psutil.Process(root.pid), *psutil.Process(root.pid).children(recursive=True)]
    found = trees([root.pid, os.getpid()])
    assert found[root.pid].pids == {process.pid for process in family}
    assert len(family) == 2
    resident_mib = sum(process.memory_info().rss for process in family) / 2**20
    assert found[root.pid].resident_mib == pytest.approx(resident_mib, rel=0.1)
    assert resident_mib > 64
    assert found[root.pid].pids < found[os.getpid()].pids


def test_what_is_gone_has_no_tree() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert trees([gone.pid]) == {}
    assert trees([]) == {}
