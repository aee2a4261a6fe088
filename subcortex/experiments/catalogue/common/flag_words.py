"""A tier's flags with some of them taken out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from subcortex.engines._flags import last_named


def without(flags: Sequence[str], *names: str) -> list[str]:
    """Return the flags without those named and what is given to them."""
    kept: list[str] = []
    dropping = False
    for word in flags:
        if word.startswith("-"):
            dropping = last_named([word], *names) is not None
        if not dropping:
            kept.append(word)
    return kept
