"""Options that every command has, and the names that complete in a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from subcortex.config import Config

    _Name = click.ParamType[str]
else:
    # Generic for the type checker alone: click before 8.5 has no parameter here.
    _Name = click.ParamType

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def common_options(function: _Decorated) -> _Decorated:
    """Add ``--config FILE`` (as ``config_file``) and ``--json`` (as ``as_json``)."""
    with_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value and nothing else.")
    with_config = click.option(
        "--config",
        "config_file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Use this configuration file.",
    )
    return with_config(with_json(function))


def load_config(file: Path | None) -> Config:
    """Return the configuration that applies; ConfigError says what is wrong with it."""
    from subcortex import config

    return config.load(file)


def _config_for_completion(ctx: click.Context) -> Config | None:
    # A completion that fails must complete nothing, not print an error into the prompt.
    try:
        return load_config(ctx.params.get("config_file"))
    except Exception:
        return None


class TierName(_Name):
    """A tier of the configuration; completes by name."""

    name = "tier"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the tiers that begin with what was typed."""
        config = _config_for_completion(ctx)
        names = [tier.name for tier in config.tiers] if config else []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class DriveName(_Name):
    """A drive; completes by name, in any case."""

    name = "drive"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the drives that begin with what was typed."""
        config = _config_for_completion(ctx)
        names = sorted(file.stem.upper() for file in config.drives_dir.glob("*.toml")) if config else []
        return [CompletionItem(name) for name in names if name.startswith(incomplete.upper())]
