"""``with session("LEARNING") as s``: what an agent thinks and notes meanwhile becomes one session."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from subcortex import config as configuration
from subcortex.config import Config
from subcortex.errors import InvalidRequest
from subcortex.types import Depth

if TYPE_CHECKING:
    from subcortex.journal.diary.session_records import SessionRecord
    from subcortex.mind.agent.notebook import Notebook

#: Sessions whose block is over while the journal would not take their end: id → the writer's rating.
_left: dict[str, tuple[Depth | None, str | None]] = {}
_current: ContextVar[Session | None] = ContextVar("subcortex_session", default=None)


class Session:
    """A session that an agent holds; made by ``session``.

    Args:
        book: The open session.
        drive: Its drive's proper name, None for none.
    """

    def __init__(self, book: Notebook, drive: str | None) -> None:
        self._book = book
        self._rating: tuple[Depth | None, str | None] = (None, None)
        self._over = False
        self._pid = os.getpid()
        self.drive = drive
        self.id = book.id
        #: The session as it was written, once it is over.
        self.record: SessionRecord | None = None

    @property
    def over(self) -> bool:
        """Whether the block has ended; nothing more can be told then."""
        return self._over

    def note(self, text: str, section: str = "Notes") -> None:
        """Write words down under a heading; kept once this returns, even if the agent is killed next.

        Raises:
            InvalidRequest: The block is over, or its notes have 1.5 MB.
            JournalError: The journal takes no writes now.
        """
        self._open().note(text, section)

    def field(self, name: str, value: str) -> None:
        """Add a bold field (``**Mood:** calm``) to the head of the session."""
        self._open().field(name, value)

    def experiment(self, words: str) -> None:
        """List an experiment: its id, or in words what was done."""
        self._open().experiment(words)

    def rate(self, depth: Depth | str, reason: str | None = None) -> None:
        """Say how deep it went: none, shallow, moderate, deep or full; the evidence's word stands beside it.

        Raises:
            InvalidRequest: There is no such depth.
        """
        try:
            self._rating = Depth(depth), reason
        except ValueError:
            raise InvalidRequest(
                f"{depth!r} is no depth", hint=f"One of: {', '.join(Depth)}.", param="depth"
            ) from None

    def collect(self, thought_id: str) -> None:
        """Count a thought as this session's; thoughts had inside the block are counted by themselves."""
        self._open().thought(thought_id)

    def _open(self) -> Notebook:
        if self._over:
            raise InvalidRequest(f"session {self.id} is over", hint="Begin another: with session(…).")
        return self._book

    def _end(self, error: BaseException | None = None) -> None:
        """Write the session; an error that ended the block is told in it and stays the one that is raised."""
        if self._over or os.getpid() != self._pid:
            # A child that was forked inside the block leaves its parent's session alone.
            return
        self._over = True
        try:
            if error is not None and not _is_an_end(error):
                self._book.trouble(error)
            self.record = self._book.end(*self._rating)
        except Exception as trouble:
            _left[self.id] = self._rating
            if error is None:
                raise
            error.add_note(f"Its session {self.id} is left open, with all it was told: {trouble}")
        if self._book.not_filed:
            warnings.warn(
                f"session {self.id} is in the journal and has no file: {self._book.not_filed}", stacklevel=4
            )


def _is_an_end(error: BaseException) -> bool:
    """Return whether what left the block is a way of ending it, and no trouble."""
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code in (None, 0))


def current() -> Session | None:
    """Return the session that this code runs in; None outside of one, and in what outlives its block."""
    held = _current.get()
    return None if held is None or held.over else held


@contextmanager
def session(
    drive: str | None = None, *, topic: str | None = None, config: Config | None = None
) -> Iterator[Session]:
    """Hold a session: thoughts inside the block are its own, and have its drive unless they name another.

        with session("LEARNING", topic="What a split costs") as s:
            thought = think("What does tensor parallelism send a token?")
            s.note(thought.text, section="What I Noticed")
            s.rate("moderate", "reckoned, not measured")

    At the end its markdown is written to the journal and to the folder of sessions, rated by its evidence,
    and its questions and claims go to the board. A block that raises leaves its session too, with the error
    noted. The drive is not satisfied by it: ``subcortex drives satisfy``, or Emergence's own command, does.

    Sessions nest, and asyncio tasks begun inside belong to theirs. A thread does where it runs in a copy of
    the context (``contextvars.copy_context().run``); of others, ``collect`` counts the thoughts.

    Args:
        drive: Name of a drive, any case; None for a session without one.
        topic: What it is about.
        config: The configuration whose journal is written; the default one where None.

    Raises:
        InvalidRequest: There is no such drive.
        ConfigError: The configuration or the drives' files are wrong.
        JournalError: The journal takes no writes now. At the end: the session is left open, and written up
            when this process begins its next one, or once it is gone by ``agent tick``. An error of the
            block's own is raised in its place.
    """
    from subcortex.journal.diary import Diary, sessions
    from subcortex.journal.sessions import DriveLevel
    from subcortex.mind.agent.notebook import Notebook, words_of
    from subcortex.mind.keeping import DriveKeeper

    settings = config or configuration.load(configuration.find())
    with Diary.open(settings.database_path, durability=settings.journal.durability) as diary:
        tell = partial(words_of, settings.database_path)
        for session_id in set(_left) & set(sessions.open_sessions(diary, origin="agent", dead=False)):
            Notebook.again(diary, settings, tell, session_id).end(*_left.pop(session_id))
        name, drives, pressure = None, [], None
        if drive is not None:
            known, level = DriveKeeper(settings, diary).named(drive)
            name, pressure = known.name, level.pressure if level else None
            drives = [DriveLevel(name, round(level.percent, 1) if level else None)]
        book = Notebook.begin(
            diary,
            settings,
            tell,
            drives=drives,
            origin="agent",
            topic=topic,
            pressure_before=pressure,
        )
        held, around = Session(book, name), _current.get()
        _current.set(held)
        try:
            yield held
        except BaseException as error:
            held._end(error)
            raise
        else:
            held._end()
        finally:
            # A generator that is closed late ends in another context, where nothing is to be put back.
            if _current.get() is held:
                _current.set(around)
