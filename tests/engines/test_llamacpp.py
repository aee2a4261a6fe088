"""Real llama.cpp in a real child process, on a random model."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from subcortex.config import Config
from subcortex.engines import create, reap_leftovers
from subcortex.engines.llamacpp import check_model
from subcortex.engines.protocol import Delta, Engine, GenerateRequest, Progress
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, InvalidRequest
from tests.engines import tiny_gguf
from tests.engines.conftest import asking

Running = Callable[..., Any]


async def collected(engine: Engine, request: GenerateRequest) -> list[Delta]:
    return [delta async for delta in engine.generate(request)]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_it_starts_answers_and_leaves_nothing(running: Running, tmp_path: Path) -> None:
    async with running() as engine:
        info = engine.process
        assert info is not None
        assert psutil.Process(info.pid).create_time() == pytest.approx(info.start_time_s, abs=1.1)
        assert re.match(r"xllamacpp \d", engine.version)
        assert await engine.healthy()
        deltas = await collected(engine, asking(max_tokens=20, temperature=0))
        assert deltas[-1].finish_reason == "length"
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.completion_tokens == 20
        # Four marks and the 14 bytes of the prompt, its space being three bytes long in this vocabulary.
        assert deltas[-1].usage.prompt_tokens == 20
        assert text_of(deltas)
        socket = tmp_path / "run" / "engines" / "fast" / "engine.sock"
        assert stat.S_ISSOCK(socket.stat().st_mode)
        assert socket.parent.stat().st_mode & 0o077 == 0
    assert not psutil.pid_exists(info.pid)
    assert engine.process is None
    assert not await engine.healthy()
    assert list(socket.parent.iterdir()) == []
    assert "listening on" in (tmp_path / "state" / "logs" / "fast.log").read_text()


async def test_a_trained_model_answers(running: Running) -> None:
    async with running(model=str(Path(__file__).parents[2] / "testbed/models/fast/fast.gguf")) as engine:
        deltas = await collected(engine, asking("What is 7 + 5?", max_tokens=40, temperature=0))
    assert "12" in text_of(deltas)
    assert deltas[-1].finish_reason == "stop"


async def test_the_same_seed_gives_the_same_words_streamed_or_not(running: Running) -> None:
    async with running() as engine:
        request = asking(max_tokens=30, temperature=1.0, seed=7)
        first, again = await collected(engine, request), await collected(engine, request)
        other = await collected(engine, asking(max_tokens=30, temperature=1.0, seed=8))
        assert text_of(first) == text_of(again) != text_of(other)
        (one,) = await collected(engine, asking(max_tokens=1, temperature=0))
        assert one.usage is not None
        assert (one.tokens, one.usage.completion_tokens) == (1, 1)


async def test_many_requests_on_one_engine_lose_no_connection(running: Running) -> None:
    # Its server closes connections after streams and after a hundred requests: neither may be felt.
    async with running() as engine:
        for _ in range(130):
            await collected(engine, asking(max_tokens=1))
            await collected(engine, asking(max_tokens=2))


async def test_more_streams_than_slots_are_all_served_and_health_answers(running: Running) -> None:
    async with running(parallel=2, max_concurrent=16) as engine:
        request = asking(max_tokens=60, temperature=0)
        tasks = [asyncio.create_task(collected(engine, request)) for _ in range(16)]
        assert await engine.healthy()
        answers = await asyncio.gather(*tasks)
    assert all(deltas[-1].usage and deltas[-1].usage.completion_tokens == 60 for deltas in answers)


async def test_closing_a_stream_stops_the_engine(running: Running) -> None:
    asked = 30_000
    async with running(context_tokens=32_768, parallel=1) as engine:
        stream = engine.generate(asking(max_tokens=asked, temperature=0))
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        async with asyncio.timeout(120):
            while "stop processing" not in (said := engine.log_tail(100)) or "cancel task" not in said:
                await asyncio.sleep(0.01)
            # There is one slot: it is free again.
            await collected(engine, asking(max_tokens=2))
    stops = [int(n) for n in re.findall(r"stop processing: n_tokens = (\d+)", said)]
    assert stops[0] < asked / 2


async def test_a_schema_is_obeyed(running: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}, "on": {"type": "boolean"}},
        "required": ["n", "on"],
        "additionalProperties": False,
    }
    async with running() as engine:
        answer = json.loads(
            text_of(await collected(engine, asking(max_tokens=200, response_schema=schema, seed=1)))
        )
    assert answer.keys() == {"n", "on"}
    assert answer["n"] in range(10)
    assert isinstance(answer["on"], bool)


async def test_a_schema_it_cannot_take_is_refused(running: Running) -> None:
    async with running() as engine:
        with pytest.raises(InvalidRequest):
            await collected(
                engine, asking(max_tokens=5, response_schema={"type": "object", "$ref": "#/nowhere"})
            )
        assert await engine.healthy()


async def test_a_prompt_that_is_too_long_says_both_figures(running: Running) -> None:
    async with running(context_tokens=256, parallel=2) as engine:
        with pytest.raises(DoesNotFit) as caught:
            await collected(engine, asking("x" * 600, max_tokens=5))
        # Each slot has the whole context, not a half of it.
        assert caught.value.details["context_tokens"] == 256
        assert caught.value.details["prompt_tokens"] > 600
        await collected(engine, asking("x" * 180, max_tokens=5))


async def test_without_a_context_all_slots_share_the_trained_one(running: Running) -> None:
    async with running(context_tokens=None, parallel=4) as engine:
        # A quarter of it would be 8192.
        await collected(engine, asking("x" * 9_000, max_tokens=2))
        with pytest.raises(DoesNotFit) as caught:
            await collected(engine, asking("x" * 40_000, max_tokens=2))
    assert caught.value.details["context_tokens"] == 32_768


async def test_text_of_any_kind_goes_in(running: Running) -> None:
    async with running(context_tokens=4096) as engine:
        for text in ("", "\0", "žluťoučký 🐎", '"\\"', "</s><|assistant|>", "\r\n\t"):
            assert (await collected(engine, asking(text, max_tokens=3)))[-1].finish_reason


async def test_a_death_is_seen_and_the_next_start_works(running: Running) -> None:
    async with running() as engine:
        stream = engine.generate(asking(max_tokens=200, temperature=0))
        await anext(stream)
        os.kill(engine.process.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            assert (await engine.exited()).startswith("was killed by SIGKILL")
            with pytest.raises(EngineFailed):
                async for _ in stream:
                    pass
        assert not await engine.healthy()
        with pytest.raises(EngineFailed, match="cannot be reached"):
            await collected(engine, asking(max_tokens=1))
        await engine.stop()
        with pytest.raises(EngineFailed, match="not running"):
            await collected(engine, asking(max_tokens=1))
        await engine.start(Progress())
        assert (await collected(engine, asking(max_tokens=2)))[-1].finish_reason == "length"


async def test_progress_ends_with_ready(make_config: Callable[..., Config], gguf: Path) -> None:
    config = make_config(engine="llama.cpp", model=str(gguf), context_tokens=256)
    engine = create(config.tiers[0], config=config)
    told: list[str] = []
    await engine.start(Progress(listeners=[told.append]))
    await engine.stop()
    assert told[:2] == ["checking files", "starting"]
    assert told[-1] == "ready"


async def test_a_runtime_folder_with_a_long_name_works(
    make_config: Callable[..., Config], gguf: Path, tmp_path: Path
) -> None:
    config = make_config(engine="llama.cpp", model=str(gguf), context_tokens=256)
    long = tmp_path / ("long-" * 20)
    config = config.model_copy(update={"daemon": config.daemon.model_copy(update={"runtime_dir": long})})
    engine = create(config.tiers[0], config=config)
    before = set(Path("/tmp").glob("subcortex-*"))
    await engine.start(Progress())
    assert await engine.healthy()
    await engine.stop()
    assert set(Path("/tmp").glob("subcortex-*")) <= before


async def test_flags_reach_the_engine(running: Running) -> None:
    async with running(
        flags=["--ctx-size", "512", "--parallel=1", "--no-warmup", "--cache-type-k", "q8_0"]
    ) as engine:
        assert "n_slots = 1, n_ctx_slot = 512" in engine.log_tail(50)


@pytest.mark.parametrize(
    ("number", "raised"),
    [(errno.EMFILE, EngineFailed), (errno.EIO, EngineFailed), (errno.EACCES, ConfigError)],
)
def test_a_model_that_cannot_be_read_just_now_is_no_wrong_setting(gguf, monkeypatch, number, raised):
    def refused(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(raised, match=os.strerror(number)) as caught:
        check_model(gguf, tier="fast")
    assert caught.value.details.get("transient", False) is (raised is EngineFailed)


FAULTS: dict[str, tuple[Callable[[bytes], bytes | None], type[ConfigError], str]] = {
    "missing": (lambda data: None, ConfigError, "there is no model file"),
    "safetensors": (lambda data: b"\x10\0\0\0\0\0\0\0{}", ConfigError, "is not a GGUF file"),
    "empty": (lambda data: b"", ConfigError, "is not a GGUF file"),
    "cut in the tensors": (lambda data: data[:300_000], ConfigError, "not within the file bounds"),
    "cut in the header": (lambda data: data[:3_000], ConfigError, "failed to read"),
    "another architecture": (
        lambda data: data.replace(b"llama", b"lxama"),
        ConfigError,
        "unknown model architecture",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_file_that_is_no_model_says_what_is_wrong_with_it(
    make_config: Callable[..., Config], gguf: Path, tmp_path: Path, fault: str
) -> None:
    spoil, kind, words = FAULTS[fault]
    if (data := spoil(gguf.read_bytes())) is not None:
        (tmp_path / "m.gguf").write_bytes(data)
    config = make_config(engine="llama.cpp", model=str(tmp_path / "m.gguf"))
    engine = create(config.tiers[0], config=config)
    with pytest.raises(kind, match=words) as caught:
        await engine.start(Progress())
    assert caught.value.hint
    await engine.stop()


async def test_a_missing_part_of_a_split_file_is_named(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    (tmp_path / "m-00001-of-00003.gguf").write_bytes(b"GGUF")
    (tmp_path / "m-00003-of-00003.gguf").write_bytes(b"GGUF")
    config = make_config(engine="llama.cpp", model=str(tmp_path / "m-00001-of-00003.gguf"))
    with pytest.raises(ConfigError, match="1 of 3 parts are missing: m-00002-of-00003.gguf"):
        await create(config.tiers[0], config=config).start(Progress())


async def test_a_flag_it_does_not_know_is_named(make_config: Callable[..., Config], gguf: Path) -> None:
    for flags in (["--frobnicate", "3"], ["--batch-size", "many"], ["stray"]):
        config = make_config(engine="llama.cpp", model=str(gguf), flags=flags)
        engine = create(config.tiers[0], config=config)
        with pytest.raises(ConfigError) as caught:
            await engine.start(Progress())
        assert flags[0] in caught.value.message
        assert caught.value.details["key"] == "flags"
        await engine.stop()


async def test_a_context_that_memory_cannot_hold_does_not_fit(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    # 2 layers × 64 wide × keys and values × 2 bytes = 512 bytes a token: 8 GiB, where 4 may be had.
    model = tiny_gguf.write(tmp_path / "long.gguf", context=2**24)
    config = make_config(engine="llama.cpp", model=str(model), context_tokens=2**24, parallel=1)
    engine = create(config.tiers[0], config=config)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)

    def limit(text: str) -> None:
        if text == "starting":
            resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, hard))

    try:
        with pytest.raises(DoesNotFit) as caught:
            await engine.start(Progress(listeners=[limit]))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        await engine.stop()
    assert caught.value.details["needed_gib"] == 8.0


SERVER = (
    f"#!{sys.executable}\n"
    + """
import json, os, subprocess, sys, time
subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("loading model, slowly", flush=True)
time.sleep(1000)
"""
)


@pytest.fixture
def slow_server(tmp_path: Path) -> Path:
    program = tmp_path / "llama-server"
    program.write_text(SERVER)
    program.chmod(0o755)
    return program


def relatives(folder: Path) -> list[int]:
    """Return the processes whose environment or command line names this test's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join([*process.cmdline(), *process.environ().values()])
        except (psutil.Error, OSError):
            continue
        if process.pid != os.getpid() and str(folder) in words:
            found.append(process.pid)
    return found


async def test_a_cancelled_start_leaves_nothing(
    make_config: Callable[..., Config], gguf: Path, slow_server: Path, tmp_path: Path
) -> None:
    config = make_config(
        engine="llama.cpp", model=str(gguf), executable=str(slow_server), env={"WHOSE": str(tmp_path)}
    )
    engine = create(config.tiers[0], config=config)
    loading = asyncio.Event()

    def listen(text: str) -> None:
        if text == "loading weights":
            loading.set()

    start = asyncio.create_task(engine.start(Progress(listeners=[listen])))
    async with asyncio.timeout(30):
        await loading.wait()
    assert len(relatives(tmp_path)) == 3, "the engine, its worker and its keeper"
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert relatives(tmp_path) == []
    assert await asyncio.to_thread(reap_leftovers, config.runtime_dir) == []
    await engine.stop()


async def test_a_start_that_takes_too_long_says_so(
    make_config: Callable[..., Config], gguf: Path, slow_server: Path, tmp_path: Path
) -> None:
    config = make_config(
        engine="llama.cpp",
        model=str(gguf),
        executable=str(slow_server),
        start_timeout_s=0.5,
        env={"WHOSE": str(tmp_path)},
    )
    engine = create(config.tiers[0], config=config)
    with pytest.raises(EngineFailed, match=r"not ready within 0.5 s") as caught:
        await engine.start(Progress())
    assert "start_timeout_s" in str(caught.value.hint)
    await engine.stop(0.1)
    assert relatives(tmp_path) == []


async def test_a_program_that_is_not_there_says_so(make_config: Callable[..., Config], gguf: Path) -> None:
    for program in ("no-such-llama-server", "./no/such/llama-server"):
        config = make_config(engine="llama.cpp", model=str(gguf), executable=program)
        with pytest.raises(ConfigError, match="no-such|no/such"):
            await create(config.tiers[0], config=config).start(Progress())


async def test_a_binary_gets_what_the_tier_says(
    make_config: Callable[..., Config], gguf: Path, tmp_path: Path
) -> None:
    program = tmp_path / "llama-server"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "print(*map(os.environ.get, ('CUDA_VISIBLE_DEVICES', 'LLAMA_ARG_CACHE_RAM')), *sys.argv[1:])\n"
    )
    program.chmod(0o755)
    config = make_config(
        engine="llama.cpp",
        model=str(gguf),
        executable=str(program),
        context_tokens=1000,
        parallel=3,
        threads=2,
        gpu_layers=20,
        split_mode="layer",
        tensor_split=[8, 3],
        gpus=[1, 0],
        max_concurrent=10,
        flags=["--flash-attn", "on"],
    )
    engine = create(config.tiers[0], config=config)
    with pytest.raises(EngineFailed) as caught:
        await engine.start(Progress())
    await engine.stop()
    socket = tmp_path / "run" / "engines" / "fast" / "engine.sock"
    assert caught.value.details["log_tail"] == (
        f"1,0 512 --model {gguf} --alias fast --host {socket} --parallel 3 --threads-http 14 --jinja "
        "--metrics --ctx-size 3000 --threads 2 --n-gpu-layers 20 --split-mode layer --tensor-split 8,3 "
        "--flash-attn on"
    )


async def test_an_engine_does_not_see_the_keys_of_others(
    running: Running, monkeypatch: pytest.MonkeyPatch, gguf: Path, tmp_path: Path
) -> None:
    from subcortex.config import parse

    monkeypatch.setenv("FAR_KEY", "s3cret")
    config = parse(
        {
            "daemon": {"runtime_dir": str(tmp_path / "run")},
            "journal": {"database": str(tmp_path / "journal.db")},
            "tiers": [
                {"name": "fast", "engine": "llama.cpp", "model": str(gguf), "env": {"OWN": "yes"}},
                {
                    "name": "far",
                    "engine": "remote",
                    "model": "m",
                    "url": "http://x/v1",
                    "api_key_env": "FAR_KEY",
                },
            ],
        }
    )
    engine = create(config.tiers[0], config=config)
    await engine.start(Progress())
    assert engine.process is not None
    seen = psutil.Process(engine.process.pid).environ()
    await engine.stop()
    assert "FAR_KEY" not in seen
    assert seen["OWN"] == "yes"
