"""The daemon's side of experiments, with real workers and real engines: order, giving way, going on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from subcortex.config import Config, load
from subcortex.errors import ConfigError, InvalidRequest
from subcortex.experiments import catalogue
from subcortex.fleet import HOST, Seen
from subcortex.journal.board import Gap
from subcortex.journal.diary import Diary, board, board_queries, experiments, sessions
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind import Subcortex
from subcortex.mind.experimenting import supervisor
from subcortex.mind.experimenting.supervisor import Pace
from subcortex.types import ThinkRequest, TierState
from tests.conftest import ROOT, write_config
from tests.experiments.worker.stub import BLOCKS, STUBS


@dataclass
class At:
    """A clock whose wall stands where it is put."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return time.perf_counter()


STUB = (sys.executable, "-m", "tests.experiments.worker.stub")


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", STUBS)
    monkeypatch.setattr(supervisor, "COMMAND", STUB)
    monkeypatch.setattr(
        supervisor, "Pace", lambda: Pace(look_s=0.05, poll_s=0.2, quiet_s=0.1, machine_s=0.05)
    )
    monkeypatch.chdir(ROOT)  # where the worker finds its stubs


@pytest.fixture
def config(folder: Path) -> Config:
    return load(write_config(folder), {})


@asynccontextmanager
async def minded(config: Config) -> AsyncIterator[Subcortex]:
    """Open a mind and see that nothing of its lab is left in the end."""
    async with Subcortex.open(config) as mind:
        yield mind
    assert lab_processes(config) == []


def lab_processes(config: Config) -> list[psutil.Process]:
    """Return the processes that work under the lab's folder: worker, keepers, engines."""
    lab = str(config.runtime_dir / "lab")
    found = []
    for one in psutil.process_iter():
        try:
            if any(lab in word for word in one.cmdline()) and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


async def until(mind: Subcortex, run_id: str, that: Callable[[RunRecord], object]) -> RunRecord:
    async with asyncio.timeout(60):
        while not that(run := await mind.experimenting.run(run_id)):
            await asyncio.sleep(0.02)
    return run


async def over(mind: Subcortex, run_id: str) -> RunRecord:
    return await until(mind, run_id, lambda run: run.state in ("settled", "failed", "cancelled"))


async def sampled(mind: Subcortex, run_id: str, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while True:
            kept = await mind.experimenting._ledger.do(lambda diary: experiments.readings(diary, run_id))
            if len(kept) >= count:
                return
            await asyncio.sleep(0.02)


def thought() -> ThinkRequest:
    return ThinkRequest(messages=[{"role": "user", "content": "one two"}], max_tokens=4)


async def test_two_are_done_one_after_the_other_and_what_is_known_costs_nothing(config: Config) -> None:
    async with minded(config) as mind:
        lab = mind.experimenting
        first, second = [(await lab.ask([name]))[0] for name in ("ticks", "served")]
        assert lab.busy
        seen = [run.state async for run in lab.watch(first.id)]
        done, after = await over(mind, first.id), await over(mind, second.id)
        assert (done.state, after.state) == ("settled", "settled")
        assert seen[-1] == "settled"
        assert "running" in seen
        assert done.ended_at is not None
        assert after.started_at is not None
        assert after.started_at >= done.ended_at
        assert done.session_id is not None
        assert [run.id for run in await lab.ask(["ticks"])] == [first.id]
        again = await lab.ask(["ticks"], again=True)
        assert again[0].id != first.id
        assert (await over(mind, again[0].id)).state == "settled"
        async with asyncio.timeout(5):
            while lab.busy:
                await asyncio.sleep(0.02)


async def test_a_thought_is_answered_at_once_and_the_run_goes_on_after_it(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["served"])
        await sampled(mind, run.id, 2)
        answer = await mind.think(thought())
        assert answer.text
        gave_way = await until(mind, run.id, lambda run: run.state != "running")
        assert gave_way.state == "yielded"
        assert gave_way.error == {"message": "a thought came"}
        done = await over(mind, run.id)
        assert (done.state, done.lives, done.losses) == ("settled", 2, 0)
        kept = await mind.experimenting._ledger.do(lambda diary: experiments.readings(diary, run.id))
        assert [one.block for one in kept] == list(range(BLOCKS))
        assert {one.life for one in kept} == {1, 2}


async def test_by_the_time_that_a_thought_is_answered_no_process_of_the_run_is_left(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["probing"])
        await sampled(mind, run.id)
        async with asyncio.timeout(20):
            while len(lab_processes(config)) < 3:
                await asyncio.sleep(0.02)
        mind.experimenting.make_way("a thought came")
        async with asyncio.timeout(5):
            while lab_processes(config):
                await asyncio.sleep(0.01)
        await mind.experimenting.cancel(run.id)


async def test_a_killed_worker_goes_on_and_one_that_dies_always_is_a_failure(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["served"])
        for losses in range(3):
            found = await until(mind, run.id, begun_after(losses))
            assert found.owner_pid is not None
            os.kill(found.owner_pid, signal.SIGKILL)
            await until(mind, run.id, not_by(found.owner_pid))
        failed = await over(mind, run.id)
        assert (failed.state, failed.lives, failed.losses) == ("failed", 3, 2)
        assert failed.error is not None
        assert "its process died" in failed.error["message"]
        assert "begun" in failed.error["details"]["log_tail"]


def begun_after(losses: int) -> Callable[[RunRecord], bool]:
    return lambda run: run.state == "running" and run.losses == losses


def not_by(owner_pid: int) -> Callable[[RunRecord], bool]:
    return lambda run: run.owner_pid != owner_pid


async def test_cancelled_it_is_over_and_the_next_one_begins(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["endless"])
        (other,) = await mind.experimenting.ask(["ticks"])
        await sampled(mind, run.id)
        assert (await mind.experimenting.cancel(run.id[:20])).state == "cancelled"
        assert (await mind.experimenting.run(run.id)).state == "cancelled"
        assert (await over(mind, other.id)).state == "settled"
        with pytest.raises(InvalidRequest, match="cancelled already"):
            await mind.experimenting.cancel(run.id)


async def test_what_has_measured_nothing_in_its_time_has_failed(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["silent"], minutes=0.005)
        failed = await over(mind, run.id)
        assert failed.error is not None
        assert failed.error["code"] == "deadline_exceeded"


async def test_it_waits_while_the_machine_is_lent_and_goes_on_after(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["ticks"])
        await sampled(mind, run.id)
        mind.yield_gpus(None, None)
        gave_way = await until(mind, run.id, lambda run: run.state != "running")
        assert gave_way.state == "yielded"
        async with asyncio.timeout(5):
            while "lent" not in mind.experimenting.waits.get(run.id, ""):
                await asyncio.sleep(0.02)
        mind.resume()
        assert (await over(mind, run.id)).state == "settled"


async def test_for_a_person_tiers_make_room_and_come_back(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with minded(config) as mind:
        await tiers_are(mind, TierState.READY)

        async def look() -> Seen:
            return Seen(free={HOST: 1024.0 if mind.fleet.up_on(None) else 8192.0})

        monkeypatch.setattr(mind.fleet, "look", look)
        (run,) = await mind.experimenting.ask(["hungry"])
        await sampled(mind, run.id)
        assert set(mind.fleet.states().values()) == {TierState.STOPPED}
        # Who thinks now has them back at once, and the run waits for its room again.
        assert (await mind.think(thought())).text
        assert (await over(mind, run.id)).state == "settled"
        await tiers_are(mind, TierState.READY)


async def test_what_finds_no_room_even_so_is_a_failure_and_only_a_person_may_ask_for_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with minded(config) as mind:
        await tiers_are(mind, TierState.READY)

        async def look() -> Seen:
            return Seen(free={HOST: 1024.0})

        monkeypatch.setattr(mind.fleet, "look", look)
        (run,) = await mind.experimenting.ask(["hungry"])
        failed = await over(mind, run.id)
        assert failed.error is not None
        assert (failed.error["code"], failed.lives) == ("does_not_fit", 0)
        assert "4.0 GiB of host memory, 1.0 GiB are free" in failed.error["message"]
        await tiers_are(mind, TierState.READY)
        monkeypatch.setattr(mind.experimenting, "_thinking", lambda: 1)
        (own,) = await mind.experimenting.ask(["hungry"])
        await mind.experimenting._ledger.do(as_if_scheduled)
        monkeypatch.setattr(mind.experimenting, "_thinking", lambda: 0)
        monkeypatch.setattr(mind.experimenting, "_idle_s", lambda: 1e9)
        async with asyncio.timeout(5):
            while "4.0 GiB" not in mind.experimenting.waits.get(own.id, ""):
                await asyncio.sleep(0.02)
        assert set(mind.fleet.states().values()) == {TierState.READY}
        await mind.experimenting.cancel(own.id)


async def test_another_program_that_takes_its_gpu_has_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = {0: 500.0}
    async with minded(config) as mind:

        async def look() -> Seen:
            return Seen(free={0: 8192.0}, foreign=dict(foreign))

        monkeypatch.setattr(mind.fleet, "look", look)
        (run,) = await mind.experimenting.ask(["carded"])
        await sampled(mind, run.id, 3)
        foreign[0] = 9000.0
        gave_way = await until(mind, run.id, lambda run: run.state != "running")
        assert gave_way.error == {"message": "another program has taken GPU 0"}
        async with asyncio.timeout(5):
            while "taken GPU 0" not in mind.experimenting.waits.get(run.id, ""):
                await asyncio.sleep(0.02)
        await mind.experimenting.cancel(run.id)


def as_if_scheduled(diary: Diary) -> None:
    with diary.transaction() as conn:
        conn.execute("UPDATE experiment_runs SET asked_by = 'schedule' WHERE state = 'queued'")


async def tiers_are(mind: Subcortex, state: TierState) -> None:
    async with asyncio.timeout(30):
        while set(mind.fleet.states().values()) != {state}:
            await asyncio.sleep(0.02)


async def test_closed_in_the_middle_it_goes_on_when_opened_again(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["served"])
        await sampled(mind, run.id, 2)
    async with minded(config) as mind:
        done = await over(mind, run.id)
        assert (done.state, done.lives) == ("settled", 2)


async def test_what_cannot_be_asked_is_refused_in_words(config: Config) -> None:
    async with minded(config) as mind:
        with pytest.raises(InvalidRequest, match="no experiment 'flights'"):
            await mind.experimenting.ask(["flights"])
        with pytest.raises(InvalidRequest, match="cannot be asked of deep") as caught:
            await mind.experimenting.ask(["ticks"], subject="deep")
        assert "machine" in str(caught.value.hint)
        assert not await mind.experimenting.runs()


async def test_a_worker_that_cannot_even_begin_is_a_failure_and_not_a_loop(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such thing')"))
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["ticks"])
        failed = await over(mind, run.id)
        assert failed.error is not None
        assert "no such thing" in failed.error["details"]["log_tail"]


async def test_nor_is_one_that_cannot_go_on(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def gave_way_before(diary: Diary) -> None:
        with diary.transaction() as conn:
            conn.execute("UPDATE experiment_runs SET state = 'yielded', lives = 1")

    monkeypatch.setattr(supervisor, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such thing')"))
    async with minded(config) as mind:
        monkeypatch.setattr(mind.experimenting, "_thinking", lambda: 1)
        (run,) = await mind.experimenting.ask(["ticks"])
        await mind.experimenting._ledger.do(gave_way_before)
        monkeypatch.setattr(mind.experimenting, "_thinking", lambda: 0)
        failed = await over(mind, run.id)
        assert (failed.state, failed.lives) == ("failed", 1)


async def test_a_worker_that_does_nothing_is_ended(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "COMMAND", (sys.executable, "-c", "import time; time.sleep(321)"))
    monkeypatch.setattr(supervisor, "Pace", lambda: Pace(look_s=0.05, between_s=0.2))
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["ticks"])
        failed = await over(mind, run.id)
        assert failed.error is not None
        assert "did nothing for 0.2 s" in failed.error["message"]


async def test_what_somebody_else_cancels_ends_as_well(config: Config) -> None:
    async with minded(config) as mind:
        (run,) = await mind.experimenting.ask(["endless"])
        (other,) = await mind.experimenting.ask(["ticks"])
        await sampled(mind, run.id)
        # As who asks the daemon to, and is gone before its processes are.
        await mind.experimenting._ledger.do(lambda diary: experiments.cancelled(diary, run.id))
        assert (await over(mind, other.id)).state == "settled"
        assert (await mind.experimenting.run(run.id)).state == "cancelled"


async def test_what_is_closed_while_it_looks_begins_nothing_more(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with minded(config) as mind:
        lab, looking, go_on = mind.experimenting, asyncio.Event(), asyncio.Event()
        open_runs = lab._ledger.open_runs

        async def slowly() -> list[RunRecord]:
            found = await open_runs()
            if found:
                looking.set()
                await go_on.wait()
            return found

        monkeypatch.setattr(lab._ledger, "open_runs", slowly)
        (run,) = await lab.ask(["endless"])
        await looking.wait()
        closing = asyncio.create_task(lab.close())
        await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(20):
            await closing
    with Diary.open(config.database_path) as diary:
        assert (experiments.run(diary, run.id).state, experiments.run(diary, run.id).lives) == ("queued", 0)


async def test_a_thought_that_comes_while_room_is_looked_for_keeps_its_tiers(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent: list[str] = []
    looks: list[int] = []
    looked = asyncio.Event()
    async with minded(config) as mind:
        await tiers_are(mind, TierState.READY)

        async def look() -> Seen:
            looks.append(1)
            if len(looks) > 1:
                looked.set()
            mind.experimenting.make_way("a thought came")
            return Seen(free={HOST: 1024.0})

        monkeypatch.setattr(mind.fleet, "look", look)
        monkeypatch.setattr(mind.fleet, "lend_to", lambda holder, gpus: lent.append(holder))
        (run,) = await mind.experimenting.ask(["hungry"])
        async with asyncio.timeout(20):
            await looked.wait()
        assert not lent
        await mind.experimenting.cancel(run.id)


async def test_a_window_that_is_no_line_of_cron_stops_the_start(folder: Path) -> None:
    file = write_config(folder)
    file.write_text(file.read_text() + '\n[experiments]\nwindows = ["every night"]\n')
    with pytest.raises(ConfigError, match=r"experiments\.windows") as caught:
        async with Subcortex.open(load(file, {})):
            pass
    assert caught.value.details["key"] == "experiments.windows"


async def test_in_its_window_it_asks_of_itself_and_only_within_the_days_minutes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config(folder)
    text = '\n[agent]\nidle_s = 0\n[experiments]\nminutes_a_day = {}\nwindows = ["0 3 1 1 *"]\n'
    whole = file.read_text()
    file.write_text(whole + text.format(0))
    async with minded(load(file, {})) as mind:
        await mind.experimenting._tick()
        assert not await mind.experimenting.runs()
        assert mind.experimenting.busy
    file.write_text(whole + text.format(30))
    async with minded(load(file, {})) as mind:
        await mind.experimenting._tick()
        (run,) = await mind.experimenting.runs()
        assert (run.asked_by, run.experiment in {one.name for one in STUBS}) == ("schedule", True)
        await mind.experimenting._tick()
        assert len(await mind.experimenting.runs()) == 1
        await mind.experimenting.cancel(run.id)


async def test_the_schedules_run_waits_for_its_window_once_it_gave_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config(folder)
    text = '\n[agent]\nidle_s = 0\n[experiments]\nminutes_a_day = 30\nwindows = ["0 3 * * *"]\n'
    file.write_text(file.read_text() + text)
    monkeypatch.setattr(catalogue, "CATALOGUE", [one for one in STUBS if one.name == "endless"])
    async with minded(load(file, {})) as mind:
        lab, clock = mind.experimenting, At(datetime(2026, 2, 22, 4).astimezone())
        run = await lab.ask_for("schedule")
        assert run is not None
        await sampled(mind, run.id)
        monkeypatch.setattr(lab, "_clock", clock)
        lab.make_way("a thought has come")
        await until(mind, run.id, lambda run: run.state == "yielded")
        async with asyncio.timeout(10):
            while "its window" not in lab.waits.get(run.id, ""):
                await asyncio.sleep(0.02)
        assert (await lab.run(run.id)).lives == 1
        clock.at = datetime(2026, 2, 23, 3, 0, 20).astimezone()
        lab._woken.set()
        await until(mind, run.id, lambda run: run.lives == 2)
        await lab.cancel(run.id)


async def test_an_agents_run_costs_of_the_day_and_is_not_asked_again_once_cancelled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_config(folder)
    file.write_text(file.read_text() + "\n[experiments]\nminutes_a_day = 0.5\n")
    monkeypatch.setattr(catalogue, "CATALOGUE", [one for one in STUBS if one.name == "ticks"])
    monkeypatch.setattr(type(STUBS[0]), "kinds", frozenset({"model_memory"}))
    async with minded(load(file, {})) as mind:
        lab = mind.experimenting

        def ask_board(diary: Diary) -> str:
            session = sessions.open_session(diary, [], origin="agent")
            board.record(diary, session.id, [Gap("How many ticks?", kind="model_memory")], ())
            return board_queries.gaps(diary)[0].id

        gap_id = await lab._ledger.do(ask_board)
        run = await lab.ask_for("agent", gap_id=gap_id, drive="CURIOSITY")
        assert run is not None
        assert (run.experiment, run.asked_by, run.gap_id, run.drive) == (
            "ticks",
            "agent",
            gap_id,
            "CURIOSITY",
        )
        # Three times what is expected would be more, but the day has no more.
        assert run.seconds == pytest.approx(30.0)
        assert await lab.ask_for("agent", gap_id=gap_id, drive="CURIOSITY") is None
        await lab.cancel(run.id)
        assert await lab.ask_for("agent", gap_id=gap_id, drive="CURIOSITY") is None
        with pytest.raises(InvalidRequest, match="no question"):
            await lab.ask_for("agent", gap_id="ffff")

        def spend(diary: Diary) -> None:
            with diary.transaction() as conn:
                conn.execute(
                    "UPDATE experiment_runs"
                    " SET gpu_minutes = 0.5, heard_at = at, state = 'yielded', lives = 1"
                )

        await lab._ledger.do(spend)
        monkeypatch.setattr(lab, "_idle_s", lambda: 1e9)
        lab._woken.set()
        async with asyncio.timeout(5):
            while "minutes are spent" not in lab.waits.get(run.id, ""):
                await asyncio.sleep(0.02)
