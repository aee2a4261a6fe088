"""What titles and file names say: drives, times, and whether it is a satisfaction or a deferral."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subcortex.journal.sessions import _dates, _drive_names
from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.types import Depth

_SEEN_CHARS = 400
_FILE = re.compile(
    r"(?<!\d)(?P<y>(?:19|20)\d\d)[-_.]?(?P<m>[01]\d)[-_.]?(?P<d>[0-3]\d)"
    r"(?:[-_T ]{1,3}(?P<h>[0-2]\d)[-:h_]?(?P<min>[0-5]\d)(?:[-:_]?(?P<s>[0-5]\d))?(?P<z>Z)?(?!\d))?(?!\d)"
)
_SESSION_OF = re.compile(
    r"(?:\w+ ){0,2}(?:session|drive|drives|driven by|deferral|deferred|deferring|satisfaction|satisfied)"
    r"(?: log| report| notes?)?(?:\s*#?\d{1,5})?\s*[:—–-]\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_WHAT = r"(?:session|drive|satisfaction|satisfied|deferral|deferred|exploration|log|note)"
_OF_SESSION = re.compile(
    rf"(?P<names>[^:—–]{{1,80}}?)(?:\s*\([^)]{{0,40}}\))?\s+(?:drive\s+)?{_WHAT}\b", re.IGNORECASE | re.DOTALL
)
#: A name in capitals before such a word, wherever in the title.
_CAPITAL_SESSION = re.compile(rf"\b(?P<names>[^\W\d_][\w-]{{2,63}})\s+(?i:drive\s+)?(?i:{_WHAT})\b")
_HEAD = re.compile(r"(?P<names>[^:—–(|]{1,80}?)\s*(?:[:—–(|]|\s-\s|$)", re.DOTALL)
_JOINED = re.compile(r"\s*(?:,|→|->|\+|&|/|\band\b|×)\s*")
_SATISFACTION = re.compile(r"\bsatisf(?:action|ied|y)\b", re.IGNORECASE)
_DEFERRAL = re.compile(r"\b(?:deferral|deferred|deferring|defer)\b", re.IGNORECASE)
_DEPTH = re.compile(
    r"[(\[:—–-]\s*(?:depth:?\s*)?(shallow|moderate|deep|full|none)\s*(?:\(|\)|\]|$|,|—|–|·|\||\d)",
    re.IGNORECASE,
)
_MARKS = " \t*_`~\"'“”[]()#:—–-·|."
_DEFERRING = frozenset(("deferral", "deferred", "defer", "deferring"))
_SATISFYING = frozenset(("satisfaction", "satisfied"))
#: What stands beside drives in a file's name and is no topic.
_NOISE = (
    _DEFERRING
    | _SATISFYING
    | {"session", "sessions", "drive", "drives", "note", "notes", "log", "copy", "draft", "final"}
    | {"autonomous", "auto", "choice", "manual", "cron", "morning", "afternoon", "evening", "night"}
)


@dataclass(frozen=True, slots=True)
class TitleSays:
    """What a title says; ``topic`` is what it says beside drive and date."""

    drives: tuple[DriveLevel, ...]
    when: _dates.When | None
    depth: Depth | None
    satisfaction: bool
    deferral: bool
    topic: str | None


@dataclass(frozen=True, slots=True)
class FileSays:
    """What a file's name says.

    Args:
        doubtful: Words in capitals that are drives if the text agrees.
        only_drives: Nothing else stands beside the drives, such as a topic.
    """

    when: _dates.When | None
    drives: tuple[DriveLevel, ...]
    doubtful: frozenset[str]
    only_drives: bool
    satisfaction: bool
    deferral: bool


_NO_FILE = FileSays(None, (), frozenset(), False, False, False)


def title_says(title: str, agreed: frozenset[str] = frozenset()) -> TitleSays:
    """Read a title. A name in it that is not written in capitals is a drive if known, or in ``agreed``."""
    seen = title[:_SEEN_CHARS]
    when = _dates.find(seen)
    rest = seen.replace(when.written, "", 1) if when is not None and when.written else seen
    depth = _DEPTH.search(rest)
    satisfaction, deferral = _SATISFACTION.search(rest) is not None, _DEFERRAL.search(rest) is not None
    drives, topic = _title_drives(rest.strip(_MARKS), agreed)
    return TitleSays(
        drives,
        when,
        Depth(depth[1].lower()) if depth else None,
        satisfaction,
        deferral,
        _topic(topic),
    )


def _topic(rest: str | None) -> str | None:
    """Return what is left of a title, if it is more than a level, a depth or a kind."""
    rest = (rest or "").strip(_MARKS)
    plain = re.sub(r"\W|\d|shallow|moderate|deep|full|none|session|drive|satisfaction|part", "", rest.lower())
    return rest if plain else None


def _title_drives(title: str, agreed: frozenset[str]) -> tuple[tuple[DriveLevel, ...], str | None]:
    # Pictures at the beginning say nothing.
    start = next((at for at, char in enumerate(title) if char.isalnum()), 0)
    title = title[start:]
    of_session = _OF_SESSION.match(title)
    if of_session is not None:
        drives = _named(of_session["names"], agreed, title)
        if drives:
            return drives, _after_level(title[of_session.end() :])
    session_of = _SESSION_OF.fullmatch(title)
    if session_of is not None:
        rest = session_of["rest"].lstrip(_MARKS)
        head = _HEAD.match(rest)
        drives = _named(head["names"], agreed, rest) if head is not None else ()
        return drives, _after_level(rest[len(head["names"]) :]) if head is not None and drives else rest
    for match in _CAPITAL_SESSION.finditer(title):
        name = match["names"]
        if name.isupper() and (_drive_names.is_known(name) or name in agreed):
            return (DriveLevel(name, _level_behind(title[match.end() :])),), None
    for part in re.split(r"\s*[—–|]\s*|\s-\s", title)[:6]:
        head = _HEAD.match(part)
        drives = _named(head["names"], agreed, part) if head is not None else ()
        # Alone at the front of a title, only capitals or agreement make a word a drive.
        if drives and all(_is_capital(drive.name, part) or drive.name in agreed for drive in drives):
            assert head is not None
            rest = title[title.find(part) + len(head["names"]) :]
            return drives, _after_level(rest)
    return (), None


def _is_capital(name: str, text: str) -> bool:
    return name in text or name.replace("_", " ") in text


def _after_level(text: str) -> str:
    return re.sub(r"^\s*\([^)]{0,60}\)", "", text).strip(_MARKS)


def _named(names: str, agreed: frozenset[str], around: str) -> tuple[DriveLevel, ...]:
    """Return the drives if ``names`` is nothing but names of drives."""
    found = []
    for name in _JOINED.split(names.strip(_MARKS)):
        bare = re.sub(
            r"\s*\d{1,4}(?:\.\d+)?\s*%|#\d{1,5}|\([^)]{0,60}\)?|\b(?:drive|drives)\b",
            "",
            name,
            flags=re.IGNORECASE,
        ).strip(_MARKS)
        key = _drive_names.canonical(bare)
        words = bare.split()
        capital = (
            bool(words) and all(_drive_names.looks_like_drive(word) for word in words) and len(words) <= 3
        )
        if not bare or not (_drive_names.is_known(bare) or key in agreed or capital):
            return ()
        if not (_drive_names.is_known(bare) or key in agreed) and len(words) > 1:
            # Several capital words that nobody knows are a headline.
            return ()
        at = around.find(name)
        found.append(
            DriveLevel(
                key, _drive_names.level_in(name) or _level_behind(around[at + len(name) :] if at >= 0 else "")
            )
        )
    return _drive_names.merged(found)


def _level_behind(text: str) -> float | None:
    match = re.match(r"\s*[(\[—–-]?\s*(?:at\s+)?(\d{1,4}(?:\.\d+)?)\s?%", text)
    return float(match[1]) if match else None


def file_says(file_name: str | None) -> FileSays:
    """Read ``YYYY-MM-DD-HHMM-NAME.md``; a path's folders say nothing, and nothing is opened."""
    if not file_name:
        return _NO_FILE
    name = re.split(r"[/\\]", file_name)[-1][:_SEEN_CHARS]
    name = re.sub(r"\.(?:md|markdown|txt|mdown)$", "", name, flags=re.IGNORECASE)
    match = _FILE.search(name)
    when = _when(match) if match is not None else None
    if match is not None and when is not None:
        name = f"{name[: match.start()]} {name[match.end() :]}"
    words = [word.strip("_") for word in re.split(r"[-\s.,+&()\[\]#]+", name) if word.strip("_")]
    said = {word.lower() for word in words}
    satisfaction, deferral = bool(said & _SATISFYING), bool(said & _DEFERRING)
    parts = [word for word in words if not _is_noise(word)]
    drives, only = _file_drives(parts, sure=satisfaction)
    capitals = [part for part in parts if part.isupper()]
    doubtful = frozenset(_drive_names.canonical(part) for part in (*capitals, " ".join(capitals)) if part)
    return FileSays(when, drives, doubtful, only, satisfaction, deferral)


def _is_noise(word: str) -> bool:
    return (
        word.lower() in _NOISE or re.fullmatch(r"\d+|(?:part|v|no|take)\d*", word, re.IGNORECASE) is not None
    )


def _when(match: re.Match[str]) -> _dates.When | None:
    day = _dates.find(f"{match['y']}-{match['m']}-{match['d']}")
    if day is None or day.day is None:
        return None
    clock = zone = None
    if match["h"] is not None:
        found = _dates.clock_in(f"{match['h']}:{match['min']}:{match['s'] or '00'}{match['z'] or ''}")
        clock, zone = (found.clock, found.zone) if found is not None else (None, None)
    return _dates.When(day.day, clock, zone, match[0])


def _file_drives(parts: list[str], *, sure: bool) -> tuple[tuple[DriveLevel, ...], bool]:
    """Return the drives among a name's words, and whether they are all of it."""
    whole = _drive_names.canonical(" ".join(parts))
    if parts and _drive_names.is_known(whole):
        # A known name may itself be of several words: DEEP-WORK.
        return (DriveLevel(whole),), True
    found: list[str] = []
    unknown = 0
    for place, part in enumerate(parts):
        pieces = [piece for piece in part.split("_") if piece]
        if _drive_names.is_known(part):
            # Behind other words it may be one of them: notes-on-rest.
            if part.isupper() or place == len(found):
                found.append(part.upper())
        elif len(pieces) > 1 and all(_drive_names.is_known(piece) for piece in pieces):
            found += [piece.upper() for piece in pieces]
        elif "_" in part and _drive_names.looks_like_drive(part):
            # An underscore is no topic's.
            found.append(part)
        else:
            unknown += 1
    if not found and parts and len(parts) <= 3:
        capitals = all(_drive_names.looks_like_drive(part) for part in parts)
        if capitals or sure:
            return (DriveLevel(whole),), True
    return _drive_names.merged(DriveLevel(name) for name in found), unknown == 0
