"""A depth that a sentence states: ``Depth ⇒ moderate``, ``I call it moderate``; the last resort."""

from __future__ import annotations

import re

from subcortex.journal.sessions import _lines
from subcortex.journal.sessions._depth_words import DepthFound
from subcortex.types import Depth

_WORD = r"[`*_\"'(]{0,3}(?P<word>none|shallow|moderate|deep|full)\b"
#: Only where a statement begins: a network has a depth too.
_BEGINS = r"(?:^|[(\[.;·|,>•–—-])[\s*_>-]{0,4}"
_STATED = re.compile(
    rf"{_BEGINS}depth(?:\s(?:of\s)?(?:the\s|this\s|my\s)?(?:session|reading|satisfaction|engagement|work|thought))?"
    rf"\s{{0,3}}(?:=>|->|[=⇒→:—–])\s{{0,3}}{_WORD}",
    re.IGNORECASE,
)
_CALLED = re.compile(rf"\bcall(?:ed|ing)?\s(?:it|this)\s(?:an?\s)?{_WORD}", re.IGNORECASE)
_WENT = re.compile(
    r"\b(?:this|it|session)\swent\s(?P<word>shallow|moderate|moderately deep|fairly shallow)\b(?!\s[a-z])",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"[\s*_`]{0,6}(?P<word>none|shallow|moderate|deep|full)[*_`]{0,3}\s?[:—–-]\s", re.IGNORECASE
)
_ASKED = re.compile(rf"{_BEGINS}how deep\?[\s*_—–:-]{{0,6}}{_WORD}", re.IGNORECASE)


def stated(body: str) -> DepthFound | None:
    """Return the last depth that a sentence outside of code states."""
    told: DepthFound | None = None
    fenced = False
    for line in _lines.split(body):
        bare = line.lstrip()
        if bare.startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and (
            "depth" in (seen := line[: _lines.SEEN_CHARS]).lower() or "deep" in seen or "call" in seen
        ):
            for pattern in (_STATED, _CALLED, _WENT, _ASKED):
                for match in pattern.finditer(seen):
                    told = DepthFound(_depth(match["word"]))
    return told


def opening(body: str) -> DepthFound | None:
    """Return the depth that a satisfaction's words begin with: ``moderate: the logs, and one apology``."""
    match = _OPENING.match(body)
    return DepthFound(_depth(match["word"])) if match else None


def _depth(words: str) -> Depth:
    first, *_ = words.lower().replace("fairly ", "").split()
    return Depth.MODERATE if first == "moderately" else Depth(first)
