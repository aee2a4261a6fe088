"""``Subcortex``: the whole mind in one process. The daemon serves one; tests and programs may own one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from subcortex import config as configuration
from subcortex import engines
from subcortex.clock import Clock, SystemClock
from subcortex.config import Config, Tier
from subcortex.drives import KnownDrives
from subcortex.engines.protocol import Engine
from subcortex.errors import Cancelled
from subcortex.fleet import HOST, Fleet, Member, Rules, Timing
from subcortex.journal import Journal, Recorder, ThoughtStart, inert
from subcortex.journal.diary import Diary
from subcortex.journal.diary.board_records import FactRecord
from subcortex.mind import asked
from subcortex.mind.boots import BootBook, Machine, Predict
from subcortex.mind.broadcast import Broadcaster
from subcortex.mind.changes import changed, standing
from subcortex.mind.costs import cost_book, learn_costs, learn_swaps, remember_swaps
from subcortex.mind.deciding import decide_request
from subcortex.mind.experimenting.supervisor import Experimenting
from subcortex.mind.means import Means
from subcortex.mind.memory import TierMemory
from subcortex.mind.pipeline import Emit, Thinking
from subcortex.mind.saying import Saying
from subcortex.routing import Decision, TierView
from subcortex.types import (
    Chunk,
    Ledger,
    Notice,
    Route,
    ThinkRequest,
    Thought,
    TierEvent,
    TierState,
    TierStatus,
    new_thought_id,
)

#: Makes the engine of a tier.
Create = Callable[[Tier], Engine]


class Subcortex:
    """Routes thoughts to tiers, keeps their engines, and records what was thought.

    Use ``async with Subcortex.open(config) as mind``; one process may own a configuration at a time.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        *,
        create: Create | None = None,
        clock: Clock | None = None,
        predict: Predict | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self.clock = clock or SystemClock()
        self.drives = KnownDrives(config)
        make = create or (lambda tier: engines.create(tier, config=config))
        self.engines = {tier.name: make(tier) for tier in config.tiers}
        self.costs = cost_book(config)
        self.boots = BootBook(
            config,
            self.engines,
            journal,
            self.clock,
            trees=lambda: self.fleet.trees(),
            predict=predict,
            machine=machine,
        )
        self.fleet = Fleet(
            self._members(),
            on_change=self._changed,
            watch=self.boots,
            memory=TierMemory.of(config, predict, self.ledger) if predict else None,
            rules=rules(config),
            timing=Timing(look_every_s=config.fleet.look_every_s),
            clock=self.clock,
        )
        remember_swaps(self.fleet.swaps, config)
        self._means = Means(self.engines, self.fleet, journal, self.costs, self.clock)
        self._thinking: set[asyncio.Task[Any]] = set()
        self._changes: Broadcaster[TierEvent] = Broadcaster()
        self.last_active_s = self.clock.monotonic_s()
        self.experimenting = Experimenting(
            config,
            self.fleet,
            thinking=lambda: self.active,
            idle_s=lambda: self.clock.monotonic_s() - self.last_active_s,
            follow=self._follow,
            clock=self.clock,
        )
        self._predict = predict
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: Config | Path | str | None = None,
        *,
        create: Create | None = None,
        clock: Clock | None = None,
        predict: Predict | None = None,
        machine: Machine | None = None,
    ) -> AsyncIterator[Subcortex]:
        """Open the journal, start the eager tiers in the background, and close it all at the end.

        Args:
            config: A configuration, a file, or None for the default's.
            create: Makes a tier's engine; the real ones unless a test brings its own.
            clock: Where time comes from.
            predict: Foretells what a tier takes, so that its starts are recorded with it.
            machine: How this machine is looked at.
        """
        if not isinstance(config, Config):
            config = configuration.load(config)
        recorder = Recorder(config.journal.record, config.journal.redact)
        journal = Journal.open(config.database_path, durability=config.journal.durability, recorder=recorder)
        try:
            mind = cls(config, journal, create=create, clock=clock, predict=predict, machine=machine)
            mind._loop = asyncio.get_running_loop()
            mind.experimenting.open()
            mind.fleet.open()
            try:
                yield mind
            finally:
                await mind.close()
        finally:
            await journal.aclose()

    async def think(self, request: ThinkRequest, emit: Emit | None = None) -> Thought:
        """Have a thought; ``emit`` is awaited with each chunk and notice on the way.

        Cancelling the call stops the engine's work on it and records the thought as cancelled.

        Raises:
            SubcortexError: As ``subcortex.think`` says.
        """
        began_s = self.clock.monotonic_s()
        task = asyncio.current_task()
        assert task is not None
        self._thinking.add(task)
        self.experimenting.make_way("a thought came")
        try:
            thinking = await self._begin(request, began_s)
            thinking.emit = emit
            return await thinking.answer()
        except asyncio.CancelledError:
            if not self._means.closing:
                raise
            raise _stopping() from None
        finally:
            self._thinking.discard(task)
            self.last_active_s = self.clock.monotonic_s()

    async def stream(self, request: ThinkRequest) -> AsyncIterator[Chunk | Notice | Thought]:
        """Yield chunks and notices as they come, and the finished Thought last."""
        events: asyncio.Queue[Chunk | Notice | Thought] = asyncio.Queue(maxsize=64)
        thinking = asyncio.create_task(self.think(request, events.put))
        thinking.add_done_callback(lambda _: None)
        try:
            while not (thinking.done() and events.empty()):
                getting = asyncio.create_task(events.get())
                await asyncio.wait({getting, thinking}, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    yield getting.result()
                else:
                    getting.cancel()
            yield await thinking
        finally:
            thinking.cancel()

    def route(self, request: ThinkRequest) -> Route:
        """Return where a thought would go and why, without having it."""
        return self._decide(request)[0].route

    def status(self) -> list[TierStatus]:
        """Return every tier as it is now, from least to most capable."""
        tiers, trees = self.fleet.status(), self.fleet.trees()
        for tier in tiers:
            tree = trees.get(tier.name)
            tier.memory_mib = tree.resident_mib if tree else None
        return tiers

    async def events(self) -> AsyncGenerator[TierEvent, None]:
        """Yield how each tier stands, then each change as it happens, until the mind is closed.

        Raises:
            Overloaded: Whoever reads is too far behind.
        """
        with self._changes.listening() as changes:
            for tier in self.fleet.status():
                yield standing(self.clock.now(), tier)
            async for change in changes:
                yield change

    def yield_gpus(self, for_s: float | None, gpus: list[int] | None) -> None:
        """Put the tiers on these GPUs (None: every local tier) to rest, for so many seconds or until told."""
        self.fleet.make_way(for_s, gpus)
        self.experimenting.look_at_loans()

    def resume(self) -> None:
        """Take back what ``yield_gpus`` gave."""
        self.fleet.resume()

    def ledger(self) -> Ledger:
        """Return who holds the memory of this machine now, nothing if it cannot be asked; takes some ms."""
        try:
            found, counted = self.boots.ledger(self.fleet.states()), self.fleet.counted()
            for device in found.devices:
                number = HOST if device.gpu_index is None else device.gpu_index
                device.counted_mib = counted.get(number, 0.0)
            return found
        except Exception:
            # A driver in trouble must not hide the tiers, which are the other half of a status.
            structlog.get_logger("mind").exception("no ledger")
            return Ledger()

    @property
    def active(self) -> int:
        """How many thoughts are under way."""
        return len(self._thinking)

    @property
    def busy(self) -> bool:
        """Whether it has something to do: thoughts, or experiments that wait, run, or may begin."""
        return bool(self._thinking) or self.experimenting.busy

    async def close(self, drain_s: float = 0.0) -> None:
        """Take no more thoughts, give those under way ``drain_s`` seconds, then stop every engine."""
        self._means.closing = True
        self.experimenting.make_way("the daemon stops")
        if self._thinking and drain_s:
            await asyncio.wait(self._thinking, timeout=drain_s)
        left = self._thinking - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            # Their last words are written before the journal closes.
            await asyncio.wait(left)
        try:
            await asyncio.gather(self.experimenting.close(), self.fleet.close())
        finally:
            self._changes.close()

    def log_tail(self, tier: str, lines: int) -> str:
        """Return the end of an engine's log, or of the daemon's own; KeyError for an unknown tier."""
        if tier != "daemon":
            return self.fleet.log_tail(tier, lines)
        file = self.config.log_dir / "daemon.log"
        kept = file.read_text("utf-8", errors="replace").splitlines()[-lines:] if file.exists() else []
        return inert("\n".join(kept))

    async def _begin(self, request: ThinkRequest, began_s: float) -> Thinking:
        if self._means.closing:
            raise _stopping(not_begun=True)
        decision, drive = self._decide(request)
        tier = decision.order[0]
        engine = self.engines[tier]
        if decision.preferred != tier and self.fleet.state(decision.preferred) in (
            TierState.STOPPED,
            TierState.ASLEEP,
        ):
            # Another serves now, and the one that the score would take is up for the next.
            self.fleet.want(decision.preferred)
        thinking = Thinking(
            mind=self._means,
            request=request,
            id=new_thought_id(),
            created_at=self.clock.now(),
            decision=decision,
            route=decision.route,
            saying=Saying(self.clock, began_s),
            tier=tier,
            drive=drive,
        )
        await self.journal.begin(
            ThoughtStart(
                id=thinking.id,
                created_at=thinking.created_at,
                messages=request.messages,
                prompt_text=asked.prompt_text(request.messages),
                drive=drive,
                session=request.session,
                tier=tier,
                model=engine.model,
                engine=engine.kind,
                engine_version=engine.version,
                route=decision.route,
                params=asked.params(request),
            )
        )
        return thinking

    def _decide(self, request: ThinkRequest) -> tuple[Decision, str | None]:
        drives = self.drives.current() if request.drive else {}
        return decide_request(self.config, drives, request, self._views())

    def _views(self) -> list[TierView]:
        return [
            TierView(
                name=tier.name,
                rank=tier.rank,
                state=tier.state,
                cost=self.costs.cost(tier.name),
                comes_s=tier.comes_s,
                leaves=tier.leaves,
                in_flight=tier.in_flight,
                waiting=tier.waiting,
                max_concurrent=self.config.tiers[tier.rank].max_concurrent,
            )
            for tier in self.fleet.loads()
        ]

    def _members(self) -> list[Member]:
        return [
            Member(
                name=tier.name,
                rank=rank,
                engine=self.engines[tier.name],
                eager=tier.start == "eager",
                max_restarts=tier.max_restarts,
                max_concurrent=tier.max_concurrent,
                max_waiting=self.config.daemon.max_waiting,
                start_s=self.costs.cost(tier.name).load_s or None,
            )
            for rank, tier in enumerate(self.config.tiers)
        ]

    def _follow(self, diary: Diary, config: Config, run_id: str) -> None:
        """Have everything follow from a run that is measured, the costs here included; in a thread."""
        # Imported here: it brings all experiments with it.
        from subcortex.mind.experimenting.following import follow

        followed = follow(diary, config, run_id, predict=self._predict)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is over, and its books with it
                self._loop.call_soon_threadsafe(self._learn, followed.facts)

    def _learn(self, facts: Sequence[FactRecord]) -> None:
        learn_costs(self.costs, self.config, facts)
        learn_swaps(self.fleet.swaps, self.config, facts)

    def _changed(self, tier: str, kind: str, facts: dict[str, Any]) -> None:
        if kind == TierState.READY and facts.get("load_s") is not None:
            self.costs.observe(tier, load_s=facts["load_s"])
        self.journal.event(tier, kind, model=self.engines[tier].model, **facts)
        self._changes.tell(changed(self.clock.now(), tier, kind, facts, self.fleet.state(tier)))


def rules(config: Config) -> Rules:
    """Return how the configuration would have the machine shared."""
    fleet = config.fleet
    return Rules(
        max_wait_s=fleet.max_wait_s,
        yield_over_mib=fleet.yield_over_gib * 1024.0,
        yield_back_s=fleet.yield_back_s,
        adopt=fleet.adopt_s > 0,
    )


def _stopping(*, not_begun: bool = False) -> Cancelled:
    hint = "Start it again with `subcortex up`."
    return Cancelled("the daemon is stopping", hint=hint, not_begun=not_begun)
