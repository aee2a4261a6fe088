"""Rules that hold whatever happens to a machine: 20 000 steps over a simulated one, with the real schedule.

``Calm`` knows no failure, so its bounds are tight; in ``Stormy`` engines die, fail and run out of memory,
other programs come and go, GPUs are lent, memory is given back late.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import inf

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from subcortex.errors import DoesNotFit, EngineFailed, Overloaded, SubcortexError
from subcortex.fleet import machine
from subcortex.fleet.forecast import forecast
from subcortex.fleet.scene import HOST
from subcortex.types import Rest, TierState
from tests.fleet.world import Spec, Thought, World, turns_of

MAX_WAIT_S = 120.0
GPU_MIB, HOST_MIB = 100_000.0, 120_000.0
LONGEST_ANSWER_S = 20.0
STEPS, CALM, STORMY = 50, 200, 200

_seconds = st.sampled_from([0.001, 0.4, 1.0, 3.0, 10.0, 30.0, 60.0, 200.0])
_answers = st.sampled_from([0.1, 1.0, 5.0, LONGEST_ANSWER_S])
_priorities = st.sampled_from([0, 0, 0, 1, 9])
_deadlines = st.sampled_from([None, None, 5.0, 60.0, 300.0])
_waits = st.sampled_from([None, None, None, 0.0, 30.0, 100.0])


@st.composite
def specs(draw, gpus: int) -> tuple[Spec, ...]:
    """Draw two to four tiers, some of which do not fit beside each other."""
    made = []
    for rank in range(draw(st.integers(2, 4))):
        on = draw(st.sampled_from([(0,), (0,), (gpus - 1,), tuple(range(gpus)), ()]))
        size = draw(st.sampled_from([20_000.0, 45_000.0, 70_000.0, 95_000.0]))
        rests = draw(st.sets(st.sampled_from([Rest.SLEEP_1, Rest.SLEEP_2]))) if on else set()
        host = 4_000.0 if on else size
        asleep = {
            rest: {**dict.fromkeys(on, 2_000.0), HOST: host + (size / 2 if rest is Rest.SLEEP_1 else 0.0)}
            for rest in rests
        }
        times = st.sampled_from([1.0, 5.0, 20.0, 45.0])
        made.append(
            Spec(
                name=f"t{rank}",
                rank=rank,
                awake={**dict.fromkeys(on, size), HOST: host},
                asleep=asleep,
                start_s=draw(st.sampled_from([2.0, 30.0, 50.0])),
                leave_s={rest: draw(times) for rest in [Rest.STOP, *sorted(rests)]},
                wake_s={rest: draw(times) for rest in rests},
                eager=draw(st.booleans()),
                concurrent=draw(st.sampled_from([1, 4, 64])),
            )
        )
    return tuple(made)


@cache
def swap_s(specs: tuple[Spec, ...], late_s: float) -> float:
    """Return the longest that one tier's leaving and another's coming takes, waiting for memory included."""
    # Until they are measured it goes by what is assumed: 10 s to fall asleep, 15 s to wake.
    leave_s = max(10.0, *(seconds for spec in specs for seconds in spec.leave_s.values()))
    back_s = max(15.0, *(max([spec.start_s, *spec.wake_s.values()]) for spec in specs))
    return leave_s + late_s + 1.0 + back_s


def bound_s(world: World, thought: Thought) -> float:
    """Return how long a thought waits at most until its tier is ready, if nothing fails.

    Its own patience: ``max_wait_s``, or ``wait_s`` if it named one. Then, for each other tier that may be
    before it, one turn: a residency (as long as a swap takes), the longest answer in flight, and the swap.
    Then its own: the same. (A turn more for one that was under way when it came.)
    """
    own_s = MAX_WAIT_S if thought.waiter.wait_s is None else max(MAX_WAIT_S, thought.waiter.wait_s)
    turn_s = swap_s(world.specs, world.late_s) + LONGEST_ANSWER_S + swap_s(world.specs, world.late_s)
    return own_s + (len(world.units) + 1) * turn_s


class Machine(RuleBasedStateMachine):
    """What both have in common: people who think, and the rules."""

    world: World
    late = st.just(0.0)

    @initialize(data=st.data(), gpus=st.integers(1, 2))
    def build(self, data, gpus) -> None:
        host = data.draw(st.sampled_from([HOST_MIB, 3 * HOST_MIB]), label="host")
        self.world = World(
            data.draw(specs(gpus), label="tiers"),
            {HOST: host, **dict.fromkeys(range(gpus), GPU_MIB)},
            max_wait_s=MAX_WAIT_S,
            look_every_s=30.0,
            late_s=data.draw(self.late, label="late"),
            check=self.check,
        )
        self.ready_since = dict[str, float]()
        self.check(self.world)
        self.world.open()

    @rule(data=st.data(), answer_s=_answers, priority=_priorities, deadline_s=_deadlines, wait_s=_waits)
    def think(self, data, answer_s, priority, deadline_s, wait_s) -> None:
        tier = data.draw(st.sampled_from(sorted(self.world.units)))
        self.world.think(tier, answer_s, priority, deadline_s, wait_s)

    @rule(data=st.data(), count=st.integers(2, 12), answer_s=_answers)
    def think_a_lot(self, data, count, answer_s) -> None:
        tier = data.draw(st.sampled_from(sorted(self.world.units)))
        for _ in range(count):
            self.world.think(tier, answer_s)

    @rule(seconds=_seconds)
    def pass_time(self, seconds) -> None:
        self.world.advance(seconds)

    @rule(data=st.data())
    def cancel(self, data) -> None:
        waiting = [one for one in self.world.thoughts if one.state in ("waiting", "inside")]
        if waiting:
            self.world.cancel(data.draw(st.sampled_from(waiting)))

    @rule()
    def ask_for_a_forecast(self) -> None:
        scene = self.world.scene()
        for tier in scene.tiers:
            told = forecast(scene, tier.name)
            assert 0.0 <= told.wait_s < inf
            assert (told.wait_s == 0.0) == (tier.state is TierState.READY and not tier.held_back)
            assert tier.name not in told.leaves

    # The rules. ``check`` runs after every single event, however small.

    def check(self, world: World) -> None:
        self.never_over_budget(world)
        self.one_start_at_a_time(world)
        self.no_waiter_forgotten(world)
        self.no_one_runs_on_a_lent_gpu(world)
        self.no_one_waits_too_long(world)

    def never_over_budget(self, world: World) -> None:
        """What is really held, in transitions and while given back late, is never more than there is."""
        for device in world.total:
            assert world.free(device) >= 0.0, f"device {device} is over by {-world.free(device)} MiB"

    def one_start_at_a_time(self, world: World) -> None:
        coming = [unit for unit in world.units.values() if unit.life.state in machine.COMING]
        turns = [device for unit in coming for device in turns_of(unit.spec)]
        assert len(turns) == len(set(turns)), [unit.name for unit in coming]

    def no_waiter_forgotten(self, world: World) -> None:
        """Whoever waits, something is to happen: his tier is ready or moves, or somebody looks again."""
        if world.closing:
            return
        for unit in world.units.values():
            if not unit.line or unit.open:
                continue
            moving = unit.life.state in (*machine.UP, TierState.BACKING_OFF)
            looks = world.timer_s is not None and unit.name in world.made.waits
            assert moving or looks, f"{unit.name}: {unit.life.state}, {world.made}"
            assert unit.life.state is not TierState.FAILED

    def no_one_runs_on_a_lent_gpu(self, world: World) -> None:
        """Nobody is called in while his GPU is lent, and who is there is on his way out."""
        assert not [name for name, held_back in world.called if held_back]
        for unit in world.units.values():
            if world.held_back(unit):
                assert not unit.open or world.closing, f"{unit.name} works on a lent GPU"

    def no_one_waits_too_long(self, world: World) -> None:
        for _, name, _, now in world.told[-4:]:
            if now is TierState.READY:
                self.ready_since[name] = world.now_s
        for unit in world.units.values():
            if unit.open:
                self.ready_since[unit.name] = world.now_s
        for unit in world.units.values():
            if unit.open:
                continue
            # How many are before it is its queue's affair: what is bounded is the wait for the tier.
            ready_s = self.ready_since.get(unit.name, -inf)
            for thought in unit.line:
                waited_s = world.now_s - max(thought.waiter.since_s, ready_s)
                if waited_s > MAX_WAIT_S and not thought.hindered:
                    assert waited_s <= bound_s(world, thought), f"{unit.name}: {world.made}"

    def no_one_is_refused(self, world: World) -> None:
        total = {device: mib - world.reserve_mib for device, mib in world.total.items()}
        for thought in world.thoughts:
            if thought.state == "refused" and not world.closing:
                unit = world.units[thought.tier]
                if isinstance(thought.error, Overloaded):
                    assert thought.waited_s(world.now_s) >= world.longest_s(unit)
                    continue
                assert isinstance(thought.error, DoesNotFit), thought.error
                awake = unit.spec.awake
                assert any(mib > total[device] for device, mib in awake.items()), "it would have fitted"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.comes_to_rest()
            self.closing_ends_with_nothing_held()

    def comes_to_rest(self) -> None:
        """Without new thoughts everybody is served or refused, and then nothing moves any more."""
        world = self.world
        work_s = sum(one.answer_s for one in world.thoughts if one.state in ("waiting", "inside"))
        swap = swap_s(world.specs, world.late_s)
        end_s = world.now_s + work_s * 3 + 20 * (MAX_WAIT_S + 4 * swap) + self.troubles_s()
        while left := [one for one in world.thoughts if one.state in ("waiting", "inside")]:
            assert world.now_s < end_s, f"{left[0]}: {world.made}"
            world.advance(60.0)
        world.advance(4 * swap)
        moved = len(world.told)
        world.advance(4 * swap)
        assert len(world.told) == moved, f"still moving: {world.told[moved:][:12]}"

    def troubles_s(self) -> float:
        return 0.0

    def closing_ends_with_nothing_held(self) -> None:
        world = self.world
        world.close()
        world.advance(120.0)
        assert not any(mib for unit in world.units.values() for mib in unit.held.values())
        assert all(unit.life.state is TierState.STOPPED for unit in world.units.values())


class Calm(Machine):
    """Nothing fails."""

    late = st.sampled_from([0.0, 0.3, 3.0])

    def check(self, world: World) -> None:
        super().check(world)
        self.no_one_is_refused(world)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "world"):
            assert not any(thought.hindered for thought in self.world.thoughts), (
                "room was decided on, not there"
            )
            self.no_swap_loop()

    def no_swap_loop(self) -> None:
        """Two tiers that take turns swap at most 1 + T / (swap + residency) times in any window T."""
        world = self.world
        one, other = world.specs[:2]
        both = {device: one.awake.get(device, 0.0) + other.awake.get(device, 0.0) for device in one.awake}
        apart = any(mib > world.total[device] - world.reserve_mib for device, mib in both.items())
        if len(world.specs) > 2 or not apart:
            return
        swap = min(
            min(*here.leave_s.values(), 5.0) + min([there.start_s, *there.wake_s.values(), 3.0])
            for here, there in ((one, other), (other, one))
        )
        turns = [(at_s, name) for at_s, name, _, now in world.told if now is TierState.READY]
        turns = [turn for before, turn in pairwise(turns) if turn[1] != before[1]]
        for count in range(1, len(turns)):
            for first, last in zip(turns, turns[count:], strict=False):
                assert count <= 1 + (last[0] - first[0]) / (2 * swap), turns


class Stormy(Machine):
    """Everything fails."""

    late = st.sampled_from([0.0, 3.0, 20.0])

    @rule(
        data=st.data(),
        errors=st.lists(
            st.sampled_from([EngineFailed("no"), EngineFailed("no"), DoesNotFit("OOM")]),
            min_size=1,
            max_size=4,
        ),
    )
    def fail_next(self, data, errors) -> None:
        """The next starts, sleeps or wakes of a tier fail."""
        tier = data.draw(st.sampled_from(sorted(self.world.units)))
        self.world.units[tier].fails = [type(error)(error.message) for error in errors]

    @rule(data=st.data())
    def die(self, data) -> None:
        self.world.die(data.draw(st.sampled_from(sorted(self.world.units))))

    @rule(data=st.data(), mib=st.sampled_from([0.0, 0.0, 1_000.0, 10_000.0, 60_000.0, 200_000.0]))
    def foreign(self, data, mib) -> None:
        """Another program takes memory, or gives it back."""
        self.world.foreign_uses(data.draw(st.sampled_from(sorted(self.world.total))), mib)

    @rule(data=st.data(), for_s=st.sampled_from([None, 10.0, 100.0]))
    def lend(self, data, for_s) -> None:
        gpus = sorted(device for device in self.world.total if device != HOST)
        which = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(gpus), min_size=1, max_size=1)))
        self.world.lend(which, for_s)

    @rule()
    def take_back(self) -> None:
        self.world.take_back()

    @rule(data=st.data(), answer_s=_answers)
    def think_with_another_choice(self, data, answer_s) -> None:
        tier = data.draw(st.sampled_from(sorted(self.world.units)))
        self.world.think(tier, answer_s, patient=False)

    def check(self, world: World) -> None:
        super().check(world)
        for thought in world.thoughts:
            if thought.state in ("refused", "failed"):
                assert isinstance(thought.error, SubcortexError)

    def comes_to_rest(self) -> None:
        # A loan without an end and a program that stays may keep a tier away for ever.
        self.world.take_back()
        for device in self.world.total:
            self.world.foreign_uses(device, 0.0)
        super().comes_to_rest()

    def troubles_s(self) -> float:
        return 2 * MAX_WAIT_S + sum(len(unit.fails) for unit in self.world.units.values()) * (60.0 + 50.0)


_FEW_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def _steps(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        print_blob=True,
        suppress_health_check=_FEW_CHECKS,
    )


Calm.TestCase.settings = _steps(CALM)
Stormy.TestCase.settings = _steps(STORMY)
TestCalm, TestStormy = Calm.TestCase, Stormy.TestCase
