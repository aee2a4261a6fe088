"""Room for an experiment: tiers make it if a person waits for the answer, and for nobody else. Effects."""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from subcortex.clock import Clock
from subcortex.errors import DoesNotFit
from subcortex.fleet import Fleet
from subcortex.mind.experimenting.ledger import Ledger
from subcortex.mind.experimenting.room import Shortage, shortage, together
from subcortex.mind.experimenting.shift import Pace, Shift
from subcortex.mind.experimenting.turns import Turn, needs_of

#: Whom the fleet lends to.
HOLDER = "an experiment"


class RoomMaker:
    """Finds room, or has tiers rest until there is some.

    Args:
        fleet: Whose tiers make room.
        ledger: Hears of a run that finds none.
        turn: Lets a run be for a while that finds none and must not ask for it.
        waits: Run → why it waits, in words.
        clock: Of the fleet.
        pace: How long tiers have.
    """

    def __init__(
        self, fleet: Fleet, ledger: Ledger, turn: Turn, waits: dict[str, str], clock: Clock, pace: Pace
    ) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._turn = turn
        self._waits = waits
        self._clock = clock
        self._pace = pace
        self._log = structlog.get_logger("experiments")

    async def made(self, shift: Shift) -> bool:
        """Return whether there is room; what tiers have made of it is lent to ``HOLDER``."""
        run = shift.runs[0]
        short = await self._shortage(shift)
        if short is None or shift.why is not None:
            return shift.why is None
        if run.asked_by != "person":
            self._turn.no_room(run.id, self._clock.monotonic_s() + self._pace.sour_s)
            self._waits[run.id] = short.why
            return False
        self._log.info("tiers make room", experiment=run.experiment, why=short.why)
        self._waits[run.id] = "tiers make room"
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
            await self._ledger.fail(run, error)
            return False
        return shift.why is None

    async def _shortage(self, shift: Shift) -> Shortage | None:
        needs = together([needs_of(run) for run in shift.runs])
        if not shift.gpus and not needs.host_mib:
            return None
        return shortage(needs, shift.gpus, await self._fleet.look(), self._fleet.up_on(shift.gpus))
