"""A server that streams tokens without work: run as a script in a process of its own, never imported.

Takes the path of its Unix socket. Every request gets as many events as it asks for tokens: one to each
connection in turn, as an engine answers step by step, as fast as they are taken. Ends with its stdin.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys

#: As long as an event of vLLM's or llama.cpp's is.
_TEXT = {"choices": [{"text": " word", "index": 0, "logprobs": None, "finish_reason": None}]}
_EVENT = json.dumps({"id": "cmpl-" + "0" * 32, "object": "text_completion", "created": 1, **_TEXT})
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_ASKED = re.compile(rb'"max_tokens": ?(\d+)')


def _chunk(event: str) -> bytes:
    data = f"data: {event}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


def _end(tokens: int) -> bytes:
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}
    return _chunk(json.dumps(usage)) + _chunk("[DONE]") + b"0\r\n\r\n"


def _main() -> None:
    events = _chunk(_EVENT)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(sys.argv[1])
    listening.listen(4096)
    listening.setblocking(False)
    waiting = selectors.DefaultSelector()
    waiting.register(listening, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    asked: dict[socket.socket, bytes] = {}
    #: Tokens sent and wanted of each connection.
    answering: dict[socket.socket, list[int]] = {}
    print(json.dumps({"ready": True}), flush=True)
    while True:
        for key, _ in waiting.select(0 if answering else None):
            if key.fileobj is sys.stdin:
                return
            if key.fileobj is listening:
                new, _ = listening.accept()
                new.setblocking(False)
                asked[new] = b""
                waiting.register(new, selectors.EVENT_READ)
                continue
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                told = connection.recv(65536)
            except OSError:
                told = b""
            if not told:
                # Somebody went away before having asked.
                waiting.unregister(connection)
                del asked[connection]
                connection.close()
                continue
            asked[connection] += told
            if found := _ASKED.search(asked[connection]):
                waiting.unregister(connection)
                del asked[connection]
                answering[connection] = [0, int(found[1])]
                connection.sendall(_HEAD)
        for connection, count in list(answering.items()):
            try:
                sent = connection.send(events)
                count[0] += 1
                if sent < len(events):
                    # A client that falls behind is what is looked for; the rest of one event waits for it.
                    connection.setblocking(True)
                    connection.sendall(events[sent:])
                    connection.setblocking(False)
                if count[0] == count[1]:
                    connection.setblocking(True)
                    connection.sendall(_end(count[1]))
                    del answering[connection]
                    connection.close()
            except BlockingIOError:
                continue
            except OSError:
                del answering[connection]
                connection.close()


if __name__ == "__main__":
    _main()
