"""``experiments``: what this machine asks of itself; what would be next, run it, and read what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from subcortex.cli import _output
from subcortex.cli._board import diary_of, nothing
from subcortex.cli._options import TierName, common_options, listing, load_config
from subcortex.errors import InvalidRequest

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.journal.diary import Diary
    from subcortex.journal.diary.experiment_records import RunRecord
    from subcortex.mind.experimenting.choosing import Proposal

    _Name = click.ParamType[str]
else:
    _Name = click.ParamType

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_STATES = ("queued", "running", "yielded", "measured", "settled", "failed", "cancelled")
#: What stands for the one that would be next.
_NEXT = "next"


class _ExperimentName(_Name):
    """A row of the catalogue; completes by name."""

    name = "experiment"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the experiments that begin with what was typed."""
        from subcortex.experiments.catalogue import CATALOGUE

        names = [_NEXT, *(one.name for one in CATALOGUE)]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _filters(function: _Decorated) -> _Decorated:
    function = common_options(function)
    for decorate in reversed(
        (
            click.option("--state", type=click.Choice(_STATES), help="Only those that stand so."),
            click.option("--experiment", type=_ExperimentName(), help="Only of this one."),
            click.option(
                "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most."
            ),
            click.option(
                "--catalogue", is_flag=True, help="All that can be asked, and what of it applies here."
            ),
        )
    ):
        function = decorate(function)
    return function


@click.group("experiments", invoke_without_command=True)
@click.pass_context
@_filters
def experiments_command(ctx: click.Context, /, **options: Any) -> None:
    """Have the machine answer questions about itself, and read what it found.

    Without a subcommand, lists the runs, the latest last.
    """
    if listing(ctx, options):
        _list(**options)


@experiments_command.command("list")
@_filters
def _list_command(**options: Any) -> None:
    """List runs, the latest last; with --catalogue, what can be asked."""
    _list(**options)


@experiments_command.command("next")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=5, show_default=True, help="At most.")
@common_options
def _next_command(config_file: Path | None, as_json: bool, limit: int) -> None:
    """Say what would be run next, why, what is expected, and what it would cost.

    Needs no daemon, and runs nothing.
    """
    from subcortex.cli import _experiment_tables as tables

    found = _proposals(load_config(config_file))
    if as_json:
        _output.print_json([tables.proposal_json(one) for one in found[:limit]])
        return
    if not found:
        _output.note("nothing is left to ask: every question that applies here is answered or under way")
        return
    for place, one in enumerate(found[:limit], 1):
        for line in tables.proposal_lines(place, one):
            _output.say(line)
    if len(found) > limit:
        _output.note(f"{limit} of {len(found)}; -n shows more")


@experiments_command.command("run")
@click.argument("names", nargs=-1, required=True, type=_ExperimentName(), metavar="NAME|next...")
@click.option(
    "--tier", "--subject", "subject", type=TierName(), help="Of which tier; all it applies to if not given."
)
@click.option(
    "--minutes",
    type=float,
    help="What each may take, a day at most; its own guess if not given.",
)
@click.option("--again", is_flag=True, help="Measure anew what this very machine has answered.")
@click.option("--no-wait", is_flag=True, help="Leave it to the daemon; `show` tells what came of it.")
@common_options
def _run_command(
    config_file: Path | None,
    as_json: bool,
    names: tuple[str, ...],
    subject: str | None,
    minutes: float | None,
    again: bool,
    no_wait: bool,
) -> int:
    """Run experiments of these NAMEs, or the one that `next` names first, and show what they found.

    The daemon runs them, one at a time, and gives way to thoughts. Ctrl-C leaves it running; `cancel` stops
    it. Exit code 6 if one failed, 12 if one was cancelled.
    """
    from subcortex.cli._experiment_running import run
    from subcortex.experiments.minutes import checked_minutes

    config = load_config(config_file)
    # Here as well as in the daemon, since it takes a daemon seconds to start and say so.
    checked_minutes(minutes)
    for name in names:
        if name != _NEXT:
            _known(name)
    return run(
        config, names, subject=subject, minutes=minutes, again=again, wait=not no_wait, as_json=as_json
    )


@experiments_command.command("show")
@click.argument("run_id", metavar="[ID]", required=False)
@click.option(
    "--svg",
    "svg_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the picture goes; beside the journal if not given.",
)
@click.option("--raw", is_flag=True, help="With --json, every raw sample as well.")
@common_options
def _show_command(
    config_file: Path | None, as_json: bool, run_id: str | None, svg_file: Path | None, raw: bool
) -> None:
    """Show one run: the question, what was believed and what came, how it was found out, its charts.

    Without an ID, the latest. Of an ID its beginning is enough, if no other begins so. Charts are drawn on
    the terminal and written as SVG.
    """
    from subcortex.cli import _experiment_view as view
    from subcortex.journal.diary import experiments

    if raw and not as_json:
        raise click.UsageError("--raw goes with --json")
    config = load_config(config_file)
    with diary_of(config) as diary:
        if diary is None:
            raise nothing("run", run_id) if run_id is not None else _no_runs()
        run = experiments.run(diary, run_id) if run_id is not None else _latest(diary)
        report = view.report_of(run)
        charts = report.charts if report else ()
        if svg_file is not None and not charts:
            raise InvalidRequest(
                f"the run {run.id[:16]} has no chart", hint="Only what was measured has.", param="svg"
            )
        if as_json:
            if svg_file is not None:
                view.write_pictures(charts, svg_file)
            _output.print_json(view.run_json(run, diary, raw=raw))
            return
        view.show(run, diary)
    if svg_file is None:
        view.keep_pictures(config, run)
        return
    for path in view.write_pictures(charts, svg_file):
        _output.note(f"as a picture: {path}")


@experiments_command.command("schedule")
@common_options
def _schedule_command(config_file: Path | None, as_json: bool) -> None:
    """Say when experiments may begin by themselves, and what they may take and have taken today.

    The configuration sets it: `windows` and `minutes_a_day` in [experiments].
    """
    from subcortex.cli import _experiment_tables as tables

    config = load_config(config_file)
    with diary_of(config) as diary:
        plan = tables.schedule_of(config, diary)
    if as_json:
        _output.print_json(plan)
        return
    for line in tables.schedule_lines(plan, config):
        _output.say(line)


@experiments_command.command("cancel")
@click.argument("run_id", metavar="ID")
@common_options
def _cancel_command(config_file: Path | None, as_json: bool, run_id: str) -> None:
    """Give a run up, whether it waits or is at work; what it has measured stays with it."""
    from subcortex.cli._experiment_running import cancel

    config = load_config(config_file)
    run = cancel(config, run_id)
    if as_json:
        from subcortex.cli import _experiment_view as view

        _output.print_json(view.line_json(run))
        return
    _output.say(f"{run.id}: {run.experiment} of {run.subject} is cancelled")


def _list(
    *,
    config_file: Path | None,
    as_json: bool,
    state: str | None,
    experiment: str | None,
    limit: int,
    catalogue: bool,
) -> None:
    from subcortex.cli import _experiment_view as view
    from subcortex.journal.diary import experiments

    if experiment is not None:
        _known(experiment)
    if catalogue:
        if state is not None:
            raise click.UsageError("--state is about runs, --catalogue about what could be run")
        _catalogue(load_config(config_file), experiment, as_json=as_json)
        return
    states: Any = None if state is None else (state,)
    with diary_of(load_config(config_file)) as diary:
        found: list[RunRecord] = []
        if diary is not None:
            found = experiments.runs(diary, states=states, experiment=experiment, limit=limit)
    if as_json:
        _output.print_json([view.line_json(run) for run in found])
        return
    if not found:
        narrowed = state or experiment
        _output.note("no runs match" if narrowed else "no runs yet; `subcortex experiments next` offers some")
        return
    for line in view.table(found):
        _output.say(line)


def _catalogue(config: Config, name: str | None, *, as_json: bool) -> None:
    from subcortex.cli import _experiment_tables as tables
    from subcortex.experiments.catalogue import CATALOGUE
    from subcortex.experiments.laboratory.surroundings import scene_of

    scene = scene_of(config)
    wanted = sorted((one for one in CATALOGUE if name in (None, one.name)), key=lambda one: one.number)
    rows = [tables.row_of(one, scene) for one in wanted]
    if as_json:
        _output.print_json(rows)
        return
    for line in tables.catalogue_lines(rows):
        _output.say(line)


def _known(name: str) -> None:
    from subcortex.experiments.catalogue import find

    find(name)


def _proposals(config: Config) -> list[Proposal]:
    from subcortex.experiments.laboratory.surroundings import scene_of
    from subcortex.journal.diary import Diary
    from subcortex.mind.experimenting.choosing import choose

    with Diary.open(config.database_path, durability=config.journal.durability) as diary:
        # What is remembered is not run, and what it left open it leaves open.
        return [one for one in choose(config, diary, scene_of(config)) if one.remembered is None]


def _latest(diary: Diary) -> RunRecord:
    from subcortex.journal.diary import experiments

    found = experiments.runs(diary, limit=1)
    if not found:
        raise _no_runs()
    return found[0]


def _no_runs() -> InvalidRequest:
    return InvalidRequest(
        "there are no runs yet", hint="`subcortex experiments next` offers some.", param="id"
    )
