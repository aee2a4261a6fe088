"""What a writer calls the depth of a session, read to one of five."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subcortex.types import Depth

_SEEN_CHARS = 1000

_WORDS = {
    "none": Depth.NONE,
    "hollow": Depth.NONE,
    "shallow": Depth.SHALLOW,
    "light": Depth.SHALLOW,
    "surface": Depth.SHALLOW,
    "minimal": Depth.SHALLOW,
    "moderate": Depth.MODERATE,
    "medium": Depth.MODERATE,
    "deep": Depth.DEEP,
    "full": Depth.FULL,
    "complete": Depth.FULL,
    **{
        word: depth
        for depth, words in (
            (
                Depth.SHALLOW,
                "flach oberflächlich superficial superficiel superficielle superficiale raso rasa",
            ),
            (Depth.MODERATE, "mittel mäßig moderado moderada modéré modérée moderato moderata"),
            (Depth.DEEP, "tief profundo profunda profond profonde profondo profonda"),
            (Depth.FULL, "vollständig completo completa complète pleno plena"),
        )
        for word in words.split()
    },
}
_LETTERS = {"s": Depth.SHALLOW, "m": Depth.MODERATE, "d": Depth.DEEP, "f": Depth.FULL}
#: Percent of the pressure that goes, by Emergence's tables: what is asked for, and what it takes by itself.
_PERCENTS = {
    0: Depth.NONE,
    25: Depth.SHALLOW,
    30: Depth.SHALLOW,
    50: Depth.MODERATE,
    75: Depth.DEEP,
    90: Depth.FULL,
    100: Depth.FULL,
}
#: What a heading, key or command says in full anywhere, and prose says too: these four mean a depth alone.
_CLEAR = r"shallow|moderate|deep|full"
_ANY = "|".join(_WORDS)
_ORDER = list(Depth)

_LEAD = re.compile(
    rf"[^\w%<]{{0,12}}(?:satisfaction[ _]|drive[ _])?(?:depth|level|rating)?[^\w%<]{{0,8}}"
    rf"(?:(?:very|fairly|mostly|quite|auto|solidly|a|at|was|is|genuinely)[ -]){{0,3}}"
    rf"(?P<word>{_ANY})(?:ly)?\b",
    re.IGNORECASE,
)
_SECOND = re.compile(
    r"[*_ ]{0,4}(?P<how>-to-|to|or|/|-|–|→|->|then|bordering on|leaning|verging on|\+)"
    rf"[*_ ]{{0,4}}(?P<word>{_CLEAR})\b",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"(?<![\d.])(\d{1,3})(?:\.0+)?[ ]?%")
_ALONE = re.compile(
    r"\b(?P<word>shallow|moderate|deep)\b(?![ -](?:dive|learning|tier|model|work|sleep|end))", re.IGNORECASE
)
_NEGATED = re.compile(
    r"\b(?:not|never|no|isn't|wasn't|nor|without|less than|more than)\b[^.;,—–]{0,20}$", re.IGNORECASE
)
_BETWEEN = re.compile(rf"\bbetween\W{{1,5}}({_CLEAR})\W{{1,5}}and\W{{1,5}}({_CLEAR})\b", re.IGNORECASE)
#: Nothing but a reason follows, or another depth.
_ALL_SAID = re.compile(r"[*_`~!]{0,5}(?:\s{0,4}(?:$|[—–:.,;(!|/→+…-])|[ ]{0,4}\n)|[ ]to[ ]|[ ]or[ ]")
_ON_ITS_OWN = re.compile(
    rf"(?:[*_~(\[`]{{1,3}}|[—–-]{{1,2}}[ ])({_CLEAR})[.!]?[*_~)\]`]{{0,3}}", re.IGNORECASE
)
_BOX = re.compile(
    rf"(?:\[(?P<in>[ xX✓✔])\]|(?P<box>[☐☑☒✅✔✓]))[ \t*_`]{{0,6}}(?P<word>{_ANY})\b", re.IGNORECASE
)
_UNTICKED = ("☐", " ")
_ENCLOSED = re.compile(rf"[(\[](?:auto-)?({_CLEAR}|none)\b", re.IGNORECASE)
_LETTER = re.compile(r"\W*([smdf])\W*", re.IGNORECASE)
_PROSE_AFTER = re.compile(r"[*_]{0,2}[ ](?:of|the|day|stop|house|time)\b", re.IGNORECASE)
_REASON_MARKS = " \t\r\n*_—–-:.,;)>→|"


@dataclass(frozen=True, slots=True)
class DepthFound:
    """A depth, what is said with it, and the rule that was needed where it was not plain."""

    depth: Depth
    reason: str | None = None
    rule: str | None = None


def leading(text: str) -> DepthFound | None:
    """Return the depth that ``text`` begins with: ``**Moderate** — why``, ``deep (75%)``, ``50%``."""
    seen = text[:_SEEN_CHARS]
    match = _LEAD.match(seen)
    if match is None:
        percent = _PERCENT.match(seen.lstrip(" *_~(≈"))
        if percent is None:
            return None
        depth = _PERCENTS.get(int(percent[1]))
        return (
            None
            if depth is None
            else DepthFound(depth, None, f"{percent[0]} is {depth} by Emergence's table")
        )
    word = match["word"].lower()
    end = match.end("word")
    if word in ("none", "full", "complete") and _PROSE_AFTER.match(seen, match.end()):
        return None
    depth, rule = _WORDS[word], None
    if word != depth.value:
        rule = f"{match['word']!r} is taken for {depth}"
    second = _SECOND.match(seen, match.end())
    if second is not None:
        other = _WORDS[second["word"].lower()]
        if other is depth:
            rule = None
        elif second["how"] in ("→", "->", "then"):
            depth, rule = other, f"of {match['word']} and {second['word']} the later counts"
        else:
            depth = min(depth, other, key=_ORDER.index)
            rule = f"of {match['word']} and {second['word']} the lesser counts"
        end = second.end()
    else:
        end = match.end()
    return DepthFound(depth, _reason(text[end:]), rule)


def leading_alone(text: str) -> DepthFound | None:
    """Return the depth that ``text`` begins with, if what follows is no sentence about something else.

    ``Deep — I meant it`` and ``Moderate``, but not ``Deep water lanternfish``.
    """
    seen = text[:_SEEN_CHARS]
    match = _LEAD.match(seen)
    return leading(text) if match is not None and _ALL_SAID.match(seen, match.end()) else None


def on_its_own(line: str) -> DepthFound | None:
    """Return the depth that is all there is on a marked line: ``— moderate``, ``*deep*``."""
    match = _ON_ITS_OWN.fullmatch(line.strip()) if len(line) < 40 else None
    return DepthFound(_WORDS[match[1].lower()], None, "named alone at the end") if match else None


def ticked(text: str) -> tuple[bool, DepthFound | None]:
    """Return whether ``text`` offers depths beside boxes to tick, and the one that is ticked.

    What names a depth first offers none: ``Shallow — [x] deep was planned``.
    """
    boxes = list(_BOX.finditer(text[:_SEEN_CHARS]))
    lead = _LEAD.match(text[:_SEEN_CHARS])
    if not boxes or (lead is not None and lead.start("word") < boxes[0].start()):
        return False, None
    chosen = {
        _WORDS[match["word"].lower()] for match in boxes if (match["in"] or match["box"]) not in _UNTICKED
    }
    return True, DepthFound(chosen.pop()) if len(chosen) == 1 else None


def letter(text: str) -> DepthFound | None:
    """Return the depth of a value or argument that is one letter, as Emergence's command takes it."""
    match = _LETTER.fullmatch(text[:16]) if len(text) <= 16 else None
    return DepthFound(_LETTERS[match[1].lower()]) if match else None


def enclosed(text: str) -> DepthFound | None:
    """Return the one depth that stands in parentheses or brackets in ``text``."""
    found = {match[1].lower() for match in _ENCLOSED.finditer(text[:_SEEN_CHARS])}
    return DepthFound(_WORDS[found.pop()]) if len(found) == 1 else None


def mentioned(text: str) -> DepthFound | None:
    """Return the one depth that a sentence about depth names: ``I'd call this moderate.``

    None where it names several, or what it is not.
    """
    seen = text[:_SEEN_CHARS]
    if (between := _BETWEEN.search(seen)) is not None:
        lesser = min((_WORDS[word.lower()] for word in between.groups()), key=_ORDER.index)
        return DepthFound(lesser, text.strip() or None, "of two that it is between the lesser counts")
    found = {
        match["word"].lower()
        for match in _ALONE.finditer(seen)
        if not _NEGATED.search(seen[max(match.start() - 40, 0) : match.start()])
    }
    if len(found) != 1:
        return None
    return DepthFound(_WORDS[found.pop()], text.strip() or None, "named in a sentence")


def _reason(rest: str) -> str | None:
    rest = rest.lstrip(" *_")
    if rest.startswith("("):
        inside, closed, after = rest[1:].partition(")")
        if closed and _PERCENT.fullmatch(inside.strip("~≈ ")):
            rest = after
        elif closed and not after.strip(_REASON_MARKS):
            rest = inside
    return rest.strip(_REASON_MARKS + "]") or None
