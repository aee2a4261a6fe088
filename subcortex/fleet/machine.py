"""The life of one engine as a pure function: state and event in, state and effects out.

    stopped ─start─▶ starting ─▶ ready ─rest─▶ draining ─▶ sleeping ─▶ asleep ─wake─▶ waking ─▶ ready
                                                      └──▶ stopping ─▶ stopped

Whatever fails goes to backing_off and from there to stopped, or to failed when restarts are used up or vain.
The schedule decides when to start, wake and rest; the fleet applies the effects; nothing here waits or kills.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, SubcortexError
from subcortex.types import Rest, TierState

#: Failures older than this no longer count against ``max_restarts``.
WINDOW_S = 600.0
#: A failed tier may be tried again when a thought wants it this long after its last failure.
RETRY_FAILED_S = 30.0
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 60.0

#: States in which there is a process that may hold as much memory as it ever does.
UP = frozenset(
    {
        TierState.STARTING,
        TierState.READY,
        TierState.DRAINING,
        TierState.SLEEPING,
        TierState.WAKING,
        TierState.STOPPING,
    }
)
#: States in which an engine works, or is on its way there.
COMING = frozenset({TierState.STARTING, TierState.WAKING})
#: States in which an engine is on its way to giving memory back.
LEAVING = frozenset({TierState.DRAINING, TierState.SLEEPING, TierState.STOPPING})
_ALIVE = (UP | {TierState.ASLEEP}) - {TierState.STOPPING}


class Effect(Enum):
    """What the owner has to do after a step."""

    START = auto()
    ADOPT = auto()
    SLEEP = auto()
    WAKE = auto()
    STOP = auto()
    SCHEDULE = auto()
    ADMIT = auto()
    REFUSE = auto()


@dataclass(frozen=True, slots=True)
class Life:
    """One engine's state.

    Args:
        rest: How it is to leave while it drains, how it left while it sleeps.
        failures: Times of recent failures, seconds on the fleet's clock.
        in_row: Failures since it was last ready, however long each took.
        delay_s: How long to wait before the next start, while backing off.
        error: Why it is backing off or failed.
        wanted: It is to be up where that costs nobody his place.
        alone: Memory ran out beside others: it starts only once its devices are empty.
        closing: The daemon goes down; nothing starts any more.
    """

    state: TierState = TierState.STOPPED
    rest: Rest | None = None
    failures: tuple[float, ...] = ()
    in_row: int = 0
    delay_s: float = 0.0
    error: SubcortexError | None = None
    restarts: int = 0
    wanted: bool = False
    alone: bool = False
    closing: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A thought needs this tier, or the daemon starts it eagerly."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """The daemon is new: see what a former one left running."""


@dataclass(frozen=True, slots=True)
class Start:
    """There is room: launch it."""


@dataclass(frozen=True, slots=True)
class Wake:
    """There is room: wake it."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Its room is needed: let no thought in, and rest once those inside are done."""

    rest: Rest


@dataclass(frozen=True, slots=True)
class Recall:
    """Its room is no longer needed: let thoughts in again."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The last thought has left it."""


@dataclass(frozen=True, slots=True)
class Slept:
    """It sleeps."""


@dataclass(frozen=True, slots=True)
class Ready:
    """It started, or woke, and answers rightly."""


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The room that was to be there was not; nothing was begun. Who was to sleep in it is stopped."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A start, a sleep or a wake failed, or the engine died.

    Args:
        crowded: Others hold memory of its devices.
    """

    error: SubcortexError
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """The delay of a backing-off engine is over."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The daemon closes, or a person stops the tier."""

    closing: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """The engine's process tree is gone."""


Event = (
    Wanted
    | Adopt
    | Start
    | Wake
    | Leave
    | Recall
    | Drained
    | Slept
    | Ready
    | NoRoom
    | Failed
    | Due
    | StopAsked
    | Stopped
)


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one event."""

    life: Life
    effects: tuple[Effect, ...] = field(default=())


def step(life: Life, event: Event, now_s: float, max_restarts: int) -> Step:
    """Return what becomes of ``life``, and what has to be done; an event out of season changes nothing.

    Args:
        life: The engine's state before.
        event: What happened.
        now_s: Seconds on a monotonic clock.
        max_restarts: Restarts allowed within ``WINDOW_S``.
    """
    if life.closing and not isinstance(event, Stopped | StopAsked):
        return Step(life, (Effect.REFUSE,) if isinstance(event, Wanted) else ())
    state = life.state
    match event:
        case Wanted():
            return _wanted(life, now_s)
        case Adopt() if state is TierState.STOPPED:
            return _to(life, TierState.STARTING, Effect.ADOPT)
        case Start() if state is TierState.STOPPED:
            return _to(replace(life, error=None), TierState.STARTING, Effect.START)
        case Wake() if state is TierState.ASLEEP:
            return _to(life, TierState.WAKING, Effect.WAKE)
        case Leave(rest) if state is TierState.READY:
            return _to(replace(life, rest=rest, wanted=False), TierState.DRAINING)
        case Leave(Rest.STOP) if state is TierState.ASLEEP:
            # How it sleeps stays known: it holds no more than that while it goes.
            return _to(replace(life, wanted=False), TierState.STOPPING, Effect.STOP)
        case Recall() if state is TierState.DRAINING:
            return _to(replace(life, rest=None), TierState.READY, Effect.ADMIT)
        case Drained() if state is TierState.DRAINING:
            if life.rest is Rest.STOP:
                return _to(life, TierState.STOPPING, Effect.STOP)
            return _to(life, TierState.SLEEPING, Effect.SLEEP)
        case Slept() if state is TierState.SLEEPING:
            return _to(life, TierState.ASLEEP)
        case Ready() if state in COMING:
            woken = replace(life, rest=None, error=None, delay_s=0.0, in_row=0)
            return _to(woken, TierState.READY, Effect.ADMIT)
        case NoRoom() if state in COMING:
            back = TierState.STOPPED if state is TierState.STARTING else TierState.ASLEEP
            return _to(life, back)
        case NoRoom() if state is TierState.SLEEPING:
            return _to(replace(life, rest=Rest.STOP), TierState.STOPPING, Effect.STOP)
        case Failed(error, crowded) if state in _ALIVE:
            return _failed(life, error, crowded, now_s, max_restarts)
        case Due() if state is TierState.BACKING_OFF:
            return _to(replace(life, restarts=life.restarts + 1, wanted=True), TierState.STOPPED)
        case StopAsked(closing):
            return _stop(life, closing)
        case Stopped() if state in (TierState.STOPPING, TierState.STARTING):
            return _to(replace(life, rest=None), TierState.STOPPED)
        case _:
            return Step(life)


def comes_to_rest(before: TierState, after: TierState) -> bool:
    """Return whether a change of state is that of an engine which gives back what it held."""
    if after in (TierState.BACKING_OFF, TierState.FAILED):
        return before in _ALIVE
    return before in LEAVING and after in (TierState.ASLEEP, TierState.STOPPED)


def _to(life: Life, state: TierState, *effects: Effect) -> Step:
    return Step(replace(life, state=state), effects)


def _wanted(life: Life, now_s: float) -> Step:
    if life.state is TierState.READY:
        return Step(life, (Effect.ADMIT,))
    if life.state is not TierState.FAILED:
        return Step(replace(life, wanted=True))
    if life.failures and now_s - life.failures[-1] < RETRY_FAILED_S:
        return Step(life, (Effect.REFUSE,))
    return _to(replace(life, failures=(), in_row=0, error=None, wanted=True), TierState.STOPPED)


def _failed(life: Life, error: SubcortexError, crowded: bool, now_s: float, max_restarts: int) -> Step:
    recent = (*(at for at in life.failures if now_s - at < WINDOW_S), now_s)
    life = replace(life, in_row=life.in_row + 1)
    if isinstance(error, DoesNotFit) and crowded and not life.alone:
        retried = replace(life, failures=recent, delay_s=0.0, error=error, rest=None, alone=True)
        return _to(retried, TierState.BACKING_OFF, Effect.SCHEDULE)
    # A wrong configuration and a model that is too large fail the same way every time.
    vain = isinstance(error, ConfigError | DoesNotFit)
    # Starts that time out are too far apart to be recent, and would go on for ever.
    count = max(len(recent), life.in_row)
    if vain or count > max_restarts:
        if not vain and isinstance(error, EngineFailed):
            error.details.setdefault("failures", count)
        given_up = replace(life, failures=recent, error=error, rest=None, wanted=False)
        return _to(given_up, TierState.FAILED, Effect.REFUSE)
    delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (len(recent) - 1))
    waiting = replace(life, failures=recent, delay_s=delay_s, error=error, rest=None)
    return _to(waiting, TierState.BACKING_OFF, Effect.SCHEDULE)


def _stop(life: Life, closing: bool) -> Step:
    asked = replace(life, wanted=False, closing=life.closing or closing)
    if life.state in _ALIVE:
        return _to(asked, TierState.STOPPING, Effect.REFUSE, Effect.STOP)
    if life.state is TierState.STOPPING:
        return Step(asked, (Effect.REFUSE,))
    return _to(asked, TierState.STOPPED, Effect.REFUSE)
