"""``config``: check, show, find and better the configuration, and print its schema."""

from __future__ import annotations

import re
from pathlib import Path

import click

from subcortex.cli import _output
from subcortex.cli._options import common_options, load_config

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)


@click.group("config")
def config_command() -> None:
    """Check, show or find the configuration, or have it bettered by what was measured."""


@config_command.command("check")
@common_options
def _check_command(config_file: Path | None, as_json: bool) -> None:
    """Check the file and the SUBCORTEX_ variables, and name every unknown or wrong key."""
    from subcortex.mind.experimenting.windows import checked

    config = load_config(config_file)
    # A daemon would not start with a window that is none.
    checked(config.experiments.windows)
    if as_json:
        names = [tier.name for tier in config.tiers]
        _output.print_json({"valid": True, "file": str(config.source), "tiers": names})
        return
    tiers = ", ".join(f"{tier.name} ({tier.engine})" for tier in config.tiers)
    _output.say(f"{config.source} is valid; tiers from least to most capable: {tiers}")


@config_command.command("schema")
@click.option("--json", "as_json", is_flag=True, hidden=True)
def _schema_command(as_json: bool) -> None:
    """Print the JSON Schema of config.toml, for editors."""
    import json

    from subcortex.config import json_schema

    _output.say(json.dumps(json_schema(), indent=2))


@config_command.command("path")
@common_options
def _path_command(config_file: Path | None, as_json: bool) -> None:
    """Print which file applies; with --json also where everything lies because of it."""
    from subcortex import config as configuration

    if not as_json:
        _output.say(str(configuration.find(config_file)))
        return
    config = load_config(config_file)
    places = {
        "file": config.source,
        "database": config.database_path,
        "logs": config.log_dir,
        "runtime": config.runtime_dir,
        "socket": config.socket_path,
        "drives": config.drives_dir,
    }
    _output.print_json({name: str(place) for name, place in places.items()})


@config_command.command("show")
@common_options
def _show_command(config_file: Path | None, as_json: bool) -> None:
    """Print the values in force: the file, the SUBCORTEX_ variables and the defaults together.

    Values in a tier's env whose names speak of keys, tokens or passwords are masked.
    """
    config = load_config(config_file)
    values = config.model_dump(mode="json")
    for tier in values["tiers"]:
        tier["env"] = {name: _masked(name, text) for name, text in tier.get("env", {}).items()}
    if as_json:
        _output.print_json(values)
        return
    for section, table in values.items():
        if isinstance(table, dict):
            for key, value in table.items():
                _output.say(_output.inert(f"{section}.{key} = {_shown(value)}"))
    for tier in values["tiers"]:
        for key, value in tier.items():
            if key != "name" and value is not None:
                _output.say(_output.inert(f"tiers[{tier['name']}].{key} = {_shown(value)}"))


@config_command.command("suggest")
@click.option("--apply", is_flag=True, help="Write it into the file; what was there stays beside it as .bak.")
@common_options
def _suggest_command(config_file: Path | None, as_json: bool, apply: bool) -> None:
    """Say what experiments would change in the file, as a diff, each change with its reason in figures.

    Only what intervals tell apart from what is configured: a batch limit at the knee, better threads or
    splits, a longer context that fits, sleep where waking beats starting, nominal times as measured.
    """
    from subcortex import config as configuration
    from subcortex.cli._suggesting import suggest

    suggest(load_config(config_file), configuration.find(config_file), apply=apply, as_json=as_json)


def _masked(name: str, text: str) -> str:
    return "[masked]" if _SECRET.search(name) else text


def _shown(value: object) -> str:
    import json

    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)
