"""The life of one engine as a pure function: state and event in, state and effects out.

    stopped ──wanted──▶ starting ──started──▶ ready ──exited──▶ backing_off ──due──▶ starting …
                           │ failed ▶ backing_off, or failed when the restarts are used up or vain

The fleet applies the effects; nothing here waits, starts or kills.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from subcortex.errors import ConfigError, DoesNotFit, EngineFailed, SubcortexError
from subcortex.types import TierState

#: Failures older than this no longer count against ``max_restarts``.
WINDOW_S = 600.0
#: A failed tier may be tried again when a thought wants it this long after its last failure.
RETRY_FAILED_S = 30.0
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 60.0


class Effect(Enum):
    """What the owner has to do after a step."""

    START = auto()
    STOP = auto()
    SCHEDULE = auto()
    ADMIT = auto()
    REFUSE = auto()


@dataclass(frozen=True, slots=True)
class Life:
    """One engine's state.

    Args:
        failures: Times of recent failures, seconds on the fleet's clock.
        delay_s: How long to wait before the next start, while backing off.
        error: Why it is backing off or failed.
        wanted: A thought came while it was stopping: start again once it is gone.
        closing: The daemon goes down; nothing starts any more.
    """

    state: TierState = TierState.STOPPED
    failures: tuple[float, ...] = ()
    delay_s: float = 0.0
    error: SubcortexError | None = None
    restarts: int = 0
    wanted: bool = False
    closing: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A thought needs this tier, or the daemon starts it eagerly."""


@dataclass(frozen=True, slots=True)
class Started:
    """The engine answered its health route."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A start failed, or a running engine died."""

    error: SubcortexError


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


Event = Wanted | Started | Failed | Due | StopAsked | Stopped


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one event."""

    life: Life
    effects: tuple[Effect, ...] = field(default=())


def step(life: Life, event: Event, now_s: float, max_restarts: int) -> Step:
    """Return what becomes of ``life``, and what has to be done.

    Args:
        life: The engine's state before.
        event: What happened.
        now_s: Seconds on a monotonic clock.
        max_restarts: Restarts allowed within ``WINDOW_S``.
    """
    if life.closing and not isinstance(event, Stopped | StopAsked):
        return Step(life, (Effect.REFUSE,) if isinstance(event, Wanted) else ())
    match event:
        case Wanted():
            return _wanted(life, now_s)
        case Started() if life.state is TierState.STARTING:
            return Step(replace(life, state=TierState.READY, error=None, delay_s=0.0), (Effect.ADMIT,))
        case Failed(error) if life.state in (TierState.STARTING, TierState.READY):
            return _failed(life, error, now_s, max_restarts)
        case Due() if life.state is TierState.BACKING_OFF:
            return Step(replace(life, state=TierState.STARTING, restarts=life.restarts + 1), (Effect.START,))
        case StopAsked(closing):
            return _stop(life, closing)
        case Stopped() if life.wanted and not life.closing:
            return Step(replace(life, state=TierState.STARTING, wanted=False, error=None), (Effect.START,))
        case Stopped():
            return Step(replace(life, state=TierState.STOPPED, wanted=False), (Effect.REFUSE,))
        case _:
            return Step(life)


def _wanted(life: Life, now_s: float) -> Step:
    match life.state:
        case TierState.STOPPED:
            return Step(replace(life, state=TierState.STARTING, error=None), (Effect.START,))
        case TierState.READY:
            return Step(life, (Effect.ADMIT,))
        case TierState.FAILED:
            if life.failures and now_s - life.failures[-1] < RETRY_FAILED_S:
                return Step(life, (Effect.REFUSE,))
            fresh = replace(life, state=TierState.STARTING, failures=(), error=None)
            return Step(fresh, (Effect.START,))
        case TierState.STOPPING:
            return Step(replace(life, wanted=True))
        case _:
            return Step(life)


def _failed(life: Life, error: SubcortexError, now_s: float, max_restarts: int) -> Step:
    recent = (*(at for at in life.failures if now_s - at < WINDOW_S), now_s)
    # A wrong configuration and a model that is too large fail the same way every time.
    vain = isinstance(error, ConfigError | DoesNotFit)
    if vain or len(recent) > max_restarts:
        if not vain and isinstance(error, EngineFailed):
            error.details.setdefault("failures", len(recent))
        failed = replace(life, state=TierState.FAILED, failures=recent, error=error)
        return Step(failed, (Effect.REFUSE,))
    delay_s = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** (len(recent) - 1))
    waiting = replace(life, state=TierState.BACKING_OFF, failures=recent, delay_s=delay_s, error=error)
    return Step(waiting, (Effect.SCHEDULE,))


def _stop(life: Life, closing: bool) -> Step:
    if life.state in (TierState.STARTING, TierState.READY):
        return Step(
            replace(life, state=TierState.STOPPING, wanted=False, closing=closing),
            (Effect.REFUSE, Effect.STOP),
        )
    if life.state is TierState.STOPPING:
        asked = replace(life, wanted=False, closing=life.closing or closing)
        return Step(asked, (Effect.REFUSE,))
    return Step(replace(life, state=TierState.STOPPED, closing=closing), (Effect.REFUSE,))
