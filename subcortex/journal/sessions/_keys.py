"""Keys of fields, compared as people mean them: ``Drives_Triggered`` is ``drives triggered``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

Pair = tuple[str, str]


def words(text: str) -> frozenset[str]:
    """Return the words of ``text``, to ask whether one is among them."""
    return frozenset(text.split())


@lru_cache(maxsize=2048)
def plain_key(key: str) -> str:
    """Return ``key`` in lower case, words by single spaces, what is in parentheses left out."""
    plain = key.lower().replace("_", " ").replace("-", " ").replace("(s)", "s").split("(")[0]
    return " ".join(plain.split())


def matching(pairs: Iterable[Pair], keys: tuple[str, ...]) -> tuple[Pair, ...]:
    """Return (plain key, value) of the pairs with one of ``keys``, in the order of ``keys``."""
    found: dict[str, list[Pair]] = {}
    for key, value in pairs:
        plain = plain_key(key)
        if plain in keys:
            found.setdefault(plain, []).append((plain, value))
    return tuple(pair for key in keys for pair in found.get(key, ()))


def first_value(pairs: Iterable[Pair], keys: tuple[str, ...]) -> str | None:
    """Return the value of the first of ``keys`` that has one."""
    return next((value for _, value in matching(pairs, keys) if value), None)
