"""One tick: grow the drives, choose, hold a session or put it off; make good first what a killed one left."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from subcortex import paths
from subcortex.config import Config
from subcortex.drives import Level
from subcortex.errors import ConfigError, InvalidRequest
from subcortex.journal.diary import Diary, board_queries, sessions
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary import session_queries as queries
from subcortex.journal.diary.board_records import GapRecord
from subcortex.journal.diary.evidence import taken_up, unrated, unsettled
from subcortex.journal.sessions import DeferralText, DriveLevel, compose_deferral, file_name, parse, read
from subcortex.mind.agent.decision import Defer, Hold, Moment, Resume, Wait, choose, rests_until
from subcortex.mind.agent.finding import Finder, at_work, under_way
from subcortex.mind.agent.holding import Held, Holder, PutOff, Think
from subcortex.mind.agent.notebook import Notebook, file_away, rate_ended, words_of
from subcortex.mind.agent.quiet import QuietHours
from subcortex.mind.board import note_session
from subcortex.mind.keeping import DriveKeeper
from subcortex.types import Depth

#: Events of a drive that are looked at for how often it was put off, or asked in vain, since it had anything.
_LATELY = 50

#: Says why the machine is not idle, None if it is.
Busy = Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tick did.

    Args:
        did: ``held`` (a session, from beginning or middle to end), ``asked`` (the daemon for an experiment),
            ``deferred``, ``waited``, or ``elsewhere`` (another tick is at work).
        reason: Why, in words.
        session_id: Of the session held, or of the deferral written.
        drive: That the session was for.
        depth: By its evidence.
        level_before, level_after: Of the drive, percent of its threshold.
        not_filed: Why what was written has no file under the folder of sessions; None if it has.
        run_id: Of the experiment that was asked for.
    """

    did: Literal["held", "asked", "deferred", "waited", "elsewhere"]
    reason: str
    session_id: str | None = None
    drive: str | None = None
    depth: Depth | None = None
    level_before: float | None = None
    level_after: float | None = None
    not_filed: str | None = None
    run_id: str | None = None


class Agent:
    """Holds sessions for drives, one at a time on a machine.

    Args:
        config: ``[agent]``, ``[drives]`` and ``[journal]`` of it.
        diary: The journal's database.
        think: Has a thought, with the daemon's help.
        busy: Looks whether the machine is idle.
        finder: Has experiments run; None if nobody does.
    """

    def __init__(
        self, config: Config, diary: Diary, think: Think, busy: Busy, finder: Finder | None = None
    ) -> None:
        self._finder = finder
        self._config = config
        self._diary = diary
        self._busy = busy
        self._quiet_hours = QuietHours.parse(config.agent.quiet_hours)
        self._keeper = DriveKeeper(config, diary)
        self._folder = config.resolve(config.journal.sessions_dir)
        self._holder = Holder(config, diary, think, self._quiet)

    def tick(self) -> Outcome:
        """Do what there is to do now; returns once a session that it holds is over.

        A session in which no thought was answered has no depth: the drive asked in vain, and keeps its
        pressure.

        Raises:
            SubcortexError: The database or the Emergence state cannot be read or written; what was begun is
                gone on with by the next tick, of this process or another.
        """
        with _alone(self._config.runtime_dir) as alone:
            if not alone:
                return Outcome("elsewhere", "another tick is at work")
            self._make_good()
            self._keeper.grow()
            match choose(self._moment()):
                case Wait(reason):
                    return Outcome("waited", reason)
                case Defer(drives, reason):
                    return self._defer(drives, reason)
                case Resume(session_id):
                    return self._resume(session_id)
                case Hold(level, gap):
                    return self._asked(level, gap) or self._hold(level, gap)

    def _moment(self) -> Moment:
        triggered = self._keeper.triggered()
        asking = [name for name, drive in self._keeper.drives().items() if drive.satisfied_by == "gap"]
        seen = Moment(
            triggered=tuple(triggered),
            resting=frozenset(level.drive for level in triggered if self._rests(level.drive)),
            finding=self._finding(triggered),
            quiet=self._quiet(),
            busy=self._why_busy(),
            unfinished=next(
                iter(sessions.open_sessions(self._diary, origin="tick", dead=True, mine=True)), None
            ),
            asking=frozenset(asking),
        )
        if not isinstance(choose(seen), Hold):
            return seen
        return replace(
            seen, gaps=board_queries.gaps(self._diary, state="open"), taken_up=taken_up(self._diary)
        )

    def _quiet(self) -> str | None:
        """Return why it is too quiet an hour for a thought; None if it is not."""
        span = self._quiet_hours.holding(self._diary.clock.now().astimezone())
        return f"these are quiet hours ({span})" if span else None

    def _why_busy(self) -> str | None:
        if sessions.open_sessions(self._diary, origin="agent", dead=False):
            return "an agent holds a session of its own"
        if at_work(self._diary):
            return "an experiment is at work"
        return self._busy()

    def _finding(self, triggered: Sequence[Level]) -> frozenset[str]:
        """Return the triggered drives that an experiment will satisfy; without a daemon none goes on."""
        found = under_way(self._diary) & {level.drive for level in triggered}
        return found if found and self._finder is not None and self._finder.up() else frozenset()

    def _rests(self, name: str) -> bool:
        """Return whether a drive is left alone for a while, since its last sessions came to nothing."""
        in_vain = []
        for event in self._keeper.history(name, limit=_LATELY):
            if event.kind == "satisfied":
                break
            if event.kind == "thwarted" and event.session_id is not None:
                in_vain.append(event.at)
        now = self._diary.clock.now()
        return bool(in_vain) and in_vain[0] <= now < rests_until(in_vain[0], len(in_vain))

    def _asked(self, level: Level, gap: GapRecord | None) -> Outcome | None:
        """Have the daemon run what may answer a question; None if no experiment may, and thoughts have to."""
        if self._finder is None or gap is None or gap.kind is None:
            return None
        run = self._finder.ask(gap.id, level.drive)
        if run is not None:
            reason = f'{run.experiment} of {run.subject} is to answer "{gap.question}"'
            return Outcome("asked", reason, drive=level.drive, level_before=level.percent, run_id=run.id)
        if board_queries.gap(self._diary, gap.id).state != "open":
            return Outcome("waited", f'what is known answers "{gap.question}"', drive=level.drive)
        return None

    def _hold(self, level: Level, gap: GapRecord | None) -> Outcome:
        return self._go_on(self._holder.begin(level, gap), level.drive)

    def _resume(self, session_id: str) -> Outcome:
        book = self._holder.again(session_id)
        return self._go_on(book, book.drives[0].name if book.drives else "")

    def _go_on(self, book: Notebook, name: str) -> Outcome:
        """Hold a session from wherever it stands to its end, and tell its drive."""
        try:
            held = self._holder.go_on(book, lambda: self._keeper.drive(name))
        except PutOff as reason:
            return Outcome("deferred", str(reason), book.id, name)
        return self._settle(held)

    def _settle(self, held: Held) -> Outcome:
        """Lower the drive by the session's depth; a drive that is gone meanwhile is told nothing."""
        record, trouble = held.record, held.trouble
        # What was said when a thought failed holds; a session that a thought came of is worth what it left.
        nothing = record.depth is Depth.NONE
        depth = (Depth.NONE if nothing else record.evidence_depth) or Depth.NONE
        name = record.drives[0].name if record.drives else ""
        said = [] if nothing and trouble else list(record.evidence_reasons)
        reason = "; ".join([*said, *([trouble.message] if trouble else [])])
        before = after = None
        try:
            moved = self._keeper.satisfy(name, depth.value, reason=reason[:300], session_id=record.id)
            name, threshold = moved.drive, moved.level.threshold
            before, after = (100.0 * value / threshold for value in (moved.before, moved.after))
        except InvalidRequest as error:
            # Its drive is gone; on record all the same, or each tick would try again.
            reason = f"{reason}; {error.message}"
            kept.record(self._diary, name, "thwarted", session_id=record.id, reason=reason[:300])
        return Outcome("held", reason, record.id, name, depth, before, after, held.not_filed)

    def _defer(self, drives: Sequence[Level], reason: str) -> Outcome:
        """Write down that drives were put off: once for each drive and reason until it has had a session.

        A machine in use is busy for one reason now and another then; each minute of it is no news.
        """
        first = drives[0]
        if all(reason in self._put_off_for(level.drive) for level in drives):
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
        not_filed = file_away(record, self._folder)
        for level in drives:
            self._keeper.defer(level.drive, reason, session_id=record.id)
        return Outcome(
            "deferred", reason, record.id, first.drive, level_before=first.percent, not_filed=not_filed
        )

    def _put_off_for(self, name: str) -> set[str | None]:
        """Return the reasons for which a drive was put off since its last session."""
        reasons = set()
        for event in self._keeper.history(name, limit=_LATELY):
            if event.kind in ("satisfied", "thwarted"):
                break
            if event.kind == "deferred":
                reasons.add(event.reason)
        return reasons

    def _make_good(self) -> None:
        """Finish what killed programs left: an agent's open session, and what was to be done after an end."""
        tell = partial(words_of, self._config.database_path)
        for session_id in sessions.open_sessions(self._diary, origin="agent", dead=True):
            # Somebody else may have taken it up meanwhile.
            with contextlib.suppress(InvalidRequest):
                Notebook.again(self._diary, self._config, tell, session_id).end(state="interrupted")
        for session_id in unrated(self._diary):
            self._finish(session_id)
        for session_id in unsettled(self._diary):
            self._settle(self._finish(session_id))

    def _finish(self, session_id: str) -> Held:
        """Note, file and rate a session whose text is written; all of it may have been done already."""
        with self._diary.reading() as conn:
            record = queries.whole(conn, session_id)
        note_session(self._diary, record.id, record.text, origin=record.origin)
        not_filed = file_away(record, self._folder)
        if record.evidence_depth is None:
            record = rate_ended(self._diary, record)
        return Held(record, None, not_filed)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the lock of the one tick at a time; gives False where another has it.

    Raises:
        ConfigError: The folder or the lock in it cannot be used.
    """
    path = paths.private_folder(folder) / "agent.lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the lock {path} cannot be opened: {error.strerror}",
            hint="Free some space there, or set daemon.runtime_dir to a folder of your own.",
            key="daemon.runtime_dir",
        ) from None
    try:
        alone = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(handle)
