"""Every error a caller can meet: typed, with a figure, a hint and a stable exit code.

An error crosses the socket as JSON (``to_wire``) and is raised again as the same class on the other
side (``from_wire``), so that ``think()`` raises what the daemon raised.
"""

from __future__ import annotations

from typing import Any, ClassVar


class SubcortexError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: What failed, with the figure that made it fail.
        hint: What to try next; shown on a line of its own.
        details: JSON-serialisable facts for programs (never secrets).
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def to_wire(self) -> dict[str, Any]:
        """Return the error as OpenAI's error object, with ours beside it."""
        return {
            "message": self.message,
            "type": self.code,
            "code": self.code,
            "param": self.details.get("param"),
            "hint": self.hint,
            "details": self.details,
        }


class ConfigError(SubcortexError):
    """The configuration is wrong; names the file, the key and what to write instead."""

    code = "config_error"
    exit_code = 3
    http_status = 500


class InvalidRequest(SubcortexError):
    """The thought cannot be asked as it is (empty prompt, unknown drive or tier, bad schema)."""

    code = "invalid_request"
    exit_code = 4
    http_status = 400


class DoesNotFit(SubcortexError):
    """A model or a prompt needs more than there is; says how much is short and where."""

    code = "does_not_fit"
    exit_code = 5
    http_status = 507


class EngineFailed(SubcortexError):
    """An engine would not start, crashed, or answered with an error; carries its log's tail."""

    code = "engine_failed"
    exit_code = 6
    http_status = 502

    def __str__(self) -> str:
        tail = self.details.get("log_tail")
        text = super().__str__()
        return f"{text}\n--- end of the engine's log ---\n{tail}" if tail else text


class DeadlineExceeded(SubcortexError):
    """No answer can come, or came, within the caller's deadline."""

    code = "deadline_exceeded"
    exit_code = 7
    http_status = 504


class Overloaded(SubcortexError):
    """The queue is full; ``details['retry_after_s']`` says when to come back."""

    code = "overloaded"
    exit_code = 8
    http_status = 503


class DaemonUnreachable(SubcortexError):
    """No daemon answers on the socket, and none could be started."""

    code = "daemon_unreachable"
    exit_code = 9
    http_status = 503


class DaemonRunning(SubcortexError):
    """Another daemon owns this machine already; names its process id."""

    code = "daemon_running"
    exit_code = 10
    http_status = 409


class JournalError(SubcortexError):
    """The database cannot be opened, read or written."""

    code = "journal_error"
    exit_code = 11
    http_status = 500


class Cancelled(SubcortexError):
    """The thought was stopped by its caller or by the daemon going down."""

    code = "cancelled"
    exit_code = 12
    http_status = 499


class ServiceFailed(SubcortexError):
    """The systemd service cannot be installed, removed or asked; carries systemd's words."""

    code = "service_failed"
    exit_code = 13
    http_status = 500


class EmergenceFailed(SubcortexError):
    """An Emergence state cannot be read, or its command did not do what it was asked; carries its words."""

    code = "emergence_failed"
    exit_code = 14
    http_status = 502


_BY_CODE: dict[str, type[SubcortexError]] = {
    cls.code: cls
    for cls in (
        SubcortexError,
        ConfigError,
        InvalidRequest,
        DoesNotFit,
        EngineFailed,
        DeadlineExceeded,
        Overloaded,
        DaemonUnreachable,
        DaemonRunning,
        JournalError,
        Cancelled,
        ServiceFailed,
        EmergenceFailed,
    )
}


def from_wire(body: dict[str, Any]) -> SubcortexError:
    """Rebuild the error that ``to_wire`` described; unknown codes become the base class."""
    cls = _BY_CODE.get(str(body.get("code")), SubcortexError)
    details = body.get("details")
    return cls(
        str(body.get("message") or "the daemon reported an error without a message"),
        hint=body.get("hint"),
        **(details if isinstance(details, dict) else {}),
    )
