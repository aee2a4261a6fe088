"""Whether a session is held now, for which drive, about what; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from subcortex.drives import Level
from subcortex.journal.diary.board_records import GapRecord

#: How long a drive rests after a session that came to nothing; doubled by each further one in a row.
_REST, _LONGEST_REST = timedelta(minutes=5), timedelta(hours=4)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a tick sees.

    Args:
        triggered: Drives that ask for a session, the most pressing first.
        resting: Those of them that are left alone for a while, since their last sessions came to nothing.
        finding: Those for which an experiment is under way; its answer satisfies them.
        quiet: Why it is too quiet an hour, None if it is not.
        busy: Why the machine is not idle, None if it is.
        unfinished: A session of a tick that died; it goes on before anything new begins.
        asking: Drives that take up a question; the others think on their own prompt.
        gaps: Open questions.
        taken_up: Gap id → how many sessions have been held about it.
    """

    triggered: Sequence[Level] = ()
    resting: frozenset[str] = frozenset()
    finding: frozenset[str] = frozenset()
    quiet: str | None = None
    busy: str | None = None
    unfinished: str | None = None
    asking: frozenset[str] = frozenset()
    gaps: Sequence[GapRecord] = ()
    taken_up: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold a session for a drive; ``gap`` is the question it takes up."""

    drive: Level
    gap: GapRecord | None


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with the session that a dead tick began."""

    session_id: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Drives ask, and now is not the time."""

    drives: tuple[Level, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """No drive asks."""

    reason: str


Decision = Hold | Resume | Defer | Wait


def choose(moment: Moment) -> Decision:
    """Return what a tick does now.

    Quiet hours and a busy machine put off what is new and what was begun alike; a begun session is no reason
    to write a deferral, for it is not given up.
    """
    held_up = moment.quiet or (f"the machine is not idle: {moment.busy}" if moment.busy else None)
    still = moment.resting | moment.finding
    asking = tuple(level for level in moment.triggered if level.drive not in still)
    if held_up and asking:
        return Defer(asking, held_up)
    if held_up:
        return Wait(held_up)
    if moment.unfinished:
        return Resume(moment.unfinished)
    if not asking:
        return Wait(_nobody_asks(moment))
    first = asking[0]
    return Hold(first, best_gap(moment.gaps, moment.taken_up or {}) if first.drive in moment.asking else None)


def _nobody_asks(moment: Moment) -> str:
    why = []
    if moment.finding:
        why.append(f"an experiment is under way for {', '.join(sorted(moment.finding))}")
    if resting := moment.resting - moment.finding:
        why.append(f"the last sessions came to nothing, so these rest: {', '.join(sorted(resting))}")
    return "; ".join(why) or "no drive is triggered"


def best_gap(gaps: Sequence[GapRecord], taken_up: Mapping[str, int]) -> GapRecord | None:
    """Return the question to take up: the least often taken up, of a known kind, the oldest.

    A thought alone rarely closes a question, so without the first rule the same one would come each time.
    """
    asked = [gap for gap in gaps if gap.state == "open"]
    return min(asked, key=lambda gap: (taken_up.get(gap.id, 0), gap.kind is None, gap.seq), default=None)


def rests_until(last: datetime, in_vain: int) -> datetime:
    """Return until when a drive is left alone after its last session came to nothing.

    An engine that does not start would else have a session a minute, each with the same error in it.

    Args:
        last: When it did.
        in_vain: How many have in a row, that one included.
    """
    doublings = min(max(in_vain - 1, 0), 10)
    return last + min(_REST * (1 << doublings), _LONGEST_REST)
