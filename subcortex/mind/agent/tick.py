"""One tick: grow the drives, choose, hold a session or put it off; make good first what a killed one left."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from subcortex.config import Config
from subcortex.drives import Drive, Level
from subcortex.errors import InvalidRequest, SubcortexError
from subcortex.journal.diary import Diary, board_queries, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.board_records import GapRecord
from subcortex.journal.diary.evidence import taken_up, thoughts_since, unsettled
from subcortex.journal.diary.session_records import SessionRecord
from subcortex.journal.sessions import DeferralText, DriveLevel, compose_deferral, file_name, parse, read
from subcortex.mind.agent import prompts
from subcortex.mind.agent.decision import Defer, Hold, Moment, Resume, Wait, choose
from subcortex.mind.agent.notebook import GAP, Notebook, figures_of, file_away, words_of
from subcortex.mind.agent.quiet import QuietHours
from subcortex.mind.board import note_session
from subcortex.mind.keeping import DriveKeeper
from subcortex.types import Depth, ThinkRequest, Thought

#: Headings of a session that a tick holds. None of them is one that a gap or a claim is read from.
KNOWN, ASKED, THOUGHT, OPEN, TROUBLE = (
    "What Was Known",
    "What Was Asked",
    "What I Thought",
    "What I Noticed",
    "What Went Wrong",
)
#: Hours of growth that one thought of work is worth to a drive that builds from work.
WORK_H = 0.1
_PRIORITY = -10

#: Has a thought; raises SubcortexError.
Think = Callable[[ThinkRequest], Thought]
#: Says why the machine is not idle, None if it is.
Busy = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tick did.

    Args:
        did: ``held`` (a session, from beginning or middle to end), ``deferred``, ``waited``, or ``elsewhere``
            (another tick is at work).
        reason: Why, in words.
        session_id: Of the session held, or of the deferral written.
        drive: That the session was for.
        depth: By its evidence.
        level_before, level_after: Of the drive, percent of its threshold.
    """

    did: Literal["held", "deferred", "waited", "elsewhere"]
    reason: str
    session_id: str | None = None
    drive: str | None = None
    depth: Depth | None = None
    level_before: float | None = None
    level_after: float | None = None


class Agent:
    """Holds sessions for drives, one at a time on a machine.

    Args:
        config: ``[agent]``, ``[drives]`` and ``[journal]`` of it.
        diary: The journal's database.
        think: Has a thought, with the daemon's help.
        busy: Looks whether the machine is idle.
    """

    def __init__(self, config: Config, diary: Diary, think: Think, busy: Busy) -> None:
        self._config = config
        self._diary = diary
        self._think = think
        self._busy = busy
        self._quiet = QuietHours.parse(config.agent.quiet_hours)
        self._keeper = DriveKeeper(config, diary)
        self._folder = config.resolve(config.journal.sessions_dir)
        self._tell = partial(figures_of, config.database_path)

    def tick(self) -> Outcome:
        """Do what there is to do now; returns once a session that it holds is over.

        A thought that fails ends its session, without depth: the drive asked in vain, and keeps its pressure.

        Raises:
            SubcortexError: The database or the Emergence state cannot be read or written.
        """
        with _alone(self._config.runtime_dir) as alone:
            if not alone:
                return Outcome("elsewhere", "another tick is at work")
            self._make_good()
            self._grow()
            match choose(self._moment()):
                case Wait(reason):
                    return Outcome("waited", reason)
                case Defer(drives, reason):
                    return self._defer(drives, reason)
                case Resume(session_id):
                    return self._resume(session_id)
                case Hold(level, gap):
                    return self._hold(level, gap)

    def _moment(self) -> Moment:
        drives = self._keeper.drives()
        return Moment(
            triggered=tuple(self._keeper.triggered()),
            quiet=self._quiet.holding(self._diary.clock.now().astimezone()),
            busy=self._busy(),
            unfinished=next(iter(sessions.open_sessions(self._diary, origin="tick", dead=True)), None),
            asking=frozenset(name for name, drive in drives.items() if drive.satisfied_by == "gap"),
            gaps=board_queries.gaps(self._diary, state="open"),
            taken_up=taken_up(self._diary),
        )

    def _grow(self) -> None:
        """Grow the drives by time, and those that build from work by the thoughts had since."""
        if self._keeper.follows:
            return
        before = kept.levels(self._diary)
        for name, drive in self._keeper.drives().items():
            if drive.activity_driven and drive.rate_per_hour > 0 and name in before:
                thoughts = thoughts_since(self._diary, before[name].grown_at)
                if thoughts:
                    amount = thoughts * WORK_H * drive.rate_per_hour
                    self._keeper.bump(name, amount, reason=f"{thoughts} thoughts of work")
        self._keeper.grow()

    def _hold(self, level: Level, gap: GapRecord | None) -> Outcome:
        book = Notebook.begin(
            self._diary,
            self._folder,
            self._tell,
            drives=[DriveLevel(level.drive, round(level.percent, 1))],
            origin="tick",
            topic=(gap.topic or gap.question) if gap else None,
            pressure_before=level.pressure,
        )
        if gap is not None:
            book.field(GAP, gap.id)
        return self._go_on(book, level.drive)

    def _resume(self, session_id: str) -> Outcome:
        book = Notebook.again(self._diary, self._folder, self._tell, session_id)
        return self._go_on(book, book.drives[0].name if book.drives else "")

    def _go_on(self, book: Notebook, name: str) -> Outcome:
        """Hold a session from wherever it stands to its end, and tell its drive."""
        trouble: SubcortexError | None = None
        try:
            self._think_through(book, self._keeper.drive(name))
        except SubcortexError as error:
            trouble = error
            book.note(str(error), TROUBLE)
        if trouble is not None:
            return self._settle(book.end(Depth.NONE, "it came to nothing"), trouble)
        return self._settle(book.end(own_rating=False))

    def _think_through(self, book: Notebook, drive: Drive) -> None:
        gap = self._gap(book)
        if not book.entries("thought"):
            known = self._known(gap) if gap else []
            prompt = prompts.first(drive, gap, known)
            if not book.entries("note"):
                if known:
                    book.note("\n".join(f"- {line}" for line in known), KNOWN)
                book.note(gap.question if gap else drive.prompt.strip(), ASKED)
            self._have(book, drive, prompt, THOUGHT)
        if gap is not None and len(book.entries("thought")) < 2:
            answer = "\n\n".join(entry.text for entry in book.entries("note", THOUGHT))
            self._have(book, drive, prompts.second(gap, answer), OPEN)

    def _have(self, book: Notebook, drive: Drive, prompt: str, section: str) -> None:
        """Have one thought and keep it; a session killed before that has it again."""
        settings = self._config.agent
        thought = self._think(
            ThinkRequest(
                messages=[{"role": "user", "content": prompt}],
                drive=drive.name,
                # A question is worth the deep tier; a drive's own prompt goes where the drive leans.
                complexity=1.0 if drive.satisfied_by == "gap" else None,
                priority=_PRIORITY,
                session=book.id,
                max_tokens=settings.max_tokens,
                deadline_s=settings.thought_s,
            )
        )
        book.note(thought.text.strip() or "(nothing)", section)
        book.thought(thought.id)

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

    def _settle(self, record: SessionRecord, trouble: SubcortexError | None = None) -> Outcome:
        """Lower the drive by the session's depth; a drive that is gone meanwhile is told nothing."""
        depth = (Depth.NONE if trouble else record.evidence_depth) or Depth.NONE
        name = record.drives[0].name if record.drives else ""
        reason = trouble.message if trouble else "; ".join(record.evidence_reasons)
        before = after = None
        try:
            moved = self._keeper.satisfy(name, depth.value, reason=reason[:300], session_id=record.id)
            threshold = moved.level.threshold
            before, after = (100.0 * value / threshold for value in (moved.before, moved.after))
        except InvalidRequest as error:
            # Its drive is gone; on record all the same, or each tick would try again.
            reason = f"{reason}; {error.message}"
            kept.record(self._diary, name, "thwarted", session_id=record.id, reason=reason[:300])
        return Outcome("held", reason, record.id, name, depth, before, after)

    def _defer(self, drives: tuple[Level, ...], reason: str) -> Outcome:
        """Write down that drives were put off: once for the same drives and reason in a row."""
        first = drives[0]
        last = next(iter(self._keeper.history(first.drive, limit=1)), None)
        if last is not None and last.kind == "deferred" and last.reason == reason:
            return Outcome("waited", reason, drive=first.drive)
        at = self._diary.clock.now().astimezone().replace(microsecond=0)
        text = compose_deferral(
            DeferralText(
                at=at,
                triggered=tuple(DriveLevel(level.drive, round(level.percent, 1)) for level in drives),
                reason=reason,
            )
        )
        file = file_name(at, [level.drive for level in drives], "deferral")
        added = sessions.add(self._diary, text, read(parse(text), file), file=file, origin="tick")
        with self._diary.reading() as conn:
            record = queries.whole(conn, added.id)
        file_away(record, self._folder)
        for level in drives:
            self._keeper.defer(level.drive, reason, session_id=record.id)
        return Outcome("deferred", reason, record.id, first.drive, level_before=first.percent)

    def _make_good(self) -> None:
        """Finish what killed programs left: an agent's open session, what a tick had yet to do after one."""
        for session_id in sessions.open_sessions(self._diary, origin="agent", dead=True):
            tell = partial(words_of, self._config.database_path)
            Notebook.again(self._diary, self._folder, tell, session_id).end(state="interrupted")
        for session_id in unsettled(self._diary):
            with self._diary.reading() as conn:
                record = queries.whole(conn, session_id)
            note_session(self._diary, record.id, record.text)
            file_away(record, self._folder)
            if record.evidence_depth is None and record.depth is not None:
                record = sessions.rate_by_evidence(
                    self._diary, record.id, record.depth, ["as its writer said when it ended"]
                )
            self._settle(record)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the lock of the one tick at a time; gives False where another has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(handle)
