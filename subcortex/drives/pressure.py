"""The arithmetic of pressure: how it builds, which band it is in, what a session leaves of it. Pure.

The words and the figures are those of emergence-ai, whose agents use this, with one difference: time builds
pressure up to 200 % of the threshold (there 150 %, so that nothing but a bump would reach an emergency).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal

from subcortex.drives.definitions import Drive

Depth = Literal["none", "shallow", "moderate", "deep", "full"]
Band = Literal["neutral", "available", "elevated", "triggered", "crisis", "emergency"]
Valence = Literal["neutral", "appetitive", "aversive"]

#: The share of its pressure that a session of that depth leaves.
LEFT: Mapping[Depth, float] = MappingProxyType(
    {"none": 1.0, "shallow": 0.70, "moderate": 0.50, "deep": 0.25, "full": 0.0}
)
#: Band → percent of the threshold that it begins at, lowest first.
BANDS: Mapping[Band, float] = MappingProxyType(
    {
        "neutral": 0.0,
        "available": 30.0,
        "elevated": 70.0,
        "triggered": 100.0,
        "crisis": 150.0,
        "emergency": 200.0,
    }
)
_HIGHEST_FIRST = tuple(BANDS.items())[::-1]
#: Sessions that a drive may ask for in vain before it turns aversive.
THWARTED_AT = 3
#: Neither time nor a bump raises a drive beyond this. An agent that was off for months comes back to drives
#: in an emergency, and not to figures that no session could ever bring down.
CEILING_PERCENT = 200.0
#: What a bump without an amount adds: pressure of so many hours.
BUMP_H = 2.0
#: A percentage is no longer worth telling beyond this; also keeps a tiny threshold from making infinities.
_MOST_PERCENT = 1e6
#: What is further off than ten years is as good as never.
_FORESEEN_H = 24.0 * 366 * 10
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class State:
    """How a drive stands.

    Args:
        drive: Its name.
        pressure: What it has built up, at ``grown_at``; never negative.
        grown_at: Until when it has grown, UTC.
        satisfied_at: When a session last satisfied it; None if none has.
        thwarted: How often it asked for a session and got nothing out of it, since it was last satisfied.
    """

    drive: str
    pressure: float
    grown_at: datetime
    satisfied_at: datetime | None = None
    thwarted: int = 0


@dataclass(frozen=True, slots=True)
class Level:
    """A drive's state, read against what the drive is.

    Args:
        drive: Its name.
        pressure: In the drive's own unit.
        threshold: Pressure at 100 %.
        percent: Level, in percent of the threshold; may pass 100.
        band: Which of ``BANDS`` that is in.
        valence: ``neutral`` under 30 %; ``aversive`` where it was thwarted or left to a crisis.
        thwarted: Asked in vain so often.
        satisfied_at: When a session last satisfied it.
        ready_at: No session for it before this (``min_interval_h``); None if there is nothing to wait for.
        next_at: When time alone will have triggered it and a session may be held; None if it will not, in ten
            years at least (activity-driven, no growth).
        is_triggered: It asks for a session now: at 100 % or above, and the minimum interval is over.
    """

    drive: str
    pressure: float
    threshold: float
    percent: float
    band: Band
    valence: Valence
    thwarted: int
    satisfied_at: datetime | None
    ready_at: datetime | None
    next_at: datetime | None
    is_triggered: bool


def fresh(drive: Drive, now: datetime) -> State:
    """Return a drive as it begins: without pressure."""
    return State(drive.name, 0.0, now)


def grow(state: State, drive: Drive, now: datetime, *, worked_h: float = 0.0) -> State:
    """Return the state at ``now``: ``rate_per_hour`` more pressure an hour, up to ``CEILING_PERCENT``.

    Growing in two steps is growing in one. A drive that builds from work gains nothing by time, and no other
    gains by ``worked_h``, hours of work done since. A clock that went backwards gains nothing either, and
    growth goes on from where the clock now is.
    """
    hours = max((now - state.grown_at) / timedelta(hours=1), 0.0)
    gained = drive.rate_per_hour * (max(worked_h, 0.0) if drive.activity_driven else hours)
    return replace(state, pressure=_raised(state.pressure, gained, drive), grown_at=now)


def bump(state: State, drive: Drive, amount: float | None, now: datetime) -> State:
    """Return the state with ``amount`` more pressure, grown to ``now`` first; None adds two hours' worth.

    This is how work done builds an activity-driven drive.
    """
    grown = grow(state, drive, now)
    gained = BUMP_H * drive.rate_per_hour if amount is None else max(amount, 0.0)
    return replace(grown, pressure=_raised(grown.pressure, gained, drive))


def satisfy(state: State, depth: Depth, now: datetime) -> State:
    """Return what a session of that depth leaves; one without depth leaves everything as it was.

    Any depth but none is a satisfaction: the minimum interval begins, and thwarting is over.
    """
    if depth == "none":
        return state
    return replace(state, pressure=state.pressure * LEFT[depth], satisfied_at=now, thwarted=0)


def thwart(state: State) -> State:
    """Return the state after it asked for a session and got none, or one that gave it nothing."""
    return replace(state, thwarted=state.thwarted + 1)


def percent(pressure: float, threshold: float) -> float:
    """Return a level in percent of the threshold."""
    return min(pressure / threshold * 100.0, _MOST_PERCENT)


def band(level_percent: float) -> Band:
    """Return the band that a level is in."""
    return next(name for name, begins in _HIGHEST_FIRST if level_percent >= begins)


def valence(level_percent: float, thwarted: int) -> Valence:
    """Return what a drive feels like: seeking something, or wanting something to end."""
    if level_percent < BANDS["available"]:
        return "neutral"
    if level_percent >= BANDS["crisis"] or thwarted >= THWARTED_AT:
        return "aversive"
    return "appetitive"


def level(state: State, drive: Drive, now: datetime) -> Level:
    """Read a state at ``now``; grow it first if it is to be the present one."""
    reached = percent(state.pressure, drive.threshold)
    ready_at = _ready_at(state, drive, now)
    return Level(
        drive=state.drive,
        pressure=state.pressure,
        threshold=drive.threshold,
        percent=reached,
        band=band(reached),
        valence=valence(reached, state.thwarted),
        thwarted=state.thwarted,
        satisfied_at=state.satisfied_at,
        ready_at=ready_at,
        next_at=_next_at(state, drive, ready_at, now),
        is_triggered=reached >= BANDS["triggered"] and ready_at is None,
    )


def triggered(states: Iterable[State], drives: Mapping[str, Drive], now: datetime) -> list[Level]:
    """Return the drives that ask for a session now, the most pressing first.

    Among equals the one that has waited longest for a satisfaction comes first, then the name decides.
    """
    levels = (level(state, drives[state.drive], now) for state in states if state.drive in drives)
    return sorted((found for found in levels if found.is_triggered), key=_urgency)


def _urgency(found: Level) -> tuple[float, datetime, str]:
    return (-found.percent, found.satisfied_at or datetime.min.replace(tzinfo=UTC), found.drive)


def _raised(pressure: float, gained: float, drive: Drive) -> float:
    ceiling = drive.threshold * (CEILING_PERCENT / 100.0)
    return max(pressure, min(pressure + gained, ceiling))


def _ready_at(state: State, drive: Drive, now: datetime) -> datetime | None:
    """Return the end of the minimum interval while it lasts."""
    if state.satisfied_at is None or drive.min_interval_h <= 0:
        return None
    passed_h = (now - state.satisfied_at) / timedelta(hours=1)
    # A satisfaction further in the future than the interval itself is a clock's slip, and holds nobody up.
    if not -drive.min_interval_h < passed_h < drive.min_interval_h:
        return None
    return _after(state.satisfied_at, drive.min_interval_h)


def _next_at(state: State, drive: Drive, ready_at: datetime | None, now: datetime) -> datetime | None:
    lacking = drive.threshold - state.pressure
    if lacking <= 0:
        return ready_at or now
    if drive.activity_driven or drive.rate_per_hour * _FORESEEN_H < lacking:
        return None
    due = _after(state.grown_at, lacking / drive.rate_per_hour)
    return max(due, ready_at) if ready_at else due


def _after(at: datetime, hours: float) -> datetime:
    try:
        return at + timedelta(hours=min(hours, _FORESEEN_H))
    except OverflowError:
        return _END_OF_TIME
