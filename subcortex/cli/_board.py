"""What ``sessions``, ``gaps`` and ``claims`` share: the diary, dates, fields, the error for what is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from subcortex.cli import _output
from subcortex.errors import InvalidRequest

if TYPE_CHECKING:
    from subcortex.config import Config
    from subcortex.journal.diary import Diary

_LISTS = {"question": "gaps", "claim": "claims", "session": "sessions", "run": "experiments"}


@contextlib.contextmanager
def diary_of(config: Config) -> Iterator[Diary | None]:
    """Give the diary, or None while nothing has been recorded."""
    from subcortex.journal.diary import Diary

    if not config.database_path.exists():
        yield None
        return
    with Diary.open(config.database_path, durability=config.journal.durability) as diary:
        yield diary


def nothing(what: str, row_id: str) -> InvalidRequest:
    """Return the error for an id that nothing has."""
    return InvalidRequest(
        f"there is no {what} {row_id[:64]!r}", hint=f"`subcortex {_LISTS[what]}` lists them.", param="id"
    )


def when(at: datetime) -> str:
    """Return a date and a time of this machine's, short."""
    return at.astimezone().strftime("%m-%d %H:%M")


def fields(*pairs: tuple[str, str | None]) -> None:
    """Print names and what stands behind them, inert; further lines are indented, so none forges a name."""
    for name, value in pairs:
        if value:
            _output.say(f"{name:11}" + _output.inert(value).replace("\n", "\n" + " " * 11))
