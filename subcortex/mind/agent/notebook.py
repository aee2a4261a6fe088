"""One session while it is held: what it is told is kept at once; its end makes it text, rated and filed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from subcortex.config import Config
from subcortex.errors import InvalidRequest, JournalError, SubcortexError
from subcortex.journal import Reader
from subcortex.journal.board import gaps_in
from subcortex.journal.diary import Diary, sessions
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.evidence import evidence
from subcortex.journal.diary.session_records import EntryKind, SessionEntry, SessionRecord
from subcortex.journal.folder.writing import Folder, Refused
from subcortex.journal.recorder import Recorder
from subcortex.journal.sessions import DriveLevel, Reading, SessionText, compose, file_name, parse, rate, read
from subcortex.mind.board import note_session
from subcortex.mind.headings import EXPERIMENTS, NOTES, THOUGHTS, TROUBLE, uncounted
from subcortex.types import Depth, Thought

#: The field that names the question a session was held for, by its id.
GAP = "Gap"
#: What a session shows of a prompt and of an answer, characters.
_PROMPT_CHARACTERS, _ANSWER_CHARACTERS = 300, 4000
#: What a session holds at most of notes and of thoughts shown whole, bytes: as a file it has to be one that
#: an import takes (``folder.files.LARGEST_BYTES``), also with a backslash before every line.
_MOST_BYTES, _MOST_SHOWN_BYTES = 1_500_000, 1_000_000
#: From a thought's id to the lines that a session shows of it.
Tell = Callable[[str], str]


class Notebook:
    """An open session in hand; made by ``begin`` or ``again``, and over with ``end``.

    Args:
        diary: The journal's database.
        record: The session, open and held by this process.
        config: Where sessions lie as markdown, and how much of a thought's text may be written down.
        tell: What is shown of a thought.
    """

    def __init__(self, diary: Diary, record: SessionRecord, config: Config, tell: Tell) -> None:
        self.diary = diary
        self.id = record.id
        self.drives = [DriveLevel(drive.name, drive.level_percent) for drive in record.drives]
        #: Why the session, which is over, has no file; None if it has.
        self.not_filed: str | None = None
        self._folder = config.resolve(config.journal.sessions_dir)
        self._recorder = recorder_of(config)
        self._tell = tell
        self._told_bytes = sum(_size(entry.text) for entry in record.entries)

    @classmethod
    def begin(
        cls,
        diary: Diary,
        config: Config,
        tell: Tell,
        *,
        drives: Sequence[DriveLevel],
        origin: Literal["agent", "tick"],
        topic: str | None = None,
        pressure_before: float | None = None,
    ) -> Notebook:
        """Begin a session.

        Raises:
            JournalError: The database takes no writes now.
        """
        if topic is not None:
            topic = written(recorder_of(config), topic)
        record = sessions.open_session(
            diary, drives, origin=origin, topic=topic, pressure_before=pressure_before
        )
        return cls(diary, record, config, tell)

    @classmethod
    def again(cls, diary: Diary, config: Config, tell: Tell, session_id: str) -> Notebook:
        """Go on with a session whose process is gone.

        Raises:
            InvalidRequest: It is over, or its process still runs.
        """
        return cls(diary, sessions.take_over(diary, session_id), config, tell)

    @property
    def record(self) -> SessionRecord:
        """The session as it is kept now."""
        with self.diary.reading() as conn:
            return queries.whole(conn, self.id)

    def note(self, text: str, section: str = NOTES) -> None:
        """Write words down under a heading; kept once this returns.

        Raises:
            InvalidRequest: The session is full.
        """
        self._put(text, "note", section)

    def field(self, name: str, value: str) -> None:
        """Add a bold field to the head of the session's text."""
        self._put(value, "field", name)

    def thought(self, thought_id: str) -> None:
        """Count a thought that was answered, and have it listed."""
        self._keep(thought_id, "thought", None)

    def answer(self, thought: Thought, section: str, given: Sequence[tuple[str, str]] = ()) -> None:
        """Count a thought and write its answer down under a heading, as far as the journal keeps texts.

        Args:
            thought: The thought.
            section: The heading.
            given: What was asked, (heading, text), kept before it; like the answer, or not at all.
        """
        text = thought.text.strip()
        kept = self._recorder.text(text)
        shown = _held_back(len(text)) if kept is None else kept
        told: list[tuple[EntryKind, str | None, str]] = []
        if self.keeps_texts:
            told += [("note", heading, written(self._recorder, asked)) for heading, asked in given]
        told += [("note", section, shown), ("thought", None, thought.id)]
        sessions.note_all(self.diary, self.id, told)

    @property
    def keeps_texts(self) -> bool:
        """Whether texts of thoughts may be written down at all."""
        return self._recorder.policy != "none"

    def trouble(self, error: BaseException) -> None:
        """Write down what ended the session; its kind alone, where texts are held back."""
        if isinstance(error, SubcortexError):
            words = error.message if self.keeps_texts else error.code
        else:
            kind = type(error).__name__
            words = f"{kind}: {error}".removesuffix(": ") if self.keeps_texts else kind
        words = written(self._recorder, words)
        self._keep(_held(words, len(words), _ANSWER_CHARACTERS), "note", TROUBLE)

    def experiment(self, words: str) -> None:
        """List an experiment: its id, or what it was, in words."""
        self._put(words, "experiment", None)

    def entries(self, kind: EntryKind, section: str | None = None) -> list[SessionEntry]:
        """Return what it has been told so far, of one kind, oldest first."""
        return [
            entry
            for entry in self.record.entries
            if entry.kind == kind and (section is None or entry.section == section)
        ]

    def end(
        self,
        depth: Depth | None = None,
        reason: str | None = None,
        *,
        own_rating: bool = True,
        state: Literal["ended", "interrupted"] = "ended",
    ) -> SessionRecord:
        """Write the session's text, rate it by its evidence, note what it asks and claims, and file it.

        Args:
            depth: The writer's rating.
            reason: Of that rating.
            own_rating: False: the writer has none of its own and takes the evidence's.
            state: ``interrupted`` if it ends for want of its process.

        Raises:
            JournalError: The database takes no writes; the session stays open, with all it was told.
        """
        record = self.record
        asked = gaps_in(self._text(record, None, None, None, ()))
        found, reasons = _rating(self.diary, record, len(asked))
        if not own_rating:
            depth, reason = found, "; ".join(reasons)
        elif reason is not None:
            reason = written(self._recorder, reason)
        text = self._text(record, depth, reason, found, reasons)
        file, reading = self._read(record, text)
        ended = sessions.end(self.diary, self.id, text, reading, file=file, state=state)
        note_session(self.diary, self.id, text, origin=record.origin)
        self.not_filed = file_away(ended, self._folder)
        # Last, for by it the next tick sees that nothing is left to be done.
        return sessions.rate_by_evidence(self.diary, self.id, found, reasons)

    def _put(self, text: str, kind: EntryKind, section: str | None) -> None:
        told_bytes = self._told_bytes + _size(text)
        if told_bytes > _MOST_BYTES:
            raise InvalidRequest(
                f"session {self.id} would hold {told_bytes / 1e6:.1f} MB of notes;"
                f" {_MOST_BYTES / 1e6:.1f} MB is the most",
                hint="Begin another, or keep this in a file and note its name.",
                param="text",
            )
        self._keep(text, kind, section)
        self._told_bytes = told_bytes

    def _keep(self, text: str, kind: EntryKind, section: str | None) -> None:
        sessions.note(self.diary, self.id, written(self._recorder, text), kind=kind, section=section)

    def _text(
        self,
        record: SessionRecord,
        depth: Depth | None,
        reason: str | None,
        evidence_depth: Depth | None,
        reasons: Sequence[str],
    ) -> str:
        return compose(
            SessionText(
                at=_local(record),
                drives=tuple(self.drives),
                topic=record.topic,
                fields=tuple((e.section or "Field", e.text) for e in record.entries if e.kind == "field"),
                sections=tuple(_sections(record.entries, self._tell)),
                depth=depth,
                depth_reason=reason,
                evidence_depth=evidence_depth,
                evidence_reasons=tuple(reasons),
            )
        )

    def _read(self, record: SessionRecord, text: str) -> tuple[str, Reading]:
        file = file_name(_local(record), [drive.name for drive in self.drives])
        return file, read(parse(text), file)


def rate_ended(diary: Diary, record: SessionRecord) -> SessionRecord:
    """Rate a session that is over by its evidence, where whoever ended it could not any more."""
    return sessions.rate_by_evidence(diary, record.id, *_rating(diary, record, len(gaps_in(record.text))))


def recorder_of(config: Config) -> Recorder:
    """Return what decides how much of a thought's text is written down.

    Raises:
        ConfigError: A pattern of ``journal.redact`` is no regular expression.
    """
    return Recorder(config.journal.record, config.journal.redact)


def written(recorder: Recorder, text: str) -> str:
    """Return an agent's own words as they are kept: masked where texts are redacted, else as they are.

    What an agent notes is its own choice, so ``none``, which is about thoughts, holds nothing of it back.
    """
    return (recorder.text(text) or "") if recorder.policy == "redacted" else text


def file_away(record: SessionRecord, folder: Path) -> str | None:
    """Write a session's file; return why that could not be, None if it could.

    The row is the truth: a full disk or a folder that may not be written leaves the session as it is, and
    ``sessions check`` finds what lacks its file.
    """
    if record.file is None:
        return "it has no name yet"
    try:
        with Folder(folder) as open_folder:
            outcome = open_folder.write(record.file, record.content)
    except (OSError, Refused) as error:
        return str(error)
    return "another file has its name" if outcome == "differs" else None


def figures_of(database: Path, thought_id: str) -> str:
    """Return a line on a thought: who had it, how long it took, its id."""
    with Reader.open(database) as reader:
        thought = reader.thought(thought_id)
    if thought is None:
        return f"- `{thought_id}` (not on record)"
    took = "" if thought.timing.total_s is None else f", {thought.timing.total_s:.2f} s"
    return f"- {thought.tier}, {thought.usage.completion_tokens} tokens{took}: `{thought_id}`"


def words_of(database: Path, thought_id: str) -> str:
    """Return a thought as an agent's session shows it: its figures, what was asked, what was answered."""
    with Reader.open(database) as reader:
        thought = reader.thought(thought_id)
    line = figures_of(database, thought_id)
    if thought is None:
        return line
    asked = _held(thought.prompt, thought.prompt_chars, _PROMPT_CHARACTERS)
    answered = _held(thought.text, thought.text_chars, _ANSWER_CHARACTERS)
    return f"{line}\n\n> {' '.join(asked.split())}\n\n{answered}"


def _held(text: str | None, characters: int, most: int) -> str:
    if text is None:
        return _held_back(characters)
    return text if len(text) <= most else f"{text[:most]} […]"


def _held_back(characters: int) -> str:
    return f"[{characters} characters held back]"


def _rating(diary: Diary, record: SessionRecord, gaps_left: int) -> tuple[Depth, tuple[str, ...]]:
    gap = next((entry.text for entry in record.entries if _is_gap(entry)), None)
    carried = uncounted(record.origin)
    return rate(evidence(diary, record.id, gap_id=gap, gaps_left=gaps_left, carried=carried))


def _size(text: str) -> int:
    """Return what a note takes in a file, bytes, with the blank lines around it."""
    return len(text.encode("utf-8", "replace")) + 4


def _is_gap(entry: SessionEntry) -> bool:
    return entry.kind == "field" and entry.section == GAP


def _local(record: SessionRecord) -> datetime:
    if record.at is None:
        raise JournalError(f"session {record.id} has lost its time", hint="`subcortex sessions check`.")
    # As agents write it: the clock on the wall, bare.
    return record.at.astimezone().replace(tzinfo=None)


def _sections(entries: Sequence[SessionEntry], tell: Tell) -> list[tuple[str, str]]:
    """Return headings with their texts, in the order that they were first written under."""
    texts: dict[str, list[str]] = {}
    shown_bytes = 0
    for entry in entries:
        if entry.kind == "note":
            texts.setdefault(entry.section or NOTES, []).append(entry.text)
        elif entry.kind == "thought":
            told = tell(entry.text)
            shown_bytes += _size(told)
            if shown_bytes > _MOST_SHOWN_BYTES:
                # The line of its figures has its id, and the journal the rest.
                told = told.partition("\n")[0]
            texts.setdefault(THOUGHTS, []).append(told)
        elif entry.kind == "experiment":
            texts.setdefault(EXPERIMENTS, []).append(f"- {entry.text}")
    return [(heading, "\n\n".join(parts)) for heading, parts in texts.items()]
