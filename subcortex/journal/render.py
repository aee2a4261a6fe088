"""Make text from models safe to show on a terminal."""

from __future__ import annotations

#: Explicit directions can make text read otherwise than it is; the rest hides text or breaks lines.
_HIDDEN = (
    0x061C,
    0x180E,
    0x200B,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xD800, 0xE000),
    *range(0xE0000, 0xE0080),
)


def _table() -> dict[int, str]:
    table = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    table[0x7F] = "\u2421"
    table |= {code: f"<U+{code:04X}>" for code in (*range(0x80, 0xA0), *_HIDDEN)}
    return table


_TABLE = _table()


def inert(text: str) -> str:
    r"""Return ``text`` with every character that acts on a terminal made visible.

    ESC and the other C0 controls become their pictures (``\x1b`` → ``␛``); C1 controls, changes of
    direction, invisible characters and lone surrogates become ``<U+202E>``. Newlines and tabs stay,
    and so do the joiners that emoji and many scripts need. Idempotent.
    """
    return text.translate(_TABLE)
