"""The owner of the engines, with engines that fail at exact moments."""

from __future__ import annotations

import asyncio

import pytest

from subcortex.engines.protocol import Canary, Progress
from subcortex.errors import Cancelled, ConfigError, EngineFailed, Overloaded, SubcortexError
from subcortex.fleet import Fleet, Member, Rules, Timing
from subcortex.types import Rest, TierState
from tests.fakes import ScriptedEngine


def member(name: str, engine: ScriptedEngine, *, eager=False, concurrent=2, waiting=2, restarts=3) -> Member:
    return Member(name, 0, engine, eager, restarts, concurrent, waiting)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_lease_starts_a_stopped_engine_and_counts_the_load():
    engine = ScriptedEngine()
    fleet = Fleet([member("fast", engine)])
    async with fleet.lease("fast") as lease:
        assert fleet.state("fast") is TierState.READY
        assert lease.engine is engine
        assert lease.load_s > 0
        assert fleet.status()[0].in_flight == 1
    async with fleet.lease("fast") as lease:
        assert (lease.queued_s, lease.load_s) == (0.0, 0.0)
    assert engine.started == 1
    assert fleet.status()[0].served == 2
    await fleet.close()
    assert engine.stopped == 1
    assert fleet.state("fast") is TierState.STOPPED


async def test_eager_engines_start_one_after_the_other():
    first, second = ScriptedEngine(), ScriptedEngine()
    first.may_start.clear()
    changes = []
    fleet = Fleet(
        [member("fast", first, eager=True), member("deep", second, eager=True)],
        on_change=lambda tier, kind, facts: changes.append((tier, kind)),
    )
    fleet.open()
    await asyncio.sleep(0.01)
    assert (first.started, second.started) == (0, 0)
    first.may_start.set()
    await until(lambda: fleet.state("deep") is TierState.READY)
    assert changes.index(("fast", "ready")) < changes.index(("deep", "ready"))
    await fleet.close()


async def test_a_crash_restarts_and_those_who_wait_are_served():
    engine = ScriptedEngine()
    fleet = Fleet([member("fast", engine)])
    async with fleet.lease("fast"):
        pass
    engine.die()
    await until(lambda: fleet.state("fast") is TierState.BACKING_OFF)
    assert "signal 9" in (fleet.status()[0].error or "")
    async with fleet.lease("fast") as lease:
        assert lease.load_s > 0
    assert engine.started == 2
    assert fleet.status()[0].restarts == 1
    await fleet.close()
    assert engine.stopped == 2, "every start is followed by a stop, crash or not"


async def test_a_wrong_configuration_is_told_to_everyone_who_waits():
    engine = ScriptedEngine(starts=[ConfigError("no such file x.gguf")])
    fleet = Fleet([member("fast", engine)])

    async def ask() -> None:
        async with fleet.lease("fast"):
            pass

    results = await asyncio.gather(ask(), ask(), return_exceptions=True)
    assert [type(r) for r in results] == [ConfigError, ConfigError]
    with pytest.raises(ConfigError, match="x.gguf"):
        await ask()
    assert engine.started == 1, "refused at once the second time, without another start"
    await fleet.close()


async def test_starts_that_keep_failing_end_in_failed(monkeypatch):
    monkeypatch.setattr("subcortex.fleet.machine._FIRST_DELAY_S", 0.001)
    engine = ScriptedEngine(starts=[EngineFailed("boom")] * 3)
    fleet = Fleet([member("fast", engine, restarts=2)])
    with pytest.raises(EngineFailed, match="boom"):
        async with fleet.lease("fast"):
            pass
    assert engine.started == 3
    assert fleet.state("fast") is TierState.FAILED
    await fleet.close()


async def test_places_are_given_by_priority_then_arrival_and_the_line_is_bounded():
    fleet = Fleet([member("fast", ScriptedEngine(), concurrent=1, waiting=3)])
    served: list[str] = []

    async def ask(name: str, priority: int) -> None:
        async with fleet.lease("fast", priority):
            served.append(name)

    async with fleet.lease("fast"):
        asks = [asyncio.create_task(ask(n, p)) for n, p in (("low", 0), ("high", 5), ("low too", 0))]
        await until(lambda: fleet.status()[0].queued == 3)
        with pytest.raises(Overloaded) as refused:
            await ask("one too many", 9)
        assert refused.value.details["waiting"] == 3
        assert refused.value.details["retry_after_s"] > 0
    await asyncio.gather(*asks)
    assert served == ["high", "low", "low too"]
    await fleet.close()


async def test_a_waiter_that_gives_up_leaves_no_place_behind():
    fleet = Fleet([member("fast", ScriptedEngine(), concurrent=1, waiting=9)])

    async def ask() -> None:
        async with fleet.lease("fast"):
            pass

    async with fleet.lease("fast"):
        gone = asyncio.create_task(ask())
        stays = asyncio.create_task(ask())
        await until(lambda: fleet.status()[0].queued == 2)
        gone.cancel()
        await asyncio.wait([gone])
        assert fleet.status()[0].queued == 1
    await stays
    assert fleet.status()[0].in_flight == 0
    await fleet.close()


async def test_who_has_another_tier_does_not_wait_for_one_that_died():
    engine = ScriptedEngine(starts=[EngineFailed("boom")] * 9)
    fleet = Fleet([member("fast", engine, restarts=9)])
    with pytest.raises(EngineFailed, match="boom") as first:
        async with fleet.lease("fast", patient=False):
            pass
    assert fleet.state("fast") is TierState.BACKING_OFF
    with pytest.raises(EngineFailed, match="boom") as second:
        async with fleet.lease("fast", patient=False):
            pass
    assert engine.started == 1
    assert first.value is not second.value, "each has an error of its own"
    await fleet.close()


async def test_of_an_engine_that_is_silent_no_counters_are_asked():
    engine = ScriptedEngine()
    asked = []

    async def beat() -> int | None:
        asked.append(engine.is_healthy)
        return len(asked)

    engine.beat = beat  # type: ignore[method-assign]
    fleet = Fleet([member("fast", engine)], timing=Timing(look_every_s=0.001))
    async with fleet.lease("fast"):
        await until(lambda: len(asked) > 2)
        engine.is_healthy = False
        await until(lambda: fleet.state("fast") is TierState.BACKING_OFF)
    assert "health route 3 times" in (fleet.status()[0].error or "")
    # One look may have been under way between the two questions.
    assert asked.count(False) <= 1
    await fleet.close()


async def test_an_engine_that_is_silent_again_and_again_is_restarted():
    engine = ScriptedEngine()
    fleet = Fleet([member("fast", engine)], timing=Timing(look_every_s=0.001))
    async with fleet.lease("fast"):
        pass
    engine.is_healthy = False
    await until(lambda: fleet.state("fast") is TierState.BACKING_OFF)
    assert "health route 3 times" in (fleet.status()[0].error or "")
    engine.is_healthy = True
    async with fleet.lease("fast"):
        assert engine.started == 2
    await fleet.close()


async def test_closing_sends_waiters_away_and_stops_a_start_in_the_middle():
    engine = ScriptedEngine()
    engine.may_start.clear()
    fleet = Fleet([member("fast", engine)])

    async def ask() -> None:
        async with fleet.lease("fast"):
            pass

    waiting = asyncio.create_task(ask())
    await until(lambda: fleet.state("fast") is TierState.STARTING)
    await fleet.close()
    with pytest.raises(Cancelled):
        await waiting
    assert engine.stopped == 1
    with pytest.raises(Cancelled):
        await ask()


class Watching:
    """Writes down what it is told, and fails when it is to."""

    def __init__(self, engine: ScriptedEngine, *, broken: bool = False) -> None:
        self.engine = engine
        self.broken = broken
        self.told: list[tuple[str, str | None, int, int]] = []

    async def began(self, tier: str) -> None:
        await self._note("began", None)

    async def ended(self, tier: str, error: SubcortexError | None) -> None:
        await self._note("ended", error.message if error else None)

    async def _note(self, what: str, why: str | None) -> None:
        self.told.append((what, why, self.engine.started, self.engine.stopped))
        if self.broken:
            raise RuntimeError("full disk")


async def test_who_watches_starts_is_told_before_and_after_each(monkeypatch):
    monkeypatch.setattr("subcortex.fleet.machine._FIRST_DELAY_S", 0.001)
    engine = ScriptedEngine(starts=[EngineFailed("boom"), None])
    watch = Watching(engine)
    fleet = Fleet([member("fast", engine)], watch=watch)
    async with fleet.lease("fast"):
        pass
    engine.die()
    async with fleet.lease("fast"):
        pass
    await until(lambda: len(watch.told) == 6)
    assert watch.told == [
        ("began", None, 0, 0),
        ("ended", "boom", 1, 0),
        ("began", None, 1, 1),
        ("ended", None, 2, 1),
        # Its later death is no failed start.
        ("began", None, 2, 2),
        ("ended", None, 3, 2),
    ]
    await fleet.close()


async def test_a_watch_that_fails_stops_no_engine():
    engine = ScriptedEngine()
    watch = Watching(engine, broken=True)
    fleet = Fleet([member("fast", engine)], watch=watch)
    async with fleet.lease("fast"):
        assert fleet.state("fast") is TierState.READY
    await until(lambda: len(watch.told) == 2)
    await fleet.close()
    assert engine.stopped == 1


class LeftBehind(ScriptedEngine):
    """An engine that a former daemon may have left running; to see that takes a while."""

    def __init__(self, *, there: bool) -> None:
        super().__init__()
        self.there = there
        self.may_be_seen, self.may_say = asyncio.Event(), asyncio.Event()

    async def adopt(self, progress: Progress) -> bool:
        await self.may_be_seen.wait()
        self.death = asyncio.get_running_loop().create_future()
        return self.there

    @property
    def rests(self) -> frozenset[Rest]:
        # What may sleep is asked for a canary before it counts as ready.
        return frozenset({Rest.STOP, Rest.SLEEP_1})

    async def canary(self) -> Canary | None:
        await self.may_say.wait()
        return None


async def test_a_look_for_what_a_former_daemon_left_is_not_shown_as_a_start():
    engine = LeftBehind(there=False)
    told: list[str] = []
    fleet = Fleet(
        [member("deep", engine)],
        on_change=lambda tier, kind, facts: told.append(kind),
        rules=Rules(adopt=True),
    )
    fleet.open()
    shown = fleet.status()[0]
    # Who reads this hears nothing more of the tier: it must be how things stand.
    assert (shown.state, shown.progress) == (TierState.STOPPED, None)
    assert fleet.state("deep") is TierState.STARTING, "meanwhile nothing else takes its place"
    engine.may_be_seen.set()
    await until(lambda: fleet.state("deep") is TierState.STOPPED)
    assert (fleet.status()[0].state, told) == (TierState.STOPPED, [])
    engine.may_say.set()
    async with fleet.lease("deep") as lease:
        assert lease.engine is engine
    assert told == ["starting", "ready"]
    await fleet.close()


async def test_what_is_found_is_shown_as_coming_until_it_is_ready():
    engine = LeftBehind(there=True)
    told: list[str] = []
    fleet = Fleet(
        [member("deep", engine)],
        on_change=lambda tier, kind, facts: told.append(kind),
        rules=Rules(adopt=True),
    )
    fleet.open()
    engine.may_be_seen.set()
    await until(lambda: fleet.status()[0].state is TierState.STARTING)
    engine.may_say.set()
    await until(lambda: fleet.status()[0].state is TierState.READY)
    assert (told, engine.started) == (["ready"], 0)
    await fleet.close()
