"""vLLM put to sleep and woken, against a stand-in that means by vLLM's routes what vLLM means."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subcortex.config import Config, VllmTier
from subcortex.engines import _vllm_sleep, create
from subcortex.engines.canary import TOKENS, differs
from subcortex.engines.protocol import Engine, Progress
from subcortex.errors import ConfigError, DoesNotFit, EngineFailed
from subcortex.types import Rest
from tests.engines.conftest import asking
from tests.engines.sleepy_server import switch

Sleepy = Callable[..., Any]
LEVELS = [Rest.SLEEP_1, Rest.SLEEP_2]


async def said(engine: Engine) -> str:
    return "".join([delta.text async for delta in engine.generate(asking(max_tokens=5))])


@pytest.mark.parametrize("rest", LEVELS)
async def test_it_sleeps_and_wakes_as_it_was(sleepy: Sleepy, rest: Rest) -> None:
    async with sleepy(hold_mib=64) as (engine, _):
        assert engine.rests == {Rest.STOP, *LEVELS}
        server = psutil.Process(engine.process.pid)
        before, words, awake = await engine.canary(), await said(engine), server.memory_info().rss
        await engine.sleep(rest)
        assert awake - server.memory_info().rss > 60 * 2**20
        assert await engine.healthy()
        with pytest.raises(EngineFailed, match="sleeps"):
            await said(engine)
        await engine.wake()
        assert server.memory_info().rss > awake - 4 * 2**20
        after = await engine.canary()
        assert before is not None
        assert after is not None
        assert len(before.tokens) == TOKENS
        assert differs(before, after) is None
        assert await said(engine) == words
        # Once more, and the other way.
        other = next(level for level in LEVELS if level is not rest)
        await engine.sleep(other)
        await engine.wake()
        assert differs(before, await engine.canary()) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("corrupt_wake", r"token 1 of 8 is 'token_id:\d+' at -0\.\d+ where it was"),
        ("nan_wake", "the log-probability of token 1 is no number"),
    ],
)
async def test_a_corrupt_wake_shows_in_the_canary(sleepy: Sleepy, fault: str, words: str) -> None:
    async with sleepy() as (engine, program):
        before = await engine.canary()
        await engine.sleep(Rest.SLEEP_1)
        switch(program, **{fault: True})
        await engine.wake()
        assert re.match(words, differs(before, await engine.canary()) or "")


async def test_a_wake_of_a_sleep_that_is_not_known_reads_the_weights_again(sleepy: Sleepy) -> None:
    # So after an adoption: whoever put it to sleep is gone. Without reading again this one says garbage.
    async with sleepy() as (engine, _):
        before = await engine.canary()
        await engine.sleep(Rest.SLEEP_2)
        engine._rest = None
        await engine.wake()
        assert differs(before, await engine.canary()) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"hang_sleep": True}, "did not fall asleep within 0.5 s"),
        ({"ignore_sleep": True}, "was told to fall asleep and did not"),
        ({"die": True}, "broke off when told to fall asleep"),
    ],
)
async def test_a_sleep_that_does_not_come_is_an_error(
    sleepy: Sleepy, fault: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vllm_sleep, "_SETTLE_S", 0.05)
    async with sleepy() as (engine, program):
        engine._tier = engine._tier.model_copy(update={"start_timeout_s": 0.5})
        switch(program, **fault)
        with pytest.raises(EngineFailed, match=words) as caught:
            await engine.sleep(Rest.SLEEP_1)
    assert "Starting vLLM server" in caught.value.details["log_tail"]


@pytest.mark.parametrize(
    ("rest", "fault", "words"),
    [
        (Rest.SLEEP_1, {"hang_wake": True}, "did not wake within 0.5 s"),
        (Rest.SLEEP_1, {"refuse_wake": True}, "was told to wake and did not"),
        (Rest.SLEEP_2, {"refuse_wake": True}, "would not wake: /collective_rpc gave HTTP 500"),
        (Rest.SLEEP_2, {"fail_reload": True}, "would not wake: /collective_rpc gave HTTP 500"),
        (Rest.SLEEP_1, {"keep_prefixes": True}, "did not drop the prefixes"),
        (Rest.SLEEP_2, {"die": True}, "broke off when told to wake"),
    ],
)
async def test_a_wake_that_fails_is_an_error(
    sleepy: Sleepy, rest: Rest, fault: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vllm_sleep, "_SETTLE_S", 0.05)
    async with sleepy() as (engine, program):
        await engine.sleep(rest)
        engine._tier = engine._tier.model_copy(update={"start_timeout_s": 0.5})
        switch(program, **fault)
        with pytest.raises(EngineFailed, match=words):
            await engine.wake()


@pytest.mark.parametrize("where", [True, "log"])
@pytest.mark.parametrize("rest", LEVELS)
async def test_a_wake_without_room_does_not_fit(sleepy: Sleepy, rest: Rest, where: Any) -> None:
    async with sleepy() as (engine, program):
        await engine.sleep(rest)
        switch(program, oom_wake=where)
        with pytest.raises(DoesNotFit, match="owner/model cannot wake, the memory it had is taken"):
            await engine.wake()


async def test_memory_that_ran_out_before_a_wake_is_not_taken_for_its_reason(sleepy: Sleepy) -> None:
    async with sleepy() as (engine, program):
        await engine.sleep(Rest.SLEEP_2)
        switch(program, oom_wake="log")
        with pytest.raises(DoesNotFit):
            await engine.wake()
        switch(program, fail_reload=True, oom_wake=False)
        with pytest.raises(EngineFailed, match="reload_weights"):
            await engine.wake()


async def test_a_sleep_can_be_cancelled(sleepy: Sleepy) -> None:
    async with sleepy() as (engine, program):
        switch(program, hang_sleep=True)
        task = asyncio.create_task(engine.sleep(Rest.SLEEP_1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await engine.healthy()


async def test_what_ignores_its_end_is_killed_with_its_ranks(sleepy: Sleepy) -> None:
    async with sleepy({"tensor_parallel_size": 2}, ignore_sigterm=True) as (engine, _):
        server = psutil.Process(engine.process.pid)
        family = [server, *server.children(recursive=True)]
        assert len(family) == 3
        await engine.stop(grace_s=0.2)
    left = [it for it in family if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]
    assert left == []


@pytest.mark.parametrize("tier", [{}, {"sleep_mode": False, "flags": ["--enable-sleep-mode"]}])
async def test_without_sleep_mode_it_can_only_stop(sleepy: Sleepy, tier: dict[str, Any]) -> None:
    async with sleepy({"sleep_mode": None} | tier) as (engine, _):
        assert engine.rests == {Rest.STOP}
        for rest in Rest:
            with pytest.raises(EngineFailed, match=f"knows no {rest}"):
                await engine.sleep(rest)


async def test_a_rest_that_is_a_stop_is_no_sleep(sleepy: Sleepy) -> None:
    async with sleepy() as (engine, _):
        with pytest.raises(EngineFailed, match="knows no stop"):
            await engine.sleep(Rest.STOP)


@pytest.mark.parametrize(
    ("tier", "sleeps", "adds_flag"),
    [
        ({}, False, False),
        ({"sleep_mode": True}, True, True),
        ({"sleep_mode": False}, False, False),
        ({"flags": ["--enable-sleep-mode"]}, True, False),
        ({"flags": ["--enable_sleep_mode"]}, True, False),
        ({"flags": ["--enable-sleep"]}, True, False),
        ({"flags": ["--enable-prefix-caching"]}, False, False),
        ({"flags": ["--enable-sleep-mode", "--no-enable-sleep-mode"]}, False, False),
        ({"sleep_mode": True, "flags": ["--enable-sleep-mode"]}, True, False),
        ({"sleep_mode": True, "flags": ["--no-enable-sleep-mode"]}, False, False),
        ({"sleep_mode": False, "flags": ["--enable-sleep-mode"]}, False, False),
        ({"sleep_mode": True, "env": {"VLLM_SERVER_DEV_MODE": "0"}}, False, True),
        ({"sleep_mode": True, "env": {"VLLM_SERVER_DEV_MODE": "1"}}, True, True),
    ],
)
def test_sleep_mode_is_on_where_the_tier_says_so(tier: dict[str, Any], sleeps: bool, adds_flag: bool) -> None:
    found = VllmTier.model_validate({"name": "deep", "model": "m", **tier})
    assert _vllm_sleep.enabled(found) is sleeps
    assert _vllm_sleep.flag_missing(found) is adds_flag


@given(st.sampled_from([None, *LEVELS]))
def test_weights_are_read_again_unless_they_are_known_to_be_in_host_memory(rest: Rest | None) -> None:
    paths = [step.path for step in _vllm_sleep.steps_of_wake(rest)]
    assert ("/collective_rpc" in paths) is (rest is not Rest.SLEEP_1)
    assert paths[-1] == "/reset_prefix_cache"
    if "/collective_rpc" in paths:
        assert paths.index("/wake_up?tags=weights") < paths.index("/collective_rpc")
        assert paths.index("/collective_rpc") < paths.index("/wake_up?tags=kv_cache")


async def test_hardware_that_cannot_sleep_is_a_mistake_of_the_tier(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    program = tmp_path / "vllm"
    program.write_text(
        "#!/bin/sh\necho '  Value error, Sleep mode is not supported on current platform.'\nexit 1\n"
    )
    program.chmod(0o755)
    config = make_config(engine="vllm", model="o/m", executable=str(program), sleep_mode=True)
    engine = create(config.tiers[0], config=config)
    with pytest.raises(ConfigError, match="cannot put a model to sleep") as caught:
        await engine.start(Progress())
    await engine.stop()
    assert caught.value.details["key"] == "sleep_mode"
