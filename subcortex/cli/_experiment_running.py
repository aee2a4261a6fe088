"""``experiments run`` and ``cancel``: the daemon is asked, and its runs are watched until they are over."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import click

from subcortex.cli import _experiment_view as view
from subcortex.cli import _output
from subcortex.errors import Cancelled, DaemonUnreachable, EngineFailed

if TYPE_CHECKING:
    from subcortex.client import Client
    from subcortex.config import Config
    from subcortex.journal.diary import Diary
    from subcortex.journal.diary.experiment_records import RunRecord

_NEXT = "next"
_OVER = ("settled", "failed", "cancelled")
#: Where lines stay, progress is told this often; seconds.
_EVERY_S = 5.0
_CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """One line on stderr: drawn over on a terminal, else now and then a new one."""

    def __init__(self) -> None:
        self._over = _output.coloured(sys.stderr)
        self._last = ""
        self._said_s = -inf

    def say(self, text: str, *, news: bool = False) -> None:
        """Show a line in place of the one before; ``news`` is shown in any case."""
        line = _output.clipped(_output.inert_line(text), _output.terminal_columns() - 1)
        if line == self._last:
            return
        if self._over:
            sys.stderr.write(f"{_CLEAR_LINE}{line}")
            sys.stderr.flush()
        elif news or time.monotonic() - self._said_s > _EVERY_S:
            self._said_s = time.monotonic()
            _output.note(line)
        else:
            return
        self._last = line

    def clear(self) -> None:
        """Take the line away, where there is one that stays."""
        if self._over and self._last:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()
        self._last = ""


def run(
    config: Config,
    names: Sequence[str],
    *,
    subject: str | None,
    minutes: float | None,
    again: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Have the daemon run experiments, and show what they found.

    Returns:
        The exit code: 0, or that of the worst run: 12 for one that was cancelled, else 6 for one that failed.
    """
    from subcortex.client import Client
    from subcortex.journal.diary import Diary

    if _NEXT in names and len(names) > 1:
        raise click.UsageError("`next` stands alone: it is whatever is worth most")
    client = Client(config)
    found = client.run_experiments(names, subject=subject, minutes=minutes, again=again)
    with Diary.open(config.database_path, durability=config.journal.durability) as diary:
        if wait:
            found = [_shown(config, diary, client, one, quietly=as_json) for one in found]
        if as_json:
            _output.print_json([view.run_json(one, diary, raw=False) for one in found])
        elif not found:
            _output.note("nothing is left to ask: every question that applies here is answered or under way")
        elif not wait:
            for line in view.table(found):
                _output.say(line)
    return max((exit_code(one) for one in found), default=0)


def exit_code(run: RunRecord) -> int:
    """Return what a run makes the command exit with."""
    return {"failed": EngineFailed.exit_code, "cancelled": Cancelled.exit_code}.get(run.state, 0)


def run_lines(runs: Sequence[RunRecord]) -> list[str]:
    """Return runs that are not over as the lines of a table."""
    width = max(_output.terminal_columns() - 50, 24)
    rows = [[one.id[:16], _name(one), _output.clipped(_how_far(one, None), width)] for one in runs]
    return _output.table(("RUN", "EXPERIMENT", "STATE"), rows)


def cancel(config: Config, run_id: str) -> RunRecord:
    """Give a run up: by the daemon if one is up, else in the journal."""
    from subcortex.cli._board import diary_of, nothing
    from subcortex.client import Client
    from subcortex.journal.diary import experiments

    with diary_of(config) as diary:
        if diary is None:
            raise nothing("run", run_id)
        whole = experiments.run(diary, run_id).id
        try:
            return Client(config).cancel_experiment(whole)
        except DaemonUnreachable as error:
            if error.details.get("sent"):
                raise
            # Nobody runs it.
            return experiments.cancelled(diary, whole)


def _shown(config: Config, diary: Diary, client: Client, asked: RunRecord, *, quietly: bool) -> RunRecord:
    """Watch a run until it is over, and show it; its charts are also written as pictures."""
    from subcortex.journal.diary import experiments

    known = asked.state in _OVER
    over = asked if known else _watched(client, asked)
    if quietly:
        return over
    if known:
        _output.note(f"{_name(over)} is known for this very machine; --again measures it anew")
    if over.state == "measured":
        _output.note("it is measured, but its answers could not be written down; the daemon tries again")
    # What followed from it was written after the last that the daemon told.
    over = experiments.run(diary, over.id)
    view.show(over, diary)
    view.keep_pictures(config, over)
    _output.say()
    return over


def _watched(client: Client, asked: RunRecord) -> RunRecord:
    """Tell how far a run is, and return it once it is over.

    Raises:
        DaemonUnreachable: There is no daemon any more that would run it.
    """
    now, progress = asked, Progress()
    why: list[str | None] = []
    try:
        for found in client.watch_experiment(asked.id, waits=why.append):
            news, now = found.state != now.state, found
            if now.state not in _OVER:
                progress.say(f"{_name(now)}: {_how_far(now, why[-1] if why else None)}", news=news)
    except DaemonUnreachable as error:
        raise _left(now, error.message) from None
    except KeyboardInterrupt:
        progress.clear()
        _output.note(f"{_name(now)} goes on; `subcortex experiments show {now.id[:16]}` tells more")
        raise
    finally:
        progress.clear()
    if now.state not in (*_OVER, "measured"):
        raise _left(now, "it was stopped")
    return now


def _left(run: RunRecord, why: str) -> DaemonUnreachable:
    return DaemonUnreachable(
        f"the daemon that had {_name(run)} to run is gone: {why}",
        hint="What was sampled is kept; the next daemon (`subcortex up`) goes on with it.",
    )


def _name(run: RunRecord) -> str:
    return f"{run.experiment} of {run.subject}"


def _how_far(run: RunRecord, waits: str | None) -> str:
    if run.state == "queued":
        return f"waits: {waits}" if waits else "waits for the machine"
    if run.state == "yielded":
        why = waits or str((run.error or {}).get("message") or "")
        when = "in its window" if run.asked_by == "schedule" else "by itself"
        return f"gave way{f': {why}' if why else ''}; it goes on {when}"
    if run.state == "measured":
        return "measured; its answers are written down"
    return view.progress_line(run)
