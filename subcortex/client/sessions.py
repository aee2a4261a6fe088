"""``with session("LEARNING") as s``: what an agent thinks and notes meanwhile becomes one session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from subcortex import config as configuration
from subcortex.config import Config
from subcortex.errors import InvalidRequest, SubcortexError
from subcortex.types import Depth

if TYPE_CHECKING:
    from subcortex.journal.diary.session_records import SessionRecord
    from subcortex.mind.agent.notebook import Notebook

_current: ContextVar[Session | None] = ContextVar("subcortex_session", default=None)
_TROUBLE = "What Went Wrong"


class Session:
    """A session that an agent holds; made by ``session``.

    Args:
        book: The open session.
        drive: Its drive's proper name, None for none.
    """

    def __init__(self, book: Notebook, drive: str | None) -> None:
        self._book = book
        self._rating: tuple[Depth | None, str | None] = (None, None)
        self.drive = drive
        self.id = book.id
        #: The session as it was written, once it is over.
        self.record: SessionRecord | None = None

    def note(self, text: str, section: str = "Notes") -> None:
        """Write words down under a heading; kept once this returns, even if the agent is killed next."""
        self._book.note(text, section)

    def field(self, name: str, value: str) -> None:
        """Add a bold field (``**Mood:** calm``) to the head of the session."""
        self._book.field(name, value)

    def experiment(self, words: str) -> None:
        """List an experiment: its id, or in words what was done."""
        self._book.experiment(words)

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
        self._book.thought(thought_id)

    def _end(self) -> None:
        self.record = self._book.end(*self._rating)


def current() -> Session | None:
    """Return the session that this code runs in."""
    return _current.get()


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

    Args:
        drive: Name of a drive, any case; None for a session without one.
        topic: What it is about.
        config: The configuration whose journal is written; the default one where None.

    Raises:
        InvalidRequest: There is no such drive.
        JournalError: The journal takes no writes now.
    """
    from subcortex.journal.diary import Diary
    from subcortex.journal.sessions import DriveLevel
    from subcortex.mind.agent.notebook import Notebook, words_of
    from subcortex.mind.keeping import DriveKeeper

    settings = config or configuration.load(configuration.find())
    with Diary.open(settings.database_path, durability=settings.journal.durability) as diary:
        keeper = DriveKeeper(settings, diary)
        level = None
        if drive is not None:
            name = keeper.drive(drive).name
            level = next(found for found in keeper.levels() if found.drive == name)
        book = Notebook.begin(
            diary,
            settings.resolve(settings.journal.sessions_dir),
            partial(words_of, settings.database_path),
            drives=[DriveLevel(level.drive, round(level.percent, 1))] if level else [],
            origin="agent",
            topic=topic,
            pressure_before=level.pressure if level else None,
        )
        held = Session(book, level.drive if level else None)
        token = _current.set(held)
        try:
            yield held
        except BaseException as error:
            words = error.message if isinstance(error, SubcortexError) else f"{type(error).__name__}: {error}"
            held.note(words, _TROUBLE)
            raise
        finally:
            _current.reset(token)
            held._end()
