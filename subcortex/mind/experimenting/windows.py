"""When experiments may begin by themselves: lines of cron, in local time. Effects.

APScheduler is imported only where there are any.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from subcortex.errors import ConfigError

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.cron import CronTrigger

_KEY = "experiments.windows"
_WEEK = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class Windows:
    """Calls a coroutine at each tick of some lines of cron, on the running loop, until closed."""

    def __init__(self, lines: Sequence[str], tick: Callable[[], Awaitable[Any]]) -> None:
        """Begin.

        Raises:
            ConfigError: A line is none of cron's.
        """
        self._scheduler: AsyncIOScheduler | None = None
        now = datetime.now().astimezone()
        # The 31st of February is looked for through all years, each time.
        triggers = [one for one in checked(lines) if one.get_next_fire_time(None, now) is not None]
        self._triggers = triggers
        if not triggers:
            return
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        # A tick that was missed, since the machine slept, is not made up for.
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": 30}
        self._scheduler = AsyncIOScheduler(job_defaults=defaults)
        for trigger in triggers:
            self._scheduler.add_job(tick, trigger)
        self._scheduler.start()

    @property
    def comes(self) -> bool:
        """Whether any of them ever comes."""
        return bool(self._triggers)

    def open_at(self, now: datetime) -> bool:
        """Return whether an aware time lies in a minute in which something may begin."""
        return is_open(self._triggers, now)

    def close(self) -> None:
        """Call no more."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None


def checked(lines: Sequence[str]) -> list[CronTrigger]:
    """Return what lines of cron stand for.

    Raises:
        ConfigError: Naming the line that is none.
    """
    if not lines:
        return []
    from apscheduler.triggers.cron import CronTrigger

    found = []
    for line in lines:
        try:
            found.append(CronTrigger.from_crontab(_with_named_days(line)))
        except ValueError as error:
            raise ConfigError(
                f"{_KEY}: {line!r} is no line of cron: {error}",
                hint='Minute hour day month weekday: "*/10 2-5 * * *" is every ten minutes from 2 to 6.',
                key=_KEY,
            ) from None
    return found


def is_open(triggers: Sequence[CronTrigger], now: datetime) -> bool:
    """Return whether an aware time lies in a minute that one of the triggers names."""
    minute = now.astimezone().replace(second=0, microsecond=0)
    ticks = (trigger.get_next_fire_time(None, minute) for trigger in triggers)
    # In the hour that comes twice, times of two zones are never equal.
    return any(tick is not None and tick.timestamp() == minute.timestamp() for tick in ticks)


def _with_named_days(line: str) -> str:
    """Return a line with the days of its week by name: cron counts from Sunday, APScheduler from Monday."""
    fields = line.split()
    if len(fields) != 5:
        raise ValueError(f"it has {len(fields)} fields of 5")
    *others, week = fields
    if not re.fullmatch(r"[\d,/-]+", week):
        return line
    days = [day for part in week.split(",") for day in _days(part)]
    return " ".join([*others, ",".join(dict.fromkeys(days))])


def _days(part: str) -> list[str]:
    ends, _, step = part.partition("/")
    low, dash, high = ends.partition("-")
    first, last = int(low), int(high) if dash else (6 if step else int(low))
    if not 0 <= first <= last <= 7 or (step and int(step) < 1):
        raise ValueError(f"{part} names no days of the week (0 and 7 are Sunday)")
    return [_WEEK[day % 7] for day in range(first, last + 1, int(step or 1))]


def next_ticks(lines: Sequence[str], after: datetime, count: int = 3) -> list[datetime]:
    """Return the next ticks of all lines after an aware time, the soonest first; ConfigError as above."""
    found: set[datetime] = set()
    for trigger in checked(lines):
        last, at = None, after
        for _ in range(count):
            tick = trigger.get_next_fire_time(last, at)
            if tick is None:
                break
            found.add(tick)
            last = at = tick
    return sorted(found)[:count]
