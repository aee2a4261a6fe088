"""What titles and file names say: drives, times, and whether it is a satisfaction or a deferral."""

from __future__ import annotations

import re
from dataclasses import dataclass

from subcortex.journal.sessions import _dates, _drive_names
from subcortex.journal.sessions._drive_names import DriveLevel
from subcortex.types import Depth

_SEEN_CHARS = 400
_FILE = re.compile(
    r"(?P<y>\d{4})[-_]?(?P<m>\d\d)[-_]?(?P<d>\d\d)"
    r"(?:[-_T ]+(?P<h>[0-2]\d)[-:h]?(?P<min>[0-5]\d)(?:[-:]?(?P<s>[0-5]\d))?(?![0-9]))?"
    r"Z?[-_ ]*(?P<name>.*)",
    re.DOTALL,
)
_SESSION_OF = re.compile(
    r"(?:\w+ )?(?:session|drive|drives|driven by)(?: log| report| note| notes)?\s*[:—–-]\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_OF_SESSION = re.compile(
    r"(?P<names>[^:—–]{1,80}?)(?:\s*\([^)]{0,40}\))?\s+(?:drive\s+)?(?:session|drive|satisfaction|satisfied|deferral|deferred|exploration|log|note)\b",
    re.IGNORECASE | re.DOTALL,
)
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
_SUFFIXES = _DEFERRING | _SATISFYING | {"session", "note", "notes", "log"}


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
    """What a file's name says. ``doubtful`` are words that are drives if the text agrees."""

    when: _dates.When | None
    drives: tuple[DriveLevel, ...]
    doubtful: frozenset[str]
    satisfaction: bool
    deferral: bool


_NO_FILE = FileSays(None, (), frozenset(), False, False)


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
        topic.strip(_MARKS) or None if topic else None,
    )


def _title_drives(title: str, agreed: frozenset[str]) -> tuple[tuple[DriveLevel, ...], str | None]:
    # Pictures at the beginning say nothing.
    start = next((at for at, char in enumerate(title) if char.isalnum()), 0)
    title = title[start:]
    session_of = _SESSION_OF.fullmatch(title)
    if session_of is not None:
        rest = session_of["rest"]
        head = _HEAD.match(rest)
        if head is not None:
            drives = _named(head["names"], agreed, rest)
            if drives:
                return drives, _after_level(rest[len(head["names"]) :])
        return (), rest
    of_session = _OF_SESSION.match(title)
    if of_session is not None:
        drives = _named(of_session["names"], agreed, title)
        if drives:
            return drives, _after_level(title[of_session.end() :])
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
            r"\s*\d{1,4}(?:\.\d+)?\s*%|\([^)]{0,60}\)?|\b(?:drive|drives)\b", "", name, flags=re.IGNORECASE
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
    match = _FILE.fullmatch(name)
    when = None
    if match is not None:
        written = name[: match.start("name")].rstrip("-_ ")
        when = _when(match, written)
        if when is not None:
            name = match["name"]
    parts = [part for part in re.split(r"[-\s.+]+", name) if part]
    suffixes = {part.lower() for part in parts if part.lower() in _SUFFIXES}
    parts = [part for part in parts if part.lower() not in _SUFFIXES and not part.isdigit()]
    satisfaction = bool(suffixes & _SATISFYING)
    drives, doubtful = _file_drives(parts, sure=satisfaction)
    return FileSays(when, drives, doubtful, satisfaction, bool(suffixes & _DEFERRING))


def _when(match: re.Match[str], written: str) -> _dates.When | None:
    day = _dates.find(f"{match['y']}-{match['m']}-{match['d']}")
    if day is None or day.day is None:
        return None
    clock = None
    if match["h"] is not None:
        found = _dates.clock_in(f"{match['h']}:{match['min']}:{match['s'] or '00'}")
        clock = found.clock if found is not None else None
    return _dates.When(day.day, clock, None, written)


def _file_drives(parts: list[str], *, sure: bool) -> tuple[tuple[DriveLevel, ...], frozenset[str]]:
    found: list[str] = []
    unknown: list[str] = []
    # A known name may itself be of several words: DEEP-WORK.
    whole = _drive_names.canonical(" ".join(parts))
    if parts and _drive_names.is_known(whole):
        return (DriveLevel(whole),), frozenset()
    for part in parts:
        if _drive_names.is_known(part):
            found.append(part.upper())
        else:
            unknown.append(part)
    doubtful = frozenset(_drive_names.canonical(part) for part in unknown) | (
        {_drive_names.canonical(" ".join(unknown))} if unknown else frozenset()
    )
    if not found and unknown:
        capitals = all(part.isupper() and _drive_names.looks_like_drive(part) for part in unknown)
        if (capitals or sure) and len(unknown) <= 3:
            found = [whole]
    elif found and unknown:
        # Behind a drive stands a topic more often than another drive; an underscore is no topic's.
        found += [part for part in unknown if "_" in part and _drive_names.looks_like_drive(part)]
    return _drive_names.merged(DriveLevel(name) for name in found), doubtful
