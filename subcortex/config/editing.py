"""Changes of single keys in the text of a config.toml: all else stays as it was written. Pure.

tomlkit keeps comments as well, but puts a new key behind the comment that leads the next table. What comes
out of here is parsed again, and refused unless it says exactly what was meant.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subcortex.errors import ConfigError

_HEADER = re.compile(r"\[\[?(?P<name>.*?)\]\]?[ \t]*(?:#.*)?$", re.DOTALL)
_KEY = re.compile(r"(?P<key>[A-Za-z0-9_-]+|\"[^\"\\]*\"|'[^']*')[ \t]*=[ \t]*")


@dataclass(frozen=True, slots=True)
class Edit:
    """A key of a tier's table, and what it is to be."""

    tier: str
    key: str
    value: Any


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Statement:
    """A table's header or a key with its value: from its first letter to behind its last, comment aside."""

    tokens: tuple[_Token, ...]

    @property
    def start(self) -> int:
        return self.tokens[0].start

    @property
    def end(self) -> int:
        return self.tokens[-1].end


def edited(text: str, edits: Sequence[Edit]) -> str:
    """Return the text of a configuration with keys of its tiers changed, or added at the end of their tables.

    Args:
        text: TOML with ``[[tiers]]`` tables; comments, order and line ends stay.
        edits: At most one a key.

    Raises:
        ConfigError: A tier is not there, or the file is written in a way that this cannot change.
    """
    try:
        meant = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the file is not TOML any more: {error}", hint="Mend that line.") from None
    for edit in edits:
        place = _place(meant, edit)
        text = _with(text, place, edit)
        meant["tiers"][place][edit.key] = edit.value
    try:
        done = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        done = None
    if done != _plain(meant):
        keys = "; ".join(f"{one.tier}: {one.key} = {toml(one.value)}" for one in edits)
        raise ConfigError(
            "the file is written in a way that cannot be changed safely",
            hint=f"Write the keys by hand: {keys}",
        )
    return text


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, Path | str):
        # JSON's escapes are TOML's, but for DEL, which TOML wants escaped too.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _place(data: dict[str, Any], edit: Edit) -> int:
    for place, tier in enumerate(data.get("tiers", ())):
        if tier.get("name") == edit.tier:
            return place
    raise ConfigError(f"the file has no tier {edit.tier!r}", hint="It may have been changed since.")


def _with(text: str, place: int, edit: Edit) -> str:
    table = _table(text, place)
    if not table:
        raise ConfigError(
            f"tier {edit.tier!r} is not written as a [[tiers]] table",
            hint=f"Write it by hand: {edit.key} = {toml(edit.value)}",
        )
    for statement in table[1:]:
        found = _KEY.match(text, statement.start)
        if found and found["key"].strip("\"'") == edit.key:
            return _with_value(text, found.end(), statement, edit.value)
    last = table[-1]
    line_end = text.find("\n", last.end)
    stop = len(text) if line_end < 0 else line_end
    newline = "\r\n" if text[:stop].endswith("\r") else "\n"
    stop -= newline == "\r\n"
    indent = re.findall(r"[ \t]*$", text[: last.start])[0] if len(table) > 1 else ""
    return f"{text[:stop]}{newline}{indent}{edit.key} = {toml(edit.value)}{text[stop:]}"


def _table(text: str, place: int) -> list[_Statement]:
    """Return the header of a tier's table and its own keys; empty where there is no such table."""
    found: list[_Statement] = []
    seen = -1
    for statement in _statements(text):
        header = text[statement.start] == "["
        if header and found:
            break
        if header:
            name = _HEADER.match(text[statement.start : statement.end])
            double = text.startswith("[[", statement.start)
            seen += bool(double and name and name["name"].strip(" \t\"'[") == "tiers")
            if double and name and name["name"].strip(" \t\"'[") == "tiers" and seen == place:
                found.append(statement)
        elif found:
            found.append(statement)
    return found


def _with_value(text: str, start: int, statement: _Statement, value: Any) -> str:
    old = text[start : statement.end]
    if isinstance(value, list) and old.startswith("["):
        return text[:start] + _with_items(old, value) + text[statement.end :]
    return text[:start] + toml(value) + text[statement.end :]


def _with_items(old: str, value: list[Any]) -> str:
    """Return an array with other items; lines and comments of those that stay are kept."""
    before = tomllib.loads(f"a = {old}")["a"]
    spans = _items(old)
    if len(spans) != len(before) or not before or len(value) < len(before):
        return toml(value)
    found, last = "", 0
    for (start, end), was, now in zip(spans, before, value, strict=False):
        found += old[last:start] + (old[start:end] if was == now else toml(now))
        last = end
    more = "".join(f", {toml(item)}" for item in value[len(before) :])
    return found + more + old[last:]


def _items(array: str) -> list[tuple[int, int]]:
    """Return where the items of an array's text begin and end."""
    found: list[tuple[int, int]] = []
    depth, start, end = 0, -1, -1
    for token in _tokens(array):
        if token.kind == "open":
            depth += 1
            if depth == 1:
                continue
        closes = token.kind == "close"
        depth -= closes
        if (closes and depth == 0) or (token.kind == "comma" and depth == 1):
            if start >= 0:
                found.append((start, end))
            start = -1
        elif token.kind not in ("comment", "newline"):
            start, end = (token.start if start < 0 else start), token.end
    return found


def _statements(text: str) -> Iterator[_Statement]:
    tokens: list[_Token] = []
    depth = 0
    for token in _tokens(text):
        if token.kind == "newline" and depth == 0:
            if tokens:
                yield _Statement(tuple(tokens))
            tokens = []
        elif token.kind == "comment" and depth == 0:
            continue
        elif token.kind != "newline":
            depth += (token.kind == "open") - (token.kind == "close")
            tokens.append(token)
    if tokens:
        yield _Statement(tuple(tokens))


_PIECES = re.compile(
    r"(?P<string>\"\"\"(?:\\.|[^\\])*?\"{3,5}|'''.*?'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*')"
    r"|(?P<comment>#[^\n]*)|(?P<newline>\r?\n)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)"
    r"|(?P<word>[^\s\"'#\[\]{},]+)",
    re.DOTALL,
)


def _tokens(text: str) -> Iterator[_Token]:
    for found in _PIECES.finditer(text):
        assert found.lastgroup is not None
        yield _Token(found.lastgroup, found.start(), found.end())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
