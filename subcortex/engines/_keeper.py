"""Keep one engine: be its parent, hold its output, and end all of it once nobody owns it.

The owner, a daemon, hears ``engine PID`` and later ``exit CODE STATUS`` on a channel of messages, and says
``release`` when all of the engine is gone. When the owner dies or closes the channel, the keeper reads the
engine's output in its stead and listens on ``keeper.sock`` for ``adopt SECONDS`` from the next owner, who
gets the output's pipe with the answer. If none comes in time, it ends the engine, its workers and itself.

A keeper stands between because only a parent learns how its child ended, and keeps the child's process id,
and so its session's, from being given to a stranger. It runs without the packages it lies in
(``_launch.py``), so it and what it imports need the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

# As type checkers know it; the module of that name would weigh half a MiB.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

SOCKET = "keeper.sock"
#: What is written of the output while there is no owner; the rest is read and dropped.
OWN_LOG_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
#: Between SIGTERM and SIGKILL when the engine is ended for want of an owner.
_GRACE_S = 3.0
_HANDSHAKE_S = 1.0
#: The kernel counts a wait in milliseconds, of which it knows 25 days.
_LONGEST_LOOK_S = 3600.0


class Keeper:
    """What is known of one engine by the process that is its parent.

    Args:
        engine: Its process id; a child that nobody else waits for.
        mark: Value of its mark.
        folder: Its private folder, with its record.
        log_file: Where its output goes while it has no owner.
        output: Read end of the pipe it writes to.
    """

    def __init__(self, engine: int, mark: str, folder: str, log_file: str, output: int) -> None:
        self._engine = engine
        self._mark = mark
        self._folder = folder
        self._log_file = log_file
        self._output = output
        self._engine_fd = os.pidfd_open(engine)
        self._exit = b""
        self._may_write = 0

    def keep(self, owner_fd: int, channel: int, adopt_s: float) -> None:
        """Serve one owner after the other; returns when all of the engine is gone.

        Args:
            owner_fd: Handle of the first owner's process.
            channel: Socket to it.
            adopt_s: How long to wait for the next one.
        """
        # Who signals a whole group means the daemon and the engine; the keeper ends with them.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _send(channel, b"engine %d" % self._engine)
        while True:
            if self._released(owner_fd, channel):
                os.waitpid(self._engine, 0)
                return
            os.close(channel)
            os.close(owner_fd)
            found = None if self._exit else self._next_owner(adopt_s)
            if found is None:
                self._end_all()
                return
            owner_fd, channel, adopt_s = found

    def _released(self, owner_fd: int, channel: int) -> bool:
        """Return True when the owner has ended all of the engine, False when the owner is gone."""
        while True:
            ready = _ready([channel, owner_fd, *([] if self._exit else [self._engine_fd])])
            if self._engine_fd in ready:
                self._note_exit()
                _send(channel, self._exit)
            if channel in ready:
                said = _read(channel)
                if said == b"release":
                    return bool(self._exit)
                if not said:
                    return False
            if owner_fd in ready:
                return False

    def _next_owner(self, adopt_s: float) -> tuple[int, int, float] | None:
        """Return the next owner, its channel and its ``adopt_s``; None if the engine or the time is over."""
        # Not before: it is a fifteenth of what a keeper weighs, and few ever need it.
        import socket

        self._may_write = OWN_LOG_BYTES
        deadline_s = time.monotonic() + adopt_s
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            try:
                self._listen(listener)
            except OSError:
                return None  # its folder is gone: nobody could ever find it
            looked_at = [self._engine_fd, listener.fileno(), self._output]
            while (left_s := deadline_s - time.monotonic()) > 0:
                ready = _ready(looked_at, min(left_s, _LONGEST_LOOK_S))
                if self._output in ready and not self._log(_read(self._output)):
                    looked_at.remove(self._output)
                if self._engine_fd in ready:
                    self._note_exit()
                    return None
                if listener.fileno() in ready and (found := self._agreed(listener)):
                    return found
        return None

    def _listen(self, listener: socket.socket) -> None:
        # By way of the folder's handle: a Unix socket's address has 108 bytes, a path may have more.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{folder}/{SOCKET}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - pathlib would cost the keeper a MiB
            listener.bind(path)
            listener.listen(4)
        finally:
            os.close(folder)

    def _agreed(self, listener: socket.socket) -> tuple[int, int, float] | None:
        import socket

        with contextlib.suppress(OSError, ValueError), listener.accept()[0] as connection:
            connection.settimeout(_HANDSHAKE_S)
            word, adopt_s = connection.recv(64).split()
            if word != b"adopt":
                return None
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            owner_fd = os.pidfd_open(int.from_bytes(credentials[:4], sys.byteorder))
            socket.send_fds(connection, [b"engine %d" % self._engine], [self._output])
            connection.settimeout(None)
            return owner_fd, connection.detach(), float(adopt_s)
        return None

    def _note_exit(self) -> None:
        # Not reaped: until the keeper itself ends, the engine's id is nobody else's.
        result = os.waitid(os.P_PID, self._engine, os.WEXITED | os.WNOWAIT)
        assert result is not None
        self._exit = b"exit %d %d" % (result.si_code, result.si_status)

    def _log(self, data: bytes) -> bool:
        """Write output that nobody else will; False at its end. A full disk must not stop the engine."""
        piece = data[: self._may_write]
        self._may_write -= len(piece)
        if piece:
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                handle = os.open(self._log_file, flags, 0o600)
                try:
                    os.write(handle, piece)
                finally:
                    os.close(handle)
        return bool(data)

    def _end_all(self) -> None:
        try:
            # Only now: it would double what a keeper weighs.
            from subcortex.engines import _remains

            _remains.end_orphan(self._folder, self._mark, self._engine, grace_s=_GRACE_S)
        except Exception:
            # The package may have been replaced meanwhile: roughly is better than not at all.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._engine, signal.SIGKILL)


def _ready(handles: list[int], timeout_s: float | None = None) -> set[int]:
    poller = select.poll()
    for handle in handles:
        poller.register(handle, select.POLLIN)
    return {handle for handle, _ in poller.poll(None if timeout_s is None else timeout_s * 1000)}


def _send(channel: int, words: bytes) -> None:
    with contextlib.suppress(OSError):  # the owner is gone, which the next look shows
        os.write(channel, words)


def _read(handle: int) -> bytes:
    try:
        return os.read(handle, _READ_BYTES)
    except OSError:
        return b""
