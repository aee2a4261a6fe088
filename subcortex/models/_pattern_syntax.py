"""The part of regular expressions that lists of modules are read with, as a tree. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MOST_DEPTH = 30
_MOST_TIMES = 64
_WIDEST_RANGE = 256
#: What stands after a name's last character.
END = "\0"


class NotUnderstood(Exception):
    """A pattern uses what is not supported here."""


@dataclass(frozen=True, slots=True)
class Set:
    """A character of a kind."""

    characters: frozenset[str]
    negated: bool = False

    def has(self, character: str) -> bool:
        if character == END:
            return not self.negated and END in self.characters
        return (character in self.characters) is not self.negated


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    part: Node
    least: int
    most: int | None


Node = Set | Sequence | Choice | Repeated
ANY = Set(frozenset(), negated=True)
AFTER = Set(frozenset(END))
_DIGITS = frozenset("0123456789")
_WORD = _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": frozenset(" \t\r\n\f\v")}
_TIMES = re.compile(r"\{(\d{0,4})(,?)(\d{0,4})\}")
_GROUP = re.compile(r"\((?:\?:|\?P<\w{1,40}>|(?!\?))")


class Parser:
    """Reads a regular expression, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def refusals(self) -> Iterator[Node]:
        """Yield what the pattern begins by refusing: ``(?!…)``, any number of times."""
        self._skip("^")
        while self._skip("(?!"):
            yield self._choice(1)
            self._close()
        self._skip("^")

    def rest(self) -> Node:
        """Return all that follows."""
        found = self._choice(0)
        if self._at < len(self._text):
            raise NotUnderstood
        return found

    def _skip(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _close(self) -> None:
        if not self._skip(")"):
            raise NotUnderstood

    def _choice(self, depth: int) -> Node:
        if depth > _MOST_DEPTH:
            raise NotUnderstood
        parts = [self._sequence(depth)]
        while self._skip("|"):
            if depth == 0:
                self._skip("^")
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._one(depth)))
        return Sequence(tuple(parts))

    def _one(self, depth: int) -> Node:
        group = _GROUP.match(self._text, self._at)
        if group:
            self._at = group.end()
            inner = self._choice(depth + 1)
            self._close()
            return inner
        character = self._text[self._at]
        self._at += 1
        match character:
            case ".":
                return ANY
            case "$":
                return AFTER
            case "\\":
                return self._escape()
            case "[":
                return self._class()
            case "(" | "^" | "*" | "+" | "?" | "\0":
                raise NotUnderstood
        return Set(frozenset(character))

    def _escape(self) -> Set:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter == "Z":
            return AFTER
        if letter.lower() in _CLASSES:
            return Set(_CLASSES[letter.lower()], negated=letter.isupper())
        if not letter or letter.isalnum() or letter == END:
            raise NotUnderstood
        return Set(frozenset(letter))

    def _class(self) -> Set:
        negated = self._skip("^")
        found: set[str] = set()
        first = True
        while first or not self._skip("]"):
            first = False
            one = self._of_class()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                found |= _between(one, self._of_class())
            else:
                found |= one
        return Set(frozenset(found), negated)

    def _of_class(self) -> frozenset[str]:
        character = self._text[self._at : self._at + 1]
        self._at += 1
        if character in ("", END):
            raise NotUnderstood
        if character != "\\":
            return frozenset(character)
        escaped = self._escape()
        if escaped.negated or escaped is AFTER:
            raise NotUnderstood
        return escaped.characters

    def _repeated(self, part: Node) -> Node:
        before = self._at
        least, most = self._times()
        if part is AFTER and self._at != before:
            raise NotUnderstood  # an end is not to be repeated
        if (least, most) == (1, 1):
            return part
        # A lazy repetition matches the same names; a possessive one or a second one does not.
        self._skip("?")
        if self._at < len(self._text) and self._text[self._at] in "*+?":
            raise NotUnderstood
        return Repeated(part, least, most)

    def _times(self) -> tuple[int, int | None]:
        for sign, times in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._skip(sign):
                return times
        found = _TIMES.match(self._text, self._at)
        if not found or not any(found.groups()):
            return 1, 1
        self._at = found.end()
        least = int(found[1] or 0)
        most = least if not found[2] else int(found[3]) if found[3] else None
        if max(least, most or 0) > _MOST_TIMES or (most is not None and most < least):
            raise NotUnderstood
        return least, most


def _between(first: frozenset[str], last: frozenset[str]) -> set[str]:
    if len(first) != 1 or len(last) != 1:
        raise NotUnderstood
    low, high = ord(next(iter(first))), ord(next(iter(last)))
    if not 0 <= high - low < _WIDEST_RANGE:
        raise NotUnderstood
    return {chr(code) for code in range(low, high + 1)}


def unwild(text: str) -> str:
    """Return a name with wildcards as a regular expression."""
    found = text.replace("\\", "\\\\")
    found = re.sub(r"[.+^$(){}|]", r"\\\g<0>", found)
    return found.replace("[!", "[^").replace("*", ".*").replace("?", ".")
