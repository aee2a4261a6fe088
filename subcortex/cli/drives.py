"""``drives``: how each stands, and what raises and lowers it; needs no daemon."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from subcortex.cli import _output
from subcortex.cli._options import DriveName, common_options, listing, load_config

if TYPE_CHECKING:
    from subcortex.drives import Drive, Level
    from subcortex.journal.diary.drives import DriveEvent
    from subcortex.mind.keeping import DriveKeeper, Moved

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_BAR = 20
_DEPTHS = ("none", "shallow", "moderate", "deep", "full")
_COLOURS = {"triggered": "yellow", "crisis": "red", "emergency": "red"}
_HEADER = ("DRIVE", "LEVEL", "", "BAND", "PRESSURE", "NEXT")


def _reasons(function: _Decorated) -> _Decorated:
    reason = click.option("--reason", help="Why; kept with the event.")
    session = click.option("--session", "session_id", metavar="ID", help="The session it comes from.")
    return reason(session(function))


@click.group("drives", invoke_without_command=True)
@click.pass_context
@common_options
def drives_command(ctx: click.Context, /, **options: Any) -> None:
    """Show the drives: their level, what satisfies them, what raised and lowered them.

    Without a subcommand, shows how all stand. Where an Emergence state is followed, it is read, and
    satisfaction goes through Emergence's own command.
    """
    if listing(ctx, options):
        _status(**options)


@drives_command.command("status")
@common_options
def _status_command(**options: Any) -> None:
    """Show how all drives stand, the most pressing first."""
    _status(**options)


@drives_command.command("show")
@click.argument("name", type=DriveName())
@common_options
def _show_command(config_file: Path | None, as_json: bool, name: str) -> None:
    """Show one drive whole: what it is, how it stands, what happened to it last."""
    with _keeper(config_file) as keeper:
        drive = keeper.drive(name)
        level = next(level for level in keeper.levels() if level.drive == drive.name)
        events = keeper.history(drive.name, limit=5)
        if as_json:
            facts = {
                "owner": keeper.owner,
                "level": _level(level),
                "events": [_event(event) for event in events],
            }
            _output.print_json({**drive.model_dump(), **facts})
            return
        for line in _whole(keeper, drive, level, events):
            _output.say(line)


@drives_command.command("satisfy")
@click.argument("name", type=DriveName())
@click.argument("depth", type=click.Choice(_DEPTHS, case_sensitive=False))
@_reasons
@common_options
def _satisfy_command(config_file: Path | None, as_json: bool, name: str, depth: Any, **why: Any) -> None:
    """Lower a drive by the DEPTH of what was done for it.

    shallow leaves 70 % of the pressure, moderate 50 %, deep 25 %, full nothing. none leaves all of it: the
    drive asked in vain.
    """
    with _keeper(config_file) as keeper:
        _tell(keeper.satisfy(name, depth, **why), as_json=as_json)


@drives_command.command("bump")
@click.argument("name", type=DriveName())
@click.argument("amount", type=float, required=False)
@_reasons
@common_options
def _bump_command(
    config_file: Path | None, as_json: bool, name: str, amount: float | None, **why: Any
) -> None:
    """Raise a drive by AMOUNT of pressure; without one, by two hours' worth.

    Work done builds a drive that is activity-driven in this way.
    """
    with _keeper(config_file) as keeper:
        _tell(keeper.bump(name, amount, **why), as_json=as_json)


@drives_command.command("history")
@click.argument("name", type=DriveName(), required=False)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most.")
@click.option("--before", type=click.IntRange(min=1), metavar="SEQ", help="Only older ones than this event.")
@common_options
def _history_command(
    config_file: Path | None, as_json: bool, name: str | None, limit: int, before: int | None
) -> None:
    """List what raised and lowered one drive, or all of them, newest first."""
    with _keeper(config_file) as keeper:
        events = keeper.history(name, limit=limit, before=before)
    if as_json:
        _output.print_json([_event(event) for event in events])
        return
    if not events:
        _output.note("nothing has happened to it yet" if name else "nothing has happened yet")
        return
    for line in _output.table(("WHEN", "DRIVE", "WHAT", "PRESSURE", "DEPTH", "REASON"), _rows(events)):
        _output.say(line)


def _keeper(config_file: Path | None) -> Any:
    from subcortex.mind.keeping import DriveKeeper

    return DriveKeeper.open(load_config(config_file))


def _status(*, config_file: Path | None, as_json: bool) -> None:
    with _keeper(config_file) as keeper:
        levels, follows, now = keeper.levels(), keeper.follows, keeper.clock.now()
    if as_json:
        facts = {
            "owner": "emergence" if follows else "subcortex",
            "emergence": str(follows) if follows else None,
        }
        _output.print_json({**facts, "drives": [_level(level) for level in levels]})
        return
    if follows:
        _output.note(f"following the Emergence state in {_output.inert_line(str(follows))}")
    if not levels:
        _output.note("no drives")
        return
    for line, level in zip(_table(levels, now), [None, *levels], strict=True):
        colour = _COLOURS.get(level.band) if level else None
        _output.say(_output.style(line, _stdout(), fg=colour) if colour else line)


def _stdout() -> Any:
    import sys

    return sys.stdout


def _table(levels: list[Level], now: datetime) -> list[str]:
    rows = [
        [
            _name(level.drive),
            f"{level.percent:.0f} %",
            _bar(level.percent),
            level.band + (" (thwarted)" if level.valence == "aversive" and level.thwarted else ""),
            f"{level.pressure:.1f}/{level.threshold:g}",
            _next(level, now),
        ]
        for level in levels
    ]
    return _output.table(_HEADER, rows, right=(1, 4))


def _bar(percent: float) -> str:
    """Return a bar that is full at 100 %; what is above goes on as ``!``, up to 200 %."""
    filled = min(int(percent / 100 * _BAR), _BAR)
    over = min(max(int((percent - 100) / 100 * _BAR), 0), _BAR)
    return "█" * filled + "░" * (_BAR - filled) + "!" * over


def _next(level: Level, now: datetime) -> str:
    if level.is_triggered:
        return "now"
    if level.next_at is None:
        return "-"
    return f"in {_output.seconds(max((level.next_at - now).total_seconds(), 0.0))}"


def _name(drive: str) -> str:
    return _output.clipped(_output.inert_line(drive), 24)


def _level(level: Level) -> dict[str, Any]:
    import dataclasses

    found = dataclasses.asdict(level)
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in found.items()}


def _event(event: DriveEvent) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(event), "at": event.at.isoformat()}


def _whole(keeper: DriveKeeper, drive: Drive, level: Level, events: list[DriveEvent]) -> list[str]:
    now = keeper.clock.now()
    grows = f"{drive.rate_per_hour:g} an hour" + (" of work done" if drive.activity_driven else "")
    satisfied = level.satisfied_at.astimezone().strftime("%Y-%m-%d %H:%M") if level.satisfied_at else "never"
    facts = [
        ("drive", drive.name),
        ("what", drive.description),
        ("kept by", f"Emergence, {keeper.follows}" if keeper.follows else "subcortex"),
        ("level", f"{level.percent:.0f} %, {level.band} ({level.pressure:.2f} of {level.threshold:g})"),
        ("feels", f"{level.valence}, asked in vain {level.thwarted} times"),
        ("next", _next(level, now)),
        ("grows", grows),
        ("interval", f"{drive.min_interval_h:g} h between sessions; last satisfied {satisfied}"),
        ("takes", "the best open question" if drive.satisfied_by == "gap" else "its own prompt"),
        ("leans", f"{drive.lean:+g} (-1 fast, +1 deep), floor {drive.floor:g}"),
        ("is", f"{drive.category}, {drive.valence}"),
    ]
    lines = [f"{name:10}{_output.inert_line(value)}" for name, value in facts]
    lines += ["", "── prompt", _output.inert(drive.prompt.strip())]
    if events:
        lines += ["", "── lately", *("  ".join(row).rstrip() for row in _rows(events))]
    return lines


def _rows(events: list[DriveEvent]) -> list[list[str]]:
    return [
        [
            event.at.astimezone().strftime("%m-%d %H:%M"),
            _name(event.drive),
            event.kind,
            _change(event.pressure_before, event.pressure_after),
            event.depth or "-",
            _output.clipped(_output.inert_line(event.reason or ""), 60),
        ]
        for event in events
    ]


def _change(before: float | None, after: float | None) -> str:
    shown = ["?" if value is None else f"{value:.1f}" for value in (before, after)]
    return " → ".join(shown)


def _tell(moved: Moved, *, as_json: bool) -> None:
    if as_json:
        _output.print_json(
            {
                "drive": moved.drive,
                "owner": moved.owner,
                "depth": moved.depth,
                "before": moved.before,
                "after": moved.after,
                "level": _level(moved.level),
            }
        )
        return
    change = _change(moved.before, moved.after)
    told = " by Emergence's own command" if moved.owner == "emergence" else ""
    _output.say(f"{_name(moved.drive)}: {change}, {moved.level.percent:.0f} % ({moved.level.band}){told}")
