"""What goes in comes out: through the one writer, to the reader."""

from __future__ import annotations

import asyncio
import dataclasses
import stat
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from subcortex.errors import InvalidRequest, JournalError
from subcortex.journal import Failure, Journal, Limits, Reader, Recorder
from subcortex.types import Message, Route, ThoughtStatus, ToolCall, Usage, new_thought_id
from tests.journal.samples import AT, ROUTE, end, read, start, think, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


async def test_a_thought_is_readable_from_its_start_and_whole_after_its_end(path: Path) -> None:
    begun = start(params={"temperature": 0.5, "stop": ["\n"]})
    async with Journal.open(path) as journal:
        await journal.begin(begun)
        running = read(path, begun.id)
        assert (running.status, running.prompt, running.text) == (
            ThoughtStatus.RUNNING,
            "What is 7 + 5?",
            None,
        )
        degraded = ROUTE.model_copy(
            update={"tier": "deep", "degraded": True, "degraded_reason": "fast failed"}
        )
        ended = end(
            begun.id,
            "It is 12.",
            reasoning="7 and 5",
            tier="deep",
            model="tiny-deep",
            engine="vllm",
            engine_version="vllm 0.32.0",
            route=degraded,
            tool_calls=[ToolCall(id="c1", name="add", arguments='{"a": 7}')],
        )
        await journal.complete(ended)
        record = read(path, begun.id)
        run_id = journal.run_id
    assert record.model_dump(exclude={"ended_at"}) == {
        "id": begun.id,
        "run_id": run_id,
        "status": "completed",
        "created_at": AT,
        "drive": "LEARNING",
        "session": "s1",
        "tier": "deep",
        "model": "tiny-deep",
        "engine": "vllm",
        "engine_version": "vllm 0.32.0",
        "route": degraded.model_dump(),
        "params": {"temperature": 0.5, "stop": ["\n"]},
        "prompt": "What is 7 + 5?",
        "prompt_chars": 14,
        "messages": [{"role": "user", "content": "What is 7 + 5?"}],
        "text": "It is 12.",
        "text_chars": 9,
        "reasoning": "7 and 5",
        "reasoning_chars": 7,
        "tool_calls": [{"id": "c1", "name": "add", "arguments": '{"a": 7}'}],
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
        "timing": ended.timing.model_dump(),
        "error": None,
        "recorded": "full",
        "replaced_characters": 0,
    }
    assert record.ended_at is not None
    assert record.ended_at > AT
    assert type(record).model_validate_json(record.model_dump_json()) == record


async def test_a_failure_keeps_its_code_message_and_what_was_said(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        await journal.begin(begun)
        failure = Failure("engine_failed", "it died")
        journal.complete_soon(end(begun.id, "It i", status=ThoughtStatus.FAILED, error=failure))
    record = read(path, begun.id)
    assert (record.status, record.text, record.error) == (ThoughtStatus.FAILED, "It i", failure)


async def test_the_files_are_private(path: Path) -> None:
    async with Journal.open(path) as journal:
        await think(journal)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    await Journal.open(tmp_path / "journal.db").aclose()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
async def test_durability_sets_how_commits_reach_the_disk(path, durability, synchronous) -> None:
    async with Journal.open(path, durability=durability) as journal:
        conn = journal._writer._conn
        assert conn is not None
        assert conn.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert conn.execute("PRAGMA foreign_keys").fetchone() == (1,)


async def test_closing_writes_all_that_was_not_waited_for(path: Path) -> None:
    begun = [start() for _ in range(200)]
    async with Journal.open(path) as journal:
        await asyncio.gather(*(journal.begin(record) for record in begun))
        for record in begun:
            journal.complete_soon(end(record.id, f"answer {record.id}"))
    with Reader.open(path) as reader:
        found = reader.thoughts(status="completed", limit=1000)
    assert {record.id: record.text for record in found} == {r.id: f"answer {r.id}" for r in begun}


async def test_what_is_being_said_is_on_disk_before_the_end_and_gone_after_it(path: Path) -> None:
    begun = start()
    async with Journal.open(path, limits=Limits(say_interval_s=0.01)) as journal:
        await journal.begin(begun)
        journal.say(begun.id, "It", "")
        journal.say(begun.id, "It is", "7 and")
        await until(lambda: read(path, begun.id).text == "It is")
        running = read(path, begun.id)
        assert (running.status, running.reasoning, running.text_chars) == (ThoughtStatus.RUNNING, "7 and", 5)
        await journal.complete(end(begun.id, "It is 12."))
        journal.say(begun.id, "too late", "")
        conn = journal._writer._conn
        assert conn is not None
        assert conn.execute("SELECT count(*) FROM said").fetchone() == (0,)
    assert read(path, begun.id).text == "It is 12."


async def test_thoughts_left_at_closing_are_interrupted_with_what_they_had_said(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        await journal.begin(begun)
        journal.say(begun.id, "It is", "")
    record = read(path, begun.id)
    assert (record.status, record.text) == (ThoughtStatus.INTERRUPTED, "It is")


async def test_a_live_process_keeps_its_running_thoughts_when_another_opens(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        await journal.begin(begun)
        async with Journal.open(path):
            assert read(path, begun.id).status is ThoughtStatus.RUNNING
        await journal.complete(end(begun.id))
    assert read(path, begun.id).status is ThoughtStatus.COMPLETED


async def test_an_end_for_an_unknown_or_ended_thought_is_refused_and_harms_nothing_else(path: Path) -> None:
    async with Journal.open(path) as journal:
        ended = await think(journal, text="first")
        other = start()
        results = await asyncio.gather(
            journal.begin(other),
            journal.complete(end(ended, "second")),
            journal.complete(end("no such id")),
            return_exceptions=True,
        )
        assert results[0] is None
        assert [type(result) for result in results[1:]] == [JournalError, JournalError]
        assert "no such id" in str(results[2])
        assert journal.health.state == "ok"
    assert read(path, ended).text == "first"
    assert read(path, other.id).prompt == "What is 7 + 5?"


async def test_the_same_id_twice_is_refused(path: Path) -> None:
    begun = start()
    async with Journal.open(path) as journal:
        await journal.begin(begun)
        with pytest.raises(JournalError, match=begun.id):
            await journal.begin(begun)


async def test_a_closed_journal_says_so(path: Path) -> None:
    journal = Journal.open(path)
    await journal.aclose()
    await journal.aclose()
    with pytest.raises(JournalError, match="closed"):
        await journal.begin(start())


async def test_a_caller_cancelled_at_the_start_leaves_no_running_thought(path: Path) -> None:
    begun = start()
    # With an fsync a commit the writer's thread does it, and the caller waits.
    async with Journal.open(path, durability="power") as journal:
        task = asyncio.create_task(journal.begin(begun))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await think(journal)
        assert read(path, begun.id).status is ThoughtStatus.CANCELLED


async def test_several_loops_may_share_a_journal(path: Path) -> None:
    async with Journal.open(path) as journal:

        def another_loop(number: int) -> list[str]:
            async def some() -> list[str]:
                return [await think(journal, text=str(number)) for _ in range(20)]

            return asyncio.run(some())

        ids = await asyncio.gather(*(asyncio.to_thread(another_loop, number) for number in range(3)))
    with Reader.open(path) as reader:
        texts = {record.id: record.text for record in reader.thoughts(limit=100)}
    assert texts == {thought_id: str(n) for n, some in enumerate(ids) for thought_id in some}


async def test_times_are_stored_in_utc(path: Path) -> None:
    local = datetime(2026, 2, 22, 17, 8, 7, tzinfo=timezone(timedelta(hours=2)))
    async with Journal.open(path) as journal:
        begun = await think(journal, created_at=local)
        conn = journal._writer._conn
        assert conn is not None
        stored = conn.execute("SELECT created_at FROM thoughts").fetchone()
    assert stored == ("2026-02-22T15:08:07.000000Z",)
    assert read(path, begun).created_at == datetime(2026, 2, 22, 15, 8, 7, tzinfo=UTC)


async def test_lists_run_newest_first_page_by_page_and_filter(path: Path) -> None:
    async with Journal.open(path) as journal:
        ids = [
            await think(
                journal, drive=("CARE", "PLAY")[i % 2], tier=("fast", "deep")[i % 2], session=f"s{i // 5}"
            )
            for i in range(10)
        ]
        running = start(drive=None, session=None)
        await journal.begin(running)
        with Reader.open(path) as reader:

            def listed(**filters) -> list[str]:
                return [record.id for record in reader.thoughts(**filters)]

            newest_first = [running.id, *reversed(ids)]
            assert listed() == newest_first
            assert listed(limit=3) == newest_first[:3]
            assert listed(limit=4, before=newest_first[2]) == newest_first[3:7]
            assert listed(limit=0) == []
            assert listed(drive="care") == ids[8::-2]
            assert listed(tier="deep", session="s1") == [ids[9], ids[7], ids[5]]
            assert listed(status="running") == [running.id]
            assert listed(drive="NOBODY") == []
            with pytest.raises(InvalidRequest, match="no thought"):
                reader.thoughts(before="nobody")


async def test_a_unique_beginning_of_an_id_finds_its_thought(path: Path) -> None:
    async with Journal.open(path) as journal:
        for thought_id in ("00aa", "00ab", "01", "01ff"):
            await journal.begin(start(thought_id))
        with Reader.open(path) as reader:
            found = {
                given: reader.thought(given)
                for given in ("00aa", "00ab", "01", "01f", "02", "", "%", "\ud800")
            }
            assert {given: record.id if record else None for given, record in found.items()} == {
                "00aa": "00aa",
                "00ab": "00ab",
                "01": "01",
                "01f": "01ff",
                "02": None,
                "": None,
                "%": None,
                "\ud800": None,
            }
            with pytest.raises(InvalidRequest, match="several"):
                reader.thought("00")


def test_reading_without_a_journal_says_what_to_do(path: Path) -> None:
    with pytest.raises(JournalError, match="no journal") as caught:
        Reader.open(path)
    assert caught.value.hint
    assert not path.exists()


async def test_costs_are_medians_of_warm_completed_thoughts_by_tier_and_model(path: Path) -> None:
    async with Journal.open(path) as journal:

        async def had(tier: str, ttft_s: float, tokens: int, **timing) -> None:
            begun = start(tier=tier)
            await journal.begin(begun)
            ended = end(begun.id, tier=tier, usage=Usage(prompt_tokens=tokens))
            times = ended.timing.model_copy(update={"ttft_s": ttft_s, "queued_s": 0.0, **timing})
            status = timing.get("status", ThoughtStatus.COMPLETED)
            await journal.complete(dataclasses.replace(ended, timing=times, status=status))

        # 0.1 s and 2 ms a prompt token, with one outlier; queueing is not the tier's cost.
        for tokens in (10, 20, 30, 40, 50, 60, 70, 80, 90):
            await had("fast", 0.1 + 0.002 * tokens + 5.0, tokens, queued_s=5.0, tpot_s=0.01)
        await had("fast", 9.0, 55, tpot_s=0.01)
        await had("fast", 30.0, 50, load_s=29.0)
        await had("fast", 77.0, 50, status=ThoughtStatus.FAILED)
        await had("deep", 1.0, 10)
        journal.event("fast", "ready", load_s=4.0, model="tiny")
        journal.event("fast", "ready", load_s=6.0)
        journal.event("deep", "ready", load_s=20.0)
        journal.event("deep", "crashed", load_s=1.0)
        journal.event("remote", "ready", load_s=0.5, model="far")
    with Reader.open(path) as reader:
        costs = reader.tier_costs()
        latest = reader.tier_costs(last=1)
    fast = costs["fast", "tiny"]
    assert (fast.n, fast.tpot_s, fast.load_s, fast.n_loads) == (10, 0.01, 4.0, 1)
    assert fast.ttft_s == pytest.approx(0.21)
    assert fast.prefill_s_per_token == pytest.approx(0.002, rel=0.05)
    deep = costs["deep", "tiny"]
    assert (deep.n, deep.ttft_s, deep.load_s, deep.prefill_s_per_token) == (1, 1.0, 20.0, None)
    assert (costs["remote", "far"].n, costs["remote", "far"].load_s) == (0, 0.5)
    assert latest["fast", "tiny"].ttft_s == 9.0


async def test_an_empty_journal_has_no_costs(path: Path) -> None:
    await Journal.open(path).aclose()
    with Reader.open(path) as reader:
        assert reader.tier_costs() == {}
        assert reader.thoughts() == []


async def test_a_thousand_thoughts_at_once_are_all_there(path: Path) -> None:
    limits = Limits(checkpoint_rows=100)
    async with Journal.open(path, limits=limits) as journal:
        ids = await asyncio.gather(*(think(journal, text=f"answer {i}") for i in range(1000)))
        assert journal.health.state == "ok"
    with Reader.open(path) as reader:
        texts = {record.id: record.text for record in reader.thoughts(limit=2000)}
        assert texts == {thought_id: f"answer {i}" for i, thought_id in enumerate(ids)}
        assert len(reader.thoughts(query="answer", limit=2000)) == 1000


async def test_a_prompt_of_a_megabyte_is_kept(path: Path) -> None:
    prompt = "0123456789abcdef" * 65536
    messages: list[Message] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]
    async with Journal.open(path) as journal:
        begun = await think(journal, prompt, messages=messages)
    record = read(path, begun)
    assert record.prompt == prompt
    assert record.messages == messages


async def test_with_no_texts_recorded_only_figures_are_on_disk(path: Path) -> None:
    secret = "zebra"
    route = Route(tier="deep", score=0.5, complexity=0.5, degraded=True, degraded_reason=f"refused: {secret}")
    begun = start(prompt=secret, params={"temperature": 0.5, "stop": [secret]})
    async with Journal.open(path, recorder=Recorder("none"), limits=Limits(say_interval_s=0.01)) as journal:
        await journal.begin(begun)
        journal.say(begun.id, secret, secret)
        await until(lambda: read(path, begun.id).text_chars == 5)
        journal.event("deep", "failed", detail=secret, exit_code=1)
        call = ToolCall(id="1", name="f", arguments=secret)
        failure = Failure("engine_failed", secret)
        await journal.complete(
            end(begun.id, secret * 2, reasoning=secret, tool_calls=[call], route=route, error=failure)
        )
        log = (path.parent / "journal.db-wal").read_bytes()
    assert secret.encode() not in log + path.read_bytes()
    record = read(path, begun.id)
    assert (record.prompt, record.messages, record.text, record.reasoning) == (None, None, None, None)
    assert (record.prompt_chars, record.text_chars, record.reasoning_chars) == (5, 10, 5)
    assert (record.recorded, record.params) == ("none", {"temperature": 0.5})
    assert record.error == Failure("engine_failed", "")


def test_ids_sort_by_time() -> None:
    ids = [new_thought_id() for _ in range(3)]
    assert len({len(one) for one in ids}) == 1
