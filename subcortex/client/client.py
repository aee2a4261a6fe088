"""The client of one daemon: every call of the command line and of ``think`` passes here."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from subcortex import config as configuration
from subcortex.client.launch import start_daemon
from subcortex.client.sending import as_deadline, encoded, never_begun, patience_s, with_less_time
from subcortex.client.transport import Transport
from subcortex.config import Config
from subcortex.errors import DaemonUnreachable, InvalidRequest, SubcortexError, from_wire
from subcortex.types import (
    Chunk,
    Notice,
    Route,
    Status,
    ThinkRequest,
    Thought,
    TierEvent,
    YieldRequest,
)

if TYPE_CHECKING:
    from subcortex.journal.diary.experiment_records import RunRecord

_Answer = TypeVar("_Answer")

#: What needs no model is answered at once or not at all; seconds.
_CONTROL_S = 10.0
#: Asking for experiments has interpreters and tools asked what they are, the first time; seconds.
_ASKING_S = 300.0
#: Stopping waits for engines to end; seconds.
_STOP_S = 120.0


class Client:
    """Speaks to the daemon of a configuration; without one given, to the default's.

    Safe to share between threads. Calls that need a daemon start one when ``daemon.autostart`` is on
    (``think`` and ``stream`` only; ``status`` and the rest report that none is up).
    """

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or configuration.load()
        self._transport = Transport(self.config.socket_path)

    def think(self, request: ThinkRequest) -> Thought:
        """Send a thought and wait for it.

        Raises:
            SubcortexError: One of the typed errors; ``DaemonUnreachable`` if none answers.
        """
        if sys.stderr.isatty():
            return self._think_aloud(request)
        return Thought.model_validate_json(self._once_up(request, self._call))

    def stream(self, request: ThinkRequest) -> Iterator[Chunk | Notice | Thought]:
        """Yield chunks as they come, notices while a model loads, and the finished Thought last."""
        streaming = request.model_copy(update={"stream": True})
        first, lines = self._once_up(streaming, self._open)
        with closing(lines):
            event = _event(first)
            yield event
            while not isinstance(event, Thought):
                try:
                    line = next(lines, None)
                except DaemonUnreachable as error:
                    raise as_deadline(error, request) from None
                if line is None:
                    raise self._transport.broken()
                event = _event(line)
                yield event

    async def athink(self, request: ThinkRequest) -> Thought:
        """Like ``think``, for asyncio."""
        async with self._async_response(request) as response:
            return Thought.model_validate_json(await response.read())

    async def astream(self, request: ThinkRequest) -> AsyncIterator[Chunk | Notice | Thought]:
        """Like ``stream``, for asyncio."""
        import json

        streaming = request.model_copy(update={"stream": True})
        async with self._async_response(streaming) as response:
            async for line in response.content:
                event = _event(json.loads(line))
                yield event
                if isinstance(event, Thought):
                    return
        raise self._transport.broken()

    def status(self) -> Status:
        """Return the daemon and its tiers as they are now."""
        return Status.model_validate_json(self._control("GET", "/v1/status"))

    def route(self, request: ThinkRequest) -> Route:
        """Return where a thought would go and why, without having it."""
        return Route.model_validate_json(self._control("POST", "/v1/route", encoded(request)))

    def logs(self, tier: str, lines: int = 200) -> str:
        """Return the last lines of an engine's log (``daemon`` for the daemon's own)."""
        return self._control("GET", f"/v1/logs/{quote(tier, safe='')}?lines={lines}").decode()

    def events(self) -> Generator[TierEvent, None, None]:
        """Yield how each tier stands, then each change as it happens, until the daemon stops.

        Raises:
            Overloaded: They were read too slowly.
            DaemonUnreachable: None answers, or it died.
        """
        with closing(self._transport.lines("GET", "/v1/events")) as lines:
            for line in lines:
                if "end" in line:
                    return
                if "error" in line:
                    raise from_wire(line["error"])
                yield TierEvent.model_validate(line)
        raise self._transport.broken()

    def yield_gpus(self, for_s: float | None = None, gpus: list[int] | None = None) -> Status:
        """Leave GPUs (by NVML's index; None: all) to other programs, for seconds or until ``resume``.

        Returns at once; the status says how far the tiers there have come.

        Raises:
            InvalidRequest: There is no such GPU, or no such time.
        """
        asked = _yield_request(for_s, gpus)
        return Status.model_validate_json(
            self._control("POST", "/v1/yield", asked.model_dump_json().encode())
        )

    def resume(self) -> Status:
        """Take back every GPU that was left to others."""
        return Status.model_validate_json(self._control("DELETE", "/v1/yield"))

    def run_experiments(
        self,
        names: Sequence[str],
        *,
        subject: str | None = None,
        minutes: float | None = None,
        again: bool = False,
    ) -> list[RunRecord]:
        """Have experiments run, and return their runs at once; what is known already is returned as it is.

        Args:
            names: Of experiments, done in this order; ``["next"]``: the one that is worth most, if any is.
            subject: Only of this tier, or of ``machine``.
            minutes: What each may take, above 0 and a day at most.
            again: Measure anew what is known.

        Raises:
            InvalidRequest: There is no such experiment or subject, it is not applicable here, or it cannot be
                given so many minutes.
            DaemonUnreachable: No daemon is up and none could be started.
        """
        import json

        from subcortex.experiments.minutes import checked_minutes

        # JSON has neither nan nor inf.
        checked_minutes(minutes)
        asked = {"names": "next" if list(names) == ["next"] else list(names), "subject": subject}
        body = json.dumps({**asked, "minutes": minutes, "again": again}).encode()
        if self.config.daemon.autostart and not self._transport.reachable():
            self._ensure_daemon()
        found = self._transport.call("POST", "/v1/experiments", body, timeout_s=_ASKING_S)
        return [_run(run) for run in json.loads(found)["runs"]]

    def experiment_for(self, gap_id: str, drive: str) -> RunRecord | None:
        """Have the experiment run that may answer a question of the board, as an agent's.

        It costs of the day's minutes, and waits until the machine is idle.

        Args:
            gap_id: The question.
            drive: Whom its answer satisfies.

        Returns:
            The run that waits now; None where no experiment answers the question, or no minutes are left.

        Raises:
            InvalidRequest: There is no such question.
            DaemonUnreachable: No daemon is up; none is started for it.
        """
        import json

        asked = {"names": "next", "asked_by": "agent", "gap": gap_id, "drive": drive}
        body = json.dumps(asked).encode()
        found = self._transport.call("POST", "/v1/experiments", body, timeout_s=_ASKING_S)
        return next((_run(run) for run in json.loads(found)["runs"]), None)

    def open_experiments(self) -> list[RunRecord]:
        """Return the runs that are not over, in the order that they were asked for."""
        import json

        return [_run(run) for run in json.loads(self._control("GET", "/v1/experiments"))["runs"]]

    def cancel_experiment(self, run_id: str) -> RunRecord:
        """Give a run up, by its id or a beginning of it; returns when its processes are gone.

        Raises:
            InvalidRequest: There is no such run, or it is over already.
        """
        import json

        path = f"/v1/experiments/{quote(run_id, safe='')}"
        return _run(json.loads(self._transport.call("DELETE", path, timeout_s=_STOP_S))["run"])

    def watch_experiment(
        self, run_id: str, *, waits: Callable[[str | None], None] | None = None
    ) -> Generator[RunRecord, None, None]:
        """Yield a run as it is, then each change, until it is over or the daemon stops.

        Args:
            run_id: Its id, or a beginning of it.
            waits: Told before each why the run waits, None where it does not.

        Raises:
            InvalidRequest: There is no such run.
            DaemonUnreachable: None answers, or it died.
        """
        path = f"/v1/experiments/{quote(run_id, safe='')}/events"
        with closing(self._transport.lines("GET", path)) as lines:
            for line in lines:
                if "end" in line:
                    return
                if "error" in line:
                    raise from_wire(line["error"])
                if waits is not None:
                    waits(line.get("waits"))
                yield _run(line["run"])
        raise self._transport.broken()

    def stop(self) -> None:
        """Ask the daemon to stop its engines and itself, and wait until it has."""
        try:
            for _ in self._transport.lines("POST", "/v1/stop", b"", timeout_s=_STOP_S):
                pass
        except DaemonUnreachable:
            if self._transport.reachable():
                raise

    def start_daemon(self) -> int:
        """Start a detached daemon unless one is up; return its process id."""
        return start_daemon(self.config)

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def _think_aloud(self, request: ThinkRequest) -> Thought:
        shown = False
        for event in self.stream(request):
            if isinstance(event, Notice):
                sys.stderr.write(f"\r\033[Ksubcortex: {event.text}")
                sys.stderr.flush()
                shown = True
            elif shown:
                sys.stderr.write("\r\033[K")
                shown = False
            if isinstance(event, Thought):
                return event
        raise AssertionError("a stream ends with a thought or an error")

    def _call(self, request: ThinkRequest) -> bytes:
        return self._transport.call("POST", "/v1/think", encoded(request), timeout_s=patience_s(request))

    def _open(self, request: ThinkRequest) -> tuple[dict[str, Any], Generator[dict[str, Any], None, None]]:
        lines = self._transport.lines("POST", "/v1/think", encoded(request), timeout_s=patience_s(request))
        first = next(lines, None)
        if first is None:
            raise self._transport.broken()
        return first, lines

    def _once_up(self, request: ThinkRequest, send: Callable[[ThinkRequest], _Answer]) -> _Answer:
        """Send; if no daemon takes it, start one and send once more. Nothing is ever had twice."""
        began_s = time.monotonic()
        try:
            try:
                return send(request)
            except SubcortexError as error:
                if not (self.config.daemon.autostart and never_begun(error)):
                    raise
            self._ensure_daemon(request.deadline_s)
            return send(with_less_time(request, time.monotonic() - began_s))
        except DaemonUnreachable as error:
            raise as_deadline(error, request) from None

    def _control(self, method: str, path: str, body: bytes | None = None) -> bytes:
        return self._transport.call(method, path, body, timeout_s=_CONTROL_S)

    def _ensure_daemon(self, within_s: float | None = None) -> None:
        """Start a daemon, or wait for the one that is starting; returns once one listens."""
        if sys.stderr.isatty() and not self._transport.reachable():
            sys.stderr.write("subcortex: starting the daemon\n")
        start_daemon(self.config, within_s=within_s)

    def _async_response(self, request: ThinkRequest) -> Any:
        from subcortex.client.asynchronous import response

        start = partial(self._ensure_daemon, request.deadline_s) if self.config.daemon.autostart else None
        return response(self._transport, request, start)


def _yield_request(for_s: float | None, gpus: list[int] | None) -> YieldRequest:
    try:
        return YieldRequest(for_s=for_s, gpus=gpus)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidRequest(
            f"{name}: {first['msg']} (it is {first['input']!r:.80})",
            hint="A time in seconds, a year at most; GPUs by NVML's index, or None for all.",
            param=name,
        ) from None


def _run(data: dict[str, Any]) -> RunRecord:
    from pydantic import TypeAdapter

    from subcortex.journal.diary.experiment_records import RunRecord

    return TypeAdapter(RunRecord).validate_python(data)


def _event(line: dict[str, Any]) -> Chunk | Notice | Thought:
    if "chunk" in line:
        return Chunk.model_construct(**{"text": "", "reasoning": "", **line["chunk"]})
    if "thought" in line:
        return Thought.model_validate(line["thought"])
    if "notice" in line:
        return Notice(text=line["notice"])
    raise from_wire(line.get("error", {}))
