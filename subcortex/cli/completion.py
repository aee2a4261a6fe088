"""``completion``: the script that makes a shell complete commands, tiers and drives."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: `eval "$(subcortex completion bash)"` in ~/.bashrc. For zsh the same with zsh in ~/.zshrc. For
    fish: `subcortex completion fish > ~/.config/fish/completions/subcortex.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "subcortex", "_SUBCORTEX_COMPLETE").source())
