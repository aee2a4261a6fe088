"""``hardware``: what this machine has, or one that stands in for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subcortex.cli import _output
from subcortex.cli._hardware_options import Machine, hardware_options
from subcortex.cli._options import common_options, load_config
from subcortex.errors import ConfigError

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.hardware import Interpreter


@click.command("hardware")
@click.option(
    "--save",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it as a snapshot, which --hardware reads on any machine.",
)
@click.option(
    "--no-engines", is_flag=True, help="Do not ask the engines' interpreters, which takes seconds each."
)
@hardware_options
@common_options
def hardware_command(
    config_file: Path | None, as_json: bool, machine: Machine, no_engines: bool, target: Path | None
) -> None:
    """Show GPUs and who uses them, what lies between them, the engines' libraries, and the host.

    The interpreters of the configuration's vLLM tiers are asked for their torch, CUDA and NCCL, each in a
    process of its own. --json prints the snapshot.
    """
    from subcortex.cli._hardware_text import page
    from subcortex.hardware import save_snapshot

    found = machine.hardware
    if machine.here and not no_engines:
        found = found.model_copy(update={"interpreters": _interpreters(config_file)})
    if target is not None:
        save_snapshot(found, target.expanduser())
    if as_json:
        _output.print_json(found)
        return
    for line in page(found):
        _output.say(line)
    if target is not None:
        _output.note(_output.inert(f"wrote {target}"))


def _interpreters(config_file: Path | None) -> tuple[Interpreter, ...]:
    """Ask the interpreter of every vLLM tier; without a configuration there is none to ask."""
    from subcortex import config, hardware

    try:
        config.find(config_file)
    except ConfigError:
        # Nobody is obliged to have one to look at a machine, but one that was named must be there.
        if config_file is not None:
            raise
        return ()
    asked = _by_interpreter(load_config(config_file))
    return tuple(
        hardware.ask_interpreter(python, tiers=tiers, env=dict(env)) for (python, env), tiers in asked.items()
    )


def _by_interpreter(loaded: Config) -> dict[tuple[str, tuple[tuple[str, str], ...]], list[str]]:
    """Return the tiers that have one interpreter and one environment, so that each is asked once."""
    from subcortex import engines
    from subcortex.cli import _tier_checks
    from subcortex.config import VllmTier

    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for tier in loaded.tiers:
        if not isinstance(tier, VllmTier):
            continue
        python = _tier_checks._interpreter(tier, loaded)
        if python is None:
            # Asked all the same, so that the answer says what is wrong with it.
            python = str(tier.python or tier.executable or "vllm")
        # The engine's own, so that what is found out here, e.g. by LD_LIBRARY_PATH, is what it will find.
        env = tuple(sorted(engines.environment(tier, config=loaded).items()))
        found.setdefault((python, env), []).append(tier.name)
    return found
