"""What a run leaves behind, on its way into the journal: written by a thread, never by the loop. Effects."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from subcortex.errors import JournalError
from subcortex.experiments.laboratory.record import Reading
from subcortex.journal.diary import Diary, experiments

#: Nothing waits longer for the journal than this; seconds.
EVERY_S = 0.1
#: A run that measures without a word still says that it is alive; seconds.
_ALIVE_EVERY_S = 2.0
_FLUSH_LIMIT_S = 30.0

_Write = Callable[[], None]


class DiaryKeep:
    """A run's ``Keep``. What is told to it is in the journal within ``EVERY_S``, in the order it was told.

    Use it as a context manager; at the end all is written. Once the journal cannot be written nothing more
    is, and ``flush`` says so.
    """

    def __init__(self, diary: Diary, run_id: str) -> None:
        self._diary = diary
        self._run_id = run_id
        self._told: queue.SimpleQueue[Reading | _Write | threading.Event] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write_on, name="experiment keeps", daemon=True)
        self._thread.start()

    def __enter__(self) -> DiaryKeep:
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(_FLUSH_LIMIT_S)

    def reading(self, reading: Reading) -> None:
        """See ``Keep``."""
        self._told.put(reading)

    def command(self, words: Sequence[str], version: str | None) -> None:
        """See ``Keep``."""
        kept = list(words)
        self._told.put(lambda: experiments.keep_command(self._diary, self._run_id, kept, version))

    def boot(self, facts: Mapping[str, Any]) -> None:
        """See ``Keep``."""
        kept = dict(facts)
        self._told.put(lambda: experiments.keep_boot(self._diary, self._run_id, kept))

    def progress(self, text: str, share: float | None) -> None:
        """See ``Keep``."""
        self._told.put(lambda: experiments.progress(self._diary, self._run_id, text, share))

    def flush(self) -> None:
        """Return once all that was told is in the journal; blocks.

        Raises:
            SubcortexError: It is not, and why.
        """
        written = threading.Event()
        self._told.put(written)
        if not written.wait(_FLUSH_LIMIT_S):
            raise JournalError(
                f"the journal has not taken a run's samples within {_FLUSH_LIMIT_S:g} s",
                hint="Another program holds the database, or its disk hangs.",
            )
        if self._error is not None:
            raise self._error

    def _write_on(self) -> None:
        written_s = time.monotonic()
        while not self._over.is_set():
            self._over.wait(EVERY_S)
            wrote = self._write_all()
            now_s = time.monotonic()
            if not wrote and now_s - written_s > _ALIVE_EVERY_S:
                self._try(lambda: experiments.progress(self._diary, self._run_id, None))
                wrote = True
            written_s = now_s if wrote else written_s
        self._write_all()

    def _write_all(self) -> bool:
        readings: list[Reading] = []
        wrote = False
        while True:
            try:
                told = self._told.get_nowait()
            except queue.Empty:
                break
            wrote = True
            if isinstance(told, Reading):
                readings.append(told)
                continue
            self._write_readings(readings)
            if isinstance(told, threading.Event):
                told.set()
            else:
                self._try(told)
        self._write_readings(readings)
        return wrote

    def _write_readings(self, readings: list[Reading]) -> None:
        if readings:
            several = list(readings)
            self._try(lambda: experiments.keep_readings(self._diary, self._run_id, several))
            readings.clear()

    def _try(self, write: _Write) -> None:
        if self._error is None:
            try:
                write()
            except Exception as error:  # told by flush, to whoever waits for the run
                self._error = error
