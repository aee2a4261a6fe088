"""Telling Emergence of a satisfaction: by its own command, in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from subcortex.drives.definitions import normalised
from subcortex.drives.emergence import EmergenceDrive, read
from subcortex.drives.pressure import LEFT, Depth
from subcortex.errors import EmergenceFailed, InvalidRequest

COMMAND = "emergence"
TIME_LIMIT_S = 30.0
#: Its tick and its command each write the whole state; a report that fell between is made again.
_ATTEMPTS = 3
_AGAIN_AFTER_S = 0.3
_LONGEST_REASON = 500
_TAIL_CHARACTERS = 2000
#: It says so in words alone: 0.4.0 exits with 0 whatever happened.
_FAILED, _WARNED, _LOCKED = "✗", "⚠", "locked by another process"


@dataclass(frozen=True, slots=True)
class Reported:
    """What a report changed.

    Args:
        drive: As Emergence calls it.
        before: Its pressure before.
        after: Its pressure after, as the state has it.
        attempts: How often the command ran; 0 where there was nothing to report.
        output: What it said.
    """

    drive: str
    depth: Depth
    before: float
    after: float
    attempts: int
    output: str


def report_satisfaction(
    name: str,
    depth: Depth,
    *,
    folder: Path,
    reason: str | None = None,
    command: str = COMMAND,
    time_limit_s: float = TIME_LIMIT_S,
) -> Reported:
    """Have ``emergence drives satisfy`` lower a drive in the state of ``folder``; returns once it has.

    The command's word is not taken for it: the state is read before and after. A report that was overwritten,
    or that met a locked state, is made again, three times at most.

    Args:
        name: As the state has it; nothing is matched loosely here.
        depth: ``none`` reports nothing.
        folder: Where its ``drives.json`` lies.
        reason: Passed on, cut to 500 characters (0.4.0 takes it and keeps nothing of it).
        command: The program, by name or path.
        time_limit_s: For each run of it, seconds.

    Raises:
        InvalidRequest: The state has no such drive, or two whose names the command cannot tell apart.
        EmergenceFailed: The command is not there, takes too long, or says that it failed; has its output.
    """
    before, grown_at = _standing(name, folder)
    if depth == "none" or before.pressure == 0.0:
        return Reported(name, depth, before.pressure, before.pressure, 0, "")
    program = shutil.which(command)
    if program is None:
        raise EmergenceFailed(
            f"the command {command!r} is not there, so {name} at {depth} was not reported to Emergence",
            hint="Install emergence-ai in an environment of its own, and set drives.emergence_command to its"
            ' bin/emergence; or set drives.emergence = "off".',
            command=command,
        )
    output = ""
    for attempt in range(1, _ATTEMPTS + 1):
        output = _run(program, name, depth, reason, folder, time_limit_s)
        if _LOCKED not in output:
            _refuse_failure(output, name, depth)
            after, _ = _standing(name, folder)
            if after.pressure <= _most_left(before, depth, grown_at):
                return Reported(name, depth, before.pressure, after.pressure, attempt, output)
        if attempt < _ATTEMPTS:
            time.sleep(_AGAIN_AFTER_S)
    raise EmergenceFailed(
        f"{name} at {depth} did not reach the Emergence state in {_ATTEMPTS} attempts",
        hint="Another program holds or overwrites it. Try again: `subcortex drives satisfy`.",
        output=output[-_TAIL_CHARACTERS:],
    )


def _standing(name: str, folder: Path) -> tuple[EmergenceDrive, datetime]:
    """Return the drive, and until when the state has grown."""
    state = read(folder)
    alike = [known for known in state.drives if normalised(known) == normalised(name)]
    if name not in state.drives:
        raise InvalidRequest(
            f"the Emergence state in {folder} has no drive {name!r}",
            hint=f"It has: {', '.join(state.drives) or 'none'}.",
            param="drive",
        )
    if len(alike) > 1:
        raise InvalidRequest(
            f"Emergence takes {' and '.join(map(repr, alike))} for one drive, and would satisfy either",
            hint="Rename one of them in its drives.json.",
            param="drive",
        )
    return state.drives[name], state.last_tick or datetime.now(UTC)


def _most_left(before: EmergenceDrive, depth: Depth, grown_at: datetime) -> float:
    """Return the most that a report may leave, what ticks have added since ``grown_at`` included."""
    hours = max((datetime.now(UTC) - grown_at) / timedelta(hours=1), 0.0)
    grown = 0.0 if before.activity_driven else before.rate_per_hour * hours
    return before.pressure * (LEFT[depth] + 1e-6) + grown


def _run(program: str, name: str, depth: Depth, reason: str | None, folder: Path, time_limit_s: float) -> str:
    options = [f"--reason={_plain(reason)}"] if reason else []
    with tempfile.TemporaryDirectory(prefix="subcortex-emergence-") as scratch:
        # Which state it works on is for its configuration to say; this one says no more than that.
        settings = Path(scratch) / "emergence.json"
        paths = {"workspace": str(folder.resolve()), "state": "."}
        settings.write_text(json.dumps({"paths": paths}), "utf-8")
        environ = {**os.environ, "EMERGENCE_CONFIG": str(settings), "PYTHONUTF8": "1"}
        try:
            done = subprocess.run(
                [program, "drives", "satisfy", *options, "--", name, depth],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=scratch,
                timeout=time_limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = _decoded(error.stdout)
            raise EmergenceFailed(
                f"{program} took more than {time_limit_s:g} s to report {name} at {depth}",
                hint="Run it by hand: `emergence drives satisfy NAME DEPTH`.",
                output=said[-_TAIL_CHARACTERS:],
            ) from None
        except OSError as error:
            raise EmergenceFailed(
                f"{program} cannot be run: {error.strerror}",
                hint="Set drives.emergence_command to the program that emergence-ai installed.",
                command=program,
            ) from None
    said = _decoded(done.stdout)
    if done.returncode != 0:
        raise _failed(f"{program} ended with {done.returncode}", name, depth, said)
    return said


def _refuse_failure(output: str, name: str, depth: Depth) -> None:
    for line in output.splitlines():
        if line.lstrip().startswith((_FAILED, _WARNED)):
            raise _failed(line.strip(), name, depth, output)


def _failed(what: str, name: str, depth: Depth, output: str) -> EmergenceFailed:
    return EmergenceFailed(
        f"Emergence did not take {name} at {depth}: {what}",
        hint=f"It said: {output.strip()[-_TAIL_CHARACTERS:]}" if output.strip() else None,
        output=output[-_TAIL_CHARACTERS:],
    )


def _plain(reason: str) -> str:
    text = " ".join(reason.replace("\0", " ").split())
    return text.encode("utf-8", "replace").decode()[:_LONGEST_REASON]


def _decoded(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
