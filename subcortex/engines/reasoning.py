"""Tell thinking aloud from answering, where a model writes ``<think>…</think>`` into its text."""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"


class ReasoningSplitter:
    """Split a streamed text into reasoning and answer.

    Only a ``<think>`` at the very start (white space aside) opens reasoning: further on it is part of
    the answer. Text is held back only while it may still become a tag.
    """

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""

    @property
    def transparent(self) -> bool:
        """Whether every further piece is answer and comes back as it is."""
        return self._state == "answer"

    def feed(self, piece: str) -> tuple[str, str]:
        """Return ``(reasoning, answer)`` that ``piece`` settles, either may be empty."""
        if self._state == "answer":
            return "", piece
        self._held += piece
        if self._state == "start" and not self._opened():
            return "", self._released() if self._state == "answer" else ""
        if self._state == "opened" and (lead := self._held.lstrip("\r\n")):
            self._state, self._held = "reasoning", lead
        if self._state == "reasoning":
            return self._reasoned()
        return "", self._trimmed() if self._state == "gap" else ""

    def finish(self) -> tuple[str, str]:
        """Return what is still held back: an unfinished tag was text after all."""
        held = self._released()
        if self._state == "reasoning":
            return held, ""
        return "", "" if self._state in ("opened", "gap") else held

    def _opened(self) -> bool:
        lead = self._held.lstrip()
        if lead.startswith(_OPEN):
            self._state, self._held = "opened", lead[len(_OPEN) :]
            return True
        if not _OPEN.startswith(lead):
            self._state = "answer"
        return False

    def _reasoned(self) -> tuple[str, str]:
        before, close, after = self._held.partition(_CLOSE)
        if close:
            self._state, self._held = "gap", after
            return before, self._trimmed()
        keep = _overlap(self._held, _CLOSE)
        self._held = self._held[len(self._held) - keep :]
        return before[: len(before) - keep], ""

    def _trimmed(self) -> str:
        # The line breaks between the tag and the answer belong to neither.
        self._held = self._held.lstrip("\r\n")
        if not self._held:
            return ""
        self._state = "answer"
        return self._released()

    def _released(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of ``tag``."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if tag.startswith(text[-length:]):
            return length
    return 0
