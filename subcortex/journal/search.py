"""From what a person types to an FTS5 expression that is never a syntax error."""

from __future__ import annotations

import re
import unicodedata

_MAX_TERMS = 32
_MAX_TERM_CHARS = 200
#: A quoted phrase, or a run without spaces and quotes; an unbalanced quote is just skipped.
_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')


def expression(words: str) -> str | None:
    """Return the FTS5 expression that finds all of ``words``; None if there is nothing to find.

    Words must all occur, in any order; ``"two words"`` must follow each other; ``tens*`` finds what
    begins so. Everything else (AND, OR, NEAR, hyphens, colons, brackets) is text.
    """
    terms: list[str] = []
    for match in _TERM.finditer(words[: _MAX_TERMS * _MAX_TERM_CHARS]):
        phrase, word = match.groups()
        text = phrase if phrase is not None else word
        if not any(_indexed(char) for char in text):
            continue
        prefix = "*" if phrase is None and text.endswith("*") else ""
        terms.append(f'"{_quotable(text)}"{prefix}')
        if len(terms) == _MAX_TERMS:
            break
    return " AND ".join(terms) or None


def _indexed(char: str) -> bool:
    # The tokenizer (unicode61) keeps letters, numbers and private characters.
    category = unicodedata.category(char)
    return category[0] in "LN" or category == "Co"


def _quotable(text: str) -> str:
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)
