"""Holding one session: what it is about, its thoughts, its end; gone on with from wherever it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from subcortex.config import Config
from subcortex.drives import Drive, Level
from subcortex.errors import Cancelled, DoesNotFit, EngineFailed, InvalidRequest, Overloaded, SubcortexError
from subcortex.journal.diary import Diary, board_queries
from subcortex.journal.diary.board_records import GapRecord
from subcortex.journal.diary.session_records import SessionRecord
from subcortex.journal.sessions import DriveLevel
from subcortex.mind.agent import prompts
from subcortex.mind.agent.notebook import GAP, Notebook, figures_of
from subcortex.mind.headings import ASKED, KNOWN, OPEN, THOUGHT
from subcortex.types import Depth, ThinkRequest, Thought

_PRIORITY = -10
#: Of an answer that is looked back on, so much is tried at least in a context that is too small, characters.
_LEAST_CHARACTERS = 200

#: Has a thought; raises SubcortexError.
Think = Callable[[ThinkRequest], Thought]
#: Says why nothing may be begun now, None if it may.
HeldUp = Callable[[], str | None]


class PutOff(Exception):
    """The session cannot go on now; it stays open, and a later tick goes on with it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A session that is over.

    Args:
        record: As it was written.
        trouble: What went wrong in it, None if nothing did.
        not_filed: Why it has no file, None if it has.
    """

    record: SessionRecord
    trouble: SubcortexError | None = None
    not_filed: str | None = None


class Holder:
    """Holds sessions for drives.

    Args:
        config: ``[agent]`` and ``[journal]`` of it.
        diary: The journal's database.
        think: Has a thought, with the daemon's help.
        held_up: Asked before each thought after the first.
    """

    def __init__(self, config: Config, diary: Diary, think: Think, held_up: HeldUp) -> None:
        self._config = config
        self._diary = diary
        self._think = think
        self._held_up = held_up
        self._tell = partial(figures_of, config.database_path)

    def begin(self, level: Level, gap: GapRecord | None) -> Notebook:
        """Begin a session for a drive, about a question or the drive's own prompt."""
        book = Notebook.begin(
            self._diary,
            self._config,
            self._tell,
            drives=[DriveLevel(level.drive, round(level.percent, 1))],
            origin="tick",
            topic=(gap.topic or gap.question) if gap else None,
            pressure_before=level.pressure,
        )
        if gap is not None:
            book.field(GAP, gap.id)
        return book

    def again(self, session_id: str) -> Notebook:
        """Take up a session that was begun and not ended."""
        return Notebook.again(self._diary, self._config, self._tell, session_id)

    def go_on(self, book: Notebook, find: Callable[[], Drive]) -> Held:
        """Hold a session to its end.

        A thought that fails ends it: without depth if none was answered, else with what was had by then.

        Args:
            book: The session.
            find: Gives its drive; InvalidRequest if that is gone.

        Raises:
            PutOff: Quiet hours have begun, or the daemon takes no thought of ours now; it stays open.
            SubcortexError: The journal takes nothing, or the drives cannot be read; it stays open, too.
        """
        trouble = self._think_through(book, find)
        if trouble is not None:
            book.trouble(trouble)
        if trouble is not None and not book.entries("thought"):
            record = book.end(Depth.NONE, "it came to nothing")
        else:
            record = book.end(own_rating=False)
        return Held(record, trouble, book.not_filed)

    def _think_through(self, book: Notebook, find: Callable[[], Drive]) -> SubcortexError | None:
        """Have the thoughts that are still to be had; return what went wrong."""
        try:
            drive = find()
        except InvalidRequest as error:
            return error
        gap = self._gap(book)
        answer: str | None = None
        if not book.entries("thought"):
            had = self._first(book, drive, gap)
            if isinstance(had, SubcortexError):
                return had
            answer = had
        if gap is None or len(book.entries("thought")) >= 2:
            return None
        if answer is None and book.keeps_texts:
            answer = "\n\n".join(entry.text for entry in book.entries("note", THOUGHT))
        if answer is None:
            # Held back, and had by a process that is gone: there is nothing to look back on.
            return None
        if reason := self._held_up():
            raise PutOff(reason)
        return self._second(book, drive, gap, answer)

    def _first(self, book: Notebook, drive: Drive, gap: GapRecord | None) -> str | SubcortexError:
        """Think about the question, or the drive's prompt; a small context gets less of what is known."""
        known = self._known(gap) if gap else []
        asked = (ASKED, gap.question if gap else drive.prompt.strip())
        while True:
            given = [asked]
            if known:
                given.insert(0, (KNOWN, "\n".join(f"- {line}" for line in known)))
            had = self._have(book, drive, prompts.first(drive, gap, known), THOUGHT, given)
            if not (isinstance(had, DoesNotFit) and known):
                break
            known = known[: len(known) // 2]
        if isinstance(had, SubcortexError) and book.keeps_texts:
            for section, text in given:
                book.note(text, section)
        return had

    def _second(self, book: Notebook, drive: Drive, gap: GapRecord, answer: str) -> SubcortexError | None:
        """Look back on the first answer, or on as much of it as the context takes."""
        characters = min(len(answer), prompts.MOST_CHARACTERS)
        while True:
            had = self._have(book, drive, prompts.second(gap, answer[:characters]), OPEN)
            if not isinstance(had, SubcortexError):
                return None
            if not isinstance(had, DoesNotFit) or characters < _LEAST_CHARACTERS:
                return had
            characters //= 2

    def _have(
        self,
        book: Notebook,
        drive: Drive,
        prompt: str,
        section: str,
        given: Sequence[tuple[str, str]] = (),
    ) -> str | SubcortexError:
        """Have one thought and keep it; return its text, or why there is none.

        A session killed before it is kept has it again. ``given`` are notes that go before it.
        """
        settings = self._config.agent
        request = ThinkRequest(
            messages=[{"role": "user", "content": prompt}],
            drive=drive.name,
            # A question is worth the deep tier; a drive's own prompt goes where the drive leans.
            complexity=1.0 if drive.satisfied_by == "gap" else None,
            priority=_PRIORITY,
            session=book.id,
            max_tokens=settings.max_tokens,
            deadline_s=settings.thought_s,
        )
        try:
            thought = self._think(request)
        except (Overloaded, Cancelled) as error:
            raise PutOff(error.message) from error
        except SubcortexError as error:
            return error
        if not thought.text.strip():
            why = f" ({thought.finish_reason})" if thought.finish_reason else ""
            return EngineFailed(
                f"the answer of {thought.tier} has no words in it{why}",
                hint="Raise agent.max_tokens: a model that thinks aloud may have used them up.",
                thought_id=thought.id,
            )
        book.answer(thought, section, given)
        return thought.text

    def _gap(self, book: Notebook) -> GapRecord | None:
        entry = next(iter(book.entries("field", GAP)), None)
        try:
            return board_queries.gap(self._diary, entry.text) if entry else None
        except InvalidRequest:
            return None

    def _known(self, gap: GapRecord) -> list[str]:
        decided = [
            claim
            for state in ("confirmed", "refuted")
            for claim in board_queries.claims(self._diary, state=state)
        ]
        return prompts.about(gap.question, decided, board_queries.gaps(self._diary, state="answered"))
