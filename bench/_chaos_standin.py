"""A stand-in for vLLM's server that misbehaves on demand: faults that no real engine can be made to show.

Run by the daemon as ``vllm serve`` would be. It answers with a count, sleeps and wakes, and takes one *mood*
at a time from the file that ``CHAOS_MOOD`` names. A mood is taken once, so that its next start is sound.

    deaf      ignores SIGTERM from now on
    desert    leaves a child behind in a session of its own, whose parent has ended
    crash     ends at once, with an exit code
    stuck     moves no token any more, while its health route says 200
    hang      never answers the next request to sleep
    refuse    answers the next request to wake with an error
    corrupt   says something else after the next wake
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TOKEN_S = 0.01
#: What C calls SIG_IGN.
_IGNORE = 1
_LOOK_EVERY_S = 0.05
#: Moods that are shown at the next request of a kind, not at once.
_LATER = frozenset({"hang", "refuse", "corrupt"})
_BALLAST = "CHAOS_BALLAST_MIB"


class Server:
    """What the stand-in is at the moment."""

    def __init__(self, model: str, mood: Path, ballast_mib: int) -> None:
        self.model = model
        self.tokens = 0
        self.asleep = self.stuck = self.corrupt = False
        self.mood: str | None = None
        self._file = mood
        self._ballast_mib = ballast_mib
        self._ballast = self._filled()

    def watch(self) -> None:
        """Take moods as they come."""
        while True:
            try:
                text = self._file.read_text().strip()
            except OSError:
                text = ""
            if text:
                self._file.unlink(missing_ok=True)
                self._take(text)
            time.sleep(_LOOK_EVERY_S)

    def _take(self, mood: str) -> None:
        print(f"stand-in: {mood}", flush=True)
        if mood in _LATER:
            self.mood = mood
        elif mood == "deaf":
            # Python's own would have to be called by the main thread, which serves.
            ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(_IGNORE))
        elif mood == "stuck":
            self.stuck = True
        elif mood == "crash":
            os._exit(7)
        elif mood == "desert":
            _desert()

    def shows(self, mood: str) -> bool:
        """Return whether it is in that mood, which is then over."""
        found, self.mood = self.mood == mood, None if self.mood == mood else self.mood
        return found

    def sleep(self) -> None:
        """Give its memory back."""
        self.asleep, self._ballast = True, bytearray()

    def wake(self) -> None:
        """Take its memory again."""
        self.corrupt = self.corrupt or self.shows("corrupt")
        if self.asleep:
            self.asleep, self._ballast = False, self._filled()

    def step(self) -> None:
        """Say a token, in its time."""
        while self.stuck:
            time.sleep(60)
        time.sleep(_TOKEN_S)
        self.tokens += 1

    def _filled(self) -> bytearray:
        return bytearray(b"x") * (self._ballast_mib * 2**20)


def _desert() -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execv("/bin/sleep", ["sleep", "3600"])
        os._exit(0)
    os.wait()


class Handler(BaseHTTPRequestHandler):
    """Routes of vLLM's that the daemon asks."""

    protocol_version = "HTTP/1.1"
    server: Listener

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        state = self.server.state
        path = urlsplit(self.path).path
        if path == "/metrics":
            self._text(f"vllm:generation_tokens_total {state.tokens}\n")
        elif path == "/is_sleeping":
            self._json({"is_sleeping": state.asleep})
        elif path == "/version":
            self._json({"version": "0.0.0"})
        else:
            self._text("")

    def do_POST(self) -> None:
        state = self.server.state
        path = urlsplit(self.path).path
        asked = self._asked()
        if path == "/sleep":
            while state.shows("hang"):
                time.sleep(3600)
            state.sleep()
            self._text("")
        elif path == "/wake_up" and state.shows("refuse"):
            self._json({"error": {"message": "the stand-in will not wake"}}, 500)
        elif path == "/wake_up":
            state.wake()
            self._text("")
        elif path == "/v1/completions":
            self._canary(state)
        elif path == "/v1/chat/completions":
            self._chat(state, asked)
        else:
            self._text("")

    def _canary(self, state: Server) -> None:
        word = "b" if state.corrupt else "a"
        told = {
            "tokens": [word] * 8,
            "token_logprobs": [-0.5] * 8,
            "top_logprobs": [{word: -0.5, "z": -9.0}] * 8,
        }
        self._json({"choices": [{"text": word * 8, "logprobs": told, "finish_reason": "length"}]})

    def _chat(self, state: Server, asked: dict[str, Any]) -> None:
        count = min(40, int(asked.get("max_tokens") or asked.get("max_completion_tokens") or 20))
        if not asked.get("stream"):
            for _ in range(count):
                state.step()
            message = {"role": "assistant", "content": "1 " * count}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._json({"choices": [choice], "usage": _usage(count)})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for place in range(count):
            state.step()
            end = "stop" if place + 1 == count else None
            self._event({"choices": [{"index": 0, "delta": {"content": "1 "}, "finish_reason": end}]})
        self._event({"choices": [], "usage": _usage(count)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        self.wfile.flush()

    def _asked(self) -> dict[str, Any]:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = json.loads(body) if body else {}
        return found if isinstance(found, dict) else {}

    def _json(self, data: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(data).encode(), "application/json", status)

    def _text(self, text: str) -> None:
        self._send(text.encode(), "text/plain", 200)

    def _send(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _usage(count: int) -> dict[str, int]:
    return {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}


class Listener(socketserver.ThreadingUnixStreamServer):
    """Serves on a Unix socket, a thread a connection."""

    daemon_threads = True
    request_queue_size = 64
    state: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that have gone away."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("model")
    parser.add_argument("--uds", required=True)
    given, _ = parser.parse_known_args()
    ballast_mib = int(os.environ.get(_BALLAST, "0"))
    state = Server(given.model, Path(os.environ["CHAOS_MOOD"]), ballast_mib)
    with Listener(given.uds, Handler) as listener:
        listener.state = state
        threading.Thread(target=state.watch, daemon=True).start()
        print("Starting vLLM: the stand-in", flush=True)
        listener.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
