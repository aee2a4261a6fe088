"""Options that every command has, and the names that complete in a shell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from subcortex.config import Config

    _Name = click.ParamType[str]
    _Number = click.ParamType[float]
else:
    # Generic for the type checker alone: click before 8.5 has no parameter here.
    _Name = _Number = click.ParamType

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


def listing(ctx: click.Context, options: dict[str, Any]) -> bool:
    """Return whether a group was called bare, which lists; its options belong to that list alone.

    Raises:
        UsageError: Options stand before a subcommand, which would not see them.
    """
    if ctx.invoked_subcommand is None:
        return True
    given = [name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        raise click.UsageError(f"options go after `{ctx.invoked_subcommand}`: {', '.join(given)}", ctx)
    return False


class Seconds(click.FloatRange):
    """A finite number of seconds from 0 on; ``min_open`` leaves 0 out."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(min=0, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; click's own range lets nan and inf through."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?a)(\d+(?:\.\d+)?)([smhd])")
#: A year: what is longer is a slip of the pen, and dates end.
LONGEST_S = 366 * 86400.0


class Duration(_Number):
    """A time as people write it, ``90s``, ``30m``, ``2h``, ``1h30m``; its value is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{value!r} is no duration. Write 90s, 30m, 2h or 1h30m.", param, ctx)
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{value!r} is not between 0 and a year.", param, ctx)
        return seconds


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
        begun = incomplete.casefold()
        return [CompletionItem(name) for name in _drives(config) if name.casefold().startswith(begun)]


def _drives(config: Config | None) -> list[str]:
    from subcortex.drives import KnownDrives

    try:
        return sorted(KnownDrives(config).current()) if config else []
    except Exception:
        return []
