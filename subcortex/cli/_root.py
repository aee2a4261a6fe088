"""The group of all commands: imports each at need, and turns every error into words and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from subcortex.cli import _output
from subcortex.errors import SubcortexError

#: Command → module of this package; the object in it has the command's name.
COMMANDS = {
    "up": "fleet",
    "down": "fleet",
    "ps": "fleet",
    "yield": "yielding",
    "plan": "plan",
    "logs": "logs",
    "think": "think",
    "route": "think",
    "thoughts": "thoughts",
    "sessions": "sessions",
    "drives": "drives",
    "gaps": "gaps",
    "claims": "claims",
    "experiments": "experiments",
    "agent": "agent",
    "datasette": "datasette",
    "init": "init",
    "hardware": "hardware",
    "doctor": "doctor",
    "config": "config",
    "service": "service",
    "completion": "completion",
}

EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class _ReaderGoneError(Exception):
    """Whoever read our stdout has closed it."""


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when one is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return the command, or None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"subcortex.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that went away is told apart from click's own handling of it."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            raise _ReaderGoneError from None
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Run one command and exit; nothing but an exit code and words leaves here.

        ``SUBCORTEX_DEBUG=1`` lets the traceback through.
        """
        given = list(sys.argv[1:] if args is None else args)
        as_json = _output.asks_for_json(given)
        _output.make_streams_safe()
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except _ReaderGoneError:
            # Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_BROKEN_PIPE)
        except (click.Abort, KeyboardInterrupt):
            _output.print_error(
                "interrupted", None, code="interrupted", exit_code=EXIT_INTERRUPTED, as_json=as_json
            )
            sys.exit(EXIT_INTERRUPTED)
        except click.ClickException as error:
            _print_usage_error(error, as_json=as_json)
            sys.exit(error.exit_code)
        except SubcortexError as error:
            if _debugging():
                raise
            _output.print_subcortex_error(error, as_json=as_json)
            sys.exit(error.exit_code)
        except Exception as error:
            if _debugging():
                raise
            _output.print_error(
                f"internal error: {type(error).__name__}: {error}",
                "This is a bug. SUBCORTEX_DEBUG=1 shows where it happened.",
                code="internal_error",
                exit_code=EXIT_INTERNAL,
                as_json=as_json,
            )
            sys.exit(EXIT_INTERNAL)
        sys.exit(code if isinstance(code, int) else 0)


def _debugging() -> bool:
    return os.environ.get("SUBCORTEX_DEBUG", "") not in ("", "0")


def _print_usage_error(error: click.ClickException, *, as_json: bool) -> None:
    context = getattr(error, "ctx", None)
    hint = f"Try `{context.command_path} --help`." if context else None
    usage = context.get_usage() if context and not as_json else None
    if usage:
        click.echo(usage, err=True)
    _output.print_error(
        error.format_message(), hint, code="usage", exit_code=error.exit_code, as_json=as_json
    )


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="subcortex", message="%(prog)s %(version)s")
def cli() -> None:
    """Fast and deep local models behind one call.

    A daemon owns the models; `subcortex up` starts it, and so does the first thought. Exit codes:
    0 done, 1 a check failed, 2 wrong usage, 3 configuration, 4 the request, 5 does not fit, 6 an engine
    failed, 7 the deadline, 8 overloaded, 9 no daemon, 10 another daemon is running, 11 the journal,
    12 cancelled, 13 systemd, 14 Emergence, 70 a bug, 130 interrupted.
    """
