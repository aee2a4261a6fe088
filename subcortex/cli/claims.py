"""``claims``: what sessions and notes say is so, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from subcortex.cli import _output
from subcortex.cli._board import diary_of, fields, nothing
from subcortex.cli._options import common_options, listing, load_config

if TYPE_CHECKING:
    from subcortex.journal.diary.board_records import ClaimRecord, Counts, FigureRecord

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
#: What a state is called here, and in the database.
_STATES = {"confirmed": "confirmed", "refuted": "refuted", "undecided": "claimed", "expired": "expired"}


def _filters(function: _Decorated) -> _Decorated:
    function = common_options(function)
    for decorate in reversed(
        (
            click.option("--state", type=click.Choice(tuple(_STATES)), help="Only those that stand so."),
            click.option(
                "--kind", type=click.Choice(("figure", "fits", "result", "statement")), help="Only these."
            ),
            click.option("--quantity", help="Only with a figure of it, e.g. weights_size or kv_per_token."),
            click.option("--session", metavar="ID", help="Only those of this session."),
            click.option(
                "-n", "--limit", type=click.IntRange(min=1), default=200, show_default=True, help="At most."
            ),
        )
    ):
        function = decorate(function)
    return function


@click.group("claims", invoke_without_command=True)
@click.pass_context
@_filters
def claims_command(ctx: click.Context, /, **options: Any) -> None:
    """Read what sessions and notes say is so, and what facts made of it.

    Without a subcommand, lists them.
    """
    if listing(ctx, options):
        _list(**options)


@claims_command.command("list")
@_filters
def _list_command(**options: Any) -> None:
    """List claims, in the order that they came in."""
    _list(**options)


@claims_command.command("show")
@click.argument("claim_id", metavar="ID")
@common_options
def _show_command(config_file: Path | None, as_json: bool, claim_id: str) -> None:
    """Show one claim whole, its figures and what decided it; the beginning of its ID is enough."""
    from subcortex.journal.diary import board_queries

    with diary_of(load_config(config_file)) as diary:
        if diary is None:
            raise nothing("claim", claim_id)
        found = board_queries.claim(diary, claim_id)
    if as_json:
        _output.print_json(found)
        return
    _show(found)


def _list(*, config_file: Path | None, as_json: bool, session: str | None, **filters: Any) -> None:
    from subcortex.journal.diary import board_queries, session_queries
    from subcortex.journal.diary.board_records import Counts

    narrowed = session is not None or any(value for name, value in filters.items() if name != "limit")
    state: Any = _STATES.get(filters.pop("state") or "")
    with diary_of(load_config(config_file)) as diary:
        counted, found = Counts(), []
        if diary is not None:
            record = session_queries.session(diary, session) if session else None
            if session and record is None:
                raise nothing("session", session)
            whose = record.id if record else None
            counted = board_queries.counts(diary, session_id=whose)
            found = board_queries.claims(diary, state=state, session_id=whose, **filters)
    if as_json:
        _output.print_json({**_counts(counted), "claims": found})
        return
    if not found:
        _output.note("no claims match" if narrowed else "no claims yet")
        return
    _table(found, counted, filters["limit"])


def _counts(counted: Counts) -> dict[str, int]:
    return {
        "total": counted.total,
        "confirmed": counted.confirmed,
        "refuted": counted.refuted,
        "undecided": counted.undecided,
        "expired": counted.expired,
    }


def _table(found: list[ClaimRecord], counted: Counts, limit: int) -> None:
    width = max((_output.terminal_columns() - 44) // 2, 24)
    rows = []
    for claim in found:
        said = _output.clipped(_output.inert(claim.statement), width)
        why = _output.clipped(_output.inert(claim.fact.statement), width) if claim.fact else "-"
        rows.append([claim.id[:16], _state(claim), claim.kind, said, why])
    for line in _output.table(("ID", "STATE", "KIND", "CLAIM", "DECIDED BY"), rows):
        _output.say(line)
    if len(found) == limit:
        _output.note(f"the first {limit}; -n shows more")
    said = ", ".join(f"{many} {name}" for name, many in _counts(counted).items() if many and name != "total")
    _output.note(f"{counted.total} claims: {said}")


def _state(claim: ClaimRecord) -> str:
    return "undecided" if claim.state == "claimed" else claim.state


def _show(claim: ClaimRecord) -> None:
    _output.say(_output.inert(claim.statement))
    _output.say()
    where = ", ".join(part for part in (claim.section, f"line {claim.line}" if claim.line else "") if part)
    fact = claim.fact
    fields(
        ("id", claim.id),
        ("kind", claim.kind),
        ("state", _state(claim)),
        ("topic", claim.topic),
        ("found by", claim.found_by),
        ("session", claim.session_id),
        ("where", where),
    )
    for figure in claim.figures:
        fields(("figure", _figure(figure)))
    if fact is not None:
        fields(
            ("decided by", fact.statement),
            ("working", fact.working),
            ("source", f"{fact.source}, {fact.at.astimezone().isoformat(timespec='seconds')}"),
            ("rests on", ", ".join(f"{name} {value}" for name, value in fact.provenance.items())),
            ("fact", fact.id),
            ("expired", fact.expired_why),
        )


def _figure(figure: FigureRecord) -> str:
    of = f"{figure.quantity or 'something'}{f' of {figure.subject}' if figure.subject else ''}"
    unit = f" {figure.unit}" if figure.unit else ""
    low = "any" if figure.low is None else f"{figure.low:g}"
    high = "any" if figure.high is None else f"{figure.high:g}"
    return f"{figure.written}: {of}, met by {low} to {high}{unit}"
