"""The drives behind thoughts: what each wants, and how it leans between fast and deep.

One TOML file a drive, in the folder that ``drives.dir`` names. A drive here is a definition; how much
pressure it has built is state, and kept elsewhere.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from subcortex.errors import ConfigError, InvalidRequest

#: What a file may call a drive. A drive that another program's state brings may have any name.
_NAME_IN_A_FILE = re.compile(r"[A-Z][A-Z0-9_-]{0,63}")
LONGEST_NAME = 200
#: Far more than any unit of pressure or any interval needs; keeps the arithmetic finite.
_MOST = 1e9


class Drive(BaseModel):
    """One drive, as its file defines it.

    Args:
        name: Upper case in a file, which gives its own name where the key is missing; an Emergence state's as
            it has it there.
        description: What it is, in a sentence.
        prompt: What an agent is asked when a session is held for this drive.
        lean: Pull towards a tier: -1 fast, 0 neither, +1 deep.
        floor: Complexity, 0 to 1, that its thoughts are treated as having at least.
        category: ``core`` came with the agent, ``discovered`` grew in it.
        valence: ``appetitive`` seeks something, ``aversive`` wants something to end.
        activity_driven: Pressure builds from work done, not from time passed.
        satisfied_by: What its session works on: ``gap`` takes the best open question of the board, ``prompt``
            thinks on the drive's own prompt.
        threshold: Pressure at which it is triggered (level 100 %).
        rate_per_hour: Pressure gained an hour: of time passed, or of work done where it is activity-driven.
        min_interval_h: Hours from one satisfaction to the next session at the earliest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    description: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    lean: float = Field(default=0.0, ge=-1.0, le=1.0)
    floor: float = Field(default=0.0, ge=0.0, le=1.0)
    category: Literal["core", "discovered"] = "core"
    valence: Literal["appetitive", "aversive"] = "appetitive"
    activity_driven: bool = False
    satisfied_by: Literal["gap", "prompt"] = "prompt"
    threshold: float = Field(default=20.0, gt=0.0, le=_MOST, allow_inf_nan=False)
    rate_per_hour: float = Field(default=1.0, ge=0.0, le=_MOST, allow_inf_nan=False)
    min_interval_h: float = Field(default=0.0, ge=0.0, le=_MOST, allow_inf_nan=False)

    @field_validator("name")
    @classmethod
    def _plain_in_a_file(cls, name: str, info: ValidationInfo) -> str:
        if info.context == _FROM_A_FILE and not _NAME_IN_A_FILE.fullmatch(name):
            raise ValueError("no name")
        return name


_FROM_A_FILE = {"from": "file"}


def load_drives(folder: Path) -> dict[str, Drive]:
    """Read every ``*.toml`` in ``folder``; the result is keyed and sorted by name.

    Raises:
        ConfigError: The folder or a file cannot be read, or a file is wrong: names the file, the key
            and what to write instead.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except OSError as error:
        raise ConfigError(
            f"the drives folder {folder} cannot be read: {error.strerror}",
            hint="Set drives.dir in the config to a folder of drive files.",
            file=str(folder),
            key="drives.dir",
        ) from None
    drives: dict[str, Drive] = {}
    origins: dict[str, Path] = {}
    for file in files:
        drive = _load(file)
        if drive.name in drives:
            raise ConfigError(
                f"{file}: drive {drive.name} is defined in {origins[drive.name].name} already",
                hint="Give one of them another name, or remove one file.",
                file=str(file),
                key="name",
            )
        drives[drive.name], origins[drive.name] = drive, file
    return dict(sorted(drives.items()))


def find(drives: Mapping[str, Drive], name: str) -> Drive:
    """Return the drive of that name: as it is written, else in any case, else with ``_`` and ``-`` as spaces.

    Raises:
        InvalidRequest: There is none, or several that differ in these ways alone; names the nearest and all
            that are known.
    """
    wanted = name.strip()
    if wanted in drives:
        return drives[wanted]
    for alike in (str.casefold, normalised):
        found = [drive for known, drive in drives.items() if alike(known) == alike(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidRequest(
                f"{name!r} may be any of {', '.join(repr(drive.name) for drive in found)}",
                hint="Write the name as the one you mean has it.",
                param="drive",
                known=list(drives),
                nearest=found[0].name,
            )
    known_names = ", ".join(drives) or "none"
    near = difflib.get_close_matches(normalised(wanted), {normalised(known): known for known in drives}, n=1)
    nearest = next((known for known in drives if near and normalised(known) == near[0]), None)
    raise InvalidRequest(
        f"unknown drive {name!r}",
        hint=(f"Did you mean {nearest}? " if nearest else "") + f"Known drives: {known_names}.",
        param="drive",
        known=list(drives),
        nearest=nearest,
    )


def normalised(name: str) -> str:
    """Return what the spellings of one drive have in common, as emergence-ai takes them."""
    return name.upper().replace("-", " ").replace("_", " ")


def _load(file: Path) -> Drive:
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", file=str(file)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not UTF-8: byte {error.start}", hint="Save it as UTF-8.", file=str(file)
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}", hint="Mend that line.", file=str(file)) from None
    name = data.get("name", file.stem)
    try:
        named = {**data, "name": name.upper() if isinstance(name, str) else name}
        return Drive.model_validate(named, context=_FROM_A_FILE)
    except ValidationError as error:
        raise _explained(error, file) from None


def _explained(error: ValidationError, file: Path) -> ConfigError:
    problems = [_problem(item) for item in error.errors()]
    hints = dict.fromkeys(hint for _, _, hint in problems if hint)
    return ConfigError(
        f"{file}: " + "; ".join(f"{key}: {what}" for key, what, _ in problems),
        hint=" ".join(hints) or "See the comments in drives/learning.toml.",
        file=str(file),
        key=problems[0][0],
        problems=[{"key": key, "problem": what, "hint": hint} for key, what, hint in problems],
    )


def _problem(item: Any) -> tuple[str, str, str | None]:
    """Return key, what is wrong and what to write instead, for one of pydantic's errors."""
    key = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Drive.model_fields, n=1)
        known = ", ".join(Drive.model_fields)
        return key, "unknown key", f"Did you mean {near[0]!r}?" if near else f"Known keys: {known}."
    if item["type"] == "missing":
        return key, "missing", f"Add {key!r}: a sentence between quotes."
    if key == "name":
        return key, f"{item['input']!r} is no name", "Use letters, digits, _ and -, a letter first."
    return key, f"{item['msg']} (it is {item['input']!r})", _EXPECTED.get(key)


_EXPECTED = {
    "lean": "Write lean as a number from -1 (fast) to 1 (deep).",
    "floor": "Write floor as a number from 0 to 1.",
    "category": 'Write category = "core" or "discovered".',
    "valence": 'Write valence = "appetitive" or "aversive".',
    "activity_driven": "Write activity_driven = true or false.",
    "satisfied_by": 'Write satisfied_by = "gap" or "prompt".',
    "threshold": "Write threshold as a number above 0.",
    "rate_per_hour": "Write rate_per_hour as a number, 0 or more.",
    "min_interval_h": "Write min_interval_h as a number of hours, 0 or more.",
    "description": "Write description as a sentence between quotes.",
    "prompt": "Write prompt as text between quotes.",
}
