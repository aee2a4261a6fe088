"""Where experiments are asked for: the machine is looked at, and what is wanted waits for it. Effects."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from subcortex.config import Config
from subcortex.journal.diary import Diary, experiments
from subcortex.journal.diary.experiment_records import AskedBy, RunRecord
from subcortex.mind.experimenting.ledger import Ledger


class Desk:
    """Takes what persons, agents and the schedule ask for into the journal."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger

    async def ask(
        self,
        names: Sequence[str] | None,
        *,
        subject: str | None = None,
        minutes: float | None = None,
        again: bool = False,
    ) -> list[RunRecord]:
        """Have experiments run for a person, by their names or (None) the one that is worth most.

        Raises:
            InvalidRequest: There is no such experiment or subject, or it is not applicable here.
            JournalError: The database cannot be written.
        """
        asking, scene = await asyncio.to_thread(_asking, self._config)

        def put(diary: Diary) -> list[RunRecord]:
            if names is None:
                run = asking.ask_next(diary, self._config, "person", minutes=minutes, scene=scene)
                return [run] if run is not None else []
            found: list[RunRecord] = asking.ask(
                diary, self._config, names, subject=subject, minutes=minutes, again=again, scene=scene
            )
            return found

        return await self._ledger.do(put)

    async def ask_for(
        self, asked_by: AskedBy, *, gap_id: str | None = None, drive: str | None = None
    ) -> RunRecord | None:
        """Have what is worth most run, of what the day's minutes have room for; None if there is nothing.

        Args:
            asked_by: Who wants to know; no person, whose runs cost nobody's day.
            gap_id: Only what may answer this question of the board, or has to run before.
            drive: Whom the answer satisfies, if it is not the question's own.

        Raises:
            InvalidRequest: There is no such question.
            JournalError, EmergenceFailed: As ``choosing.choose``.
        """
        asking, scene = await asyncio.to_thread(_asking, self._config)

        def put(diary: Diary) -> RunRecord | None:
            left = self._config.experiments.minutes_a_day - spent_today(diary)
            if left <= 0:
                return None
            run: RunRecord | None = asking.ask_next(
                diary,
                self._config,
                asked_by,
                most_gpu_minutes=left,
                gap_id=gap_id,
                drive=drive,
                scene=scene,
            )
            return run

        return await self._ledger.do(put)


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
