"""Which modules a quantised checkpoint leaves plain: names, wildcards and patterns of its config. Pure.

A pattern comes from a stranger's file, so one that could take exponential time is not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

_PATTERN = "re:"
_MOST_ENTRIES = 2**16
#: Of these each is tried on every module: real lists have a dozen patterns and a few hundred names.
_MOST_PATTERNS, _MOST_WITHIN = 32, 1024
_MOST_LENGTH = 300
#: Repetitions that a pattern may have; each multiplies the time by the length of a name.
_MOST_REPEATS = 3
_REPEAT = re.compile(r"(?<!\\)(?<!\()(?:[*+?]|\{\d*,\d*\})")
_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Modules that stay plain.

    Args:
        names: Full names; what lies under them is meant too.
        parts: One component of a name, such as ``lm_head``.
        patterns: Regular expressions, matched from the start.
        within: Texts that may stand anywhere in a name.
        unread: Entries that are not understood, and not applied.
    """

    names: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    within: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @staticmethod
    def of(entries: Iterable[str], *, inside: bool = False) -> Skipped:
        """Return what a config's list means.

        Args:
            entries: Names, ``re:`` patterns, names with ``*``.
            inside: A name counts wherever it stands in a module's (AWQ, GPTQ, bitsandbytes).
        """
        names: set[str] = set()
        parts: set[str] = set()
        patterns: list[re.Pattern[str]] = []
        within: list[str] = []
        unread: list[str] = []
        for entry in list(entries)[:_MOST_ENTRIES]:
            if entry.startswith(_PATTERN) or "*" in entry:
                compiled = _compiled(entry) if len(patterns) < _MOST_PATTERNS else None
                if compiled is None:
                    unread.append(entry[:80])
                elif compiled not in patterns:
                    patterns.append(compiled)
            elif inside and entry:
                if len(within) < _MOST_WITHIN:
                    within.append(entry)
                else:
                    unread.append(entry[:80])
            elif "." in entry:
                names.add(entry)
            else:
                parts.add(entry)
        return Skipped(frozenset(names), frozenset(parts), tuple(patterns), tuple(within), tuple(unread))

    def has(self, path: str) -> bool:
        """Tell whether the module at ``path`` stays plain."""
        if self.names or self.parts:
            pieces = path.split(".")
            if not self.parts.isdisjoint(pieces):
                return True
            ends = range(len(pieces), 0, -1)
            if self.names and any(".".join(pieces[:end]) in self.names for end in ends):
                return True
        return any(text in path for text in self.within) or any(
            pattern.match(path) for pattern in self.patterns
        )

    def by_layer(self, path: str, count: int) -> list[frozenset[str] | int]:
        """Return for each layer what tells it from others: the entries that name it.

        Layers of equal kinds and entries are alike. A pattern with a figure in it may mean single layers, so
        then each stands for itself.
        """
        if any(re.search(r"\d", pattern.pattern) for pattern in self.patterns):
            return list(range(count))
        found: list[set[str]] = [set() for _ in range(count)]
        for entry in (*self.names, *self.within):
            named = _NUMBER.search(f"{entry}.")
            if named and len(named[1]) < 9 and int(named[1]) < count:
                found[int(named[1])].add(entry[named.end(1) :])
        return [frozenset(each) for each in found]


def _compiled(entry: str) -> re.Pattern[str] | None:
    """Return a pattern that runs in good time, None for any other."""
    text = entry.removeprefix(_PATTERN)
    if len(text) > _MOST_LENGTH:
        return None
    if not entry.startswith(_PATTERN):
        if text.count("*") > _MOST_REPEATS:
            return None
        # A wildcard names a module, and what lies under it.
        text = translate(text).removesuffix(r"\Z").removesuffix(r"\z") + r"(?:\.|$)"
    elif len(_REPEAT.findall(text)) > _MOST_REPEATS or re.search(r"\)(?:[*+]|\{)", text):
        return None
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return None
