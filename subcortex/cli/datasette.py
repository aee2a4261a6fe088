"""``datasette``: the journal in a browser, read-only, on this machine alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from subcortex.cli._options import load_config


@click.command("datasette")
@click.option(
    "-p", "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: any free one."
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Use this configuration file.",
)
def datasette_command(config_file: Path | None, port: int) -> None:
    """Open the journal in Datasette, read-only, on 127.0.0.1.

    Datasette has to be installed. This command becomes it: Ctrl-C ends it.
    """
    from subcortex.journal import Reader
    from subcortex.journal.datasette import command, metadata
    from subcortex.paths import private_folder

    config = load_config(config_file)
    database = config.database_path
    # Says what is wrong with it, if anything is, in our words.
    Reader.open(database).close()
    told = private_folder(config.runtime_dir) / "datasette-metadata.json"
    arguments = command(database, told, port)
    told.write_text(json.dumps(metadata(database)))
    sys.stdout.flush()
    os.execvp(arguments[0], arguments)  # noqa: S606 (no shell is wanted)
