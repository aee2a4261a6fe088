"""A session on the screen: markdown drawn on a terminal, and nothing in it that could act on one."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from subcortex.cli import _output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType

    from subcortex.journal.diary.session_records import SessionHit, SessionRecord, SessionSummary

#: Beyond it the text is shown as it is: drawing takes long, and nobody reads that far.
_DRAWN_CHARS = 256 * 1024
#: Front matter is no markdown: three dashes under text would make a heading of it.
_FRONT = re.compile(r"(?s)\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)")


def show(record: SessionRecord) -> None:
    """Print a session: what is known of it, then its text."""
    coloured = _output.coloured(sys.stdout)
    for line in facts(record):
        _output.say(line)
    _output.say()
    text = _output.inert(record.text.replace("\r\n", "\n"))
    if not text:
        for entry in record.entries:
            heading = f"{_output.inert_line(entry.section)}: " if entry.section else ""
            _output.say(
                f"{entry.at.astimezone():%H:%M:%S}  {entry.kind}  {heading}{_output.inert(entry.text)}"
            )
    elif coloured and len(text) <= _DRAWN_CHARS:
        _draw(text)
    else:
        _output.say(text.rstrip("\n"))


def facts(record: SessionRecord) -> list[str]:
    """Return what is known of a session beside its text, a line each."""
    rated = f" (by {record.depth_by})" if record.depth_by == "person" else ""
    reason = f": {record.depth_reason}" if record.depth_reason else ""
    evidence = "; ".join(record.evidence_reasons)
    pressures = (record.pressure_before, record.pressure_after)
    known = [
        ("id", record.id),
        ("when", when(record)),
        ("kind", record.kind if record.state == "ended" else f"{record.kind}, {record.state}"),
        ("drives", drives(record)),
        ("topic", record.topic),
        ("depth", f"{record.depth}{rated}{reason}" if record.depth else None),
        ("evidence", f"{record.evidence_depth}: {evidence}" if record.evidence_depth else None),
        ("", "writer and evidence rate it differently" if record.ratings_differ else None),
        (
            "pressure",
            " → ".join("?" if p is None else f"{p:g}" for p in pressures) if any(pressures) else None,
        ),
        ("file", record.file),
        ("source", record.source),
        ("encoding", record.encoding if record.encoding != "utf-8" else None),
        ("unclear", "; ".join(record.not_understood)),
    ]
    return [f"{name:9}{_output.inert_line(value)}" for name, value in known if value]


def when(record: SessionSummary) -> str:
    """Return when a session was held, in local time."""
    return record.at.astimezone().strftime("%Y-%m-%d %H:%M") if record.at else "-"


def drives(record: SessionSummary) -> str:
    """Return the drives behind a session with their levels."""
    return ", ".join(
        f"{d.name} ({d.level_percent:.0f}%)" if d.level_percent is not None else d.name for d in record.drives
    )


def depths(record: SessionSummary) -> str:
    """Return a session's depth, and the evidence's where that differs."""
    said = record.depth.value if record.depth else "-"
    return f"{said} / {record.evidence_depth}" if record.ratings_differ else said


def snippet(hit: SessionHit) -> str:
    """Return the place where words were found, on one line, the words marked where there are colours."""
    pieces, last = [], 0
    for start, end in hit.matches:
        pieces.append(_one_line(hit.snippet[last:start]))
        pieces.append(_output.style(_one_line(hit.snippet[start:end]), sys.stdout, bold=True, fg="yellow"))
        last = end
    return "".join([*pieces, _one_line(hit.snippet[last:])])


def _one_line(text: str) -> str:
    return _output.inert(re.sub(r"[ \t\r\n]+", " ", text))


def _draw(text: str) -> None:
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.text import Text

    console = Console(
        file=sys.stdout, width=_output.terminal_columns(), highlight=False, markup=False, emoji=False
    )
    parts: list[RenderableType] = []
    if front := _FRONT.match(text):
        parts.append(Text(f"{front[1]}\n", style="dim"))
        text = text[front.end() :]
    parts.append(_markdown(text))
    safe: list[Segment] = []
    for part in parts:
        for line in console.render_lines(part, pad=False):
            # Whatever drawing has made of the text, nothing of it acts: only rich's own styles do.
            safe += [Segment(_output.inert(piece.text), piece.style) for piece in line if not piece.control]
            safe.append(Segment.line())
    console.print(Segments(safe), end="", soft_wrap=True)


def _markdown(text: str) -> RenderableType:
    """Return markdown to draw in which nothing is hidden: no HTML, no links behind words, no pictures."""
    from markdown_it import MarkdownIt
    from rich.markdown import CodeBlock, Markdown
    from rich.text import Text

    class _Code(CodeBlock):
        # Colouring code by the language that a stranger names runs that language's patterns on his text.
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
            for line in str(self.text).rstrip().split("\n"):
                yield Text(f"    {line}", style="cyan")

    class _Inert(Markdown):
        elements = {**Markdown.elements, "fence": _Code, "code_block": _Code}  # noqa: RUF012

    drawn = _Inert("", hyperlinks=False)
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    # An entity becomes a character behind our back; a definition of a link, or a picture, is not drawn.
    parser.disable(["entity", "reference", "image"])
    drawn.parsed = parser.parse(text)
    for token in drawn.parsed:
        for child in token.children or ():
            # Bold fields stand a line each.
            if child.type == "softbreak":
                child.type = "hardbreak"
    return drawn
