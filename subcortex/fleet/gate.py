"""Who may use an engine next: a bounded queue by due time, priority and arrival."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from subcortex.errors import Overloaded, SubcortexError
from subcortex.fleet.scene import Waiter


def turn(waiter: Waiter, arrival: int, now_s: float, max_wait_s: float) -> tuple[bool, float, float, int]:
    """Return what a line is sorted by: the least goes first.

    The higher priority goes first, then the nearer deadline, then the earlier arrival; but who has waited for
    ``max_wait_s`` goes before all who have not.
    """
    if now_s - waiter.since_s >= max_wait_s:
        return False, 0.0, 0.0, arrival
    return True, -waiter.priority, inf if waiter.deadline_s is None else waiter.deadline_s, arrival


def waits_from_s(waiter: Waiter) -> float:
    """Return since when a thought waits for longer than it said it may."""
    return waiter.since_s + (waiter.wait_s or 0.0)


@dataclass(slots=True, eq=False)
class _Place:
    """A thought in the line; ``patient``: it has no other tier to go to."""

    waiter: Waiter
    arrival: int
    patient: bool
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """Counts the thoughts inside one engine and lines up those outside, in the order of ``turn``.

    Args:
        tier: Name for messages.
        max_concurrent: Thoughts inside at once.
        max_waiting: Thoughts outside before ``Overloaded``.
        now: The fleet's clock, seconds.
    """

    def __init__(
        self,
        tier: str,
        max_concurrent: int,
        max_waiting: int,
        now: Callable[[], float],
        max_wait_s: float = inf,
    ) -> None:
        self._tier = tier
        self._max_concurrent = max_concurrent
        self._max_waiting = max_waiting
        self._now = now
        self._max_wait_s = max_wait_s
        self._arrivals = itertools.count()
        self._line: list[_Place] = []
        self.mean_hold_s = 1.0
        self.in_flight = 0
        self.open = False

    @property
    def waiting(self) -> int:
        """How many wait outside."""
        return sum(1 for place in self._line if not place.admitted.done())

    def waiters(self) -> tuple[Waiter, ...]:
        """Return those outside, in order of arrival."""
        return tuple(place.waiter for place in self._line if not place.admitted.done())

    def try_enter(self) -> bool:
        """Enter at once if the engine is ready, has room, and nobody waits."""
        if self.open and self.in_flight < self._max_concurrent and not self._line:
            self.in_flight += 1
            return True
        return False

    def join(self, waiter: Waiter, *, patient: bool) -> asyncio.Future[None]:
        """Line up; await the future with ``entered``. Who is not patient has another tier to go to.

        Raises:
            Overloaded: ``max_waiting`` thoughts wait already; says when to come back.
        """
        if self.waiting >= self._max_waiting:
            retry_after_s = round(self.expected_wait_s(), 3)
            raise Overloaded(
                f"{self._max_waiting} thoughts already wait for {self._tier}",
                hint=f"Try again in {retry_after_s} s, or raise daemon.max_waiting.",
                tier=self._tier,
                waiting=self._max_waiting,
                retry_after_s=retry_after_s,
            )
        place = _Place(waiter, next(self._arrivals), patient)
        self._line.append(place)
        self.admit()
        return place.admitted

    async def entered(self, admitted: asyncio.Future[None]) -> None:
        """Wait for a place; whoever returns from here holds one until ``leave``.

        Raises:
            SubcortexError: Whatever ``refuse`` was told.
        """
        try:
            await admitted
        except asyncio.CancelledError:
            # Admitted and cancelled in the same turn of the loop: the place must go to the next one.
            if not admitted.cancelled() and admitted.exception() is None:
                self.leave()
            self._line = [place for place in self._line if place.admitted is not admitted]
            raise

    def expected_wait_s(self) -> float:
        """Return how long one more would wait, from how long places have been held of late."""
        return self.mean_hold_s * (self.waiting + 1) / self._max_concurrent

    def held(self, seconds: float) -> None:
        """Learn how long a place was held."""
        self.mean_hold_s += 0.2 * (seconds - self.mean_hold_s)

    def leave(self) -> None:
        """Give the place back and let the next one in."""
        self.in_flight -= 1
        self.admit()

    def admit(self) -> None:
        """Let in as many as there is room for."""
        if not self._line:
            return
        self._line = [place for place in self._line if not place.admitted.done()]
        now_s = self._now()
        while self.open and self._line and self.in_flight < self._max_concurrent:
            place = min(self._line, key=lambda one: turn(one.waiter, one.arrival, now_s, self._max_wait_s))
            self._line.remove(place)
            self.in_flight += 1
            place.admitted.set_result(None)

    def refuse(self, error: SubcortexError, *, patient_too: bool, older_than_s: float = 0.0) -> None:
        """Send those outside away, each with an ``error`` of its own.

        Args:
            error: What they are told.
            patient_too: Also those that have no other tier to go to.
            older_than_s: Only those that have waited so long, and beyond what they said they may.
        """
        before_s = self._now() - older_than_s if older_than_s else inf
        stay = []
        for place in self._line:
            if place.admitted.done():
                continue
            if (patient_too or not place.patient) and waits_from_s(place.waiter) <= before_s:
                # One exception raised in many tasks would gather all their frames.
                own = type(error)(error.message, hint=error.hint, **error.details)
                place.admitted.set_exception(own)
            else:
                stay.append(place)
        self._line = stay
