"""What the fleet keeps of one tier, and how that looks to those who decide and to those who ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from subcortex.engines.protocol import Engine, Progress
from subcortex.fleet.gate import Gate
from subcortex.fleet.machine import Life
from subcortex.fleet.room import Needs
from subcortex.fleet.running import Running
from subcortex.fleet.scene import HOST, Device, Room, Swaps, TierScene
from subcortex.types import Rest, TierState, TierStatus

#: What an engine that sleeps keeps of a GPU (context, graphs, NCCL), MiB; vLLM was seen to keep 2 to 3.5 GiB.
_ASLEEP_MIB = 3584.0


@dataclass(frozen=True, slots=True)
class Member:
    """A tier's engine and the limits it runs under.

    Args:
        start_s: How long a start is expected to take, until that is measured.
    """

    name: str
    rank: int
    engine: Engine
    eager: bool
    max_restarts: int
    max_concurrent: int
    max_waiting: int
    start_s: float | None = None

    @property
    def local(self) -> bool:
        """Whether it runs here."""
        return self.engine.kind != "remote"


class TierLoad(NamedTuple):
    """A tier's state, thoughts at work in its engine, and thoughts waiting for it.

    Args:
        comes_s: Seconds until its engine takes thoughts, its queue aside; 0 while it is ready.
        leaves: Who would have to make room for it.
    """

    name: str
    rank: int
    state: TierState
    in_flight: int
    waiting: int
    comes_s: float = 0.0
    leaves: tuple[str, ...] = ()


@dataclass(slots=True)
class Post:
    """What the fleet keeps of one member; ``since_s`` is when it came into its state."""

    member: Member
    gate: Gate
    progress: Progress = field(default_factory=Progress)
    life: Life = field(default_factory=Life)
    timer: asyncio.TimerHandle | None = None
    since_s: float = 0.0
    idle_since_s: float = 0.0
    served: int = 0
    swapped_in: bool = False
    not_before_s: float = -inf
    rested_s: float = -inf
    waits_for: str | None = None
    why: str | None = None
    running: Running = field(init=False)

    @property
    def name(self) -> str:
        """The tier's name."""
        return self.member.name

    def turns(self, needs: Needs, known: frozenset[Device]) -> frozenset[Device]:
        """Return the devices on which nobody else may start while it does; all while that is unknown."""
        if not self.member.local:
            return frozenset()
        return needs.gpus or (frozenset({HOST}) if needs.awake else known | {HOST})

    def scene(self, needs: Needs, known: frozenset[Device], swaps: Swaps, held_back: str | None) -> TierScene:
        """Return the tier as a decision sees it."""
        rests = self.member.engine.rests
        return TierScene(
            name=self.member.name,
            rank=self.member.rank,
            state=self.life.state,
            rest=self.life.rest,
            since_s=self.since_s,
            idle_since_s=max(self.idle_since_s, self.since_s),
            in_flight=self.gate.in_flight,
            waiters=self.gate.waiters(),
            eager=self.member.eager,
            wanted=self.life.wanted,
            swapped_in=self.swapped_in,
            awake=needs.awake,
            asleep={
                rest: needs.asleep.get(rest) or _residue(needs) for rest in rests if rest is not Rest.STOP
            },
            swaps=swaps,
            remains=self.running.remains
            and self.life.state in (TierState.BACKING_OFF, TierState.FAILED, TierState.STOPPED),
            held_back=held_back,
            not_before_s=self.not_before_s,
            alone=self.life.alone,
            turns=self.turns(needs, known),
            rested_s=self.rested_s,
        )

    def status(self, now_s: float) -> TierStatus:
        """Return the tier as ``subcortex ps`` shows it."""
        member, engine, life = self.member, self.member.engine, self.life
        process = engine.process
        # Nobody is told of a look that finds nothing, so nobody may be shown it as a start.
        looking = self.running.looking and life.state is TierState.STARTING
        state = TierState.STOPPED if looking else life.state
        coming = state in (TierState.STARTING, TierState.WAKING)
        return TierStatus(
            name=member.name,
            rank=member.rank,
            engine=engine.kind,
            model=engine.model,
            state=state,
            pid=process.pid if process else None,
            in_flight=self.gate.in_flight,
            queued=self.gate.waiting,
            served=self.served,
            restarts=life.restarts,
            uptime_s=now_s - self.since_s if life.state is TierState.READY else None,
            load_s=self.running.load_s,
            progress=self.progress.text if coming else None,
            rest=life.rest if life.rest is not Rest.STOP else None,
            waits_for=self.waits_for,
            engine_version=engine.version,
            error=life.error.message if life.error else None,
            error_code=life.error.code if life.error else None,
        )


def _residue(needs: Needs) -> Room:
    """Return what a sleeper is taken to keep until that is foretold or measured, MiB."""
    return {device: mib if device == HOST else min(mib, _ASLEEP_MIB) for device, mib in needs.awake.items()}
