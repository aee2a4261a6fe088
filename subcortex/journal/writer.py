"""The one thread that writes: it commits what is queued together, and keeps in memory what the disk refuses.

A write is a few prepared statements. Urgent ones (a thought's start, which a request waits for) go
before the rest. While the database takes nothing the writes are acknowledged from memory and tried
again with growing pauses, in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from subcortex.clock import Clock
from subcortex.errors import JournalError
from subcortex.journal.checkpoint import Checkpointer
from subcortex.journal.database import Moved, storage_reason
from subcortex.journal.records import JournalHealth, Limits
from subcortex.journal.writes import Write, transact

_BATCH = 32
_HELD_BATCH = 256
#: Little room takes little at a time; a batch that is larger than the room would never be written.
_HELD_BATCH_BYTES = 2**20


class Writer:
    """Owns the writing connection and its thread.

    Args:
        conn: The open, migrated database; the writer owns it from now on.
        reconnect: Opens it anew, migrated, waiting at most the given seconds for a lock.
        collect: Returns writes that became due by themselves (what is being said), and the seconds
            until the next are; None when nothing is pending. Called on the writer's thread.
        inline: Whether ``put_now`` may commit on the caller's thread.
    """

    def __init__(
        self,
        path: Path,
        conn: sqlite3.Connection,
        *,
        reconnect: Callable[[float], sqlite3.Connection],
        limits: Limits,
        clock: Clock,
        collect: Callable[[], tuple[list[Write], float | None]],
        inline: bool,
    ) -> None:
        self._path = path
        self._connect = reconnect
        self._limits = limits
        self._clock = clock
        self._collect = collect
        self._conn: sqlite3.Connection | None = conn
        self._wait_for_locks(limits.busy_timeout_s)
        self._inode = self._inode_now()
        self._inline = inline
        #: Held by whoever uses the connection and the local lists.
        self._busy = threading.Lock()
        self._first: list[Write] = []
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._urgent: deque[Write] = deque()
        self._others: deque[Write] = deque()
        self._held: deque[Write] = deque()
        self._held_bytes = 0
        self._retry_at_s = 0.0
        self._retry_pause_s = limits.retry_first_s
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="subcortex-journal", daemon=True)
        self._checkpointer = Checkpointer(path, limits)
        self.health = JournalHealth()

    def start(self, first: Sequence[Write]) -> None:
        """Commit ``first`` (or hold it), then start the thread.

        ``first`` is written again, before all that waits, whenever the file had to be made anew.
        """
        self._first = list(first)
        self._commit(self._first)
        self._thread.start()
        self._checkpointer.start()

    def put(self, write: Write) -> None:
        """Queue a write; it is taken in order of urgency, then of arrival."""
        self._queue.put(write)

    def put_now(self, write: Write) -> bool:
        """Commit on the caller's thread if nothing is in the way; return whether it is done.

        Handing a write to the thread and hearing back costs more than the write itself. With an fsync
        a commit, with anything queued, held or locked, the thread does it as ever.

        Raises:
            JournalError: The write itself is at fault.
        """
        if (
            not self._inline
            or self._held
            or not self._queue.empty()
            or not self._busy.acquire(blocking=False)
        ):
            return False
        try:
            if self._held or self._urgent or self._others or not self._queue.empty() or self._stopping:
                return False
            self._wait_for_locks(0.0)
            try:
                failures = self._transact([write])
            finally:
                self._wait_for_locks(self._limits.busy_timeout_s)
        except (sqlite3.Error, Moved):
            return False
        finally:
            self._busy.release()
        error = _as_ours(failures.get(0), write)
        if error is not None:
            raise error
        return True

    def wake(self) -> None:
        """Have the thread ask ``collect`` again."""
        self._queue.put(None)

    def stop(self) -> None:
        """Commit everything that is queued, close the connections and end the thread; blocks."""
        self._stopping = True
        self.wake()
        self._thread.join()
        self._checkpointer.stop()
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _run(self) -> None:
        wait_s: float | None = None
        while True:
            stopping = self._stopping
            self._drain(0.0 if stopping else wait_s)
            with self._busy:
                due_in_s = self._write_due(stopping)
            if stopping:
                return
            wait_s = due_in_s
            if self._held:
                wait_s = max(0.001, self._retry_at_s - self._clock.monotonic_s())

    def _collect_safely(self) -> tuple[list[Write], float | None]:
        try:
            return self._collect()
        except Exception as error:
            _log("journal could not save what is being said", error=str(error))
            return [], None

    def _write_due(self, stopping: bool) -> float | None:
        """Commit what waits; return the seconds until something becomes due by itself."""
        self._commit_queued()
        if self._held and (stopping or self._clock.monotonic_s() >= self._retry_at_s):
            self._retry()
        if self._held:
            return None
        due, due_in_s = self._collect_safely()
        self._others.extend(due)
        self._commit_queued()
        return due_in_s

    def _drain(self, wait_s: float | None) -> None:
        """Move what is queued to the local lists, waiting up to ``wait_s`` (None: for ever)."""
        try:
            write = self._queue.get_nowait() if wait_s == 0.0 else self._queue.get(timeout=wait_s)
            while True:
                if write is not None:
                    (self._urgent if write.urgent else self._others).append(write)
                write = self._queue.get_nowait()
        except queue.Empty:
            return

    def _commit_queued(self) -> None:
        while self._urgent or self._others:
            if self._urgent:
                batch = list(self._urgent)
                self._urgent.clear()
            else:
                batch = [self._others.popleft() for _ in range(min(_BATCH, len(self._others)))]
            self._commit(batch)
            self._drain(0.0)

    def _commit(self, batch: list[Write]) -> None:
        if self._held:
            self._hold(batch)
            return
        try:
            failures = self._transact(batch)
        except Exception as error:
            # Whatever it is, the rows are not at fault: they wait, and this thread lives.
            self._degrade(error)
            self._hold(batch)
        else:
            _acknowledge(batch, failures)

    def _transact(self, batch: list[Write]) -> dict[int, Exception]:
        """Commit ``batch`` as one; return the writes (by place) that are at fault themselves.

        Raises:
            Exception: The database takes nothing; all of the batch is still to be written.
        """
        conn = self._conn
        if conn is None or self._inode_now() != self._inode:
            raise Moved(f"the file {self._path} was moved or deleted")
        failures = transact(conn, batch)
        self._checkpointer.count(len(batch), sum(write.size_bytes() for write in batch))
        return failures

    def _hold(self, batch: list[Write]) -> None:
        self._held.extend(batch)
        self._held_bytes += sum(write.size_bytes() for write in batch)
        self._count_held()
        _acknowledge(batch, {})

    def _count_held(self) -> None:
        self.health = replace(self.health, held_rows=len(self._held), held_bytes=self._held_bytes)

    def _degrade(self, error: Exception) -> None:
        reason = storage_reason(error) or getattr(error, "message", None) or str(error)
        if self.health.state == "ok":
            self._retry_pause_s = self._limits.retry_first_s
            self.health = JournalHealth("degraded", reason, since=self._clock.now())
            # From now on a begin() may queue behind a retry, so no retry may wait.
            self._wait_for_locks(0.0)
            _log("journal degraded", reason=reason)
        else:
            self._retry_pause_s = min(self._retry_pause_s * 2, self._limits.retry_max_s)
            self.health = replace(self.health, reason=reason)
        self._retry_at_s = self._clock.monotonic_s() + self._retry_pause_s

    def _retry(self) -> None:
        """Write what is held, oldest first; stop at the first refusal."""
        try:
            if self._conn is None or self._inode_now() != self._inode:
                self._reconnect()
            while self._held:
                batch = self._next_held()
                failures = self._transact(batch)
                for place, write in enumerate(batch):
                    self._held.popleft()
                    self._held_bytes -= write.size_bytes()
                    if place in failures:
                        _log("journal write failed", what=write.what, error=str(failures[place]))
                self._count_held()
        except Exception as error:
            self._degrade(error)
        else:
            self.health = JournalHealth()
            self._wait_for_locks(self._limits.busy_timeout_s)
            _log("journal recovered")

    def _next_held(self) -> list[Write]:
        batch: list[Write] = []
        size_bytes = 0
        for write in self._held:
            size_bytes += write.size_bytes()
            if batch and (len(batch) == _HELD_BATCH or size_bytes > _HELD_BATCH_BYTES):
                break
            batch.append(write)
        return batch

    def _reconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
        self._conn = self._connect(0.0)
        self._inode = self._inode_now()
        # What waits refers to the run, and a file made anew does not know it.
        self._transact(self._first)

    def _wait_for_locks(self, timeout_s: float) -> None:
        if self._conn is not None:
            self._conn.execute(f"PRAGMA busy_timeout = {int(timeout_s * 1000)}")

    def _inode_now(self) -> int | None:
        try:
            return os.stat(self._path).st_ino  # noqa: PTH116 (at every commit; Path.stat takes twice as long)
        except OSError:
            return None


def _acknowledge(batch: list[Write], failures: dict[int, Exception]) -> None:
    """Complete the waiters, each on its own loop, in one call a loop; log failures nobody awaits."""
    answers: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], Exception | None]]] = {}
    for place, write in enumerate(batch):
        error = failures.get(place)
        if write.waiter is not None:
            answers.setdefault(write.waiter.get_loop(), []).append((write.waiter, _as_ours(error, write)))
        elif error is not None:
            _log("journal write failed", what=write.what, error=str(error))
    for loop, pairs in answers.items():
        try:
            loop.call_soon_threadsafe(_settle, pairs)
        except RuntimeError:
            # The loop has closed: nobody waits any more, and the rows are written.
            continue


def _settle(pairs: list[tuple[asyncio.Future[None], Exception | None]]) -> None:
    for waiter, error in pairs:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)


def _as_ours(error: Exception | None, write: Write) -> Exception | None:
    if error is None or isinstance(error, JournalError):
        return error
    return JournalError(f"{write.what} could not be recorded: {error}")


def _log(event: str, **facts: object) -> None:
    # It takes 0.08 s to import, and a journal without trouble says nothing.
    import structlog

    if structlog.is_configured():
        log = structlog.get_logger("subcortex.journal")
    else:
        # Unconfigured, structlog would print to the stdout of whatever program this is.
        log = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))
    # Logs lie beside the database as a rule: the disk that refuses rows refuses lines too, and a thread that
    # died of that would leave every thought waiting.
    with contextlib.suppress(OSError, ValueError):
        log.warning(event, **facts)
