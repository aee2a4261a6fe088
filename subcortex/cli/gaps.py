"""``gaps``: the questions that sessions left open; list, show, answer or drop them, or have more found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from subcortex.cli import _output
from subcortex.cli._board import diary_of, fields, nothing, when
from subcortex.cli._options import TierName, common_options, listing, load_config
from subcortex.errors import InvalidRequest

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.journal.board import Gap
    from subcortex.journal.diary import Diary
    from subcortex.journal.diary.board_records import GapRecord

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_STATES = ("open", "planned", "answered", "dropped")
_MOST = 1000
_FILTERS = ("state", "kind", "session")


def _filters(function: _Decorated) -> _Decorated:
    function = common_options(function)
    for decorate in reversed(
        (
            click.option("--state", type=click.Choice(_STATES), help="Only those that stand so."),
            click.option("--kind", help="Only of this kind, e.g. interconnect."),
            click.option("--session", metavar="ID", help="Only those that this session raised."),
            click.option(
                "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most."
            ),
        )
    ):
        function = decorate(function)
    return function


@click.group("gaps", invoke_without_command=True)
@click.pass_context
@_filters
def gaps_command(ctx: click.Context, /, **options: Any) -> None:
    """Read the questions that sessions left open, and close them.

    Without a subcommand, lists them, those still asked first.
    """
    if listing(ctx, options):
        _list(**options)


@gaps_command.command("list")
@_filters
def _list_command(**options: Any) -> None:
    """List questions, those still asked first."""
    _list(**options)


@gaps_command.command("show")
@click.argument("gap_id", metavar="ID")
@common_options
def _show_command(config_file: Path | None, as_json: bool, gap_id: str) -> None:
    """Show one question whole; the beginning of its ID is enough."""
    from subcortex.journal.diary import board_queries

    with diary_of(load_config(config_file)) as diary:
        if diary is None:
            raise nothing("question", gap_id)
        _show(board_queries.gap(diary, gap_id), as_json)


@gaps_command.command("answer")
@click.argument("gap_id", metavar="ID")
@click.argument("text")
@click.option("--session", metavar="ID", help="The session that closed it.")
@common_options
def _answer_command(
    config_file: Path | None, as_json: bool, gap_id: str, text: str, session: str | None
) -> None:
    """Answer a question with TEXT."""
    from subcortex.journal.diary import board

    with diary_of(load_config(config_file)) as diary:
        if diary is None:
            raise nothing("question", gap_id)
        _show(board.answer(diary, gap_id, text, session_id=_session(diary, session)), as_json)


@gaps_command.command("drop")
@click.argument("gap_id", metavar="ID")
@click.option("--reason", required=True, help="Why nobody needs to know.")
@common_options
def _drop_command(config_file: Path | None, as_json: bool, gap_id: str, reason: str) -> None:
    """Give a question up, and keep why."""
    from subcortex.journal.diary import board

    with diary_of(load_config(config_file)) as diary:
        if diary is None:
            raise nothing("question", gap_id)
        _show(board.drop(diary, gap_id, reason), as_json)


@gaps_command.command("find")
@click.argument("session", metavar="SESSION")
@click.option("--think", is_flag=True, help="Also ask a model, where the rules find nothing.")
@click.option("--tier", type=TierName(), help="Which one; routed if not named.")
@common_options
def _find_command(
    config_file: Path | None, as_json: bool, session: str, think: bool, tier: str | None
) -> None:
    """Read a session's questions and claims again, by rules; with --think by a model too.

    What a model finds is marked as found by a thought. It is asked only where the rules find no question.
    """
    from subcortex.journal.board import gaps_in
    from subcortex.journal.diary import board, session_queries
    from subcortex.mind.board import from_thought, note_session

    config = load_config(config_file)
    if think and config.journal.record == "none":
        raise InvalidRequest(
            'what a model finds would be kept, and journal.record = "none" holds texts of thoughts back',
            hint="Leave --think out, or set journal.record.",
            param="think",
        )
    with diary_of(config) as diary:
        record = session_queries.session(diary, session) if diary else None
        if diary is None or record is None:
            raise nothing("session", session)
        note_session(diary, record.id, record.text, origin=record.origin)
        known = gaps_in(record.text)
        if think and not known:
            found = from_thought(_thought(config_file, record.text, tier), record.text, known)
            board.record(diary, record.id, _masked(found, config), ())
        _say(diary, as_json, narrowed=True, session_id=record.id)


def _masked(found: list[Gap], config: Config) -> list[Gap]:
    """Return a model's questions as far as the journal keeps texts of thoughts."""
    import dataclasses

    from subcortex.journal.recorder import Recorder

    recorder = Recorder(config.journal.record, config.journal.redact)
    return [
        dataclasses.replace(gap, question=recorder.text(gap.question) or "", topic=recorder.text(gap.topic))
        for gap in found
    ]


def _thought(config_file: Path | None, text: str, tier: str | None) -> Any:
    from subcortex.client import Client, think
    from subcortex.mind.board import Questions, prompt_for

    client = Client(load_config(config_file))
    thought = think(prompt_for(text), schema=Questions, client=client, max_tokens=800, tier=tier)
    return thought.parsed


def _session(diary: Any, session_id: str | None) -> str | None:
    """Return the whole id of a session; InvalidRequest for none, or several."""
    from subcortex.journal.diary import session_queries

    if session_id is None:
        return None
    found = session_queries.session(diary, session_id)
    if found is None:
        raise nothing("session", session_id)
    return found.id


def _list(*, config_file: Path | None, as_json: bool, session: str | None, **filters: Any) -> None:
    from subcortex.journal.board import KINDS

    if filters["kind"] is not None and filters["kind"] not in KINDS:
        raise InvalidRequest(
            f"no kind of question is called {filters['kind']!r}",
            hint=f"Known: {', '.join(KINDS)}.",
            param="kind",
        )
    with diary_of(load_config(config_file)) as diary:
        narrowed = session is not None or any(filters[name] for name in _FILTERS if name in filters)
        whose = _session(diary, session) if diary is not None else None
        _say(diary, as_json, narrowed=narrowed, session_id=whose, **filters)


def _say(diary: Diary | None, as_json: bool, *, narrowed: bool, limit: int = _MOST, **filters: Any) -> None:
    """Print the questions that the filters let through; the figures are of all of them, listed or not."""
    from subcortex.journal.diary import board_queries

    found: list[GapRecord] = []
    counted = dict.fromkeys(_STATES, 0)
    if diary is not None:
        found = board_queries.gaps(diary, limit=limit, **filters)
        counted |= board_queries.gap_counts(diary, **filters)
    if as_json:
        _output.print_json({**counted, "gaps": found})
        return
    if not found:
        _output.note("no questions match" if narrowed else "no questions yet")
        return
    width = max(_output.terminal_columns() - 54, 24)
    rows = [
        [
            gap.id[:16],
            gap.state,
            gap.kind or "-",
            when(gap.at),
            _output.clipped(_output.inert(_asked(gap)), width),
        ]
        for gap in found
    ]
    for line in _output.table(("ID", "STATE", "KIND", "FOUND", "QUESTION"), rows):
        _output.say(line)
    if sum(counted.values()) > len(found):
        _output.note(f"{len(found)} of {sum(counted.values())} questions; -n shows more")


def _asked(gap: GapRecord | Gap) -> str:
    return f"{gap.topic}: {gap.question}" if gap.topic else gap.question


def _show(gap: GapRecord, as_json: bool) -> None:
    if as_json:
        _output.print_json(gap)
        return
    _output.say(_output.inert(gap.question))
    _output.say()
    where = ", ".join(part for part in (gap.section, f"line {gap.line}" if gap.line else "") if part)
    fields(
        ("id", gap.id),
        ("topic", gap.topic),
        ("kind", gap.kind),
        ("state", gap.state),
        ("found by", gap.found_by),
        ("found", gap.at.astimezone().isoformat(timespec="seconds")),
        ("session", gap.session_id),
        ("where", where),
        ("closed", gap.closed_at.astimezone().isoformat(timespec="seconds") if gap.closed_at else None),
        ("closed by", gap.closed_by),
        ("fact", gap.fact_id),
        ("reason" if gap.state == "dropped" else "answer", gap.answer),
    )
