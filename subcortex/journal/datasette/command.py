"""The command line that shows a journal in Datasette, which has to be installed; nothing here imports it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from subcortex.errors import ConfigError

_HERE = Path(__file__).parent
#: Whole texts are a click away; a count of millions may take a second.
_SETTINGS = {
    "truncate_cells_html": "600",
    "default_page_size": "50",
    "sql_time_limit_ms": "3000",
    "facet_time_limit_ms": "1000",
    "allow_download": "off",
}


def command(database: Path, metadata_file: Path, port: int) -> list[str]:
    """Return the argument list that shows ``database`` on loopback.

    Datasette opens the file with ``mode=ro``. ``immutable`` would be wrong: it passes over the write-ahead
    log, in which a running daemon's last thoughts are.

    Args:
        metadata_file: What ``metadata`` gives, as JSON.
        port: 0 takes any that is free.

    Raises:
        ConfigError: Datasette is not installed.
    """
    settings = [word for name, value in _SETTINGS.items() for word in ("--setting", name, value)]
    return [
        *_program(),
        "serve",
        str(database.absolute()),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--metadata", str(metadata_file)),
        *("--plugins-dir", str(_HERE / "plugins")),
        *settings,
    ]


def metadata(database: Path) -> dict[str, Any]:
    """Return titles, descriptions, facets and units for the journal, which its file's stem names there."""
    told: dict[str, Any] = json.loads((_HERE / "metadata.json").read_text())
    told["databases"] = {database.stem: told["databases"]["journal"]}
    return told


def _program() -> list[str]:
    if importlib.util.find_spec("datasette") is not None:
        # -P: nothing that lies in the current folder is taken for a module.
        return [sys.executable, "-P", "-m", "datasette"]
    beside = Path(sys.executable).with_name("datasette")
    found = str(beside) if beside.is_file() else shutil.which("datasette")
    if found is None:
        raise ConfigError(
            "Datasette is not installed",
            hint="Install it: `pipx install datasette`, or `pip install datasette` where subcortex is.",
        )
    return [found]
