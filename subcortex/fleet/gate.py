"""Who may use an engine next: a bounded queue by priority, then by arrival."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from subcortex.errors import Overloaded, SubcortexError


@dataclass(order=True, slots=True)
class _Waiter:
    key: tuple[int, int]
    admitted: asyncio.Future[None] = field(compare=False)
    patient: bool = field(compare=False)


class Gate:
    """Counts the thoughts inside one engine and lines up those outside.

    Args:
        tier: Name for messages.
        max_concurrent: Thoughts inside at once.
        max_waiting: Thoughts outside before ``Overloaded``.
    """

    def __init__(self, tier: str, max_concurrent: int, max_waiting: int) -> None:
        self._tier = tier
        self._max_concurrent = max_concurrent
        self._max_waiting = max_waiting
        self._arrivals = itertools.count()
        self._waiters: list[_Waiter] = []
        self._mean_hold_s = 1.0
        self.in_flight = 0
        self.open = False

    @property
    def waiting(self) -> int:
        """How many wait outside."""
        return sum(1 for waiter in self._waiters if not waiter.admitted.done())

    def try_enter(self) -> bool:
        """Enter at once if the engine is ready, has room, and nobody waits."""
        if self.open and self.in_flight < self._max_concurrent and not self._waiters:
            self.in_flight += 1
            return True
        return False

    def join(self, priority: int, *, patient: bool) -> asyncio.Future[None]:
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
        admitted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, _Waiter((-priority, next(self._arrivals)), admitted, patient))
        self.admit()
        return admitted

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
            raise

    def expected_wait_s(self) -> float:
        """Return how long one more would wait, from how long places have been held of late."""
        return self._mean_hold_s * (self.waiting + 1) / self._max_concurrent

    def held(self, seconds: float) -> None:
        """Learn how long a place was held."""
        self._mean_hold_s += 0.2 * (seconds - self._mean_hold_s)

    def leave(self) -> None:
        """Give the place back and let the next one in."""
        self.in_flight -= 1
        self.admit()

    def admit(self) -> None:
        """Let in as many as there is room for."""
        while self.open and self._waiters and self.in_flight < self._max_concurrent:
            waiter = heapq.heappop(self._waiters)
            if not waiter.admitted.done():
                self.in_flight += 1
                waiter.admitted.set_result(None)

    def refuse(self, error: SubcortexError, *, patient_too: bool) -> None:
        """Send those outside away, each with an ``error`` of its own; or only those with another tier."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.admitted.done():
                continue
            if patient_too or not waiter.patient:
                # One exception raised in many tasks would gather all their frames.
                own = type(error)(error.message, hint=error.hint, **error.details)
                waiter.admitted.set_exception(own)
            else:
                heapq.heappush(self._waiters, waiter)
