"""HTTP over the daemon's Unix socket with the standard library: 0.1 ms a call, where an SDK costs 0.7."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subcortex.errors import DaemonUnreachable, SubcortexError, from_wire

_LARGEST_POOL = 64


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=None)
        self._path = path

    def wait_at_most(self, timeout_s: float | None) -> None:
        self.timeout = timeout_s
        if self.sock is not None:
            self.sock.settimeout(timeout_s)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class Transport:
    """A pool of connections to one socket, safe to share between threads."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self._idle: list[_UnixConnection] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def reachable(self) -> bool:
        """Return whether something accepts connections on the socket."""
        connection = _UnixConnection(str(self.socket_path))
        try:
            connection.connect()
        except OSError:
            return False
        connection.close()
        return True

    def call(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None
    ) -> bytes:
        """Send a request and return the whole answer, waiting ``timeout_s`` seconds between its pieces.

        Raises:
            SubcortexError: What the daemon said went wrong.
            DaemonUnreachable: Nobody listens, or the daemon died before it answered.
        """
        with self._response(method, path, body, timeout_s) as response:
            return response.read()

    def lines(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Send a request and yield the answer's JSON lines as they come; closing aborts the thought."""
        with self._response(method, path, body, timeout_s, reuse=False) as response:
            while line := response.readline():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    # The daemon died in the middle of a line.
                    raise self.broken(error) from None

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _response(
        self, method: str, path: str, body: bytes | None, timeout_s: float | None, *, reuse: bool = True
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._take()
        connection.wait_at_most(timeout_s)
        whole = False
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                raise self.unreachable(error) from None
            except (OSError, http.client.HTTPException) as error:
                raise self.broken(error) from None
            if response.status >= 400:
                raise error_from(response.status, response.read())
            try:
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise self.broken(error) from None
            whole = response.isclosed()
        finally:
            if whole and reuse:
                self._give_back(connection)
            else:
                connection.close()

    def unreachable(self, error: OSError) -> DaemonUnreachable:
        """Return the error for a socket that nobody listens on; nothing was sent."""
        return DaemonUnreachable(
            f"no daemon answers on {self.socket_path} ({error.strerror})",
            hint="Start it with `subcortex up`, or set daemon.autostart = true.",
            sent=False,
        )

    def broken(self, error: Exception | None = None) -> DaemonUnreachable:
        """Return the error for an answer that ended before it was whole."""
        if isinstance(error, TimeoutError):
            return DaemonUnreachable(
                f"the daemon on {self.socket_path} is there but does not answer",
                hint="It may be stopped or stuck: look at its log, or kill it and start another.",
                sent=True,
                silent=True,
            )
        what = f" ({type(error).__name__})" if error else ""
        return DaemonUnreachable(
            f"the daemon on {self.socket_path} went away before the answer was whole{what}",
            hint="`subcortex thoughts` shows what had been said; `subcortex logs daemon` why it stopped.",
            sent=True,
        )

    def _take(self) -> _UnixConnection:
        if self._pid != os.getpid():
            # After a fork parent and child must not write to the same connections.
            self._idle, self._lock, self._pid = [], threading.Lock(), os.getpid()
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if _still_open(connection.sock):
                    return connection
                connection.close()
        return _UnixConnection(str(self.socket_path))

    def _give_back(self, connection: _UnixConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < _LARGEST_POOL:
                self._idle.append(connection)
                return
        connection.close()


def _still_open(sock: socket.socket | None) -> bool:
    # An idle connection has nothing to read; one that can be read has been closed by the daemon.
    # Looking first means that no request is ever sent twice.
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return not poll.poll(0)


def error_from(status: int, body: bytes) -> SubcortexError:
    """Return the typed error that an answer with a status of 400 and above carries."""
    try:
        return from_wire(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body[:200].decode("utf-8", "replace")
        return SubcortexError(f"the daemon answered {status} with {text!r}")
