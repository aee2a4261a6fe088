"""doctor --nccl-debug: one traced start of an engine."""

from __future__ import annotations

import json
from pathlib import Path

from subcortex.cli._nccl import telling_lines
from tests.cli.helpers import run
from tests.conftest import write_config


def test_what_tells_of_nccl_is_kept_once_from_any_rank():
    log = [
        "INFO vllm starting",
        "host:101:101 [0] NCCL INFO NCCL version 2.28.9+cuda13.0",
        "host:102:102 [1] NCCL INFO NCCL version 2.28.9+cuda13.0",
        "host:101:133 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
        "host:101:133 [0] NCCL INFO Connected all rings",
        "host:101:133 [0] NCCL WARN Cuda failure 'out of memory'",
    ]

    found = telling_lines(log)

    assert len(found) == 3
    assert "version 2.28.9" in found[0]
    assert "via P2P/CUMEM" in found[1]
    assert "WARN" in found[2]


def test_nccl_debug_starts_the_engine_with_tracing_and_stops_it(folder):
    """The engine here is a llama-server that writes down its environment and never gets ready."""
    server = folder / "server"
    server.write_text("#!/bin/sh\nenv | grep -E '^(NCCL|TORCH)_'\necho 'x [0] NCCL WARN no path'\nexit 3\n")
    server.chmod(0o755)
    file = write_config(folder, fast=f'executable = "{server}"')

    done = run("doctor", "--nccl-debug", "fast", "--config", file)

    log = (folder / "logs" / "fast.log").read_text()
    assert done.returncode == 6
    assert "NCCL_DEBUG=INFO" in log
    assert "TORCH_DISTRIBUTED_DEBUG=DETAIL" in log
    assert "NCCL WARN no path" in done.stdout
    assert f"the whole log: {folder}/logs/fast.log" in done.stdout


def test_nccl_debug_of_a_real_engine_is_0(folder):
    done = json.loads(
        run("doctor", "--nccl-debug", "fast", "--json", "--config", write_config(folder)).stdout
    )

    assert (done["error"], done["lines"]) == (None, [])
    assert Path(done["log"]).is_file()


def test_nccl_debug_leaves_a_running_daemon_alone(running):
    done = run("doctor", "--nccl-debug", "fast", "--config", running.config.source)

    assert done.returncode == 10
    assert running.status().tiers[0].state == "ready"


def test_nccl_debug_of_an_unknown_tier(folder):
    assert run("doctor", "--nccl-debug", "nope", "--config", write_config(folder)).returncode == 4
