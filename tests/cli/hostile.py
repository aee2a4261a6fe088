"""An OpenAI-shaped server whose model says what an attacker would have a terminal do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Clears the screen, retitles the window, writes the clipboard, reverses the line, and an 8-bit CSI.
PAYLOAD = "\x1b[2J\x1b]0;owned\x07\x1b]52;c;ZXZpbA==\x07\u202etxt\x9b31m\rdone"
MODEL = "hostile\x1b[31m"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": PAYLOAD}
            self._send(
                {
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "model": MODEL,
                    "usage": usage,
                }
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": PAYLOAD}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage},
        ]
        for event in events:
            self.wfile.write(f"data: {json.dumps({**event, 'model': MODEL})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving() -> Iterator[str]:
    """Serve on loopback; gives the base URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
