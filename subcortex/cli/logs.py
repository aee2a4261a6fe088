"""``logs``: what an engine or the daemon wrote."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from subcortex.cli import _output
from subcortex.cli._options import TierName, common_options, load_config
from subcortex.errors import InvalidRequest

_POLL_S = 0.2
#: No log line that matters is longer; bounds the memory that a hostile log can take.
_BYTES_A_LINE = 8192


@click.command("logs")
@click.argument("tier", type=TierName())
@click.option("-n", "--lines", type=click.IntRange(min=0), default=200, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is added, until Ctrl-C.")
@common_options
def logs_command(config_file: Path | None, as_json: bool, tier: str, lines: int, follow: bool) -> None:
    """Print the end of a tier's log; `daemon` names the daemon's own.

    Reads the log file itself, so it works when the daemon is down, which is when it is needed.
    """
    if follow and as_json:
        raise click.UsageError("--follow has no end, --json prints one value: choose one.")
    config = load_config(config_file)
    names = [known.name for known in config.tiers]
    if tier not in (*names, "daemon"):
        raise InvalidRequest(f"there is no tier {tier!r}", hint=f"One of: {', '.join((*names, 'daemon'))}.")
    file = config.log_dir / f"{tier}.log"
    if not file.is_file():
        raise InvalidRequest(
            f"{tier} has no log yet: {file}", hint="It is written once its engine starts; a remote has none."
        )
    found, end = tail(file, lines)
    if as_json:
        _output.print_json({"tier": tier, "file": str(file), "lines": found})
        return
    for line in found:
        _output.say(_output.inert(line))
    if follow:
        for text in added(file, end):
            sys.stdout.write(_output.inert(text))
            sys.stdout.flush()


def tail(file: Path, lines: int) -> tuple[list[str], int]:
    """Return the last ``lines`` lines of ``file``, and the byte at which it ended then.

    Reads no more of it than so many lines can take.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - lines * _BYTES_A_LINE))
        text = stream.read(size - stream.tell()).decode("utf-8", errors="replace")
    return text.splitlines()[-lines:] if lines else [], size


def added(file: Path, start: int) -> Iterator[str]:
    """Yield what ``file`` holds from byte ``start`` on and what is appended to it, across rotations."""
    while True:
        with file.open("rb") as stream:
            stream.seek(start)
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            rotated = False
            while True:
                data = stream.read(65536)
                if data:
                    yield decode(data)
                elif rotated:
                    break
                else:
                    # What was written just before the rotation is read once more.
                    rotated = _rotated(file, stream.fileno())
                    if not rotated:
                        time.sleep(_POLL_S)
        start = 0


def _rotated(file: Path, descriptor: int) -> bool:
    try:
        now = file.stat()
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) != (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)
