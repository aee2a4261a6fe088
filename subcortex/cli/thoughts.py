"""``thoughts``: read the journal back; needs no daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from subcortex.cli import _output
from subcortex.cli._options import DriveName, TierName, common_options, listing, load_config
from subcortex.errors import InvalidRequest
from subcortex.types import ThoughtStatus

if TYPE_CHECKING:
    from subcortex.journal import Reader, ThoughtRecord

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_COLOURS = {"completed": "green", "failed": "red", "running": "yellow"}


def _filters(function: _Decorated) -> _Decorated:
    function = common_options(function)
    for decorate in reversed(
        (
            click.option("--drive", type=DriveName(), help="Only of this drive."),
            click.option("--tier", type=TierName(), help="Only answered by this tier."),
            click.option("--session", help="Only of this session."),
            click.option(
                "--status", type=click.Choice([status.value for status in ThoughtStatus]), help="Only these."
            ),
            click.option("--before", metavar="ID", help="Only older ones than this thought."),
            click.option(
                "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most."
            ),
        )
    ):
        function = decorate(function)
    return function


@click.group("thoughts", invoke_without_command=True)
@click.pass_context
@_filters
def thoughts_command(ctx: click.Context, /, **options: Any) -> None:
    """Read recorded thoughts: list, search or show them.

    Without a subcommand, lists the newest.
    """
    if listing(ctx, options):
        _list(None, **options)


@thoughts_command.command("list")
@_filters
def _list_command(**options: Any) -> None:
    """List thoughts, newest first."""
    _list(None, **options)


@thoughts_command.command("search")
@click.argument("words", nargs=-1, required=True)
@_filters
def _search_command(words: tuple[str, ...], **options: Any) -> None:
    """Find thoughts whose prompt, answer or reasoning has all WORDS."""
    _list(" ".join(words), **options)


@thoughts_command.command("show")
@click.argument("thought_id", metavar="ID")
@common_options
def _show_command(config_file: Path | None, as_json: bool, thought_id: str) -> None:
    """Show one thought whole; the beginning of its ID is enough."""
    reader = _reader(config_file)
    record = reader.thought(thought_id) if reader else None
    if record is None:
        raise InvalidRequest(
            f"no thought, or more than one, has an id that begins with {thought_id!r}",
            hint="`subcortex thoughts` lists them.",
            param="id",
        )
    if as_json:
        _output.print_json(record)
        return
    for line in _whole(record):
        _output.say(line)


def _reader(config_file: Path | None) -> Reader | None:
    """Return a reader, or None while nothing has been recorded."""
    from subcortex.journal import Reader

    config = load_config(config_file)
    return Reader.open(config.database_path) if config.database_path.exists() else None


def _list(query: str | None, *, config_file: Path | None, as_json: bool, **filters: Any) -> None:
    reader = _reader(config_file)
    records = reader.thoughts(query=query, **filters) if reader else []
    if as_json:
        _output.print_json(records)
        return
    if not records:
        narrowed = query or any(value for name, value in filters.items() if name != "limit")
        _output.note("no thoughts match" if narrowed else "no thoughts yet")
        return
    width = max(_output.terminal_columns() - 68, 20)
    rows = [_row(record, width) for record in records]
    header = ("ID", "WHEN", "TIER", "DRIVE", "STATUS", "TOTAL", "PROMPT → ANSWER")
    for line in _output.table(header, rows, right=(5,)):
        _output.say(line)


def _row(record: ThoughtRecord, width: int) -> list[str]:
    prompt = _output.clipped(_output.inert(_text(record.prompt, record.prompt_chars)), width // 2)
    answer = _output.clipped(_output.inert(_text(record.text, record.text_chars)), width - len(prompt) - 3)
    when = record.created_at.astimezone().strftime("%m-%d %H:%M:%S")
    total = _output.seconds(record.timing.total_s)
    name = _output.clipped(_output.inert(record.drive or "-"), 11)
    return [record.id[:16], when, record.tier, name, record.status.value, total, f"{prompt} → {answer}"]


def _text(text: str | None, characters: int) -> str:
    if text is not None:
        return text
    return f"[{characters} characters held back]" if characters else ""


def _whole(record: ThoughtRecord) -> list[str]:
    usage, timing = record.usage, record.timing
    facts = [
        ("id", record.id),
        ("when", record.created_at.astimezone().isoformat(timespec="milliseconds")),
        ("status", record.status.value + (f" ({record.finish_reason})" if record.finish_reason else "")),
        ("tier", f"{record.tier}: {record.model} on {record.engine_version or record.engine}"),
        ("drive", record.drive),
        ("session", record.session),
        ("score", f"{record.route.score:.2f}, complexity {record.route.complexity:.2f}"),
        ("why", "; ".join(record.route.reasons)),
        ("degraded", record.route.degraded_reason if record.route.degraded else None),
        ("tokens", f"{usage.prompt_tokens} in, {usage.completion_tokens} out"),
        (
            "time",
            f"queued {_output.seconds(timing.queued_s)}, load {_output.seconds(timing.load_s)}, first token "
            f"{_output.seconds(timing.ttft_s)}, total {_output.seconds(timing.total_s)}",
        ),
        ("error", f"{record.error.code}: {record.error.message}" if record.error else None),
    ]
    lines = [f"{name:9}{_output.inert(value)}" for name, value in facts if value]
    texts = (
        ("prompt", _text(record.prompt, record.prompt_chars)),
        ("reasoning", _text(record.reasoning, record.reasoning_chars)),
        ("answer", _text(record.text, record.text_chars)),
        ("tool calls", "\n".join(f"{call.name}({call.arguments})" for call in record.tool_calls)),
    )
    for title, text in texts:
        if text:
            lines += ["", f"── {title}", _output.inert(text)]
    return lines
