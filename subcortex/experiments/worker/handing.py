"""The configuration that a daemon serves, handed to its worker. Effects."""

from __future__ import annotations

import json
from pathlib import Path

from subcortex import config as configuration
from subcortex.config import Config

_TOLD = "interpreters"


def hand_over(config: Config, file: Path) -> None:
    """Write a configuration for ``handed_over``, to be read by nobody else; OSError if that cannot be.

    The worker is to have what the daemon serves: the file may have been edited since, and variables may have
    overridden it. What interpreters have said comes with it, since to ask them takes seconds.
    """
    # Imported here: few daemons do experiments.
    from subcortex.experiments.laboratory import surroundings

    data = config.model_dump(mode="json", exclude_none=True)
    data |= {"source": str(config.source) if config.source else None, _TOLD: surroundings.told()}
    text = json.dumps(data)
    file.touch(mode=0o600, exist_ok=True)
    file.write_text(text, "utf-8")


def handed_over(file: Path) -> Config:
    """Return a configuration: what a daemon handed over (``.json``), or a file as a person writes it.

    Raises:
        ConfigError: As ``config.load``.
    """
    if file.suffix != ".json":
        return configuration.load(file)
    from subcortex.experiments.laboratory.surroundings import believe

    data = json.loads(file.read_text("utf-8"))
    believe(data.pop(_TOLD))
    source = data.pop("source")
    return configuration.parse(data, Path(source) if source else None, {})
