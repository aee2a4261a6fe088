"""The command line: one file a noun, each a thin client of the daemon.

``main`` is the entry point. A command's module is imported when the command is used, and a command
imports what is heavy inside itself, so that ``subcortex ps`` stays quick.
"""

from __future__ import annotations

from subcortex.cli._root import cli

__all__ = ["cli", "main"]


def main() -> None:
    """Run the command line on ``sys.argv`` and exit with a stable code."""
    cli.main(prog_name="subcortex")
