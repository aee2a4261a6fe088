"""One voice, any number of listeners: each hears everything from when it came, or is cut off."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from subcortex.errors import Overloaded

_T = TypeVar("_T")

#: What a listener may leave unread.
BUFFERED = 256


class Listener(Generic[_T]):
    """What one listener has yet to hear; an async iterator that ends with the broadcast.

    Raises (from iterating):
        Overloaded: It fell behind by more than its buffer; what was kept until then comes first.
    """

    def __init__(self, buffered: int) -> None:
        self._buffered = buffered
        self._unheard: deque[_T] = deque()
        self._news = asyncio.Event()
        self._behind = False
        self._over = False

    def tell(self, event: _T) -> None:
        """Take in an event unless the listener is behind; never waits."""
        if self._behind:
            return
        if len(self._unheard) >= self._buffered:
            self._behind = True
        else:
            self._unheard.append(event)
        self._news.set()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._over = True
        self._news.set()

    def __aiter__(self) -> Listener[_T]:
        return self

    async def __anext__(self) -> _T:
        while not self._unheard:
            if self._behind:
                raise Overloaded(
                    f"cut off: more than {self._buffered} events waited to be read",
                    hint="Read faster, or ask again: an answer begins with how things stand.",
                    buffered=self._buffered,
                )
            if self._over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._unheard.popleft()


class Broadcaster(Generic[_T]):
    """Tells every listener of every event, and waits for none of them. For one event loop.

    Args:
        buffered: How many events a listener may leave unread before it is cut off.
    """

    def __init__(self, buffered: int = BUFFERED) -> None:
        self._buffered = buffered
        self._listeners: set[Listener[_T]] = set()
        self._closed = False

    def tell(self, event: _T) -> None:
        """Have every listener hear of ``event``; never waits."""
        for listener in self._listeners:
            listener.tell(event)

    @contextmanager
    def listening(self) -> Iterator[Listener[_T]]:
        """Give what hears everything from now on; after ``close`` it has nothing to hear."""
        listener: Listener[_T] = Listener(self._buffered)
        if self._closed:
            listener.end()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """End every listener once it has heard what was told before."""
        self._closed = True
        for listener in self._listeners:
            listener.end()
