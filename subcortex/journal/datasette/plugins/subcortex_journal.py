"""For Datasette alone, which loads this file: links between rows, and no visitor but this machine's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import markupsafe
from datasette import hookimpl

#: Column that names a row → its table. Rows are named by ``id`` there, which is not the tables' primary key.
_LINKS = {
    "session_id": "sessions",
    "closed_by": "sessions",
    "claim_id": "claims",
    "fact_id": "facts",
    "thought_id": "thoughts",
    "gap_id": "gaps",
    "run_id": "daemon_runs",
}
#: Tables whose runs are those of experiments.
_OF_EXPERIMENTS = {"experiment_readings", "experiment_commands", "experiment_boots"}
#: View → the table whose row its ``id`` is.
_VIEWS = {
    "session_list": "sessions",
    "thought_list": "thoughts",
    "open_gaps": "gaps",
    "claims_with_figures": "claims",
    "engine_starts": "boots",
    "experiment_list": "experiment_runs",
}
_LABEL_CHARS = 80
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}

_Scope = dict[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]


@hookimpl  # type: ignore[untyped-decorator]
def render_cell(value: Any, column: str, table: str, database: str, datasette: Any) -> Any:
    """Return a link to the row that a cell names; None for every other cell, which Datasette escapes."""
    target = _VIEWS.get(table) if column == "id" else _LINKS.get(column)
    if column == "run_id" and table in _OF_EXPERIMENTS:
        target = "experiment_runs"
    named = value["value"] if isinstance(value, dict) else value
    if target is None or not isinstance(named, str) or not named:
        return None
    label = str(value["label"] or named) if isinstance(value, dict) else named
    label = label if len(label) <= _LABEL_CHARS else label[: _LABEL_CHARS - 1] + "…"
    address = f"{datasette.urls.table(database, target)}?{urlencode({'id__exact': named})}"
    return markupsafe.Markup('<a href="{}">{}</a>').format(address, label)


@hookimpl  # type: ignore[untyped-decorator]
def asgi_wrapper(datasette: Any) -> Callable[[_App], _App]:
    """Refuse requests under any name but loopback's: a web page may point a name of its own at this port."""

    def wrapped(app: _App) -> _App:
        async def only_here(scope: _Scope, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and _host(scope) not in _HOSTS:
                headers = [(b"content-type", b"text/plain; charset=utf-8")]
                await send({"type": "http.response.start", "status": 403, "headers": headers})
                await send({"type": "http.response.body", "body": b"only under 127.0.0.1 or localhost\n"})
                return
            await app(scope, receive, send)

        return only_here

    return wrapped


def _host(scope: _Scope) -> str:
    host = str(dict(scope["headers"]).get(b"host", b""), "latin-1").lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
