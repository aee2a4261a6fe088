"""Names of drives, with their levels, in values, titles and file names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from subcortex.journal.sessions._keys import words

_SEEN_CHARS = 1000


#: Drives that agents have been seen to have. Others are drives where the text leaves no doubt of it.
KNOWN = words(
    "CARE MAINTENANCE REST WANDER LEARNING CURIOSITY CREATIVE SOCIAL PLAY READING EMBODIMENT ANXIETY"
    " CREATIVITY EXPLORATION REFLECTION CONNECTION NOVELTY_SEEKING DEEP_WORK FIRST_LIGHT"
)
#: Capitals in titles and file names that are no drives.
NOT_DRIVES = words(
    "GPU GPUS CPU RAM VRAM KV TP PP DP AI ML LLM LLMS API APIS REST_API CUDA NCCL NVLINK PCIE VLLM GGUF"
    " GPTQ AWQ YAML JSON HTML CSS SQL SQLITE HTTP README TODO NOTE NOTES LOG LOGS DONE WIP FAQ TIL SESSION"
    " SESSIONS DRIVE DRIVES SATISFACTION DEFERRAL DEFERRED DEFER SUMMARY UTC GMT EST EDT PST PDT CET CEST"
    " BST AM PM OK NONE NA TBD UNKNOWN MANUAL CRON HEARTBEAT TEST DRAFT FINAL COPY AUTONOMOUS CHOICE AUTO"
    " MODE MORNING EVENING NIGHT AFTERNOON"
    " SHALLOW MODERATE DEEP FULL IMPORTANT WARNING DATE TIME TOPIC ID OF THE AND OR A I"
)
_NONE = words(
    "none no null nil n/a na - – — unknown tbd manual cron heartbeat drive choice user human self timer"
    " schedule scheduled auto random nothing"
)
_UPPER = re.compile(r"[^\W\d_](?:[^\W_]|[_-](?=[^\W_])){2,63}")
_NAME = re.compile(r"[^\W\d_](?:[^\W_]|[_'’ -](?=[^\W_])){0,63}")
_PERCENT = re.compile(r"(?<![\d.])(\d{1,4}(?:[.,]\d{1,6})?)[ ]?%")
_RATIO = re.compile(r"(?<![\d./])(\d{1,5}(?:\.\d{1,6})?)[ ]?/[ ]?(\d{1,5}(?:\.\d{1,6})?)(?![\d/])")
_BREAKS = re.compile(
    r"\s*(?:,|;|→|⟶|➜|->|=>|\+|&|\||\n|•|·|\band\b|\bthen\b|\bund\b|\by\b|\bet\b|(?<=[^\W\d_])\s*/\s*(?=[^\W\d_]))\s*"
)
_COUNTED = re.compile(r"\s*\d+\s+drives?\b[^(\[:]{0,20}[(\[:](.*)", re.IGNORECASE | re.DOTALL)
_STRUCK = re.compile(r"~~[^~\n]{1,80}~~")
_OTHER_LABELS = words("level pressure threshold percent priority reason valence band state status trigger")
_LABEL = re.compile(r"(?:name|drive|id|main|primary|secondary|triggered(?: by)?)\s*[:=]\s*", re.IGNORECASE)
_ENDS_NAME = re.compile(
    r"[(\[{:#<=]|\s[-–—@]+\s|\s@|\s\d|\s(?:at|was|is|drive|session|level|triggered|pressure|for|from|by)\b|—|–",
    re.IGNORECASE,
)
_DRESS = " \t*_`~\"'“”‘’[]{}()<>.!?✓✅•·:-–—"


@dataclass(frozen=True, slots=True)
class DriveLevel:
    """A drive and how far it had built.

    Args:
        name: Upper case, words joined by ``_``.
        level_percent: Pressure over threshold, where the text says it.
    """

    name: str
    level_percent: float | None = None


def canonical(name: str) -> str:
    """Return a drive's name as it is compared: ``Deep Work`` → ``DEEP_WORK``."""
    return "_".join(name.split()).upper()


def is_known(name: str, known: frozenset[str] = KNOWN) -> bool:
    """Whether an agent is known to have a drive of this name, in any case."""
    return canonical(name) in known


def looks_like_drive(word: str) -> bool:
    """Whether a word has a drive's shape: capitals, at least three, and no other word that is so written."""
    return (
        word.isupper()
        and not word.isdigit()
        and _UPPER.fullmatch(word) is not None
        and word not in NOT_DRIVES
    )


def says_none(text: str) -> bool:
    """Whether a value says that there is no drive."""
    said = text.strip(" \t*_`\"'[](){}.").split("(")[0].strip().lower()
    return not said or said in _NONE


def levels(text: str) -> tuple[DriveLevel, ...]:
    """Return the drives in a value that names drives, first the main one.

    ``CURIOSITY (104%) → LEARNING``, ``[SOCIAL (112%), CARE (92%)]``, ``2 drives (REST 118%, CARE 101%)``,
    ``Deep Work at 103%``. What follows the first is taken only if it looks like a drive.
    """
    seen = _STRUCK.sub("", text[:_SEEN_CHARS])
    counted = _COUNTED.fullmatch(seen)
    if counted is not None:
        seen = counted[1]
    if says_none(seen):
        return ()
    found: list[DriveLevel] = []
    for place, piece in enumerate(_pieces(seen)):
        if says_none(piece):
            continue
        one = _one(piece, first=place == 0 and not found)
        if one is not None and one.name.lower() in _OTHER_LABELS:
            # Nested: "name: SOCIAL", then "level: 116%".
            if found and found[-1].level_percent is None and one.name in ("LEVEL", "PERCENT"):
                found[-1] = replace(found[-1], level_percent=one.level_percent)
        elif one is not None:
            found.append(one)
    return merged(found)


def merged(drives: Iterable[DriveLevel]) -> tuple[DriveLevel, ...]:
    """Return each drive once, in order of appearance, with the first level that is said of it."""
    by_name: dict[str, DriveLevel] = {}
    for drive in drives:
        known = by_name.setdefault(drive.name, drive)
        if known.level_percent is None and drive.level_percent is not None:
            by_name[drive.name] = replace(known, level_percent=drive.level_percent)
    return tuple(by_name.values())


def level_in(text: str) -> float | None:
    """Return the level in percent that ``text`` names: ``(137%)``, ``30.4/30``."""
    seen = text[:_SEEN_CHARS]
    percent = _PERCENT.search(seen)
    if percent is not None:
        return float(percent[1].replace(",", "."))
    ratio = _RATIO.search(seen)
    if ratio is not None and float(ratio[2]) > 0:
        return round(100 * float(ratio[1]) / float(ratio[2]), 2)
    return None


def _pieces(text: str) -> list[str]:
    """Cut at separators that are in no parentheses."""
    text = text.strip()
    if text[:1] in "[{(" and text[-1:] in "]})":
        text = text[1:-1]
    cuts, depth, start = [], 0, 0
    masked = []
    for char in text:
        if char in "([{":
            depth += 1
        masked.append("x" if depth and char != "\n" else char)
        if char in ")]}":
            depth = max(depth - 1, 0)
    for match in _BREAKS.finditer("".join(masked)):
        cuts.append(text[start : match.start()])
        start = match.end()
    cuts.append(text[start:])
    return [cut for cut in cuts if cut.strip(_DRESS)]


def _one(piece: str, *, first: bool) -> DriveLevel | None:
    level = level_in(piece)
    piece = piece.strip().lstrip("-* \t")
    label = _LABEL.match(piece)
    if label is not None:
        piece = piece[label.end() :]
    # Pictures and marks before the name go; a name begins with a letter.
    start = next((at for at, char in enumerate(piece) if char.isalpha()), None)
    if start is None:
        return None
    end = _ENDS_NAME.search(piece, start)
    written = piece[start : end.start() if end else len(piece)].strip(_DRESS)
    match = _NAME.fullmatch(written)
    if match is None or written.lower() in _NONE:
        return None
    sure = is_known(written) or (written.isupper() and (first or canonical(written) not in NOT_DRIVES))
    if not sure:
        head = written.split()[0]
        if is_known(head) and head.isupper():
            written, sure = head, True
    if sure or (first and len(written.split()) <= 3) or (level is not None and len(written.split()) <= 3):
        return DriveLevel(canonical(written), level)
    return None
