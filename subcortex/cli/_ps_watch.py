"""``ps --watch``: the view redrawn at each event, a line an event, or JSON lines; until the daemon stops."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

from subcortex.cli import _output, _ps_view
from subcortex.errors import DaemonUnreachable, SubcortexError
from subcortex.types import TierEvent

if TYPE_CHECKING:
    from rich.console import RenderableType

    from subcortex.client import Client

#: The view is drawn again at least so often, seconds: counts and memory change without an event.
_REDRAW_S = 2.0
_RECENT = 5


def watch(client: Client, *, as_json: bool) -> None:
    """Show events until the daemon stops; Ctrl-C ends it as it ends any command.

    Raises:
        DaemonUnreachable: None is up, or it died.
    """
    if not as_json and _output.coloured(sys.stdout):
        _redraw(client)
    else:
        for event in client.events():
            _output.say(_json(event) if as_json else _ps_view.event_line(event))
            sys.stdout.flush()
    _output.note("the daemon has stopped")


def _json(event: TierEvent) -> str:
    return json.dumps(event.model_dump(mode="json", exclude_none=True), ensure_ascii=True)


class _News(threading.Thread):
    """Reads events in a thread of its own; None says that the daemon stopped, an error why no more come."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="events", daemon=True)
        self._client = client
        self._queue: queue.SimpleQueue[TierEvent | SubcortexError | None] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        """Pass on what comes."""
        try:
            for event in self._client.events():
                self._queue.put(event)
        except SubcortexError as error:
            self._queue.put(error)
        else:
            self._queue.put(None)

    def wait(self, timeout_s: float) -> tuple[list[TierEvent], bool]:
        """Return the events that came and whether they have ended; waits for the first only.

        Raises:
            SubcortexError: Why there are no more.
        """
        events: list[TierEvent] = []
        try:
            found = self._queue.get(timeout=timeout_s)
            while isinstance(found, TierEvent):
                events.append(found)
                found = self._queue.get_nowait()
        except queue.Empty:
            return events, False
        if found is not None:
            raise found
        return events, True


def _redraw(client: Client) -> None:
    from rich.console import Console
    from rich.live import Live

    status, news = client.status(), _News(client)
    recent: deque[TierEvent] = deque(maxlen=_RECENT)
    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        ended = False
        while not ended:
            live.update(_view(_ps_view.styled_lines(status), recent), refresh=True)
            events, ended = news.wait(_REDRAW_S)
            recent.extend(event for event in events if event.was is not None)
            if ended:
                break
            try:
                status = client.status()
            except DaemonUnreachable:
                # It has just gone; how, the events tell.
                while not ended:
                    _, ended = news.wait(_REDRAW_S)


def _view(lines: list[tuple[str, str]], recent: deque[TierEvent]) -> RenderableType:
    from rich.text import Text

    lines = [*lines, *([("", "default")] if recent else [])]
    lines += [(_ps_view.event_line(event), "dim") for event in recent]
    texts = [Text(line, style=style) for line, style in lines]
    view = Text("\n").join(texts)
    view.no_wrap, view.overflow = True, "ellipsis"
    return view
