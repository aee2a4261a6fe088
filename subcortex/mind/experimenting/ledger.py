"""What becomes of runs, in the journal: in a thread, one thing at a time. Effects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from math import inf
from typing import Any, TypeVar

import structlog

from subcortex.clock import Clock
from subcortex.config import Config
from subcortex.errors import EngineFailed, InvalidRequest, JournalError, SubcortexError
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import OPEN_STATES, RunRecord
from subcortex.mind.experimenting.turns import Turn

#: Has everything follow from a run that is measured; called in a thread, and again until it succeeds.
Follow = Callable[[Diary, Config, str], Any]
_T = TypeVar("_T")
#: Between two attempts to have everything follow; seconds.
_AGAIN_S = 60.0


class Ledger:
    """The journal's runs, as the daemon writes them.

    Args:
        config: Whose journal it is.
        follow: What becomes of a measured run.
        clock: Says when what went wrong is tried again.
    """

    def __init__(self, config: Config, follow: Follow, clock: Clock) -> None:
        self._config = config
        self._follow = follow
        self._clock = clock
        self._diary: Diary | None = None
        self._closed = False
        self._turn = asyncio.Lock()
        self._again_s: dict[str, float] = {}
        self._log = structlog.get_logger("experiments")

    async def do(self, do: Callable[[Diary], _T]) -> _T:
        """Do something with the journal's database in a thread; it is done even if the caller is cancelled.

        Raises:
            JournalError: It cannot be used, or is closed already.
        """

        def done() -> _T:
            if self._closed:
                raise JournalError("the journal is closed: the daemon stops")
            if self._diary is None:
                journal = self._config.journal
                self._diary = Diary.open(self._config.database_path, durability=journal.durability)
            return do(self._diary)

        async def alone() -> _T:
            async with self._turn:
                return await asyncio.to_thread(done)

        return await asyncio.shield(asyncio.create_task(alone()))

    async def run(self, run_id: str) -> RunRecord:
        """Return a run by its id or a beginning of it; InvalidRequest for none, or several."""
        return await self.do(lambda diary: experiments.run(diary, run_id))

    async def open_runs(self) -> list[RunRecord]:
        """Return the runs that are not over, in the order that they were asked for."""
        return await self.do(lambda diary: experiments.runs(diary, states=OPEN_STATES))

    async def runs(self, ids: Collection[str]) -> list[RunRecord]:
        """Return runs by their whole ids, sorted by them."""
        return await self.do(lambda diary: [experiments.run(diary, one) for one in sorted(ids)])

    async def cancel(self, run_id: str) -> tuple[RunRecord, RunRecord]:
        """Give a run up, by its id or a beginning of it; return it as it was and as it is.

        Raises:
            InvalidRequest: There is no such run, or it is over already.
        """

        def put(diary: Diary) -> tuple[RunRecord, RunRecord]:
            with diary.transaction():
                before = experiments.run(diary, run_id)
                return before, experiments.cancelled(diary, before.id)

        return await self.do(put)

    async def yielded(self, run: RunRecord, why: str) -> None:
        """Have a run that was at work go on later; one that was cancelled meanwhile stays so."""
        with contextlib.suppress(InvalidRequest):
            await self.do(lambda diary: experiments.yielded(diary, run.id, why))
            self._log.info("gave way", run=run.id, experiment=run.experiment, why=why)

    async def lose(self, run: RunRecord, why: str, log_tail: str = "") -> None:
        """Have a run go on later whose process died, unless that has happened too often."""
        if run.losses + 1 < Turn.most_losses:
            with contextlib.suppress(InvalidRequest):
                await self.do(lambda diary: experiments.lost(diary, run.id, why))
            self._log.warning("lost", run=run.id, experiment=run.experiment, why=why)
            return
        error = EngineFailed(
            f"{run.experiment} of {run.subject}: {why} ({run.losses + 1} times now)",
            hint="The end of the worker's log may say why; `subcortex logs daemon` tells when.",
            log_tail=log_tail,
        )
        await self.fail(run, error)

    async def fail(self, run: RunRecord, error: SubcortexError) -> None:
        """Note why a run came to nothing; one that has its answers or was cancelled meanwhile stays so."""

        def put(diary: Diary) -> bool:
            with diary.transaction():
                if experiments.run(diary, run.id).state not in ("queued", "running", "yielded"):
                    return False
                experiments.failed(diary, run.id, error.to_wire())
                return True

        if await self.do(put):
            self._log.warning("failed", run=run.id, experiment=run.experiment, error=error.message)

    async def follow_up(self, run: RunRecord) -> None:
        """Have everything follow from a measured run; what goes wrong is tried again a minute later."""
        now_s = self._clock.monotonic_s()
        if now_s < self._again_s.get(run.id, -inf):
            return
        try:
            await self.do(lambda diary: self._follow(diary, self._config, run.id))
            self._again_s.pop(run.id, None)
            self._log.info("settled", run=run.id, experiment=run.experiment, subject=run.subject)
        except Exception:
            self._again_s[run.id] = now_s + _AGAIN_S
            self._log.exception("nothing has followed", run=run.id, experiment=run.experiment)

    def is_stuck(self, run_id: str) -> bool:
        """Return whether nothing could follow from a measured run when that was tried."""
        return run_id in self._again_s

    async def close(self) -> None:
        """Close the database, once what is being done with it is done."""
        async with self._turn:
            self._closed = True
            if self._diary is not None:
                self._diary.close()


def follow_run(diary: Diary, config: Config, run_id: str) -> Any:
    """Have everything follow from a measured run; see ``following.follow``."""
    # Imported here: it brings all experiments with it.
    from subcortex.mind.experimenting.following import follow

    return follow(diary, config, run_id)
