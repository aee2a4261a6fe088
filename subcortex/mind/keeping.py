"""The drives' state, whoever keeps it: rows of our own, or the Emergence state that is followed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from subcortex.clock import Clock, SystemClock
from subcortex.config import Config
from subcortex.drives import Drive, KnownDrives, Level, State, emergence, find, followed, pressure
from subcortex.drives.known import command
from subcortex.drives.pressure import Depth
from subcortex.drives.reporting import TIME_LIMIT_S, report_satisfaction
from subcortex.errors import EmergenceFailed, InvalidRequest
from subcortex.journal.diary import Diary
from subcortex.journal.diary import drives as kept
from subcortex.journal.diary.drives import DriveEvent
from subcortex.journal.diary.evidence import thoughts_between

#: Hours of growth that one thought is worth to a drive that builds from work.
WORK_H = 0.1

Owner = Literal["subcortex", "emergence"]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a satisfaction or a bump did to a drive.

    Args:
        drive: Its proper name.
        owner: Whose state was changed.
        before: Pressure before, grown up to then.
        after: Pressure after.
        level: As it stands now.
        depth: Of the satisfaction; None for a bump.
    """

    drive: str
    owner: Owner
    before: float
    after: float
    level: Level
    depth: Depth | None = None


class DriveKeeper:
    """The drives' state, whoever keeps it; made by ``DriveKeeper.open``, or around a ``Diary`` one has.

    Where an Emergence state is followed it is read each time and never written: satisfaction goes through
    Emergence's command, growth and bumps are its own affair, and our rows keep only what was reported to it.
    """

    def __init__(self, config: Config, diary: Diary | None = None, clock: Clock | None = None) -> None:
        """Read the drives' files; ConfigError says what is wrong with them."""
        self.config = config
        self.clock = clock or (diary.clock if diary else SystemClock())
        self._known = KnownDrives(config)
        self._diary = diary

    @classmethod
    @contextlib.contextmanager
    def open(cls, config: Config, clock: Clock | None = None) -> Iterator[DriveKeeper]:
        """Open it; the database is opened at the first need, and closed at the end."""
        keeper = cls(config, clock=clock)
        try:
            yield keeper
        finally:
            if keeper._diary is not None:
                keeper._diary.close()

    @property
    def follows(self) -> Path | None:
        """Folder of the Emergence state that is followed; None where we keep the state."""
        return followed(self.config)

    @property
    def owner(self) -> Owner:
        """Who keeps the state."""
        return "emergence" if self.follows else "subcortex"

    def drives(self) -> dict[str, Drive]:
        """Return the drives whose state is kept, by name.

        Raises:
            EmergenceFailed: The state that is followed cannot be read.
        """
        folder = self.follows
        return self._theirs(emergence.read(folder)) if folder else self._known.files

    def drive(self, name: str) -> Drive:
        """Return the drive of that name, in any case.

        Raises:
            InvalidRequest: There is none, or more than one.
            EmergenceFailed: The state that is followed cannot be read.
        """
        return find(self.drives(), name)

    def named(self, name: str) -> tuple[Drive, Level | None]:
        """Return the drive that a thought may call so, and how it stands.

        None stands for a drive of the files while an Emergence state without it is followed, and for a state
        that cannot be read now: what an agent does for a drive does not wait for its figures.

        Raises:
            InvalidRequest: There is no such drive, or more than one.
        """
        drive = find(self._known.current(), name)
        with contextlib.suppress(EmergenceFailed):
            return drive, next((level for level in self.levels() if level.drive == drive.name), None)
        return drive, None

    def levels(self) -> list[Level]:
        """Return how every drive stands now, the highest level first; writes nothing.

        Raises:
            EmergenceFailed: The state that is followed cannot be read.
        """
        now, folder = self.clock.now(), self.follows
        if folder:
            found = self._levels_there(emergence.read(folder), now)
        else:
            rows = kept.levels(self._opened()) if self._written else {}
            found = [
                self._grown(drive, rows.get(name), now, self._worked_h(drive, rows.get(name), now))[1]
                for name, drive in self._known.files.items()
            ]
        return sorted(found, key=lambda level: (-level.percent, level.drive))

    def grow(self) -> list[Level]:
        """Write down what time and work have added; return how every drive stands. Emergence grows its own.

        Raises:
            EmergenceFailed: The state that is followed cannot be read.
        """
        if self.follows:
            return self.levels()
        files = self._known.files
        kept.grow_all(
            self._opened(),
            {name: self._growing(drive) for name, drive in files.items()},
            triggers=lambda before, after: _crossed(before, after, files[after.drive]),
        )
        return self.levels()

    def triggered(self) -> list[Level]:
        """Return the drives that ask for a session now, the most pressing first.

        Raises:
            EmergenceFailed: The state that is followed cannot be read.
        """
        return [level for level in self.levels() if level.is_triggered]

    def satisfy(
        self,
        name: str,
        depth: Depth,
        *,
        reason: str | None = None,
        session_id: str | None = None,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> Moved:
        """Lower a drive by a session's depth; one without depth counts as asked for in vain.

        Raises:
            InvalidRequest: There is no such drive or session.
            EmergenceFailed: Emergence, whose drive it is, could not be told.
        """
        drive, folder = self.drive(name), self.follows
        diary = self._opened()
        kind: kept.EventKind = "thwarted" if depth == "none" else "satisfied"
        if folder:
            session_id = kept.session_named(diary, session_id) if session_id else None
            told = report_satisfaction(
                drive.name,
                depth,
                folder=folder,
                reason=reason,
                command=command(self.config),
                time_limit_s=time_limit_s,
            )
            before, after = told.before, told.after
            kept.record(
                diary,
                drive.name,
                kind,
                pressure_before=before,
                pressure_after=after,
                depth=depth,
                session_id=session_id,
                reason=reason,
            )
        else:
            row, left = kept.change(
                diary,
                drive.name,
                kind,
                self._growing(drive),
                lambda state: _satisfied(state, depth, self.clock.now()),
                depth=depth,
                session_id=session_id,
                reason=reason,
            )
            before, after = row.pressure, left.pressure
        return Moved(drive.name, self.owner, before, after, self._level(drive.name), depth)

    def bump(
        self,
        name: str,
        amount: float | None = None,
        *,
        reason: str | None = None,
        session_id: str | None = None,
    ) -> Moved:
        """Raise a drive: by ``amount``, or by two hours' worth.

        Raises:
            InvalidRequest: There is no such drive or session, the amount is no number above 0, or the drive
                is Emergence's own.
        """
        drive = self.drive(name)
        if self.follows:
            raise InvalidRequest(
                f"{drive.name} is Emergence's own; subcortex reads that state and never raises it",
                hint=f"Run: emergence drives bump {drive.name}",
                param="drive",
            )
        if amount is not None and not (math.isfinite(amount) and amount > 0):
            raise InvalidRequest(
                f"{amount} is no amount of pressure", hint="Give a number above 0.", param="amount"
            )
        before, after = kept.bump(
            self._opened(),
            drive.name,
            self._growing(drive),
            lambda state: pressure.bump(state, drive, amount, self.clock.now()),
            session_id=session_id,
            reason=reason,
        )
        return Moved(drive.name, "subcortex", before.pressure, after.pressure, self._level(drive.name))

    def defer(self, name: str, reason: str, *, session_id: str | None = None) -> None:
        """Record that a drive asked for a session and was put off; its pressure stays.

        Raises:
            InvalidRequest: There is no such drive or session.
        """
        standing = self._level(self.drive(name).name)
        kept.record(
            self._opened(),
            standing.drive,
            "deferred",
            pressure_before=standing.pressure,
            pressure_after=standing.pressure,
            session_id=session_id,
            reason=reason,
        )

    def history(
        self, name: str | None = None, *, limit: int = 20, before: int | None = None
    ) -> list[DriveEvent]:
        """Return what raised and lowered one drive, or all of them, newest first.

        Raises:
            InvalidRequest: There is no such drive.
        """
        drive = find(self._known.current(), name).name if name is not None else None
        return kept.history(self._opened(), drive, limit=limit, before=before) if self._written else []

    @property
    def _written(self) -> bool:
        return self._diary is not None or self.config.database_path.exists()

    def _opened(self) -> Diary:
        if self._diary is None:
            self._diary = Diary.open(
                self.config.database_path, durability=self.config.journal.durability, clock=self.clock
            )
        return self._diary

    def _theirs(self, state: emergence.EmergenceState) -> dict[str, Drive]:
        known = emergence.merged(self._known.files, state)
        return {name: known[name] for name in state.drives}

    def _levels_there(self, state: emergence.EmergenceState, now: datetime) -> list[Level]:
        satisfied = {}
        if self._written:
            for name in state.drives:
                event = kept.last(self._opened(), name, "satisfied")
                if event:
                    satisfied[name] = event.at
        return state.levels(now, satisfied)

    def _level(self, name: str) -> Level:
        return next(level for level in self.levels() if level.drive == name)

    def _growing(self, drive: Drive) -> kept.Grow:
        # Work is counted before the write lock is held; whoever grows the drive in between has counted it.
        seen = kept.levels(self._opened()).get(drive.name) if drive.activity_driven else None
        counted_at = self.clock.now()
        worked_h = self._worked_h(drive, seen, counted_at)

        def grow(row: State | None) -> State:
            if row is not None and seen is not None and row.grown_at == seen.grown_at:
                return self._grown(drive, row, counted_at, worked_h)[0]
            return self._grown(drive, row, self.clock.now(), 0.0)[0]

        return grow

    def _worked_h(self, drive: Drive, row: State | None, now: datetime) -> float:
        """Return the work done since a drive was last grown, in hours of its growth."""
        if row is None or not drive.activity_driven or drive.rate_per_hour == 0.0:
            return 0.0
        return WORK_H * thoughts_between(self._opened(), row.grown_at, now)

    def _grown(self, drive: Drive, row: State | None, now: datetime, worked_h: float) -> tuple[State, Level]:
        begun = row or pressure.fresh(drive, now)
        state = pressure.grow(begun, drive, now, worked_h=worked_h)
        return state, pressure.level(state, drive, now)


def _satisfied(state: State, depth: Depth, now: datetime) -> State:
    return pressure.thwart(state) if depth == "none" else pressure.satisfy(state, depth, now)


def _crossed(before: State | None, after: State, drive: Drive) -> bool:
    began = before.pressure if before else 0.0
    return began < drive.threshold <= after.pressure
