"""What ``ps`` shows: pure functions from a status, or an event, to lines."""

from __future__ import annotations

from datetime import datetime

from subcortex.cli import _output
from subcortex.types import (
    DaemonInfo,
    Ledger,
    Rest,
    Status,
    TierEvent,
    TierShare,
    TierState,
    TierStatus,
    Yielded,
)

#: How a line is to be shown where there are colours.
PLAIN, WARNING = "default", "bold yellow"
_LEVELS = {Rest.SLEEP_1: "level 1", Rest.SLEEP_2: "level 2"}
_LONGEST_LINE = 300


def styled_lines(status: Status) -> list[tuple[str, str]]:
    """Return the whole view, each line with how it is to be shown."""
    plain = [*_tier_lines(status.tiers), *ledger_lines(status.ledger)]
    return [
        (_daemon_line(status.daemon), PLAIN),
        *((line, WARNING) for line in _warnings(status.daemon)),
        *((line, PLAIN) for line in plain),
    ]


def event_line(event: TierEvent) -> str:
    """Return an event on one line, with the time of day here."""
    steps = " → ".join(state.value.replace("_", " ") for state in (event.was, event.state) if state)
    facts = [f"{name} {_fact(fact)}" for name, fact in event.facts.items() if fact is not None]
    rest = f" ({', '.join(facts)})" if facts else ""
    why = f": {event.why}" if event.why else ""
    line = f"{_clock(event.at)} {event.tier}: {steps}{rest}{why}"
    return _output.clipped(_output.inert(line), _LONGEST_LINE)


def yielded_words(given: Yielded) -> str:
    """Return what is left to other programs, and until when."""
    if given.gpus is None:
        what = "all tiers rest"
    else:
        what = f"GPU{'s' if len(given.gpus) > 1 else ''} {', '.join(map(str, given.gpus))} left to others"
    return what if given.until is None else f"{what} until {_date(given.until)}"


def _daemon_line(daemon: DaemonInfo) -> str:
    state = daemon.journal.partition(":")[0].partition(";")[0]
    return (
        f"daemon {daemon.version}, pid {daemon.pid}, up {_output.seconds(daemon.uptime_s)}, "
        f"journal {state}, {daemon.socket}"
    )


def _warnings(daemon: DaemonInfo) -> list[str]:
    """Return what nobody should overlook."""
    lines = [] if daemon.journal == "ok" else [f"JOURNAL {daemon.journal}"]
    if daemon.yielded:
        given = "; ".join(yielded_words(one) for one in daemon.yielded)
        lines.append(f"YIELDED {given}; `subcortex yield --end` takes back")
    return [_output.inert(line) for line in lines]


def _tier_lines(tiers: list[TierStatus]) -> list[str]:
    header = ("TIER", "ENGINE", "STATE", "UP", "SERVED", "AT WORK", "WAITING", "RESTARTS", "MEMORY", "MODEL")
    lines = _output.table(header, [_row(tier) for tier in tiers], right=(3, 4, 5, 6, 7, 8))
    for tier in tiers:
        detail = tier.error or tier.progress
        if detail and tier.state is not TierState.READY:
            lines.append(_detail(f"{tier.name}: {detail}"))
        if tier.waits_for:
            lines.append(_detail(f"{tier.name} waits: {tier.waits_for}"))
    return lines


def _detail(text: str) -> str:
    return _output.clipped(_output.inert(text), _LONGEST_LINE)


def _row(tier: TierStatus) -> list[str]:
    counts = [str(number) for number in (tier.served, tier.in_flight, tier.queued, tier.restarts)]
    memory = "-" if tier.memory_mib is None else _mib(tier.memory_mib)
    return [
        tier.name,
        tier.engine,
        state_words(tier),
        _output.seconds(tier.uptime_s),
        *counts,
        memory,
        tier.model,
    ]


def state_words(tier: TierStatus) -> str:
    """Return a tier's state, and how deep it sleeps."""
    state = tier.state.value.replace("_", " ")
    level = _LEVELS.get(tier.rest) if tier.rest else None
    return f"{state}, {level}" if level else state


def ledger_lines(ledger: Ledger) -> list[str]:
    """Return a table of who holds each device: a row a tier, then the others, then what is left."""
    rows: list[list[str]] = []
    for device in ledger.devices:
        name = device.name if device.gpu_index is None else f"GPU {device.gpu_index} {device.name}"
        device_rows = [_share_row(share) for share in device.tiers]
        for process in device.foreign:
            held = "?" if process.mib is None else _mib(process.mib)
            device_rows.append([f"{process.name or 'process'} ({process.pid})", "", held, "", ""])
        if device.foreign_mib and not device.foreign:
            device_rows.append(["others", "", _mib(device.foreign_mib), "", ""])
        if round(device.unexplained_mib):
            device_rows.append(["unexplained", "", _mib(device.unexplained_mib), "", ""])
        note = f"of {_mib(device.total_mib)}"
        if round(device.plannable_mib) != round(device.free_mib):
            note += f", {_mib(device.plannable_mib)} to plan with"
        if device.reserve_mib:
            note += f", {_mib(device.reserve_mib)} kept free"
        device_rows.append(["free", "", _mib(device.free_mib), "", note])
        rows += [[name if not place else "", *row] for place, row in enumerate(device_rows)]
    header = ("DEVICE", "HOLDER", "PLANNED", "TAKEN", "DIFFERENCE", "")
    return ["", *_output.table(header, rows, right=(2, 3, 4))] if rows else []


def _share_row(share: TierShare) -> list[str]:
    planned = "-" if share.planned_mib is None else _mib(share.planned_mib)
    taken = "?" if share.taken_mib is None else _mib(share.taken_mib)
    difference = "-" if share.difference_mib is None else f"{share.difference_mib:+.0f} MiB"
    return [share.tier, planned, f"~{taken}" if share.assumed else taken, difference, ""]


def _fact(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(at: datetime) -> str:
    return f"{at.astimezone():%H:%M:%S}"


def _date(at: datetime) -> str:
    here, now = at.astimezone(), datetime.now().astimezone()
    return f"{here:%H:%M:%S}" if here.date() == now.date() else f"{here:%Y-%m-%d %H:%M}"


def _mib(mib: float) -> str:
    return f"{mib:.0f} MiB" if abs(mib) < 1024 else f"{mib / 1024:.1f} GiB"
