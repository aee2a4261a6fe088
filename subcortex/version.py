"""This package's version, told also from a checkout that was never installed."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version, or ``0+source`` when there is none."""
    try:
        return metadata.version("subcortex")
    except metadata.PackageNotFoundError:
        return "0+source"
