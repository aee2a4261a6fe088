"""The daemon's side of experiments: what waits is done while the machine is idle, and gives way. Effects.

One task takes runs in order, one worker at a time. A thought that comes kills the worker with everything it
started; the run goes on later from the samples that the journal has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeVar

import structlog

from subcortex.clock import Clock, SystemClock
from subcortex.config import Config
from subcortex.errors import DeadlineExceeded, DoesNotFit, EngineFailed, InvalidRequest, SubcortexError
from subcortex.experiments.worker.limits import time_left_s
from subcortex.fleet import Fleet
from subcortex.journal import processes
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import OPEN_STATES, AskedBy, RunRecord
from subcortex.mind.experimenting.room import Shortage, gpus_of, shortage, together
from subcortex.mind.experimenting.turns import Turn, batch_of, in_turn, is_lost, may_begin, needs_of
from subcortex.mind.experimenting.windows import Windows
from subcortex.mind.experimenting.worker import COMMAND, Worker

__all__ = ["COMMAND", "HOLDER", "Experimenting", "Pace", "spent_today"]

#: Whom the fleet lends to.
HOLDER = "an experiment"

#: Has everything follow from a run that is measured; called in a thread, and again until it succeeds.
Follow = Callable[[Diary, Config, str], Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things are looked at, and how long they may take; seconds.

    Args:
        look_s: Between looks while runs wait or are under way.
        poll_s: Between looks for runs that another process asked for.
        quiet_s: After a thought, before a person's run goes on.
        rest_s: For tiers to make room.
        over_s: That a run may go on after its time before its worker is killed.
        sour_s: After something went wrong, before it is tried again.
        machine_s: Between looks at what other programs hold of the GPUs.
    """

    look_s: float = 0.25
    poll_s: float = 5.0
    quiet_s: float = 2.0
    rest_s: float = 180.0
    over_s: float = 30.0
    sour_s: float = 5.0
    machine_s: float = 1.0


@dataclass(slots=True)
class _Shift:
    """One worker's time: the runs it was given, and why it is to end before they are done."""

    runs: tuple[RunRecord, ...]
    gpus: frozenset[int]
    told: asyncio.Event = field(default_factory=asyncio.Event)
    why: str | None = None
    worker: Worker | None = None
    killing: asyncio.Task[None] | None = None
    ends_s: dict[tuple[str, int], float] = field(default_factory=dict)

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(run.id for run in self.runs)


class Experimenting:
    """Queue, worker and schedule of one daemon. Use ``open`` and ``close`` on the event loop.

    Args:
        config: What is served.
        fleet: Whose tiers make room.
        thinking: Says how many thoughts are under way.
        idle_s: Says how long no thought has come, seconds.
        follow: What becomes of a measured run; the real thing if not given.
        command: How a worker is started, if not as usual.
    """

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        *,
        thinking: Callable[[], int],
        idle_s: Callable[[], float],
        follow: Follow | None = None,
        command: Sequence[str] | None = None,
        clock: Clock | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._thinking = thinking
        self._idle_s = idle_s
        self._follow = follow or _follow
        self._command = command or COMMAND
        self._clock = clock or SystemClock()
        self._pace = pace or Pace()
        self._diary: Diary | None = None
        self._task: asyncio.Task[None] | None = None
        self._windows: Windows | None = None
        self._woken = asyncio.Event()
        self._asking = asyncio.Lock()
        self._shift: _Shift | None = None
        self._turn = Turn()
        self._closing = False
        self._looked_s = -inf
        self._followed_s: dict[str, float] = {}
        self._log = structlog.get_logger("experiments")
        #: How many runs are not over, as far as is known.
        self.open_runs = 0
        #: Run → why it waits, in words.
        self.waits: dict[str, str] = {}

    def open(self) -> None:
        """Begin, in the background; returns at once.

        Raises:
            ConfigError: A line of ``experiments.windows`` is none of cron's.
        """
        self._windows = Windows(self._config.experiments.windows, self._tick)
        self._task = asyncio.create_task(self._go_on(), name="experiments")

    async def close(self) -> None:
        """End what is under way; it goes on when the next daemon is up. Returns when no process is left."""
        self._closing = True
        if self._windows is not None:
            self._windows.close()
        self.make_way("the daemon stops")
        if self._task is not None:
            self._woken.set()
            await asyncio.wait({self._task})
        async with self._asking:
            if self._diary is not None:
                self._diary.close()

    @property
    def busy(self) -> bool:
        """Whether the daemon must stay up: something is to be found out, or may begin by itself."""
        return self.open_runs > 0 or bool(self._config.experiments.windows)

    def make_way(self, why: str) -> None:
        """Have what is under way give way: its processes are killed from here on. Returns at once."""
        shift = self._shift
        if shift is None or shift.why is not None:
            return
        shift.why = why
        shift.told.set()
        self._kill(shift)
        self._fleet.give_back(HOLDER)

    def look_at_loans(self) -> None:
        """Give way if GPUs have just been lent to somebody else."""
        shift = self._shift
        if shift is not None and (why := self._fleet.lent(shift.gpus, aside=HOLDER)):
            self.make_way(why)

    async def ask(
        self,
        names: Sequence[str] | None,
        *,
        subject: str | None = None,
        minutes: float | None = None,
        again: bool = False,
        asked_by: AskedBy = "person",
    ) -> list[RunRecord]:
        """Have experiments run by their names, or (None) the one that is worth most; see ``asking``.

        Raises:
            InvalidRequest: There is no such experiment or subject, or it is not applicable here.
            JournalError: The database cannot be written.
        """

        asking, scene = await asyncio.to_thread(_asking, self._config)

        def put(diary: Diary) -> list[RunRecord]:
            if names is None:
                run = asking.ask_next(diary, self._config, asked_by, minutes=minutes, scene=scene)
                return [run] if run is not None else []
            found: list[RunRecord] = asking.ask(
                diary, self._config, names, subject=subject, minutes=minutes, again=again, scene=scene
            )
            return found

        found = await self._with_diary(put)
        self.open_runs += 1
        self._woken.set()
        return found

    async def cancel(self, run_id: str) -> RunRecord:
        """Give a run up, by its id or a beginning of it; returns when its processes are gone.

        Raises:
            InvalidRequest: There is no such run, or it is over already.
        """
        before = await self._with_diary(lambda diary: experiments.run(diary, run_id))
        found = await self._with_diary(lambda diary: experiments.cancelled(diary, before.id))
        shift = self._shift
        if shift is not None and before.state == "running" and before.id in shift.ids:
            self.make_way("a run was cancelled")
            if shift.killing is not None:
                await asyncio.shield(shift.killing)
        self._woken.set()
        return found

    async def run(self, run_id: str) -> RunRecord:
        """Return a run by its id or a beginning of it; InvalidRequest for none, or several."""
        return await self._with_diary(lambda diary: experiments.run(diary, run_id))

    async def runs(self) -> list[RunRecord]:
        """Return the runs that are not over, in the order that they were asked for."""
        return await self._with_diary(lambda diary: experiments.runs(diary, states=OPEN_STATES))

    async def watch(self, run_id: str) -> AsyncGenerator[RunRecord, None]:
        """Yield a run as it is, then each change of its state or progress, until it is over.

        What has been measured and cannot be followed up is over as well. Ends early when the daemon stops.
        """
        last: tuple[object, ...] | None = None
        while True:
            run = await self.run(run_id)
            now = (run.state, run.progress, run.share, run.lives, self.waits.get(run.id))
            if now != last:
                yield run
                last = now
            unfollowed = run.state == "measured" and run.id in self._followed_s
            if run.state not in OPEN_STATES or unfollowed or self._closing:
                return
            await asyncio.sleep(self._pace.look_s)

    async def _go_on(self) -> None:
        trouble: str | None = None
        while not self._closing:
            self._woken.clear()
            pause_s = self._pace.poll_s
            try:
                if await self._step():
                    pause_s = self._pace.look_s
                trouble = None
            except SubcortexError as error:
                # A disk that is full, a database that is held: thoughts go on, and so may this.
                if trouble != error.message:
                    self._log.warning("experiments wait", error=error.message)
                trouble = error.message
                pause_s = self._pace.sour_s
            except Exception:
                self._log.exception("experiments wait")
                pause_s = self._pace.sour_s
            if not self._closing:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), pause_s)

    async def _step(self) -> bool:
        """Do what can be done now; return whether anything is left that could be done soon."""
        runs = await self._with_diary(lambda diary: experiments.runs(diary, states=OPEN_STATES))
        # What nothing follows from keeps no daemon up.
        self.open_runs = len([run for run in runs if run.id not in self._followed_s])
        if self._turn.lending.taken:
            await self._look_for_others()
        for run in runs:
            if run.state == "running" and is_lost(run, processes.alive):
                await self._lose(run, "its process was gone")
            elif run.state == "measured":
                await self._follow_up(run)
        waiting = [run for run in in_turn(runs) if run.id not in self._unfit()]
        for run in waiting:
            why = self._why_not_now(run)
            if why is None:
                await self._work(batch_of(run, waiting, self._config))
                return True
            self.waits[run.id] = why
        self.waits = {run.id: self.waits[run.id] for run in runs if run.id in self.waits}
        return bool(runs)

    def _unfit(self) -> frozenset[str]:
        """Return the runs for which there was no room a moment ago."""
        return self._turn.unfit(self._clock.monotonic_s())

    def _why_not_now(self, run: RunRecord) -> str | None:
        """Return why a run may not begin now, in words; room aside."""
        if self._thinking():
            return "thoughts are under way"
        quiet = may_begin(run, self._idle_s(), self._pace.quiet_s, self._config.agent.idle_s)
        if quiet is not None:
            return quiet
        gpus = gpus_of(needs_of(run), run.subject, self._config)
        if why := self._fleet.lent(gpus, aside=HOLDER) or self._turn.taken(gpus):
            return why
        return None if self._fleet.calm() else "a tier comes or goes"

    async def _work(self, runs: Sequence[RunRecord]) -> None:
        """Have a worker do runs until they are done or it is told to end."""
        gpus = gpus_of(needs_of(runs[0]), runs[0].subject, self._config)
        shift = self._shift = _Shift(tuple(runs), gpus)
        self._turn.forget()
        try:
            if not await self._room_for(shift) or shift.why is not None:
                return
            for run in runs:
                self.waits.pop(run.id, None)
            worker = shift.worker = await Worker.start(self._config, [run.id for run in runs], self._command)
            self._log.info("worker", runs=[f"{run.experiment} of {run.subject}" for run in runs])
            ended = asyncio.create_task(worker.ended())
            try:
                await self._attend(shift, ended)
            finally:
                ended.cancel()
                self._kill(shift)
                assert shift.killing is not None
                await asyncio.shield(shift.killing)
            await self._account(shift, worker)
        except EngineFailed as error:
            await self._fail(runs[0], error)
        finally:
            self._shift = None
            self._fleet.give_back(HOLDER)

    async def _attend(self, shift: _Shift, ended: asyncio.Task[str]) -> None:
        while not ended.done() and shift.why is None:
            told = asyncio.create_task(shift.told.wait())
            try:
                await asyncio.wait(
                    {ended, told}, timeout=self._pace.look_s, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                told.cancel()
            if not ended.done() and shift.why is None:
                await self._watch(shift)

    async def _watch(self, shift: _Shift) -> None:
        """Look how far the runs have come, and whether somebody else wants their GPUs."""
        self.look_at_loans()
        now_s = self._clock.monotonic_s()
        for run in await self._runs_of(shift):
            if run.state == "measured":
                await self._follow_up(run)
            if run.state != "running":
                continue
            ends_s = now_s + time_left_s(run) + self._pace.over_s
            if now_s > shift.ends_s.setdefault((run.id, run.lives), ends_s):
                await self._fail(run, _overdue(run))
                self.make_way("a run did not end in its time")
        if shift.gpus:
            await self._look_for_others()
            if why := self._turn.taken(shift.gpus):
                self.make_way(why)

    async def _look_for_others(self) -> None:
        """See what other programs hold of the GPUs, if that was not seen a moment ago."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < self._pace.machine_s:
            return
        self._looked_s = now_s
        seen, fleet = await self._fleet.look(), self._config.fleet
        self._turn.look(now_s, seen.foreign, fleet.yield_over_gib * 1024.0, fleet.yield_back_s)

    async def _account(self, shift: _Shift, worker: Worker) -> None:
        """Write down what became of a worker's runs."""
        runs = await self._runs_of(shift)
        for run in runs:
            if run.state != "running":
                continue
            if shift.why is not None:
                await self._yielded(run, shift.why)
            else:
                await self._lose(run, "its process died", worker.log_tail())
        if shift.why is None and all(run.state == "queued" for run in runs):
            # It did not come so far as to begin: nor would the next one.
            raise EngineFailed(
                "the worker of experiments ended before it began",
                hint="The end of its log says why.",
                log_tail=worker.log_tail(),
            )

    async def _yielded(self, run: RunRecord, why: str) -> None:
        await self._with_diary(lambda diary: experiments.yielded(diary, run.id, why))
        self._log.info("gave way", run=run.id, experiment=run.experiment, why=why)

    async def _room_for(self, shift: _Shift) -> bool:
        """Return whether there is room, after tiers have made it if a person waits for the answer."""
        run = shift.runs[0]
        short = await self._shortage(shift)
        if short is None:
            return True
        if run.asked_by != "person":
            self._turn.no_room(run.id, self._clock.monotonic_s() + self._pace.sour_s)
            self.waits[run.id] = short.why
            return False
        self._log.info("tiers make room", experiment=run.experiment, why=short.why)
        self.waits[run.id] = "tiers make room"
        self._fleet.lend_to(HOLDER, None if short.gpus is None else sorted(short.gpus))
        end_s = self._clock.monotonic_s() + self._pace.rest_s
        while self._fleet.up_on(short.gpus) and self._clock.monotonic_s() < end_s and shift.why is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(shift.told.wait(), self._pace.look_s)
        short = await self._shortage(shift)
        if short is not None and shift.why is None:
            error = DoesNotFit(
                f"{run.experiment} of {run.subject} finds no room: {short.why}",
                hint="Other programs hold it, or it needs a larger machine; `subcortex ps` shows who has it.",
            )
            await self._fail(run, error)
            return False
        return shift.why is None

    async def _shortage(self, shift: _Shift) -> Shortage | None:
        needs = together([needs_of(run) for run in shift.runs])
        if not shift.gpus and not needs.host_mib:
            return None
        return shortage(needs, shift.gpus, await self._fleet.look(), self._fleet.up_on(shift.gpus))

    def _kill(self, shift: _Shift) -> None:
        if shift.worker is not None and shift.killing is None:
            shift.killing = asyncio.create_task(shift.worker.kill(), name="experiment gives way")

    async def _runs_of(self, shift: _Shift) -> list[RunRecord]:
        ids = sorted(shift.ids)
        return await self._with_diary(lambda diary: [experiments.run(diary, one) for one in ids])

    async def _lose(self, run: RunRecord, why: str, log_tail: str = "") -> None:
        """Have a run go on later whose process died, unless that has happened too often."""
        if run.losses + 1 < Turn.most_losses:
            await self._with_diary(lambda diary: experiments.lost(diary, run.id, why))
            self._log.warning("lost", run=run.id, experiment=run.experiment, why=why)
            return
        error = EngineFailed(
            f"{run.experiment} of {run.subject}: {why} ({run.losses + 1} times now)",
            hint="The end of the worker's log may say why; `subcortex logs daemon` tells when.",
            log_tail=log_tail,
        )
        await self._fail(run, error)

    async def _fail(self, run: RunRecord, error: SubcortexError) -> None:
        self._log.warning("failed", run=run.id, experiment=run.experiment, error=error.message)
        with contextlib.suppress(InvalidRequest):  # it was cancelled meanwhile
            await self._with_diary(lambda diary: experiments.failed(diary, run.id, error.to_wire()))

    async def _follow_up(self, run: RunRecord) -> None:
        """Have everything follow from a measured run; what goes wrong is tried again a minute later."""
        now_s = self._clock.monotonic_s()
        if now_s < self._followed_s.get(run.id, -inf):
            return
        try:
            await self._with_diary(lambda diary: self._follow(diary, self._config, run.id))
            self._followed_s.pop(run.id, None)
            self._log.info("settled", run=run.id, experiment=run.experiment, subject=run.subject)
        except Exception:
            self._followed_s[run.id] = now_s + 60.0
            self._log.exception("nothing has followed", run=run.id, experiment=run.experiment)

    async def _tick(self) -> None:
        """Have what is worth most run, if the machine is idle and the day's minutes are not spent."""
        if self._closing or self.open_runs or self._thinking():
            return
        if self._idle_s() < self._config.agent.idle_s:
            return

        def put(diary: Diary) -> RunRecord | None:
            from subcortex.mind.experimenting import asking

            left = self._config.experiments.minutes_a_day - spent_today(diary)
            return (
                asking.ask_next(diary, self._config, "schedule", most_gpu_minutes=left) if left > 0 else None
            )

        try:
            run = await self._with_diary(put)
        except SubcortexError as error:
            self._log.warning("nothing chosen", error=error.message)
            return
        if run is not None:
            self._log.info("chosen", experiment=run.experiment, subject=run.subject, run=run.id)
            self.open_runs += 1
            self._woken.set()

    async def _with_diary(self, do: Callable[[Diary], _T]) -> _T:
        """Do something with the journal's database in a thread; one at a time, whatever is cancelled."""

        def done() -> _T:
            if self._diary is None:
                journal = self._config.journal
                self._diary = Diary.open(self._config.database_path, durability=journal.durability)
            return do(self._diary)

        async def alone() -> _T:
            async with self._asking:
                return await asyncio.to_thread(done)

        return await asyncio.shield(asyncio.create_task(alone()))


def _asking(config: Config) -> tuple[Any, Any]:
    """Return what asks for runs, and the scene; takes seconds the first time, so in a thread.

    Imported here: it brings all experiments with it, and few daemons are asked.
    """
    from subcortex.experiments.laboratory.surroundings import scene_of
    from subcortex.mind.experimenting import asking

    return asking, scene_of(config)


def spent_today(diary: Diary) -> float:
    """Return the GPU-minutes that the machine's own curiosity has cost since midnight, local time."""
    midnight = diary.clock.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    return experiments.spent_gpu_minutes(diary, midnight, asked_by=["schedule", "agent"])


def _overdue(run: RunRecord) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{run.experiment} of {run.subject} was not done within {run.seconds:.0f} s, nor did it stop",
        hint="Its samples are kept; give it more minutes.",
    )


def _follow(diary: Diary, config: Config, run_id: str) -> Any:
    # Imported here: it brings all experiments with it.
    from subcortex.mind.experimenting.following import follow

    return follow(diary, config, run_id)
