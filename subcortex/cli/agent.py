"""``agent``: let drives have their sessions; one tick, or one after the other."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from subcortex.cli import _output
from subcortex.cli._options import common_options, load_config
from subcortex.errors import DaemonUnreachable, SubcortexError

if TYPE_CHECKING:
    from subcortex.client import Client
    from subcortex.config import Config
    from subcortex.journal.diary.experiment_records import RunRecord
    from subcortex.mind.agent import Agent, Outcome


@click.group("agent")
def agent_command() -> None:
    """Hold sessions for drives that ask for one, while the machine is idle.

    A tick grows the drives. If one is triggered, the hours are not quiet and the machine is idle, it holds a
    session: LEARNING and CURIOSITY take up the best open question, others think on their own prompt. The
    session is written, rated by its evidence, and the drive falls by that depth. A question that an
    experiment answers is left to the daemon, if one is up. Otherwise the drive is put off, and a deferral
    says why.
    """


@agent_command.command("tick")
@common_options
def _tick_command(config_file: Path | None, as_json: bool) -> None:
    """Do what there is to do now, and say what it was."""
    with _agent(load_config(config_file)) as agent:
        _tell(agent.tick(), as_json=as_json)


@agent_command.command("run")
@common_options
def _run_command(config_file: Path | None, as_json: bool) -> None:
    """Tick until stopped (SIGTERM, Ctrl-C).

    A session under way is left open then, and the next tick, of whatever process, goes on with it. Each tick
    reads the configuration and the drives anew. What goes wrong is said once for as long as it lasts.
    """
    _end_on_sigterm()
    pause_s = load_config(config_file).agent.tick_s
    said = None
    while True:
        try:
            config = load_config(config_file)
            pause_s = config.agent.tick_s
            with _agent(config) as agent:
                _tell(agent.tick(), as_json=as_json, quiet=True)
            said = None
        except SubcortexError as error:
            # A full disk, a locked state or a file half edited passes; whoever looks at the log sees it.
            if (error.code, error.message) != said:
                _complain(error, as_json=as_json)
            said = (error.code, error.message)
        time.sleep(pause_s)


class _Daemon:
    """The daemon as a tick asks it for experiments; what it refuses is left to thoughts."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def up(self) -> bool:
        with contextlib.suppress(DaemonUnreachable):
            self._client.status()
            return True
        return False

    def ask(self, gap_id: str, drive: str) -> RunRecord | None:
        if not self.up():
            return None
        with contextlib.suppress(SubcortexError):
            return self._client.experiment_for(gap_id, drive)
        return None


@contextlib.contextmanager
def _agent(config: Config) -> Iterator[Agent]:
    from subcortex.client import Client
    from subcortex.journal.diary import Diary
    from subcortex.journal.diary.evidence import last_thought_at
    from subcortex.mind.agent import Agent, why_busy

    client = Client(config)
    with Diary.open(config.database_path, durability=config.journal.durability) as diary:

        def busy() -> str | None:
            status = None
            with contextlib.suppress(DaemonUnreachable):
                status = client.status()
            return why_busy(
                status,
                last_thought_at(diary),
                diary.clock.now(),
                config.agent.idle_s,
                may_start=config.daemon.autostart,
            )

        try:
            yield Agent(config, diary, client.think, busy, _Daemon(client))
        finally:
            client.close()


def _end_on_sigterm() -> None:
    def end(number: int, frame: Any) -> NoReturn:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)


def _tell(outcome: Outcome, *, as_json: bool, quiet: bool = False) -> None:
    """Print what a tick did; ``quiet`` leaves out that there was nothing to do."""
    if quiet and outcome.did in ("waited", "elsewhere"):
        return
    if as_json:
        _say_json(outcome)
    else:
        for line in _lines(outcome):
            _output.say(line)
    # Whoever follows `run` through a pipe hears of it now, and not when some block is full.
    sys.stdout.flush()


def _complain(error: SubcortexError, *, as_json: bool) -> None:
    if as_json:
        _say_json({"error": {**error.to_wire(), "exit_code": error.exit_code}})
        sys.stdout.flush()
    else:
        _output.print_subcortex_error(error, as_json=False)


def _say_json(value: Any) -> None:
    # A line each, so that whoever follows `run` reads one after the other.
    _output.say(json.dumps(_output.plain(value), ensure_ascii=True))


def _lines(outcome: Outcome) -> Iterator[str]:
    drive = _output.inert_line(outcome.drive or "no drive")
    reason = _output.inert_line(outcome.reason)
    if outcome.did == "held":
        yield f"held a session for {drive}: {outcome.depth or 'none'} ({reason})"
        before, after = outcome.level_before, outcome.level_after
        if before is not None and after is not None:
            fell = (
                f"fell from {before:.0f} % to {after:.0f} %" if after < before else f"stays at {after:.0f} %"
            )
            yield f"{drive} {fell}"
        yield f"read it: subcortex sessions show {outcome.session_id}"
    elif outcome.did == "asked":
        yield f"has an experiment run for {drive}: {reason}"
        yield f"read it: subcortex experiments show {outcome.run_id}"
    elif outcome.did == "deferred":
        yield f"put off {drive}: {reason}"
    elif outcome.did == "elsewhere":
        yield reason
    else:
        yield f"nothing to do: {reason}"
    if outcome.not_filed is not None:
        why = _output.inert_line(outcome.not_filed)
        yield f"its file is not written: {why}; `subcortex sessions export` writes it"
