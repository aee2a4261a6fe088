"""What systemd is told: that the daemon is ready, and that it stops. One datagram each."""

from __future__ import annotations

import socket
from collections.abc import MutableMapping
from contextlib import suppress


class Supervisor:
    """Whoever started the daemon and wants to know, at a datagram socket; nobody if that is None."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Supervisor:
        """Return the one that the environment names, and take it out: it is not for the engines."""
        return cls(environ.pop("NOTIFY_SOCKET", None) or None)

    def tell(self, words: str) -> None:
        """Send an assignment, such as ``READY=1``. That nobody listens is no error."""
        if self._address is None:
            return
        # An address that begins so is a name without a file.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(words.encode(), address)
