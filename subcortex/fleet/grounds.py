"""What the fleet knows of the ground it stands on: what tiers need, what there is, and what is lent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import structlog

from subcortex.clock import Clock
from subcortex.fleet.post import Post
from subcortex.fleet.room import Memory, Needs, Seen, missing, missing_to_sleep
from subcortex.fleet.scene import HOST, Device
from subcortex.fleet.yielding import Lending
from subcortex.types import Rest, TierState


@dataclass(frozen=True, slots=True)
class Rules:
    """How the fleet shares a machine.

    Args:
        max_wait_s: No thought waits longer for another tier to make room.
        yield_over_mib: Other programs that take so much more of a GPU than before have it to themselves.
        yield_back_s: A GPU that was left alone so long is used again.
        adopt: See at the start what a former daemon left running.
    """

    max_wait_s: float = 120.0
    yield_over_mib: float = 2048.0
    yield_back_s: float = 30.0
    adopt: bool = False


@dataclass(slots=True)
class Grounds:
    """The latest look at the machine, and what follows from it for a tier.

    Args:
        memory: Who knows the machine's memory; None if nobody does, and there is room for all.
        seen_s: When it was looked at, seconds.
    """

    memory: Memory | None
    rules: Rules
    clock: Clock
    seen: Seen = field(default_factory=Seen)
    seen_s: float = 0.0
    lending: Lending = field(default_factory=Lending)

    async def prepare(self) -> None:
        """Find out what tiers need, and look for the first time."""
        if self.memory is not None:
            await self.memory.prepare()
            await self.look()
            self.lend()

    async def look(self) -> None:
        """Look at the machine."""
        if self.memory is not None:
            self.saw(await self.memory.look())

    def saw(self, seen: Seen) -> None:
        """Take a look that somebody else had."""
        self.seen, self.seen_s = seen, self.clock.monotonic_s()

    def lend(self) -> None:
        """Lend GPUs that other programs have taken, take back those that they have left.

        Only while nothing of ours comes or goes, since that is not told apart from what others do.
        """
        now_s, before = self.clock.monotonic_s(), self.lending.taken
        over_mib, back_s = self.rules.yield_over_mib, self.rules.yield_back_s
        self.lending = self.lending.look(now_s, self.seen.foreign, over_mib, back_s)
        for device in self.lending.taken.keys() ^ before.keys():
            log = structlog.get_logger("fleet")
            log.info("GPU", gpu=device, taken=device in self.lending.taken)

    def make_way(self, for_s: float | None, gpus: list[int] | None) -> None:
        """Lend GPUs by a person's word, for some seconds or until further notice; None lends all."""
        until_s = inf if for_s is None else self.clock.monotonic_s() + for_s
        self.lending = self.lending.lend(gpus, until_s)

    def resume(self) -> None:
        """Take back all that a person lent."""
        self.lending = self.lending.take_back()

    def lend_to(self, holder: str, gpus: list[int] | None) -> None:
        """Lend GPUs to a part of this program until ``give_back``; None lends all."""
        self.lending = self.lending.lend(gpus, inf, holder)

    def give_back(self, holder: str) -> None:
        """End what is lent to a part of this program."""
        self.lending = self.lending.give_back(holder)

    def needs(self, post: Post) -> Needs:
        """Return what a tier needs, as far as that is known."""
        return self.memory.needs(post.name) if self.memory and post.member.local else Needs()

    def held_back(self, post: Post) -> str | None:
        """Return why a tier may not be up now, None if it may."""
        if not post.member.local:
            return None
        return self.lending.why(self.needs(post).gpus, self.clock.monotonic_s())

    def missing(self, post: Post, seen: Seen) -> Mapping[Device, float]:
        """Return what is missing of each device, MiB, for a tier to come up from where it rests.

        Of one that is to fall asleep: for that.
        """
        if post.life.state is TierState.SLEEPING and post.life.rest is not None:
            return missing_to_sleep(self.needs(post), post.life.rest, seen)
        return missing(self.needs(post), post.life.rest, seen)

    def pins_mib(self, post: Post) -> float:
        """Return what a tier's weights take of host memory while it sleeps at level 1."""
        needs = self.needs(post)
        return max(0.0, needs.asleep.get(Rest.SLEEP_1, {}).get(HOST, 0.0) - needs.awake.get(HOST, 0.0))
