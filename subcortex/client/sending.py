"""Pure parts of sending a thought: its bytes, how long to wait, and when it may be sent again."""

from __future__ import annotations

from pydantic_core import PydanticSerializationError

from subcortex.errors import (
    Cancelled,
    DaemonUnreachable,
    DeadlineExceeded,
    InvalidRequest,
    SubcortexError,
)
from subcortex.types import ThinkRequest

#: The daemon keeps the deadline; a client that hears nothing this much later knows that it does not.
_GRACE_S = 2.0


def encoded(request: ThinkRequest) -> bytes:
    """Return a request as JSON.

    Raises:
        InvalidRequest: It holds what UTF-8 cannot: a lone surrogate, from bytes decoded carelessly.
    """
    try:
        return request.model_dump_json(exclude_defaults=True).encode()
    except PydanticSerializationError as error:
        raise InvalidRequest(
            f"the request is not text: {error}",
            hint="Decode the bytes it came from as UTF-8, with errors='replace' if need be.",
            param="messages",
        ) from None


def patience_s(request: ThinkRequest) -> float | None:
    """Return how long silence is borne, in seconds: a little past the deadline, or for ever without one."""
    return None if request.deadline_s is None else request.deadline_s + _GRACE_S


def with_less_time(request: ThinkRequest, spent_s: float) -> ThinkRequest:
    """Return the request with what starting a daemon took (seconds) off its deadline and its wait."""
    less: dict[str, float] = {}
    if request.deadline_s is not None:
        less["deadline_s"] = max(0.01, request.deadline_s - spent_s)
    if request.wait_s is not None:
        less["wait_s"] = max(0.0, request.wait_s - spent_s)
    return request.model_copy(update=less) if less else request


def never_begun(error: SubcortexError) -> bool:
    """Return whether the thought reached no daemon, or one that took no more: sending again is safe."""
    if isinstance(error, DaemonUnreachable):
        return not error.details.get("sent", True)
    return isinstance(error, Cancelled) and bool(error.details.get("not_begun"))


def as_deadline(error: DaemonUnreachable, request: ThinkRequest) -> SubcortexError:
    """Return a daemon's silence past the deadline as what it is to the caller."""
    if request.deadline_s is None or not error.details.get("silent"):
        return error
    return DeadlineExceeded(
        f"the daemon was silent past the deadline of {request.deadline_s:g} s",
        hint=error.hint,
    )
