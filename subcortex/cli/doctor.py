"""``doctor``: name what is missing and how to get it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subcortex.cli import _output
from subcortex.cli._options import TierName, common_options, load_config
from subcortex.errors import ConfigError

if TYPE_CHECKING:
    from subcortex.cli._checks import Check
    from subcortex.config import Config
    from subcortex.hardware import Hardware

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command("doctor")
@click.option(
    "--nccl-debug",
    "nccl_tier",
    type=TierName(),
    metavar="TIER",
    help="Start this tier's engine with NCCL's and torch's tracing in its log, and stop it again.",
)
@common_options
def doctor_command(config_file: Path | None, as_json: bool, nccl_tier: str | None) -> int:
    """Look at everything thoughts need, and say what is missing and how to get it.

    Exits with 1 if a check fails. Engines are imported in processes of their own.
    """
    if nccl_tier:
        from subcortex.cli._nccl import trace

        return trace(load_config(config_file), nccl_tier, as_json=as_json)
    from subcortex import hardware

    found = hardware.detect()
    checks: list[Check] = []
    for check in _checks(config_file, found):
        checks.append(check)
        if not as_json:
            _show(check)
            sys.stdout.flush()
    failed = [check for check in checks if check.outcome == "fail"]
    if as_json:
        _output.print_json({"ok": not failed, "checks": checks, "hardware": found})
    else:
        warned = sum(check.outcome == "warn" for check in checks)
        _output.say(f"{len(checks)} checks, {len(failed)} failed, {warned} warnings")
    return 1 if failed else 0


def _checks(config_file: Path | None, found: Hardware) -> Iterator[Check]:
    from subcortex.cli._checks import Check, config_checks, machine_checks
    from subcortex.cli._tier_checks import tier_checks

    config: Config | None = None
    try:
        config = load_config(config_file)
    except ConfigError as error:
        yield Check("config", "fail", error.message, error.hint)
    else:
        yield Check("config", "ok", f"{config.source}, {len(config.tiers)} tiers")
    yield from machine_checks(found)
    if config is None:
        return
    yield from config_checks(config)
    for tier in config.tiers:
        yield from tier_checks(tier, config, found)


def _show(check: Check) -> None:
    mark = _output.style(f"{check.outcome:4}", sys.stdout, fg=_COLOURS[check.outcome])
    _output.say(f"{mark}  {_output.inert(check.subject)}: {_output.inert(check.message)}")
    if check.todo:
        _output.say(f"      → {_output.inert(check.todo)}")
