"""``yield``: leave GPUs to other programs for a while."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subcortex.cli import _output
from subcortex.cli._options import Duration, common_options, load_config
from subcortex.errors import DaemonUnreachable

if TYPE_CHECKING:
    from subcortex.types import Status


@click.command("yield")
@click.option(
    "--for",
    "for_s",
    type=Duration(),
    metavar="TIME",
    help="Take the GPUs back after it: 90s, 30m, 2h, 1h30m. Without it: when told to.",
)
@click.option(
    "--gpu",
    "gpus",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="N",
    help="Only this GPU, as nvidia-smi counts; repeatable. Without it: every tier of this machine rests.",
)
@click.option("--end", is_flag=True, help="Take back everything that was left to others.")
@common_options
def yield_command(
    config_file: Path | None, as_json: bool, for_s: float | None, gpus: tuple[int, ...], end: bool
) -> None:
    """Make way for other programs: the tiers on these GPUs go to rest and come back after.

    Returns at once; thoughts under way are finished first, `subcortex ps --watch` shows how far it is. New
    thoughts go to tiers elsewhere, or wait as they asked to. It is no error if no daemon is up.
    """
    from subcortex.client import Client

    if end and (for_s is not None or gpus):
        raise click.UsageError("--end takes back everything: leave out --for and --gpu.")
    client = Client(load_config(config_file))
    try:
        status = client.resume() if end else client.yield_gpus(for_s, list(gpus) or None)
    except DaemonUnreachable as error:
        # A daemon that was asked and fell silent is another matter: something may have been yielded.
        if error.details.get("sent", True):
            raise
        if as_json:
            _output.print_json({"daemon_up": False})
        else:
            _output.say("no daemon is up: it holds no GPU")
        return
    if as_json:
        _output.print_json({"daemon_up": True, **_output.plain(status)})
        return
    for line in _said(status):
        _output.say(line)


def _said(status: Status) -> list[str]:
    from subcortex.cli._ps_view import state_words, yielded_words

    given = [yielded_words(one) for one in status.daemon.yielded]
    tiers = ", ".join(f"{tier.name} {state_words(tier)}" for tier in status.tiers)
    return [*(given or ["nothing is left to others"]), f"now: {tiers}"]
