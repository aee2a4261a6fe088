"""``think`` and ``route``: have a thought, or ask where it would go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from subcortex.cli import _output
from subcortex.cli._options import DriveName, Seconds, TierName, common_options, load_config
from subcortex.errors import DaemonUnreachable, InvalidRequest

if TYPE_CHECKING:
    from subcortex.types import Route, ThinkRequest, Thought

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_SHAPES_REQUEST = ("drive", "tier", "complexity", "priority", "session", "max_tokens", "temperature", "seed")


def thought_options(function: _Decorated) -> _Decorated:
    """Add what a thought may carry; parameters of the same names, ``schema_file`` for ``--schema``."""
    for decorate in reversed(
        (
            click.argument("prompt", nargs=-1, required=True, metavar="PROMPT|-"),
            click.option("--drive", type=DriveName(), help="The drive behind the thought."),
            click.option("--tier", type=TierName(), help="Force this tier; a forced thought never degrades."),
            click.option("--complexity", type=click.FloatRange(0, 1), help="Instead of the scored one."),
            click.option(
                "--deadline",
                type=Seconds(min_open=True),
                metavar="SECONDS",
                help="The answer must be whole by then.",
            ),
            click.option(
                "--wait",
                type=Seconds(),
                metavar="SECONDS",
                help="It may wait so long for its tier, so that one swap serves many.",
            ),
            click.option("--priority", type=int, default=0, show_default=True, help="Higher goes first."),
            click.option("--session", help="Groups thoughts in the journal."),
            click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens."),
            click.option("--temperature", type=click.FloatRange(min=0), help="0 always takes the likeliest."),
            click.option("--seed", type=int, help="Makes sampling repeatable."),
            click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; repeatable."),
            click.option(
                "--schema",
                "schema_file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                metavar="FILE.json",
                help="A JSON Schema that the answer must obey.",
            ),
        )
    ):
        function = decorate(function)
    return function


@click.command("think")
@thought_options
@click.option("--no-stream", is_flag=True, help="Print the answer once it is whole.")
@common_options
def think_command(config_file: Path | None, as_json: bool, no_stream: bool, **options: Any) -> None:
    """Have a thought: the right tier answers, and the journal keeps it.

    PROMPT may be several words; `-` reads it from standard input. The answer goes to stdout, all else to
    stderr. Reasoning is shown dimmed on a terminal and left out elsewhere; `--json` has it.
    """
    from subcortex.client import Client
    from subcortex.types import Chunk, Notice
    from subcortex.types import Thought as Whole

    client = Client(load_config(config_file))
    request = thought_request(options)
    if as_json:
        _output.print_json(client.think(request))
        return
    printer = _Printer(stream=not no_stream)
    thought: Thought | None = None
    try:
        for event in client.stream(request):
            if isinstance(event, Whole):
                thought = event
            elif isinstance(event, Notice):
                printer.notice(event.text)
            elif isinstance(event, Chunk):
                printer.chunk(event.text, event.reasoning)
    finally:
        printer.end()
    if thought is None:
        raise DaemonUnreachable(
            "the daemon closed the answer before it was whole",
            hint="`subcortex thoughts` shows what had been said, `subcortex logs daemon` why it stopped.",
        )
    if no_stream:
        printer.chunk(thought.text, thought.reasoning or "", force=True)
        printer.end()
    _show_tool_calls(thought)
    line = summary(thought)
    if _output.coloured(sys.stderr):
        line = _output.style(_output.clipped(line, _output.terminal_columns() - 1), sys.stderr, dim=True)
    _output.note(line)


def thought_request(options: dict[str, Any]) -> ThinkRequest:
    """Build the request from the options; InvalidRequest if the prompt or the schema is not text."""
    from subcortex.types import ThinkRequest

    fields = {name: options[name] for name in _SHAPES_REQUEST if options[name] is not None}
    if options["schema_file"]:
        fields["response_schema"] = _schema(options["schema_file"])
    if options["stop"]:
        fields["stop"] = list(options["stop"])
    if options["deadline"] is not None:
        fields["deadline_s"] = options["deadline"]
    if options["wait"] is not None:
        fields["wait_s"] = options["wait"]
    return ThinkRequest(messages=[{"role": "user", "content": _prompt(options["prompt"])}], **fields)


def _prompt(words: tuple[str, ...]) -> str:
    if words != ("-",):
        text = " ".join(words)
        place = next((i for i, letter in enumerate(text) if "\ud800" <= letter <= "\udfff"), None)
        if place is not None:
            raise _not_utf8(f"at character {place}")
        return text
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(f"at byte {error.start}: 0x{data[error.start]:02x}") from None


def _not_utf8(where: str) -> InvalidRequest:
    return InvalidRequest(
        f"the prompt is not UTF-8 ({where})", hint="Convert it first, e.g. with iconv.", param="prompt"
    )


def _schema(file: Path) -> dict[str, Any]:
    import json

    try:
        schema = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise InvalidRequest(f"{file} is not JSON: {error}", hint="--schema takes a JSON Schema.") from None
    if not isinstance(schema, dict):
        raise InvalidRequest(
            f"{file} holds {type(schema).__name__}, not an object", hint="--schema takes a JSON Schema."
        )
    return schema


class _Printer:
    """Writes an answer as it comes; knows what stands on the current lines of stdout and stderr."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._dim = _output.coloured(sys.stdout)
        self._live = _output.coloured(sys.stderr)
        self._noticed = False
        self._reasoned = False
        self._line_open = False

    def notice(self, text: str) -> None:
        """Show how a wait goes: on one line that is redrawn, or a line each where that cannot be."""
        words = _output.clipped(_output.inert(text), _output.terminal_columns() - 1)
        if not self._live:
            _output.note(words)
            return
        sys.stderr.write(f"\r\x1b[K{words}")
        sys.stderr.flush()
        self._noticed = True

    def chunk(self, text: str, reasoning: str, *, force: bool = False) -> None:
        """Print a piece, reasoning before text."""
        if not self._stream and not force:
            return
        self._clear_notice()
        if reasoning and self._dim:
            self._write(f"\x1b[2m{_output.inert(reasoning)}\x1b[22m", reasoning)
            self._reasoned = True
        if text:
            if self._reasoned:
                self._write("\n\n" if self._line_open else "\n", "\n")
                self._reasoned = False
            self._write(_output.inert(text), text)

    def end(self) -> None:
        """Finish the line, also after an error."""
        self._clear_notice()
        if self._line_open:
            self._write("\n", "\n")

    def _write(self, shown: str, meant: str) -> None:
        sys.stdout.write(shown)
        sys.stdout.flush()
        self._line_open = not meant.endswith("\n")

    def _clear_notice(self) -> None:
        if self._noticed:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._noticed = False


def _show_tool_calls(thought: Thought) -> None:
    for call in thought.tool_calls:
        _output.say(_output.inert(f"{call.name}({call.arguments})"))


def summary(thought: Thought) -> str:
    """Return tier, timing and why of a thought on one line."""
    timing, route = thought.timing, thought.route
    total = f"total {_output.seconds(timing.total_s)}"
    if timing.load_s:
        total += f", {_output.seconds(timing.load_s)} of it loading"
    tokens = f"{thought.usage.completion_tokens} tokens"
    if thought.finish_reason == "length":
        tokens += ", cut at the longest length"
    why = f"degraded: {route.degraded_reason}" if route.degraded else "; ".join(route.reasons)
    first = f"first token {_output.seconds(timing.ttft_s)}"
    parts = [f"{thought.tier} ({thought.model})", first, total, tokens, why]
    return " ".join(_output.inert(" · ".join(part for part in parts if part)).split())


@click.command("route")
@thought_options
@common_options
def route_command(config_file: Path | None, as_json: bool, **options: Any) -> None:
    """Explain where a thought would go, without having it.

    With a daemon up, from its tiers as they are and what they were measured to cost; without one, from
    the configuration alone, with every tier stopped.
    """
    from subcortex.client import Client

    config = load_config(config_file)
    request = thought_request(options)
    try:
        route, live = Client(config).route(request), True
    except DaemonUnreachable:
        from subcortex.mind import explain

        route, live = explain(config, request), False
    if as_json:
        _output.print_json({**_output.plain(route), "daemon_up": live})
        return
    for line in _explained(route, live):
        _output.say(line)


def _explained(route: Route, live: bool) -> list[str]:
    basis = "" if live else " (no daemon is up: every tier counts as stopped)"
    lines = [f"{route.tier}: score {route.score:.2f}, complexity {route.complexity:.2f}{basis}"]
    lines += [f"  {_output.inert(reason)}" for reason in route.reasons]
    rows = [
        [
            cost.tier,
            cost.state.value,
            *(_output.seconds(value) for value in (cost.wait_s, cost.ttft_s, cost.total_s)),
            str(cost.n) if cost.n else "nominal",
        ]
        for cost in route.alternatives
    ]
    header = ("TIER", "STATE", "WAIT", "FIRST TOKEN", "TOTAL", "MEASURED")
    return [*lines, *_output.table(header, rows, right=(2, 3, 4, 5))]
