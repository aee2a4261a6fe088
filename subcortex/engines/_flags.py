"""What stands in a tier's flags, as the engines' own parsers read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

#: Python's parsers take the beginning of a long flag for the flag.
_SHORTEST = len("--xx")


def last_named(flags: Iterable[str], *names: str) -> str | None:
    """Return which of ``names`` is given last in ``flags``, None if none is.

    Dashes and underscores are the same, ``--flag=value`` counts, and so does a flag's beginning.
    """
    found = None
    for flag in flags:
        word = flag.partition("=")[0]
        if word.startswith("--"):
            word = "--" + word[2:].replace("_", "-")
        for name in names:
            if word == name or (len(word) >= _SHORTEST and word.startswith("--") and name.startswith(word)):
                found = name
    return found


def last_value(flags: Iterable[str], name: str) -> str | None:
    """Return what is last given to ``name`` in ``flags``, None if nothing is."""
    words, found = list(flags), None
    for place, flag in enumerate(words):
        word, equals, value = flag.partition("=")
        if last_named([word], name) is None:
            continue
        if equals:
            found = value
        elif place + 1 < len(words):
            found = words[place + 1]
    return found
