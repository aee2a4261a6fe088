"""What goes to the screen: text that cannot drive the terminal, colours when wanted, JSON when asked."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

import click

from subcortex.errors import EngineFailed, SubcortexError

#: How long a log tail in an error may be, in lines.
_TAIL_LINES = 20
_ERROR = "error: "


def inert(text: str) -> str:
    """Return ``text`` with everything that could drive a terminal made visible."""
    from subcortex.journal.render import inert as visible

    return visible(text)


def inert_line(text: str) -> str:
    """Return ``text`` inert and on one line: names that a stranger chose must not look like lines of ours."""
    return inert(text).translate({0x0A: "\u240a", 0x09: "\u2409"})


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Return whether ``--json`` is among the options, so that even a usage error can be JSON."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def make_streams_safe() -> None:
    """Let characters that the terminal's encoding lacks come out escaped instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def coloured(stream: TextIO) -> bool:
    """Return whether escapes may be written: a terminal, and neither NO_COLOR nor TERM=dumb."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def style(text: str, stream: TextIO, **how: Any) -> str:
    """Return ``text`` styled as ``click.style`` does, or plain where colours are not wanted."""
    return click.style(text, **how) if coloured(stream) else text


def say(text: str = "") -> None:
    """Print a line on stdout."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a line on stderr, where it does not mix with an answer."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def plain(value: Any) -> Any:
    """Return pydantic models and dataclasses, also within lists and dicts, as JSON-ready values.

    Times are ISO 8601.
    """
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def print_json(value: Any) -> None:
    """Print one JSON value on stdout.

    Everything beyond ASCII is escaped, so that no model's text can drive the terminal, and so that lone
    surrogates survive.
    """
    say(json.dumps(plain(value), ensure_ascii=True, indent=2))


def print_subcortex_error(error: SubcortexError, *, as_json: bool) -> None:
    """Print a typed error: what failed, what to try, and the end of the engine's log if it has one."""
    if as_json:
        print_json({"error": {**error.to_wire(), "exit_code": error.exit_code}})
        return
    print_error(error.message, error.hint, code=error.code, exit_code=error.exit_code, as_json=False)
    tail = error.details.get("log_tail") if isinstance(error, EngineFailed) else None
    if tail:
        lines = str(tail).splitlines()[-_TAIL_LINES:]
        note(style("end of the engine's log:", sys.stderr, dim=True))
        for line in lines:
            note(f"  {inert(line)}")


def print_error(message: str, hint: str | None, *, code: str, exit_code: int, as_json: bool) -> None:
    """Print an error on stderr, or as ``{"error": …}`` on stdout.

    Its further lines are indented: a name with a newline in it must not look like a line of ours.
    """
    if as_json:
        wire = {"message": message, "type": code, "code": code, "hint": hint, "exit_code": exit_code}
        print_json({"error": wire})
        return
    note(style(_ERROR, sys.stderr, fg="red", bold=True) + _indented(message, len(_ERROR)))
    if hint:
        note(_indented(hint, 2))


def _indented(text: str, columns: int) -> str:
    """Return ``text`` inert, with all lines after the first indented."""
    return inert(text).replace("\n", "\n" + " " * columns)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Return the lines of a table with aligned columns; ``right`` lists the columns flushed right."""
    cells = [list(header), *[[inert(cell).replace("\n", " ") for cell in row] for row in rows]]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(header))]
    return [
        "  ".join(_padded(row[i], widths[i], i in right) for i in range(len(row))).rstrip() for row in cells
    ]


def _padded(text: str, width: int, flush_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if flush_right else text + space


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def clipped(text: str, columns: int) -> str:
    """Return ``text`` on one line, cut to ``columns`` with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= columns else line[: max(columns - 1, 0)] + "…"


def terminal_columns() -> int:
    """Return the terminal's width, 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def seconds(value: float | None) -> str:
    """Return a duration as a person writes it: ``12 ms``, ``3.4 s``, ``5 min``, ``2.1 h``; ``-`` for None."""
    if value is None:
        return "-"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
