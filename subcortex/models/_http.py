"""HTTP within one deadline, to one host: what fetches small files from the hub. Effects.

A socket's timeout holds for one wait alone, so a server that sends a byte now and then outlives it: here each
wait, from the first connection to the last byte of the body, gets what is left of one deadline. Looking up
the host's address is the system's, with the system's own bound.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

#: Names of this machine; they are reached without encryption, and never through a proxy.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by which all must be done.

    Args:
        until_s: On the clock of ``time.monotonic``.
    """

    until_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        """Return the deadline that lies ``timeout_s`` ahead."""
        return cls(time.monotonic() + timeout_s)

    def left_s(self) -> float:
        """Return the seconds left.

        Raises:
            TimeoutError: There are none.
        """
        left = self.until_s - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        return left


def opener(url: SplitResult, deadline: Deadline) -> urllib.request.OpenerDirector:
    """Return what opens ``url`` and follows redirects within its host, all by the deadline."""
    handlers: list[urllib.request.BaseHandler] = [_SameHost(), _Plain(deadline), _Secure(deadline)]
    if url.hostname in LOOPBACK:
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows redirects within one host and scheme."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise urllib.error.URLError(f"a redirect to another host, {new.hostname}, is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = functools.partial(_PlainConnection, deadline=self._deadline)
        return self.do_open(connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = functools.partial(_SecureConnection, deadline=self._deadline)
        return self.do_open(connection, req)


class _Within(http.client.HTTPConnection):
    """A connection of which nothing outlasts a deadline."""

    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._create_connection = functools.partial(_connected, deadline)
        self.response_class = functools.partial(_Response, deadline=deadline)  # type: ignore[assignment]


class _PlainConnection(_Within):
    pass


class _SecureConnection(_Within, http.client.HTTPSConnection):
    pass


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Received(sock, deadline))


class _Received(io.RawIOBase):
    """The bytes of a socket, each wait for some within the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._file = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        try:
            return self._file.readinto(buffer)
        except TimeoutError:
            raise TimeoutError("it took too long") from None

    def close(self) -> None:
        self._file.close()
        super().close()


def _connected(
    deadline: Deadline, address: tuple[str, int], timeout: Any = None, source: Any = None
) -> socket.socket:
    """Return a connection to the first address of a host that answers, all of them within the deadline."""
    last: OSError = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(deadline.left_s())
            sock.connect(where)
            sock.settimeout(deadline.left_s())
        except OSError as error:
            sock.close()
            last = error
        else:
            return sock
    raise last
