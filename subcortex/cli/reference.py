"""``python -m subcortex.cli.reference``: the page of all commands, made from their help texts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from subcortex.cli._root import cli

_HEAD = """# The command line

Made from the help texts by `python -m subcortex.cli.reference`; a test holds the two equal.
"""


def page() -> str:
    """Return docs/cli.md."""
    root = click.Context(cli, info_name="subcortex", **cli.context_settings)
    return "\n".join([_HEAD, *_command(cli, root)]).rstrip() + "\n"


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"{'#' * (2 + _depth(context))} `{context.command_path}`\n"
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f"    {context.command_path} {pieces}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    records = [found for option in options if (found := option.get_help_record(context))]
    if records:
        yield "| option | |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child and not child.hidden:
                yield from _command(child, click.Context(child, info_name=name, parent=context))


def _depth(context: click.Context) -> int:
    return 0 if context.parent is None or context.parent.parent is None else 1


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
