"""``sessions``: an agent's sessions, listed, shown, searched, rated; in from files and out to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from subcortex.cli import _output
from subcortex.cli._board import diary_of
from subcortex.cli._options import DriveName, common_options, listing, load_config
from subcortex.errors import InvalidRequest, JournalError
from subcortex.types import Depth

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.journal.diary.session_records import SessionRecord, SessionSummary
    from subcortex.journal.folder import Unreadable

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_KINDS = ("session", "satisfaction", "deferral", "note")
_DATES = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S")
#: Names that a list of files is cut to on the screen; ``--json`` has all.
_SHOWN = 20


def _filters(function: _Decorated) -> _Decorated:
    function = common_options(function)
    for decorate in reversed(
        (
            click.option("--drive", type=DriveName(), help="Only of this drive, alone or with others."),
            click.option("--since", type=click.DateTime(_DATES), help="Only from then on, local time."),
            click.option("--until", type=click.DateTime(_DATES), help="Only before then, local time."),
            click.option(
                "--depth", type=click.Choice([depth.value for depth in Depth]), help="Only rated so."
            ),
            click.option("--kind", type=click.Choice(_KINDS), help="Only these."),
            click.option("--before", metavar="ID", help="Only those that follow this one in the list."),
            click.option(
                "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most."
            ),
        )
    ):
        function = decorate(function)
    return function


@click.group("sessions", invoke_without_command=True)
@click.pass_context
@_filters
def sessions_command(ctx: click.Context, /, **options: Any) -> None:
    """Read, search, rate, import and export an agent's sessions.

    Without a subcommand, lists the newest. Exit codes are those of every command; `check` and an `import`
    that left files out exit with 1.
    """
    if listing(ctx, options):
        _list(None, **options)


@sessions_command.command("list")
@_filters
def _list_command(**options: Any) -> None:
    """List sessions, newest first."""
    _list(None, **options)


@sessions_command.command("search")
@click.argument("words", nargs=-1, required=True)
@_filters
def _search_command(words: tuple[str, ...], **options: Any) -> None:
    """Find sessions whose text has all WORDS, newest first.

    Words in double quotes must follow each other; `begin*` finds what begins so.
    """
    _list(" ".join(words), **options)


@sessions_command.command("show")
@click.argument("session_id", metavar="ID")
@click.option("--raw", is_flag=True, help="The text alone, as it was written.")
@common_options
def _show_command(config_file: Path | None, as_json: bool, session_id: str, raw: bool) -> None:
    """Show one session whole; the beginning of its ID is enough."""
    from subcortex.cli import _session_view
    from subcortex.journal.diary import session_queries as queries

    with diary_of(load_config(config_file)) as diary:
        record = queries.session(diary, session_id) if diary else None
    if record is None:
        _unknown(session_id)
    if as_json:
        _output.print_json(_whole(record))
    elif raw:
        _output.say(_output.inert(record.text).rstrip("\n"))
    else:
        _session_view.show(record)


@sessions_command.command("rate")
@click.argument("session_id", metavar="ID")
@click.argument("depth", type=click.Choice([depth.value for depth in Depth]))
@click.option("--reason", metavar="TEXT", help="Why.")
@common_options
def _rate_command(
    config_file: Path | None, as_json: bool, session_id: str, depth: str, reason: str | None
) -> None:
    """Say how deep a session went, in place of its writer's word.

    Its text stays as it is, and so does the evidence's rating.
    """
    from subcortex.journal.diary import session_queries as queries
    from subcortex.journal.diary import sessions

    with diary_of(load_config(config_file)) as diary:
        found = queries.session(diary, session_id) if diary else None
        if diary is None or found is None:
            _unknown(session_id)
        record = sessions.rate(diary, found.id, Depth(depth), reason, by="person")
    if as_json:
        _output.print_json(_line(record))
        return
    evidence = f"; the evidence says {record.evidence_depth}" if record.evidence_depth else ""
    _output.say(f"{record.id}: {found.depth or 'not rated'} → {record.depth}{evidence}")


@sessions_command.command("import")
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FILE|FOLDER..."
)
@click.option("--dry-run", is_flag=True, help="Read everything, keep nothing, and say what was understood.")
@common_options
def _import_command(config_file: Path | None, as_json: bool, paths: tuple[Path, ...], dry_run: bool) -> None:
    """Bring sessions in from FILEs and from the *.md and *.txt below FOLDERs.

    A second import of the same changes nothing; a file that has changed since updates its session.
    """
    if dry_run:
        _survey(paths, as_json)
        return
    from subcortex.journal.diary import Diary
    from subcortex.journal.folder import import_files
    from subcortex.mind.board import note_imported

    config = load_config(config_file)
    with Diary.open(config.database_path, durability=config.journal.durability) as diary:
        done = import_files(diary, paths, home=_home(config))
        noted = note_imported(diary, done.added)
    counts = {change: done.count(change) for change in ("new", "known", "updated")}
    if as_json:
        sessions = [item._asdict() for item in done.added if item.change != "known"]
        _output.print_json(
            {
                "files": done.files,
                **counts,
                "sessions": sessions,
                "gaps": noted.gaps,
                "claims": noted.claims,
                "settled": noted.settled,
                "unreadable": _why(done.unreadable),
            }
        )
    else:
        told = ", ".join(f"{count} {change}" for change, count in counts.items())
        _output.say(
            f"{done.files} file{'' if done.files == 1 else 's'}: {told}, {len(done.unreadable)} unreadable"
        )
        _output.say(f"board: {noted.gaps} gaps; {noted.claims} claims, {noted.settled} of them settled")
        _note_unreadable(done.unreadable)
    if done.unreadable:
        raise click.exceptions.Exit(1)


@sessions_command.command("export")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this session; may be repeated.")
@click.option("--force", is_flag=True, help="Replace files that say something else.")
@common_options
def _export_command(
    config_file: Path | None, as_json: bool, folder: Path | None, ids: tuple[str, ...], force: bool
) -> None:
    """Write sessions as files below FOLDER (default: `journal.sessions_dir`), byte for byte as they came in.

    A file that says something else is left alone and told; exit code 1 then.
    """
    from subcortex.journal.folder import export

    config = load_config(config_file)
    target = folder or _home(config)
    with diary_of(config) as diary:
        if diary is None:
            raise _nothing(config)
        try:
            done = export(diary, target, ids=ids or None, force=force)
        except OSError as error:
            raise _folder_error(target, error) from error
    if as_json:
        _output.print_json(
            {
                "folder": str(target),
                "written": done.written,
                "unchanged": done.unchanged,
                "differs": done.differs,
                "refused": _why(done.refused),
            }
        )
    else:
        _output.say(f"{len(done.written)} written, {done.unchanged} unchanged, {len(done.differs)} differ")
        _names("left alone, since it says something else", done.differs)
        _note_unreadable(done.refused)
    if done.differs or done.refused:
        raise click.exceptions.Exit(1)


@sessions_command.command("check")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@common_options
def _check_command(config_file: Path | None, as_json: bool, folder: Path | None) -> None:
    """Find sessions and files below FOLDER (default: `journal.sessions_dir`) that have drifted apart.

    Exit code 1 if any have.
    """
    from subcortex.journal.folder import check

    config = load_config(config_file)
    target = folder or _home(config)
    with diary_of(config) as diary:
        if diary is None:
            raise _nothing(config)
        try:
            drift = check(diary, target)
        except OSError as error:
            raise _folder_error(target, error) from error
    if as_json:
        found = {**_output.plain(drift), "unreadable": _why(drift.unreadable), "folder": str(target)}
        _output.print_json({"ok": drift.none, **found})
    else:
        _output.say(f"{drift.sessions} sessions, {drift.files} files{': all agree' if drift.none else ''}")
        _names("has no file (`subcortex sessions export` writes it)", drift.without_file)
        _names("has no session (`subcortex sessions import` reads it)", drift.without_row)
        _names("says something else than its session", drift.differing)
        _names("is a session whose text is not what was written", drift.damaged)
        _note_unreadable(drift.unreadable)
    if not drift.none:
        raise click.exceptions.Exit(1)


def _survey(paths: tuple[Path, ...], as_json: bool) -> None:
    from subcortex.journal.folder import survey

    seen = survey(paths)
    if as_json:
        _output.print_json({**_output.plain(seen), "unreadable": _why(seen.unreadable)})
        return
    _output.say(f"{seen.files} files, nothing kept")
    for name, count in (
        ("lossless", seen.lossless),
        ("with drive", seen.with_drive),
        ("with time", seen.with_timestamp),
        ("with depth", seen.with_depth),
        *seen.kinds.items(),
    ):
        _output.say(f"  {name:14}{count:6}")
    _names("does not come back as it was: please report it", seen.lossy)
    _note_unreadable(seen.unreadable)


def _list(query: str | None, *, config_file: Path | None, as_json: bool, **filters: Any) -> None:
    from subcortex.cli import _session_view as view
    from subcortex.journal.diary import session_queries as queries

    filters["depth"] = Depth(filters["depth"]) if filters.get("depth") else None
    with diary_of(load_config(config_file)) as diary:
        found: list[Any] = []
        if diary:
            found = list(
                queries.search(diary, query, **filters) if query else queries.sessions(diary, **filters)
            )
    if as_json:
        _output.print_json([_line(record) for record in found])
        return
    if not found:
        narrowed = query or any(value for name, value in filters.items() if name != "limit")
        _output.note("no sessions match" if narrowed else "no sessions yet")
        return
    width = max(_output.terminal_columns() - 68, 20)
    rows = [_row(record, width) for record in found]
    for number, line in enumerate(_output.table(("ID", "WHEN", "DRIVE", "DEPTH", "TOPIC"), rows)):
        _output.say(line)
        if query and number:
            _output.say(f"    {view.snippet(found[number - 1])}")


def _row(record: SessionSummary, width: int) -> list[str]:
    from subcortex.cli import _session_view as view

    about = record.topic or record.title or record.file or ""
    kind = "" if record.kind == "session" else f"[{record.kind}] "
    state = "" if record.state == "ended" else f"[{record.state}] "
    names = _output.clipped(_output.inert("+".join(drive.name for drive in record.drives) or "-"), 18)
    topic = _output.clipped(_output.inert(f"{state}{kind}{about}"), width)
    return [record.id[:16], view.when(record), names, view.depths(record), topic]


def _line(record: SessionSummary) -> dict[str, Any]:
    shown = record.model_dump(mode="json", exclude={"text", "entries"})
    return {**shown, "ratings_differ": record.ratings_differ}


def _whole(record: SessionRecord) -> dict[str, Any]:
    return {**record.model_dump(mode="json"), "ratings_differ": record.ratings_differ}


def _home(config: Config) -> Path:
    return config.resolve(config.journal.sessions_dir)


def _unknown(session_id: str) -> NoReturn:
    raise InvalidRequest(
        f"there is no session {session_id!r}", hint="`subcortex sessions` lists them.", param="id"
    )


def _nothing(config: Config) -> JournalError:
    return JournalError(
        f"there is no journal at {config.database_path} yet",
        hint="`subcortex sessions import FOLDER` makes it.",
        file=str(config.database_path),
    )


def _folder_error(folder: Path, error: OSError) -> JournalError:
    return JournalError(
        f"the folder {folder} cannot be used: {error.strerror or error}",
        hint="Name another, or set journal.sessions_dir.",
        file=str(folder),
    )


def _why(unreadable: list[Unreadable]) -> list[dict[str, str]]:
    return [item._asdict() for item in unreadable]


def _note_unreadable(unreadable: list[Unreadable]) -> None:
    for item in unreadable[:_SHOWN]:
        _output.note(f"{_output.inert_line(item.file)}: {_output.inert_line(item.why)}")
    _more(len(unreadable))


def _names(what: str, names: list[str]) -> None:
    for name in names[:_SHOWN]:
        _output.note(f"{_output.inert_line(name)} {what}")
    _more(len(names))


def _more(count: int) -> None:
    if count > _SHOWN:
        _output.note(f"… and {count - _SHOWN} more; --json has all")
