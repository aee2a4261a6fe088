"""``init``: write a config.toml that fits this machine."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import click

from subcortex.cli import _output
from subcortex.cli._hardware_options import Machine, hardware_options
from subcortex.errors import ConfigError

if TYPE_CHECKING:
    from subcortex.cli._starter import Starter
    from subcortex.hardware import Hardware

_HUB = ("huggingface.co", 443)
_NETWORK_TIMEOUT_S = 2.0


@click.command("init")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Where to write; the user's own config.toml if not given.",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@hardware_options
@click.option("--offline", is_flag=True, help="Use the tiny models that come with the source.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")
def init_command(out: Path | None, force: bool, machine: Machine, offline: bool, as_json: bool) -> None:
    """Look at the hardware and write a commented config.toml whose tiers fit it.

    Without a network, and with --offline or HF_HUB_OFFLINE=1, the tiers are the tiny models of the source's
    testbed.
    """
    from subcortex import paths

    target = (out or paths.config_home() / "config.toml").expanduser().absolute()
    if target.exists() and not force:
        raise ConfigError(f"{target} exists", hint="--force overwrites it, --out names another file.")
    hardware = machine.to_plan_on()
    use_testbed = offline or (machine.here and not _online())
    starter, text = planned(hardware, target, offline=use_testbed)
    _check(text, target)
    _write(target, text)
    downloads = [tier.download for tier in starter.tiers if tier.download]
    if as_json:
        tiers = [tier.keys for tier in starter.tiers]
        facts = {"file": str(target), "tiers": tiers, "downloads": downloads, "notes": starter.notes}
        _output.print_json({**facts, "hardware": hardware})
        return
    _output.say(f"wrote {target}")
    for tier in starter.tiers:
        _output.say(f"  {tier.keys['name']}: {tier.keys['model']} on {tier.keys['engine']}")
    for note in starter.notes:
        _output.say(f"  {note}")
    for command in downloads:
        _output.say(f"fetch a model: {command}")
    _output.say(f"then: subcortex doctor --config {target}")


def planned(hardware: Hardware, target: Path, *, offline: bool) -> tuple[Starter, str]:
    """Return the tiers for a machine and the text of the file that has them."""
    from subcortex.cli import _starter
    from subcortex.cli._config_text import render

    if offline:
        starter = _starter.testbed(_testbed_folder(target.parent))
        return starter, render(starter, ["Written for: any machine, without a network."])
    starter = _starter.choose(hardware, shutil.which("llama-server") or "~/llama.cpp/build/bin/llama-server")
    return starter, render(starter, [f"Written for: {described(hardware)}."])


def described(hardware: Hardware) -> str:
    """Return the machine in a few words."""
    names = [gpu.name for gpu in hardware.gpus]
    cards = " + ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names)) or "no GPU"
    memory = f"{hardware.host_memory_total_mib / 1024:.0f} GiB of host memory"
    return _output.inert(f"{cards}, {memory}, {hardware.cores} cores")


def _online() -> bool:
    """Return whether models can be fetched: no variable forbids it, and the hub is there."""
    from subcortex.models import hub

    if hub.offline_by():
        return False
    try:
        socket.create_connection(_HUB, timeout=_NETWORK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _testbed_folder(base: Path) -> str:
    """Return the testbed's models: relative where the file lies in the source, absolute elsewhere."""
    source = Path(__file__).resolve().parents[2]
    folder = source / "testbed" / "models"
    return os.path.relpath(folder, base) if base.resolve().is_relative_to(source) else str(folder)


def _check(text: str, target: Path) -> None:
    """Hold what is about to be written to the schema; a failure here is a bug of ours."""
    import tomllib

    from subcortex import config

    config.parse(tomllib.loads(text), target)


def _write(target: Path, text: str) -> None:
    """Write the file whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_text(text, "utf-8")
        draft.replace(target)
    except OSError as error:
        raise ConfigError(
            f"cannot write {target}: {error.strerror}", hint="Name another file with --out.", file=str(target)
        ) from None
