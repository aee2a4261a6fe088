"""What an Emergence state says of an agent's drives: read, and never written.

emergence-ai keeps a drive in two files of one folder: ``drives.json`` has what it is, ``drives-state.json``
what it has built up. Where a key stands in both, the second holds; a file of an older version has all in the
first. Its daemon replaces both whole, but not both at once.
"""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from subcortex.drives.definitions import LONGEST_NAME, Drive, normalised
from subcortex.drives.pressure import Level, State, level
from subcortex.errors import EmergenceFailed

DEFINITIONS_FILE = "drives.json"
STATE_FILE = "drives-state.json"
#: A state of a hundred drives takes some 100 KiB.
MOST_BYTES = 4 * 2**20
#: How long a file that is not whole is given to become so.
_AGAIN_AFTER_S = 0.05
#: What emergence-ai takes where a drive has no threshold.
_THRESHOLD = 1.0
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class EmergenceDrive:
    """One drive as Emergence has it; a key that is missing or makes no sense has what Emergence would take.

    Args:
        name: As it stands there: any case, spaces, any script.
        threshold: Pressure at 100 %: that of its ``triggered`` band where it has bands of its own. 0: it is
            never triggered.
        thwarted: Triggers in a row without a satisfaction.
        triggered_at: When Emergence last had a session for it.
        is_triggered: Emergence has it among those that wait for a satisfaction.
    """

    name: str
    description: str = ""
    prompt: str = ""
    pressure: float = 0.0
    threshold: float = _THRESHOLD
    rate_per_hour: float = 0.0
    min_interval_s: float = 0.0
    category: Literal["core", "discovered"] = "discovered"
    valence: str = "appetitive"
    activity_driven: bool = False
    thwarted: int = 0
    triggered_at: datetime | None = None
    is_triggered: bool = False

    def drive(self, file: Drive | None = None) -> Drive:
        """Return it as a drive that routing knows; it leans as a file's drive of its name, if any."""
        like = file.model_dump() if file else {}
        described = self.description or like.get("description") or f"{self.name}, of the Emergence state."
        return Drive.model_validate(
            {
                **like,
                "name": self.name,
                "description": described,
                "prompt": self.prompt or like.get("prompt") or f"Your {self.name} drive asks for attention.",
                "category": self.category,
                "valence": "aversive" if self.valence == "aversive" else "appetitive",
                "activity_driven": self.activity_driven,
                "threshold": self.threshold or _THRESHOLD,
                "rate_per_hour": self.rate_per_hour,
                "min_interval_h": self.min_interval_s / 3600.0,
            }
        )


@dataclass(frozen=True, slots=True)
class EmergenceState:
    """A whole state, as its files had it at one time.

    Args:
        folder: Where the two files lie.
        version: Of its form, as it says.
        last_tick: Until when its pressures have grown; None if it does not say.
        drives: By name, in its order.
        left_out: What could not be taken for a drive, each with the reason.
    """

    folder: Path
    version: str = ""
    last_tick: datetime | None = None
    drives: Mapping[str, EmergenceDrive] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def levels(self, now: datetime, satisfied: Mapping[str, datetime] | None = None) -> list[Level]:
        """Return each drive's level as the state has it: Emergence grows it, at its own ticks.

        Args:
            now: What minimum intervals are measured to.
            satisfied: When a drive was last satisfied, which the state does not keep; its intervals run from
                there, and from when Emergence last had a session for it.
        """
        return [self._level(found, now, (satisfied or {}).get(found.name)) for found in self.drives.values()]

    def _level(self, found: EmergenceDrive, now: datetime, satisfied_at: datetime | None) -> Level:
        last = max((at for at in (satisfied_at, found.triggered_at) if at), default=None)
        pressure = found.pressure if found.threshold > 0 else 0.0
        standing = State(found.name, pressure, self.last_tick or now, last, found.thwarted)
        read_so = level(standing, found.drive(), now)
        if found.threshold > 0:
            return read_so
        return replace(read_so, pressure=found.pressure, threshold=0.0, next_at=None)


def read(path: Path) -> EmergenceState:
    """Read the state in a folder, or the one that a ``drives.json`` belongs to.

    A file that is not whole is read once more a moment later: whoever writes it may be about to finish.

    Raises:
        EmergenceFailed: There is none, it cannot be read, is larger than 4 MiB, or is no JSON object.
    """
    folder = path if path.is_dir() else path.parent
    try:
        return _read(folder)
    except EmergenceFailed:
        time.sleep(_AGAIN_AFTER_S)
        return _read(folder)


def is_state(folder: Path) -> bool:
    """Return whether a folder holds an Emergence state."""
    return signature(folder) != (None, None)


def signature(folder: Path) -> tuple[tuple[int, int, int] | None, ...]:
    """Return what tells one version of the state's files from the next without reading them."""
    # Asked with each thought: joining strings costs a tenth of joining paths.
    return tuple(_signature(os.path.join(folder, name)) for name in (DEFINITIONS_FILE, STATE_FILE))  # noqa: PTH118


def merged(files: Mapping[str, Drive], state: EmergenceState) -> dict[str, Drive]:
    """Return the drives of the files and of a state by name; where both have one, it is the state's."""
    known = dict(files)
    for found in state.drives.values():
        same = next((name for name in files if normalised(name) == normalised(found.name)), None)
        if same is not None:
            known.pop(same, None)
        known[found.name] = found.drive(files[same] if same else None)
    return dict(sorted(known.items()))


def _signature(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _read(folder: Path) -> EmergenceState:
    definitions = _object(folder / DEFINITIONS_FILE)
    state = _object(folder / STATE_FILE)
    if definitions is None and state is None:
        raise EmergenceFailed(
            f"there is no Emergence state in {folder}: neither {DEFINITIONS_FILE} nor {STATE_FILE}",
            hint='Set drives.emergence to its folder, or to "off".',
            folder=str(folder),
        )
    first, second = definitions or {}, state or {}
    listed = second.get("triggered_drives", first.get("triggered_drives"))
    triggered = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    drives: dict[str, EmergenceDrive] = {}
    left_out = []
    tables = [found if isinstance(found := part.get("drives"), dict) else {} for part in (first, second)]
    for name in dict.fromkeys([*tables[0], *tables[1]]):
        is_, has = (found if isinstance(found := table.get(name), dict) else {} for table in tables)
        # The daemon cuts descriptions short where it keeps the state.
        described = is_.get("description") or has.get("description")
        keys = {**is_, **has, "description": described}
        problem = _unusable(name)
        if problem:
            left_out.append(f"{name[:40]!r}: {problem}")
        else:
            drives[name] = _drive(name, keys, name in triggered)
    return EmergenceState(
        folder=folder,
        version=str(first.get("version") or second.get("version") or ""),
        last_tick=_time(second.get("last_tick") or first.get("last_tick")),
        drives=drives,
        left_out=tuple(left_out),
    )


def _unusable(name: str) -> str | None:
    if not name.strip():
        return "no name"
    if len(name) > LONGEST_NAME:
        return f"a name of {len(name)} characters; {LONGEST_NAME} are the most"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "a name that UTF-8 cannot hold"
    return "a name with a NUL in it" if "\0" in name else None


def _drive(name: str, keys: Mapping[str, Any], is_triggered: bool) -> EmergenceDrive:
    own = keys.get("thresholds")
    bands = own if isinstance(own, dict) else {}
    thwarted = _number(keys.get("thwarting_count"), 0.0)
    return EmergenceDrive(
        name=name,
        description=_text(keys.get("description")),
        prompt=_text(keys.get("prompt")),
        pressure=_number(keys.get("pressure"), 0.0),
        threshold=_number(bands.get("triggered"), _number(keys.get("threshold"), _THRESHOLD)),
        rate_per_hour=_number(keys.get("rate_per_hour"), 0.0),
        min_interval_s=_number(keys.get("min_interval_seconds"), 0.0),
        category="core" if keys.get("category") == "core" else "discovered",
        valence=_text(keys.get("valence")) or "appetitive",
        activity_driven=keys.get("activity_driven") is True,
        thwarted=int(thwarted),
        triggered_at=_time(keys.get("last_triggered")),
        is_triggered=is_triggered,
    )


def _object(file: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is no file."""
    text = _content(file)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EmergenceFailed(
            f"{file} is no JSON: {error}",
            hint="See whether `emergence drives status` reads it; the last one lies beside it, .bak.",
            file=str(file),
        ) from None
    if not isinstance(found, dict):
        raise EmergenceFailed(
            f"{file} is not an Emergence state: it holds no JSON object",
            hint="Set drives.emergence to another folder.",
            file=str(file),
        )
    return found


def _content(file: Path) -> bytes | None:
    try:
        # A pipe of that name must not hold us up.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unreadable(file, "it is no regular file")
        try:
            content = opened.read(MOST_BYTES + 1)
        except OSError as error:
            raise _unreadable(file, error.strerror) from None
    if len(content) > MOST_BYTES:
        raise _unreadable(file, f"it has more than {MOST_BYTES // 2**20} MiB")
    return content


def _unreadable(file: Path, why: str | None) -> EmergenceFailed:
    return EmergenceFailed(
        f"{file} cannot be read: {why}", hint='Mend that, or set drives.emergence = "off".', file=str(file)
    )


def _text(value: Any) -> str:
    # What UTF-8 cannot hold would stop at every door further on.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _number(value: Any, default: float) -> float:
    """Return a finite number from 0 on; the default for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    try:
        number = float(value)
    except OverflowError:
        return default
    return min(number, _MOST) if math.isfinite(number) and number >= 0 else default


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
