"""The main job on real vLLM: the deep tier at TP=2 on this machine's CPU, beside llama.cpp, in one daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import BaseModel

from subcortex import Client, EngineFailed, InvalidRequest, Reader, stream, think
from subcortex.config import load
from subcortex.types import ThoughtStatus, TierState
from tests.conftest import MODELS, ROOT, gone, stop, until
from tests.daemon.halfway import LONG, halfway, said

pytestmark = pytest.mark.vllm

CONFIG = """
[subcortex]
version = 1
[daemon]
runtime_dir = "run"
[journal]
database = "journal.db"
[drives]
dir = "{drives}"
[[tiers]]
name = "fast"
engine = "llama.cpp"
model = "{models}/fast/fast.gguf"
context_tokens = 1024
threads = 1
[[tiers]]
name = "deep"
engine = "vllm"
model = "{models}/deep"
python = "{python}"
tensor_parallel_size = 2
context_tokens = 1024
flags = [
  "--enforce-eager", "--dtype", "bfloat16", "--max-num-seqs", "8",
  "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
]
[tiers.env]
VLLM_CPU_KVCACHE_SPACE = "1"
VLLM_CPU_OMP_THREADS_BIND = "0|1"
OMP_NUM_THREADS = "1"
HF_HUB_OFFLINE = "1"
VLLM_NO_USAGE_STATS = "1"
"""


class Answer(BaseModel):
    answer: int


@pytest.fixture(scope="module")
def both() -> Iterator[Client]:
    python = Path(os.environ.get("SUBCORTEX_TEST_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
    if not python.is_file():
        pytest.fail(f"no vLLM at {python}: run `make setup`, or set SUBCORTEX_TEST_VLLM_PYTHON")
    folder = Path(tempfile.mkdtemp(prefix="sub-"))
    file = folder / "config.toml"
    file.write_text(CONFIG.format(drives=ROOT / "drives", models=MODELS, python=python))
    client = Client(load(file, {}))
    client.start_daemon()
    status = until(
        client, lambda s: all(t.state in (TierState.READY, TierState.FAILED) for t in s.tiers), 300
    )
    assert [tier.error for tier in status.tiers] == [None, None]
    yield client
    stop(client)
    shutil.rmtree(folder, ignore_errors=True)


def deep_pid(client: Client) -> int:
    pid = client.status().tiers[1].pid
    assert pid
    return pid


def test_the_deep_model_answers_at_tp2_and_thinks_aloud(both: Client):
    thought = think("What is 4812 + 7399? Explain each step.", drive="LEARNING", temperature=0.0, client=both)
    assert (thought.tier, thought.engine) == ("deep", "vllm")
    assert (thought.engine_version or "").startswith("vllm 0.")
    assert "12211" in thought.text
    assert "<think>" not in thought.text
    assert "4812" in (thought.reasoning or "")
    assert thought.usage.completion_tokens > 20
    easy = think("What is 7 + 5?", drive="MAINTENANCE", temperature=0.0, client=both)
    assert (easy.tier, easy.engine) == ("fast", "llama.cpp")
    workers = [p for p in psutil.Process(deep_pid(both)).children(recursive=True) if p.num_threads() > 4]
    assert len(workers) >= 2, "tensor parallelism is a process a rank"


def test_its_boot_is_on_record_with_what_it_set_aside_and_holds(both: Client):
    with Reader.open(both.config.database_path) as reader:
        (boot,) = reader.boots(tier="deep")
    assert (boot.outcome, boot.engine, boot.tensor_parallel_size) == ("ready", "vllm", 2)
    assert boot.measured is not None
    assert boot.engine_version == f"vllm {boot.measured.version}"
    host = boot.measured.host
    assert host is not None
    # A pool of 1 GiB on each of two ranks; a token takes 1 KiB on each.
    assert (boot.measured.devices, host.kv_pool_mib, boot.measured.kv_tokens) == ([], 2048.0, 2**20)
    assert host.taken_mib is not None
    assert host.taken_mib > 2048.0
    (share,) = (share for share in both.status().ledger.devices[-1].tiers if share.tier == "deep")
    assert share.taken_mib is not None
    assert share.taken_mib > 1000


def test_it_streams(both: Client):
    *chunks, thought = stream(LONG, tier="deep", temperature=0.0, client=both)
    assert len(chunks) > 1
    assert "".join(c.text for c in chunks) == thought.text


def test_it_obeys_a_schema_and_refuses_a_bad_one(both: Client):
    prompt = "What is 7 + 5? Answer as JSON with the key answer."
    thought = think(prompt, tier="deep", schema=Answer, temperature=0.0, client=both)
    assert json.loads(thought.text) == {"answer": thought.parsed.answer}

    class Odd(BaseModel):
        @classmethod
        def model_json_schema(cls, *args, **kwargs):
            return {"type": "no such type"}

    with pytest.raises(InvalidRequest):
        think("hi", tier="deep", schema=Odd, client=both)


def test_a_named_tool_comes_back_as_a_call(both: Client):
    parameters = {"type": "object", "properties": {"exact": {"type": "boolean"}}, "required": ["exact"]}
    tool = {"type": "function", "function": {"name": "lookup", "parameters": parameters}}
    choice = {"type": "function", "function": {"name": "lookup"}}
    thought = think(
        "Look it up",
        tier="deep",
        tools=[tool],
        tool_choice=choice,
        max_tokens=100,
        temperature=0.0,
        client=both,
    )
    (call,) = thought.tool_calls
    assert call.name == "lookup"
    json.loads(call.arguments)
    assert thought.finish_reason in ("tool_calls", "stop")
    assert not thought.text


def test_killed_in_the_middle_of_a_thought_it_comes_back_whole_and_nothing_is_left(both: Client):
    server = psutil.Process(deep_pid(both))
    family = [server.pid, *(child.pid for child in server.children(recursive=True))]
    pieces, row = halfway(both)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(EngineFailed, match="closed the connection"):
        list(pieces)
    # The tier is away: the next best serves meanwhile, and says so or was chosen.
    meanwhile = think("What is 7 + 5?", complexity=0.9, deadline=5, temperature=0.0, client=both)
    assert meanwhile.tier == "fast"
    assert meanwhile.route.degraded
    until(both, lambda s: s.tiers[1].state is TierState.READY and s.tiers[1].pid != server.pid, 300)
    assert all(gone(pid) for pid in family), "workers of the dead server live on"
    kept = Reader.open(both.config.database_path).thought(row.id)
    assert kept is not None
    assert kept.status is ThoughtStatus.FAILED
    assert said(kept).startswith(said(row))
    assert "12" in think("What is 7 + 5?", tier="deep", temperature=0.0, client=both).text
