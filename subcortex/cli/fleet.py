"""``up``, ``down`` and ``ps``: the daemon and its engines."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subcortex.cli import _output
from subcortex.cli._options import common_options, load_config
from subcortex.cli._ps_view import WARNING, state_words, styled_lines
from subcortex.errors import ConfigError, DaemonUnreachable, DoesNotFit, EngineFailed, SubcortexError
from subcortex.types import Status, TierState, TierStatus

if TYPE_CHECKING:
    from subcortex.client import Client
    from subcortex.config import Config

_POLL_S = 0.1
_SETTLED = (TierState.READY, TierState.ASLEEP, TierState.FAILED)
#: Between two starts nothing moves either; a tier that has waited so long does so for want of room; seconds.
_QUIET_S = 3.0
_COMING = (TierState.STARTING, TierState.WAKING)
_COLOURS = {
    TierState.READY: "green",
    TierState.ASLEEP: "cyan",
    TierState.STARTING: "yellow",
    TierState.WAKING: "yellow",
    TierState.DRAINING: "yellow",
    TierState.SLEEPING: "yellow",
    TierState.BACKING_OFF: "yellow",
    TierState.FAILED: "red",
}


@click.command("up")
@click.option("--foreground", is_flag=True, help="Stay in this terminal; Ctrl-C stops the daemon.")
@common_options
def up_command(config_file: Path | None, as_json: bool, foreground: bool) -> int:
    """Start the daemon and wait until its eager tiers are ready.

    Progress goes to stderr. A tier that fails is named with its error and gives the exit code; the
    others keep running. When a daemon is up already, waits for its tiers.
    """
    if foreground and as_json:
        raise click.UsageError("--foreground has no end, --json prints one value: choose one.")
    config = load_config(config_file)
    if foreground:
        from subcortex import daemon

        daemon.log_to_stderr()
        return daemon.serve(config)
    from subcortex.client import Client

    client = Client(config)
    started = _started(client)
    status = _wait_for_tiers(client, config, quiet=as_json)
    failed = [tier for tier in _eager(status, config) if tier.state is TierState.FAILED]
    if as_json:
        _output.print_json({"started": started, **_output.plain(status)})
    else:
        _report(status, failed, started)
        if status.daemon.config and config.source and status.daemon.config != str(config.source):
            _output.note(f"this daemon runs on another configuration: {status.daemon.config}")
    return _exit_code(failed)


def _started(client: Client) -> bool:
    """Start a daemon unless one answers; return whether it was started."""
    try:
        client.status()
    except DaemonUnreachable:
        client.start_daemon()
        return True
    return False


def _eager(status: Status, config: Config) -> list[TierStatus]:
    names = {tier.name for tier in config.tiers if tier.start == "eager"}
    return [tier for tier in status.tiers if tier.name in names]


def _wait_for_tiers(client: Client, config: Config, *, quiet: bool) -> Status:
    """Poll the daemon until every eager tier is ready or failed, showing progress on stderr."""
    view: _Silent | _Lines | _Live
    view = _Silent() if quiet else _Live() if _output.coloured(sys.stderr) else _Lines()
    with view:
        quiet_since_s = time.monotonic()
        while True:
            status = client.status()
            view.show(status.tiers)
            eager = _eager(status, config)
            if all(tier.state in _SETTLED for tier in eager):
                return status
            if not _crowded_out(eager, status):
                quiet_since_s = time.monotonic()
            elif time.monotonic() - quiet_since_s > _QUIET_S:
                return status
            time.sleep(_POLL_S)


def _crowded_out(eager: list[TierStatus], status: Status) -> bool:
    """Return whether nothing is on its way and what is not up says why: others have its room."""
    left = [tier for tier in eager if tier.state not in _SETTLED]
    at_rest = all(tier.state in (*_SETTLED, TierState.STOPPED) for tier in status.tiers)
    return at_rest and all(tier.waits_for for tier in left)


def _line(tier: TierStatus) -> str:
    words = f"{tier.name}: {state_words(tier)}"
    detail = tier.progress if tier.state is TierState.STARTING else tier.error or tier.waits_for
    detail = None if detail == tier.state.value else detail
    return _output.clipped(_output.inert(f"{words}, {detail}" if detail else words), 300)


class _Silent:
    """Shows nothing."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def show(self, tiers: list[TierStatus]) -> None:
        """Show nothing."""


class _Lines(_Silent):
    """Prints a line whenever a tier's own line has changed."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def show(self, tiers: list[TierStatus]) -> None:
        """Print the lines that are new."""
        for tier in tiers:
            line = _line(tier)
            if self._last.get(tier.name) != line:
                self._last[tier.name] = line
                _output.note(line)


class _Live(_Silent):
    """Keeps one line a tier and redraws it in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._since: dict[str, tuple[TierState, float]] = {}

    def __enter__(self) -> _Live:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def show(self, tiers: list[TierStatus]) -> None:
        """Redraw every tier's line, with the seconds it has been in its state."""
        from rich.text import Text

        now, lines = time.monotonic(), []
        for tier in tiers:
            state, since = self._since.get(tier.name, (None, now))
            if state is not tier.state:
                since = now
                self._since[tier.name] = (tier.state, now)
            waited = f" ({now - since:.0f} s)" if tier.state in _COMING else ""
            line = _output.clipped(_line(tier), self._console.width - len(waited)) + waited
            lines.append(Text(line, style=_COLOURS.get(tier.state, "default")))
        self._live.update(Text("\n").join(lines), refresh=True)


def _report(status: Status, failed: list[TierStatus], started: bool) -> None:
    verb = "started" if started else "is up already"
    _output.say(f"daemon {verb}: pid {status.daemon.pid}, {status.daemon.socket}")
    for tier in failed:
        _output.print_error(
            f"tier {tier.name} failed: {tier.error or 'no reason given'}",
            f"`subcortex logs {tier.name}` has its log, `subcortex doctor` looks for the cause.",
            code="engine_failed",
            exit_code=EngineFailed.exit_code,
            as_json=False,
        )


def _exit_code(failed: list[TierStatus]) -> int:
    """Return the exit code of the first failed tier's error, 0 if none failed."""
    if not failed:
        return 0
    kinds: dict[str, type[SubcortexError]] = {kind.code: kind for kind in (ConfigError, DoesNotFit)}
    code = getattr(failed[0], "error_code", None)
    return kinds.get(code or "", EngineFailed).exit_code


@click.command("down")
@common_options
def down_command(config_file: Path | None, as_json: bool) -> None:
    """Stop the daemon and every engine it started.

    Thoughts under way are recorded as cancelled. It is no error if no daemon is up.
    """
    from subcortex.client import Client

    client = Client(load_config(config_file))
    try:
        client.status()
    except DaemonUnreachable:
        stopped = False
    else:
        client.stop()
        stopped = True
    if as_json:
        _output.print_json({"stopped": stopped})
    else:
        _output.say("daemon stopped" if stopped else "no daemon was up")


@click.command("ps")
@click.option("-w", "--watch", "watching", is_flag=True, help="Stay, and show what changes.")
@common_options
def ps_command(config_file: Path | None, as_json: bool, watching: bool) -> None:
    """Show the daemon, the state of each tier, and who holds the memory.

    With `--watch` on a terminal the view follows what happens; elsewhere each event is a line, with `--json`
    one JSON object. Ends when the daemon stops, or with Ctrl-C.
    """
    from subcortex.client import Client

    client = Client(load_config(config_file))
    if watching:
        from subcortex.cli._ps_watch import watch

        watch(client, as_json=as_json)
        return
    status = client.status()
    if as_json:
        _output.print_json(status)
        return
    for line, style in styled_lines(status):
        warning = style == WARNING
        _output.say(_output.style(line, sys.stdout, fg="yellow", bold=True) if warning else line)
    runs = client.open_experiments()
    if runs:
        from subcortex.cli._experiment_running import run_lines

        _output.say()
        for line in run_lines(runs):
            _output.say(line)
