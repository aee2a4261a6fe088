"""The real fleet on a clock that jumps: what it tells must be a true and whole story, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from subcortex.errors import DoesNotFit, EngineFailed, Overloaded, SubcortexError
from subcortex.fleet import Fleet, Member, Rules
from subcortex.fleet.scene import HOST
from subcortex.types import Rest, TierState
from tests.fleet.loop import FakeLoop, FakeMemory, LoopClock, TimedEngine
from tests.fleet.world import Spec, turns_of

GPU_MIB = 100_000.0
SLEEP = {Rest.SLEEP_1: {0: 2_000.0, HOST: 54_000.0}}
COMING = (TierState.STARTING, TierState.WAKING)
#: One tier that sleeps and one that does not, which do not fit together; a small one beside both.
SPECS = (
    Spec("fast", {0: 60_000.0, HOST: 4_000.0}, start_s=20.0, leave_s={Rest.STOP: 3.0}, eager=True),
    Spec(
        "deep",
        {0: 90_000.0, HOST: 4_000.0},
        SLEEP,
        start_s=60.0,
        leave_s={Rest.STOP: 8.0, Rest.SLEEP_1: 15.0},
        wake_s={Rest.SLEEP_1: 2.0},
        rank=1,
    ),
    Spec("tiny", {HOST: 20_000.0}, start_s=1.0, leave_s={Rest.STOP: 0.5}, rank=2),
)


class Told:
    """A fleet on a loop of its own, its machine, and everything it told."""

    def __init__(
        self, specs: tuple[Spec, ...] = SPECS, host_mib: float = 200_000.0, max_wait_s=120.0
    ) -> None:
        self.loop = FakeLoop()
        self.engines = {spec.name: TimedEngine(spec) for spec in specs}
        self.memory = FakeMemory(self.engines, {0: GPU_MIB, HOST: host_mib})
        self.events: list[tuple[float, str, str, dict[str, object]]] = []
        self.tasks: list[asyncio.Task[str]] = []
        self.disturbed = False
        self.loop.run_until_complete(self._open(specs, max_wait_s))

    async def _open(self, specs: tuple[Spec, ...], max_wait_s: float) -> None:
        members = [
            Member(one.name, one.rank, self.engines[one.name], one.eager, one.restarts, 2, 99, one.start_s)
            for one in specs
        ]
        self.fleet = Fleet(
            members,
            on_change=self._tell,
            memory=self.memory,
            rules=Rules(max_wait_s=max_wait_s, yield_over_mib=2048.0),
            clock=LoopClock(self.loop),
        )
        self.fleet.open()

    def _tell(self, tier: str, kind: str, facts: dict[str, object]) -> None:
        self.events.append((self.loop.time(), tier, kind, facts))
        self.check()

    def check(self) -> None:
        """Nothing is ever over budget, and one comes at a time on a device."""
        if not self.disturbed:
            for device in self.memory.total:
                assert self.memory.free(device) >= 0.0, (device, self.memory.free(device), self.events[-3:])
        states = self.fleet.states()
        coming = [name for name, state in states.items() if state in COMING]
        turns = [device for name in coming for device in turns_of(self.engines[name].spec)]
        assert len(turns) == len(set(turns)), coming

    async def _think(self, tier: str, answer_s: float, **how) -> str:
        try:
            async with self.fleet.lease(tier, **how) as lease:
                # Let in while it was ready; what happened in the same turn of the loop he is yet to hear of.
                engine = self.engines[tier]
                died = engine.death is None or engine.death.done()
                assert died or self.fleet.state(tier) in (TierState.READY, TierState.DRAINING)
                assert engine.rest is None
                assert lease.queued_s >= 0.0
                assert lease.load_s >= 0.0
                await asyncio.sleep(answer_s)
        except SubcortexError as error:
            return error.code
        return "done"

    def think(self, tier: str, answer_s: float = 1.0, **how) -> asyncio.Task[str]:
        """Have a thought; runs on from here."""
        task = self.loop.create_task(self._think(tier, answer_s, **how))
        self.tasks.append(task)
        self.run(0.0)
        return task

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.check()

    def do(self, what: Callable[..., None], *given) -> None:
        """Call something of the fleet's on its loop."""

        async def call() -> None:
            what(*given)

        self.loop.run_until_complete(call())
        self.check()

    def story_is_whole(self) -> None:
        """Each tier's events follow one another: what it was is what it was told to be before."""
        for tier in self.engines:
            told = [
                (kind, facts["was"])
                for _, name, kind, facts in self.events
                if name == tier and "was" in facts
            ]
            for (before, _), (_, was) in pairwise(told):
                assert was == before, told
            if told:
                assert told[0][1] == TierState.STOPPED
                assert told[-1][0] == self.fleet.state(tier)

    def end(self) -> None:
        """Everybody is answered in the end; closing leaves nothing behind."""
        self.do(self.fleet.resume)
        self.memory.foreign.clear()
        for _ in range(200):
            if all(task.done() for task in self.tasks):
                break
            self.run(60.0)
        assert all(task.done() for task in self.tasks), self.fleet.status()
        codes = {"done", EngineFailed.code, DoesNotFit.code, Overloaded.code}
        assert {task.result() for task in self.tasks if not task.cancelled()} <= codes
        self.run(400.0)
        moved = len(self.events)
        self.run(400.0)
        assert self.events[moved:] == [], "nobody thinks, and something moves"
        self.shut()

    def shut(self) -> None:
        self.loop.run_until_complete(self.fleet.close())
        assert set(self.fleet.states().values()) == {TierState.STOPPED}
        assert not any(engine.alive or engine.held for engine in self.engines.values())
        self.story_is_whole()
        left = asyncio.all_tasks(self.loop)
        assert not left, left
        self.loop.close()


class FleetWorld(RuleBasedStateMachine):
    """Whatever people, engines and other programs do to a fleet."""

    @initialize(host_mib=st.sampled_from([40_000.0, 200_000.0]))
    def build(self, host_mib) -> None:
        self.told = Told(host_mib=host_mib)

    @rule(
        tier=st.sampled_from([spec.name for spec in SPECS]),
        answer_s=st.sampled_from([0.5, 5.0, 40.0]),
        count=st.sampled_from([1, 1, 5]),
        priority=st.sampled_from([0, 0, 5]),
        patient=st.booleans(),
        deadline_s=st.sampled_from([None, 100.0]),
        wait_s=st.sampled_from([None, 100.0]),
    )
    def think(self, tier, answer_s, count, **how) -> None:
        for _ in range(count):
            self.told.think(tier, answer_s, **how)

    @rule(seconds=st.sampled_from([0.01, 1.0, 7.0, 30.0, 100.0]))
    def pass_time(self, seconds) -> None:
        self.told.run(seconds)

    @rule(data=st.data())
    def cancel(self, data) -> None:
        going = [task for task in self.told.tasks if not task.done()]
        if going:
            data.draw(st.sampled_from(going)).cancel()

    @rule(tier=st.sampled_from([spec.name for spec in SPECS]))
    def die(self, tier) -> None:
        self.told.engines[tier].die()

    @rule(
        tier=st.sampled_from([spec.name for spec in SPECS]),
        error=st.sampled_from([EngineFailed, DoesNotFit]),
        count=st.integers(1, 4),
    )
    def fail_next(self, tier, error, count) -> None:
        self.told.engines[tier].fails = [error("no") for _ in range(count)]

    @rule(mib=st.sampled_from([0.0, 1_000.0, 20_000.0]))
    def another_program(self, mib) -> None:
        # It takes no more than there is now, but what others have begun may be on its way there.
        room_mib = self.told.memory.free(0) + self.told.memory.foreign.get(0, 0.0)
        self.told.memory.foreign[0] = max(0.0, min(mib, room_mib))
        self.told.disturbed = True

    @rule(for_s=st.sampled_from([None, 20.0]))
    def lend(self, for_s) -> None:
        self.told.do(self.told.fleet.make_way, for_s, None)

    @rule()
    def take_back(self) -> None:
        self.told.do(self.told.fleet.resume)

    def teardown(self) -> None:
        if hasattr(self, "told"):
            self.told.end()


FleetWorld.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestFleetWorld = FleetWorld.TestCase


def swaps(told: Told) -> list[str]:
    """Return who became ready, in order."""
    return [tier for _, tier, kind, _ in told.events if kind == "ready"]


def test_thoughts_in_turn_are_gathered_and_one_swap_serves_many():
    told = Told()
    told.run(30.0)
    tasks = [told.think(tier) for tier in ["fast", "deep"] * 6]
    told.run(300.0)
    assert [task.result() for task in tasks] == ["done"] * 12
    assert swaps(told)[:2] == ["fast", "deep"]
    # All of fast's were done before it left; once deep has been idle for long enough fast goes home.
    assert swaps(told) == ["fast", "deep", "fast"]
    told.end()


def test_a_waiter_who_leaves_in_the_turn_he_is_let_in_leaves_no_tier_draining():
    told = Told()
    told.run(30.0)
    inside = told.think("fast", 5.0), told.think("fast", 5.0)
    waits = told.think("fast", 5.0)

    async def at_once() -> None:
        for task in inside:
            task.cancel()
        await asyncio.sleep(0)
        # He is let in, and before he knows the tier has to go and he gives up.
        assert told.fleet.status()[0].in_flight == 1
        told.fleet.make_way(None, None)
        waits.cancel()

    told.loop.run_until_complete(at_once())
    told.run(10.0)
    assert told.fleet.state("fast") is TierState.STOPPED
    told.end()


def test_who_waits_through_a_start_is_not_let_into_a_gpu_that_was_lent_meanwhile():
    told = Told()
    told.run(30.0)
    patient, other = told.think("deep"), told.think("deep", patient=False)
    told.run(30.0)
    assert told.fleet.state("deep") is TierState.STARTING
    told.do(told.fleet.make_way, None, None)
    told.run(300.0)
    assert told.fleet.state("deep") in (TierState.ASLEEP, TierState.STOPPED)
    assert not patient.done() or patient.result() == Overloaded.code
    assert other.result() == Overloaded.code
    assert told.fleet.status()[1].served == 0
    told.end()


def test_who_was_to_sleep_in_memory_that_another_program_took_meanwhile_is_stopped():
    told = Told()
    answer = told.think("deep")
    while not answer.done():
        told.run(1.0)
    assert told.fleet.state("deep") is TierState.READY
    # Since the fleet's last look: of the 50 000 MiB that its weights would take, 10 000 are left.
    told.memory.foreign[HOST] = told.memory.free(HOST) - told.memory.reserve_mib - 10_000.0
    told.do(told.fleet.make_way, None, None)
    told.run(30.0)
    assert told.fleet.state("deep") is TierState.STOPPED
    assert told.engines["deep"].held == {}
    told_of = [facts for _, name, kind, facts in told.events if (name, kind) == ("deep", "no_room")]
    assert told_of == [{"missing_mib": 40_000.0, "device": "host memory"}]
    states = [kind for _, name, kind, facts in told.events if name == "deep" and "was" in facts]
    assert states[-3:] == ["sleeping", "stopping", "stopped"]
    told.do(told.fleet.resume)
    del told.memory.foreign[HOST]
    again = told.think("deep")
    told.run(300.0)
    assert again.result() == "done"
    told.end()
