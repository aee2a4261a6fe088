"""The daemon's side of experiments: what waits is done while the machine is idle, and gives way. Effects.

One task takes runs in order, one worker at a time. A thought that comes kills the worker with everything it
started; the run goes on later from the samples that the journal has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from math import inf

import structlog

from subcortex.clock import Clock, SystemClock
from subcortex.config import Config
from subcortex.errors import EngineFailed, SubcortexError
from subcortex.fleet import Fleet
from subcortex.journal import processes
from subcortex.journal.diary.experiment_records import OPEN_STATES, AskedBy, RunRecord
from subcortex.mind.experimenting import refusals
from subcortex.mind.experimenting.desk import Desk, spent_today
from subcortex.mind.experimenting.ledger import Follow, Ledger, follow_run
from subcortex.mind.experimenting.making_room import HOLDER, RoomMaker
from subcortex.mind.experimenting.room import gpus_of
from subcortex.mind.experimenting.shift import Pace, Shift
from subcortex.mind.experimenting.turns import (
    Turn,
    batch_of,
    in_turn,
    is_lost,
    may_begin,
    needs_of,
    next_of,
    out_of_window,
)
from subcortex.mind.experimenting.windows import Windows
from subcortex.mind.experimenting.worker import COMMAND, Worker

__all__ = ["COMMAND", "HOLDER", "Experimenting", "Pace", "spent_today"]


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
        self._command = command or COMMAND
        self._clock = clock or SystemClock()
        self._pace = pace or Pace()
        #: Run → why it waits, in words.
        self.waits: dict[str, str] = {}
        self._turn = Turn()
        self._ledger = Ledger(config, follow or follow_run, self._clock)
        self._desk = Desk(config, self._ledger)
        self._room = RoomMaker(fleet, self._ledger, self._turn, self.waits, self._clock, self._pace)
        self._task: asyncio.Task[None] | None = None
        self._windows: Windows | None = None
        self._woken = asyncio.Event()
        self._shift: Shift | None = None
        self._closing = False
        self._looked_s = -inf
        self._log = structlog.get_logger("experiments")
        #: How many runs are not over, as far as is known.
        self.open_runs = 0

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
        try:
            async with asyncio.timeout(self._pace.close_s):
                if self._task is not None:
                    self._woken.set()
                    await asyncio.wait({self._task})
                await self._ledger.close()
        except TimeoutError:
            # A driver or a disk that hangs: the journal has what was sampled, and keepers end what is left.
            self._log.warning("experiments did not stop in time", within_s=self._pace.close_s)

    @property
    def busy(self) -> bool:
        """Whether the daemon must stay up: something is to be found out, or may begin by itself."""
        return self.open_runs > 0 or bool(self._config.experiments.windows)

    def make_way(self, why: str) -> None:
        """Have what is under way give way: its processes are killed from here on. Returns at once."""
        shift = self._shift
        if shift is not None and shift.why is None:
            shift.end(why)
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
    ) -> list[RunRecord]:
        """Have experiments run for a person; see ``Desk.ask``."""
        return self._asked(await self._desk.ask(names, subject=subject, minutes=minutes, again=again))

    async def ask_for(
        self, asked_by: AskedBy, *, gap_id: str | None = None, drive: str | None = None
    ) -> RunRecord | None:
        """Have what is worth most run, for no person; see ``Desk.ask_for``."""
        run = await self._desk.ask_for(asked_by, gap_id=gap_id, drive=drive)
        self._asked([run] if run is not None else [])
        return run

    def _asked(self, runs: list[RunRecord]) -> list[RunRecord]:
        # Until the next look counts them: nobody is to stop an idle daemon in between.
        self.open_runs += any(run.state in OPEN_STATES for run in runs)
        self._woken.set()
        return runs

    async def cancel(self, run_id: str) -> RunRecord:
        """Give a run up, by its id or a beginning of it; returns when its processes are gone.

        Raises:
            InvalidRequest: There is no such run, or it is over already.
        """
        before, found = await self._ledger.cancel(run_id)
        shift = self._shift
        if shift is not None and before.state == "running" and before.id in shift.ids:
            self.make_way("a run was cancelled")
            if shift.killing is not None:
                await asyncio.shield(shift.killing)
        self._woken.set()
        return found

    async def run(self, run_id: str) -> RunRecord:
        """Return a run by its id or a beginning of it; InvalidRequest for none, or several."""
        return await self._ledger.run(run_id)

    async def runs(self) -> list[RunRecord]:
        """Return the runs that are not over, in the order that they were asked for."""
        return await self._ledger.open_runs()

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
            unfollowed = run.state == "measured" and self._ledger.is_stuck(run.id)
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
        runs = await self._ledger.open_runs()
        # What nothing comes of keeps no daemon up.
        left = [run for run in runs if not self._is_at_rest(run)]
        self.open_runs = len(left)
        if self._turn.lending.taken:
            await self._look_for_others()
        # One at a time: somebody may have started a worker by hand, or one would not die.
        elsewhere = False
        for run in runs:
            if run.state == "measured":
                await self._ledger.follow_up(run)
            elif run.state == "running" and is_lost(run, processes.alive):
                await self._ledger.lose(run, "its process was gone")
            elsewhere |= run.state == "running"
        waiting = [run for run in in_turn(runs) if run.id not in self._unfit()]
        spent = await self._spent(waiting)
        for run in waiting:
            why = "another process runs one" if elsewhere else self._why_not_now(run, spent=spent)
            if why is None:
                await self._work(batch_of(run, waiting, self._config))
                return True
            self.waits[run.id] = why
        for gone in self.waits.keys() - {run.id for run in runs}:
            del self.waits[gone]
        now = self._clock.now()
        return any(
            run.state not in ("queued", "yielded") or out_of_window(run, now, self._is_open) is None
            for run in left
        )

    def _is_at_rest(self, run: RunRecord) -> bool:
        """Return whether nothing comes of an open run as things are."""
        # The schedule's own run waits for a window, and there may be none any more.
        orphan = run.asked_by == "schedule" and not self._has_windows
        return self._ledger.is_stuck(run.id) or (orphan and run.state in ("queued", "yielded"))

    @property
    def _has_windows(self) -> bool:
        return self._windows is not None and self._windows.comes

    def _is_open(self, now: datetime) -> bool:
        return self._windows is not None and self._windows.open_at(now)

    async def _spent(self, waiting: Sequence[RunRecord]) -> bool:
        """Return whether the day's minutes are spent, if anybody waits whom they concern."""
        if all(run.asked_by == "person" for run in waiting):
            return False
        return await self._ledger.do(spent_today) >= self._config.experiments.minutes_a_day

    def _unfit(self) -> frozenset[str]:
        """Return the runs for which there was no room a moment ago."""
        return self._turn.unfit(self._clock.monotonic_s())

    def _why_not_now(self, run: RunRecord, *, spent: bool) -> str | None:
        """Return why a run may not begin now, in words; room aside."""
        if self._closing:
            return "the daemon stops"
        if spent and run.asked_by != "person":
            return "the day's minutes are spent (experiments.minutes_a_day)"
        if why := out_of_window(run, self._clock.now(), self._is_open):
            return why if self._has_windows else "no window comes for it: run it by name, or cancel it"
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
        shift = self._shift = Shift(tuple(runs), gpus)
        self._turn.forget()
        try:
            if not await self._room.made(shift) or shift.why is not None:
                return
            for run in runs:
                self.waits.pop(run.id, None)
            try:
                shift.worker = await Worker.start(self._config, [run.id for run in runs], self._command)
            except EngineFailed as error:
                await self._ledger.fail(runs[0], error)
                return
            self._log.info("worker", runs=[f"{run.experiment} of {run.subject}" for run in runs])
            ended = asyncio.create_task(shift.worker.ended())
            try:
                await self._attend(shift, ended)
            finally:
                ended.cancel()
                await self._killed(shift)
            await self._account(shift, shift.worker)
        finally:
            self._shift = None
            self._fleet.give_back(HOLDER)

    async def _killed(self, shift: Shift) -> None:
        shift.kill()
        assert shift.killing is not None
        try:
            await asyncio.shield(shift.killing)
        except EngineFailed as error:
            # Nothing more can be done; what it had begun goes on once its process is gone.
            self._log.warning("a worker is left", error=error.message)

    async def _attend(self, shift: Shift, ended: asyncio.Task[str]) -> None:
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

    async def _watch(self, shift: Shift) -> None:
        """Look how far the runs have come, and whether somebody else wants their GPUs."""
        self.look_at_loans()
        now_s = self._clock.monotonic_s()
        runs = await self._ledger.runs(shift.ids)
        for run in runs:
            if run.state == "measured":
                await self._ledger.follow_up(run)
            elif run.state == "cancelled" and shift.begun(run):
                # Whoever cancelled it did not stay to see its processes end.
                self.make_way("a run was cancelled")
            elif run.state == "running" and shift.is_overdue(run, now_s, self._pace.over_s):
                await self._ledger.fail(run, refusals.overdue(run))
                self.make_way("a run did not end in its time")
        if shift.stands_still(runs, now_s, self._pace.between_s):
            log_tail = shift.worker.log_tail() if shift.worker else ""
            await self._ledger.fail(next_of(runs), refusals.stood_still(self._pace.between_s, log_tail))
            self.make_way("its worker did nothing")
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

    async def _account(self, shift: Shift, worker: Worker) -> None:
        """Write down what became of a worker's runs."""
        runs = await self._ledger.runs(shift.ids)
        for run in runs:
            if run.state != "running":
                continue
            if shift.why is not None:
                await self._ledger.yielded(run, shift.why)
            else:
                await self._ledger.lose(run, "its process died", worker.log_tail())
        waiting = [run for run in runs if run.state in ("queued", "yielded")]
        if shift.why is None and waiting and not any(shift.begun(run) for run in runs):
            # It did not come so far as to begin: nor would the next one.
            await self._ledger.fail(waiting[0], refusals.never_began(worker.log_tail()))

    async def _tick(self) -> None:
        """Have what is worth most run, if the machine is idle and the day's minutes are not spent."""
        if self._closing or self.open_runs or self._thinking():
            return
        if self._idle_s() < self._config.agent.idle_s:
            return

        try:
            run = await self.ask_for("schedule")
        except SubcortexError as error:
            self._log.warning("nothing chosen", error=error.message)
        except Exception:
            self._log.exception("nothing chosen")
        else:
            if run is not None:
                self._log.info("chosen", experiment=run.experiment, subject=run.subject, run=run.id)
