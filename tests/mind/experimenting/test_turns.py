"""Whose turn it is, what room it finds, and when it may begin by itself."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from subcortex.config import Config, parse
from subcortex.errors import ConfigError
from subcortex.experiments.experiment import Needs
from subcortex.fleet import HOST, Seen
from subcortex.fleet.yielding import Lending
from subcortex.journal.diary.experiment_records import RunRecord
from subcortex.mind.experimenting.room import Shortage, gpus_of, shortage, together
from subcortex.mind.experimenting.turns import (
    Turn,
    batch_of,
    in_turn,
    is_lost,
    may_begin,
    needs_of,
    out_of_window,
)
from subcortex.mind.experimenting.windows import Windows, checked, is_open, next_ticks

MIDNIGHT = datetime(2026, 2, 22, tzinfo=UTC)  # a Sunday


def run(seq: int, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "seq": seq,
        "id": f"{seq:024x}",
        "at": MIDNIGHT,
        "experiment": "ticks",
        "subject": "machine",
        "state": "queued",
        "inquiry": {"needs": changes.pop("needs", {})},
        "asked_by": "person",
        "gap_id": None,
        "drive": None,
        "seconds": 60.0,
        "digest": "d",
        "started_at": None,
        "ended_at": None,
        "gpu_minutes": 0.0,
        "progress": "",
        "share": None,
        "report": None,
        "provenance": None,
        "error": None,
        "session_id": None,
    }
    return RunRecord(**{**values, **changes})


@pytest.fixture
def config() -> Config:
    tiers = [
        {"name": "fast", "engine": "vllm", "model": "m", "gpus": [1]},
        {"name": "deep", "engine": "vllm", "model": "m", "gpus": [2, 3], "tensor_parallel_size": 2},
    ]
    return parse({"tiers": tiers})


def test_a_persons_runs_come_first_and_each_in_its_order():
    runs = [
        run(1, asked_by="schedule"),
        run(2, state="running"),
        run(3, state="yielded"),
        run(4, asked_by="agent"),
        run(5),
        run(6, state="measured"),
    ]
    assert [one.seq for one in in_turn(runs)] == [3, 5, 1, 4]


def test_what_takes_the_same_gpus_is_done_by_one_worker(config: Config):
    one, two = {"gpus": 1}, {"gpus": 2}
    waiting = [run(1, needs=one), run(2, needs=one), run(3, needs=two), run(4, needs=one)]
    assert [found.seq for found in batch_of(waiting[0], waiting, config)] == [1, 2]
    assert [found.seq for found in batch_of(waiting[2], waiting, config)] == [3]
    own = [run(1, asked_by="schedule"), run(2, asked_by="schedule")]
    assert batch_of(own[0], own, config) == own[:1]
    many = [run(seq) for seq in range(20)]
    assert len(batch_of(many[0], many, config)) == 8


def test_a_persons_run_begins_at_once_and_any_other_on_an_idle_machine():
    assert may_begin(run(1), 0.0, 2.0, 60.0) is None
    assert "for 2 s" in str(may_begin(run(1, state="yielded", lives=1), 1.9, 2.0, 60.0))
    assert may_begin(run(1, state="yielded", lives=1), 2.0, 2.0, 60.0) is None
    assert "for 6 s" in str(may_begin(run(1, state="yielded", lives=3), 5.9, 2.0, 60.0))
    assert "for 30 s" in str(may_begin(run(1, state="yielded", lives=99), 0.0, 2.0, 60.0))
    assert "for 60 s" in str(may_begin(run(1, asked_by="schedule"), 59.0, 2.0, 60.0))
    assert may_begin(run(1, asked_by="agent"), 60.0, 2.0, 60.0) is None


def test_the_schedules_run_that_gave_way_goes_on_in_a_window_and_a_persons_at_once():
    triggers = checked(["*/20 2 * * *"])
    local = datetime(2026, 2, 22).astimezone()

    def why(one: RunRecord, hour: int, minute: int, second: int = 0) -> str | None:
        now = local.replace(hour=hour, minute=minute, second=second)
        return out_of_window(one, now.astimezone(UTC), lambda at: is_open(triggers, at))

    asked = local.replace(hour=2)
    gave_way = run(1, asked_by="schedule", state="yielded", lives=1, at=asked)
    waits = "it waits for its window (experiments.windows)"
    times = [
        (1, 59, 59),
        (2, 0),
        (2, 0, 59),
        (2, 1),
        (2, 19, 59),
        (2, 20),
        (2, 40, 30),
        (2, 59),
        (3, 0),
        (14, 20),
    ]
    assert [time for time in times if why(gave_way, *time) is None] == [
        (2, 0),
        (2, 0, 59),
        (2, 20),
        (2, 40, 30),
    ]
    assert why(gave_way, 14, 0) == waits
    # Tiers that make room for a first beginning may take it out of its minute, but not through a morning.
    first = run(1, asked_by="schedule", at=asked)
    assert why(first, 2, 4) is None
    assert why(first, 2, 6) == waits
    assert why(first, 2, 20) is None
    for other in (run(1, state="yielded", lives=1), run(1, asked_by="agent", state="yielded", lives=1)):
        assert why(other, 14, 0) is None


def test_a_run_without_a_living_process_is_lost():
    mine = run(1, state="running", owner_pid=7, owner_started_s=5.0)
    assert is_lost(run(1, state="running"), lambda pid, begun_s: True)
    assert is_lost(mine, lambda pid, begun_s: False)
    assert not is_lost(mine, lambda pid, begun_s: (pid, begun_s) == (7, 5.0))


def test_a_run_takes_its_tiers_own_gpus_before_others(config: Config):
    assert gpus_of(Needs(gpus=1), "fast", config) == {1}
    assert gpus_of(Needs(gpus=2), "deep", config) == {2, 3}
    assert gpus_of(Needs(gpus=2), "fast", config) == {0, 1}
    assert gpus_of(Needs(gpus=1), "deep", config) == {2}
    assert gpus_of(Needs(gpus=2), "machine", config) == {0, 1}
    assert gpus_of(Needs(), "deep", config) == frozenset()


def test_runs_together_need_what_the_hungriest_needs():
    several = [Needs(1, 4096.0, 100.0, alone=False), Needs(1, 8192.0), Needs(host_mib=300.0, alone=False)]
    assert together(several) == Needs(1, 8192.0, 300.0, alone=True)
    assert together([*several, Needs(2, None)]).gpu_mib is None
    assert together([Needs(), Needs()]).gpu_mib == 0.0
    assert needs_of(run(1, needs={"gpus": 2, "gpu_mib": 5.0, "alone": False})) == Needs(2, 5.0, alone=False)


def test_room_is_found_beside_tiers_or_the_shortage_said_with_its_figure():
    seen = Seen(free={0: 10240.0, 1: 2048.0, HOST: 4096.0})
    both = frozenset({0, 1})
    assert shortage(Needs(1, 8192.0), frozenset({0}), seen, ["fast"]) is None
    short = shortage(Needs(2, 8192.0), both, seen, ["fast"])
    assert short == Shortage("it needs 8.0 GiB of GPU 1, 2.0 GiB are free", both)
    whole = shortage(Needs(1, None), frozenset({0}), seen, ["fast", "deep"])
    assert whole == Shortage("it needs all of GPU 0, where fast, deep runs", frozenset({0}))
    assert shortage(Needs(1, None), frozenset({0}), seen, []) is None
    host = shortage(Needs(host_mib=8192.0), frozenset(), seen, [])
    assert host == Shortage("it needs 8.0 GiB of host memory, 4.0 GiB are free", None)
    # What nobody knows is no shortage.
    assert shortage(Needs(1, 8192.0, 1e9), frozenset({5}), Seen(), []) is None


def test_another_program_that_takes_a_gpu_has_it_until_it_has_left_for_a_while():
    turn = Turn()
    turn.look(0.0, {0: 1000.0}, 2048.0, 30.0)
    turn.look(1.0, {0: 4000.0}, 2048.0, 30.0)
    assert "another program" in str(turn.taken(frozenset({0})))
    assert turn.taken(frozenset({1})) is None
    turn.forget()
    turn.look(20.0, {0: 1000.0}, 2048.0, 30.0)
    assert turn.taken(frozenset({0}))
    turn.look(31.0, {0: 1000.0}, 2048.0, 30.0)
    assert turn.taken(frozenset({0})) is None
    turn.forget()
    turn.look(40.0, {0: 9000.0}, 2048.0, 30.0)
    assert turn.taken(frozenset({0})) is None, "it was there before the run"


def test_a_run_that_found_no_room_is_let_be_for_a_while():
    turn = Turn()
    turn.no_room("a", 5.0)
    assert turn.unfit(4.9) == {"a"}
    assert turn.unfit(5.1) == frozenset()


def test_what_an_experiment_borrows_is_not_a_persons_to_take_back_nor_in_its_own_way():
    lending = Lending().lend([0], 100.0).lend([0, 1], float("inf"), "an experiment")
    assert lending.why(frozenset({1}), 0.0) == "GPU 1 is lent to an experiment"
    assert lending.why(frozenset({1}), 0.0, aside="an experiment") is None
    assert "subcortex yield" in str(lending.why(frozenset({0}), 0.0, aside="an experiment"))
    assert lending.take_back().why(frozenset({0}), 0.0) == "GPU 0 is lent to an experiment"
    assert "subcortex yield" in str(lending.give_back("an experiment").why(frozenset({0}), 0.0))


@pytest.mark.parametrize(
    ("line", "days"),
    [
        ("0 3 * * 0", [1]),  # Sunday, March 1: the first one is over at 3
        ("0 3 * * 7", [1]),
        ("0 3 * * sun", [1]),
        ("0 3 * * 1-5", [23, 24, 25]),
        ("0 3 * * 1,3", [23, 25, 2]),
        ("0 3 * * 0-6/2", [24, 26, 28]),
    ],
)
def test_the_days_of_the_week_are_crons(line: str, days: list[int]):
    after = datetime(2026, 2, 22, 4).astimezone()
    assert [tick.day for tick in next_ticks([line], after, len(days))] == days


def test_windows_are_cron_lines_in_local_time():
    ticks = next_ticks(["*/20 2 * * *", "30 2 * * *"], datetime(2026, 2, 22).astimezone(), 4)
    assert [(tick.hour, tick.minute) for tick in ticks] == [(2, 0), (2, 20), (2, 30), (2, 40)]
    assert checked([]) == []


async def test_a_tick_comes_on_the_loop_until_the_windows_are_closed():
    ticked = asyncio.Event()

    async def tick() -> None:
        ticked.set()

    windows = Windows(["0 3 1 1 *"], tick)
    assert windows._scheduler is not None
    (job,) = windows._scheduler.get_jobs()
    job.modify(next_run_time=datetime.now(UTC))
    async with asyncio.timeout(10):
        await ticked.wait()
    windows.close()
    assert windows._scheduler is None
    assert Windows([], tick)._scheduler is None


@pytest.mark.parametrize("line", ["", "nightly", "* * * *", "61 * * * *", "0 3 * * 8", "0 3 * * 5-1"])
def test_what_is_no_line_of_cron_is_refused_by_its_key(line: str):
    with pytest.raises(ConfigError, match=r"experiments\.windows") as caught:
        checked([line])
    assert caught.value.details["key"] == "experiments.windows"
