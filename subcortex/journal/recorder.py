"""How much of a thought's text is written down: all of it, masked, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from subcortex.errors import ConfigError
from subcortex.journal.records import Policy

MASK = "[redacted]"

#: Masked in every redacted journal: keys and tokens of well-known makers, by their documented forms.
_SECRETS = re.compile(
    "|".join(
        (
            # A PEM key is masked to the end of the text while its last line has not been said yet.
            r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)",
            r"(?<![A-Za-z0-9])(?:sk|pk|rk)[-_][A-Za-z0-9_-]{12,}",
            r"(?<![A-Za-z])(?i:bearer)[ \t]+[A-Za-z0-9._~+/=-]{8,}",
            r"(?<![A-Za-z])(?i:authorization)[\"']?[ \t]{0,4}[:=][^\r\n\"',;]{4,}",
            r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{16,}",
            r"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{16,}",
            r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{16,}",
            r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{16,}",
            r"(?<![A-Za-z0-9])xox[a-z]-[A-Za-z0-9-]{10,}",
            r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}",
            r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{30,}",
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,4}",
            r"(?<![A-Za-z])(?i:password|passwd|secret|api[_-]?key|access[_-]?token)"
            r"[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?[^\s\"',;]{4,}",
        )
    ),
    re.DOTALL,
)
#: While an answer streams, its last characters may be the first half of a secret.
_UNSETTLED_CHARS = 128


class Recorder:
    r"""Turns texts into what may be stored.

    Args:
        policy: ``full`` keeps texts, ``redacted`` masks patterns in them as ``[redacted]``, ``none``
            keeps only lengths.
        patterns: Regular expressions to mask besides the built-in ones (keys and tokens such as
            ``sk-…`` and ``Bearer …``). Python's syntax; ``(?i)`` at the start ignores case.

    Raises:
        ConfigError: A pattern is not a regular expression, or matches the empty text.
    """

    def __init__(self, policy: Policy = "full", patterns: Sequence[str] = ()) -> None:
        self.policy: Policy = policy
        self._patterns = (_SECRETS, *(_compiled(pattern) for pattern in patterns))

    def text(self, text: str | None) -> str | None:
        """Return what may be stored of ``text``; None if nothing may."""
        if text is None or self.policy == "none":
            return None
        return self._masked(text) if self.policy == "redacted" else text

    def unfinished(self, text: str) -> str | None:
        """Like ``text`` for an answer still being said; redacted, its last 128 characters wait."""
        if self.policy == "redacted":
            masked = self._masked(text)
            return masked[: max(0, len(masked) - _UNSETTLED_CHARS)]
        return self.text(text)

    def data(self, value: Any) -> Any:
        """Return ``value`` (JSON-like) with every text in it treated; None if texts are held back."""
        if self.policy == "none":
            return None
        return value if self.policy == "full" else self._masked_data(value)

    def settings(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return parameters and the like; with ``none``, only the numbers and switches among them."""
        if self.policy == "none":
            return {k: v for k, v in params.items() if v is None or isinstance(v, bool | int | float)}
        kept: dict[str, Any] = self.data(params)
        return kept

    def _masked(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text

    def _masked_data(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._masked(value)
        if isinstance(value, dict):
            return {key: self._masked_data(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked_data(item) for item in value]
        return value


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"journal.redact: {pattern!r} is not a regular expression: {error}",
            hint="Mend it; in TOML write it between single quotes, so that backslashes stay.",
            key="journal.redact",
        ) from None
    if compiled.search("") is not None:
        raise ConfigError(
            f"journal.redact: {pattern!r} matches the empty text, so it would mask between all characters",
            hint="Make it need at least one character: + instead of *.",
            key="journal.redact",
        )
    return compiled
