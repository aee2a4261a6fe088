"""The journal in Datasette: what its tables and views are called there, and how it is started, read-only."""

from subcortex.journal.datasette.command import command, metadata

__all__ = ["command", "metadata"]
