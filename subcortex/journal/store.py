"""The journal as the mind sees it: begin a thought, say what was said, complete it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from subcortex.clock import Clock, SystemClock
from subcortex.errors import JournalError
from subcortex.journal import boots, processes, rows
from subcortex.journal.database import connect_writer, explained
from subcortex.journal.losses import Losses
from subcortex.journal.migrations import migrate
from subcortex.journal.recorder import Recorder
from subcortex.journal.records import BootEnd, BootStart, JournalHealth, Limits, ThoughtEnd, ThoughtStart
from subcortex.journal.writer import Writer
from subcortex.journal.writes import Statement, Write
from subcortex.types import Durability, new_thought_id


class Journal:
    """The record of every thought; made by ``Journal.open``, one a database file.

    Its methods may be called from any event loop or thread, except that ``begin`` and ``complete``
    are coroutines. While the database takes nothing (a full disk, another program's lock), writes wait
    in memory and ``health`` says so. At the bound of that memory (``Limits.held_rows``) whatever has begun
    still ends, and what is new is counted as lost; once there is room, an event ``rows_lost`` says it.
    """

    def __init__(self, path: Path, durability: Durability, recorder: Recorder, clock: Clock, limits: Limits):
        """Private: use ``open``."""
        self.path = path
        self.run_id = new_thought_id()
        self._durability = durability
        self._recorder = recorder
        self._clock = clock
        self._limits = limits
        #: Starts of the thoughts at work, for the case that their row is gone when they end.
        self._running: dict[str, Statement] = {}
        self._booting: dict[str, Statement] = {}
        #: Those of both whose start found no room, and is written with their end if there is room then.
        self._unwritten: set[str] = set()
        self._losses = Losses()
        self._saying: dict[str, tuple[str, str]] = {}
        self._saying_due_s = 0.0
        self._lock = threading.Lock()
        self._closed = False
        conn = self._connect(limits.open_timeout_s)
        self._first = self._first_writes(conn)
        self._writer = Writer(
            path,
            conn,
            reconnect=self._connect,
            limits=limits,
            clock=clock,
            collect=self._collect,
            inline=durability == "process",
        )

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        durability: Durability = "process",
        recorder: Recorder | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> Journal:
        """Open the database, creating it (file 0600, folder 0700) and migrating it as need be.

        Thoughts that a killed process left running are marked interrupted, with what had been said.

        Raises:
            JournalError: It cannot be created, opened or written; it is damaged, another program's,
                or from a newer version.
        """
        try:
            journal = cls(
                path, durability, recorder or Recorder(), clock or SystemClock(), limits or Limits()
            )
            journal._writer.start(journal._first)
        except sqlite3.Error as error:
            raise explained(error, path, "open the journal") from error
        return journal

    @property
    def health(self) -> JournalHealth:
        """Whether what is written reaches the disk, and what waits in memory if not."""
        return replace(self._writer.health, lost_rows=self._losses.rows)

    async def begin(self, record: ThoughtStart) -> None:
        """Write a thought down before it goes to an engine; returns once committed.

        While the journal is degraded it returns once held in memory, or at once if there is no room in it.

        Raises:
            JournalError: The journal is closed, or the id is on record already.
        """
        self._refuse_if_closed()
        row = rows.start_row(record, self.run_id, self._recorder)
        self._running[record.id] = (rows.RESTORE_START, row)
        if self._full():
            self._unwritten.add(record.id)
            return
        write = Write([(rows.INSERT_START, row)], f"the start of thought {record.id}", urgent=True)
        try:
            await self._written(write)
        except JournalError:
            self._running.pop(record.id, None)
            raise
        except asyncio.CancelledError:
            # The caller is gone before it had a thought to complete, and the row may be written yet.
            self._running.pop(record.id, None)
            cancelled = (rows.CANCEL_START, (rows.timestamp(self._clock.now()), record.id))
            self._writer.put(Write([cancelled], f"the cancelling of thought {record.id}"))
            raise

    def say(self, thought_id: str, text: str, reasoning: str) -> None:
        """Note what has been said so far, whole; saved every half second, the newest wins."""
        if thought_id not in self._running or thought_id in self._unwritten or self._closed:
            return
        with self._lock:
            idle = not self._saying
            self._saying[thought_id] = (text, reasoning)
            if idle:
                self._saying_due_s = self._clock.monotonic_s() + self._limits.say_interval_s
        if idle:
            self._writer.wake()

    async def complete(self, end: ThoughtEnd) -> None:
        """Write how a thought ended; returns once committed (or held in memory while degraded).

        Raises:
            JournalError: No such thought runs.
        """
        self._refuse_if_closed()
        write = self._ended(end)
        if write is not None:
            await self._written(write)

    def complete_soon(self, end: ThoughtEnd) -> None:
        """Like ``complete`` without waiting; ``aclose`` writes what is still queued.

        Raises:
            JournalError: The journal is closed.
        """
        self._refuse_if_closed()
        write = self._ended(end)
        if write is not None:
            self._writer.put(write)

    def event(self, tier: str | None, kind: str, **detail: Any) -> None:
        """Note what happened to an engine, without waiting.

        ``kind`` is a word such as ``ready``, ``crashed`` or ``stopped``. ``ready`` with ``load_s``
        (seconds) and ``model`` is what ``Reader.tier_costs`` tells loads from.

        Raises:
            JournalError: The journal is closed.
        """
        self._refuse_if_closed()
        write = self._event(tier, kind, detail)
        if self._full():
            self._losses.add(self._writer.health)
        else:
            self._writer.put(write)

    def _event(self, tier: str | None, kind: str, detail: Mapping[str, Any]) -> Write:
        row = rows.event_row(self.run_id, tier, kind, detail, self._clock.now(), self._recorder)
        return Write([(rows.INSERT_EVENT, row)], f"event {kind}")

    async def boot_began(self, start: BootStart) -> str:
        """Write down that an engine starts, with what it is predicted to take; returns its id once committed.

        While the journal is degraded it returns once held in memory, or at once if there is no room in it.

        Raises:
            JournalError: The journal is closed, or the id is on record already.
        """
        self._refuse_if_closed()
        row = boots.start_row(start, self.run_id)
        if self._full():
            self._unwritten.add(start.id)
            self._booting[start.id] = (boots.RESTORE_BOOT, row)
            return start.id
        await self._written(Write([(boots.INSERT_BOOT, row)], f"the start of boot {start.id}"))
        self._booting[start.id] = (boots.RESTORE_BOOT, row)
        return start.id

    def boot_ended(self, end: BootEnd) -> None:
        """Write how an engine's start ended, without waiting; a boot that has ended keeps its first end.

        Raises:
            JournalError: The journal is closed.
        """
        self._refuse_if_closed()
        start = self._booting.pop(end.id, None)
        if self._is_lost(end.id):
            return
        self._writer.put(
            Write(
                [(boots.UPDATE_BOOT, boots.end_row(end, self._clock.now()))],
                f"the end of boot {end.id}",
                otherwise=[] if start is None else [start],
            )
        )

    def save_hardware(self, snapshot: Mapping[str, Any]) -> str:
        """Keep a description of this machine, without waiting; one that is kept already is kept once.

        Args:
            snapshot: Anything JSON can hold. Leave out what changes by the minute, or each is another.

        Returns:
            Its digest, by which ``BootStart.hardware`` names it.

        Raises:
            JournalError: The journal is closed.
        """
        self._refuse_if_closed()
        row = boots.hardware_row(snapshot, self._clock.now())
        if self._full():
            self._losses.add(self._writer.health)
            return row[1]
        self._writer.put(Write([(boots.INSERT_HARDWARE, row)], "a description of this machine"))
        return row[1]

    async def aclose(self) -> None:
        """Write what is queued, note the end of this run, and close; a second call does nothing.

        Raises:
            JournalError: Rows that waited in memory could not be written, and how many.
        """
        if self._closed:
            return
        self._closed = True
        for said in self._collect()[0]:
            self._writer.put(said)
        stopped = (rows.STOP_RUN, (rows.timestamp(self._clock.now()), self.run_id))
        self._writer.put(Write([stopped, *_interrupted(self.run_id)], "the end of this run"))
        await asyncio.get_running_loop().run_in_executor(None, self._writer.stop)
        health = self._writer.health
        if health.held_rows:
            raise JournalError(
                f"{health.held_rows} rows were not written to {self.path}: {health.reason}",
                hint="They were in memory only and are lost; free the database before the next start.",
                held_rows=health.held_rows,
                lost_rows=self._losses.rows,
            )

    async def __aenter__(self) -> Journal:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _written(self, write: Write) -> None:
        if self._writer.put_now(write):
            return
        write.waiter = asyncio.get_running_loop().create_future()
        self._writer.put(write)
        await write.waiter

    def _ended(self, end: ThoughtEnd) -> Write | None:
        """Return what writes the end down; None if the thought is lost."""
        start = self._running.pop(end.id, None)
        with self._lock:
            self._saying.pop(end.id, None)
        if self._is_lost(end.id):
            return None
        row = rows.end_row(end, self._clock.now(), self._recorder)
        return Write(
            [(rows.UPDATE_END, row), (rows.DELETE_SAID, (end.id,))],
            f"the end of thought {end.id}",
            otherwise=[] if start is None else [start],
        )

    def _is_lost(self, begun_id: str) -> bool:
        """Return whether what ends now began without room and has none yet, and count it then."""
        if begun_id not in self._unwritten:
            return False
        self._unwritten.discard(begun_id)
        full = self._full()
        if full:
            self._losses.add(self._writer.health)
        return full

    def _collect(self) -> tuple[list[Write], float | None]:
        """Return what is due by itself, for the writer; it asks only while the database takes rows."""
        due, due_in_s = self._collect_said()
        lost = self._losses.news()
        if lost is not None:
            due.append(self._event(None, "rows_lost", lost))
        return due, due_in_s

    def _collect_said(self) -> tuple[list[Write], float | None]:
        with self._lock:
            if not self._saying:
                return [], None
            due_in_s = self._saying_due_s - self._clock.monotonic_s()
            if due_in_s > 0 and not self._closed:
                return [], due_in_s
            saying, self._saying = self._saying, {}
        now = self._clock.now()
        return [
            Write(
                [(rows.UPSERT_SAID, rows.said_row(thought_id, text, reasoning, now, self._recorder))],
                f"what thought {thought_id} has said",
            )
            for thought_id, (text, reasoning) in saying.items()
        ], None

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise JournalError(f"the journal {self.path} is closed", hint="Open it again.")

    def _full(self) -> bool:
        """Return whether as much waits in memory as may."""
        health, limits = self._writer.health, self._limits
        return health.held_rows >= limits.held_rows or health.held_bytes >= limits.held_mib * 2**20

    def _connect(self, timeout_s: float) -> sqlite3.Connection:
        conn = connect_writer(self.path, self._durability, timeout_s)
        try:
            migrate(conn, self.path)
        except BaseException:
            conn.close()
            raise
        return conn

    def _first_writes(self, conn: sqlite3.Connection) -> list[Write]:
        """Return the row of this run, and what marks the thoughts of dead runs as interrupted."""
        pid = os.getpid()
        row = (self.run_id, rows.timestamp(self._clock.now()), pid, processes.started_s(pid), _version())
        statements: list[Statement] = [(rows.INSERT_RUN, row)]
        for run_id, run_pid, started_s, stopped_at in conn.execute(rows.RUNS_WITH_RUNNING).fetchall():
            if stopped_at is not None or not processes.alive(run_pid, started_s):
                statements += _interrupted(run_id)
        return [Write(statements, "the start of this run")]


def _interrupted(run_id: str) -> list[Statement]:
    return [(rows.INTERRUPT, (run_id,)), (rows.CLEAR_SAID, ())]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("subcortex")
    except PackageNotFoundError:
        return "unknown"
