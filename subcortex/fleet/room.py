"""What the fleet asks of whoever knows the machine's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from subcortex.fleet.scene import HOST, Device, Room
from subcortex.types import Rest, TierState

#: How far memory may fall short of what is expected and still count as there: a share, and MiB.
_SLACK_SHARE, _SLACK_MIB = 0.02, 64.0


@dataclass(frozen=True, slots=True)
class Needs:
    """What a tier holds of each device, MiB: awake, and by the kinds of sleep it knows."""

    awake: Room = field(default_factory=dict)
    asleep: Mapping[Rest, Room] = field(default_factory=dict)

    @property
    def gpus(self) -> frozenset[Device]:
        """The GPUs it runs on."""
        return frozenset(device for device in self.awake if device != HOST)


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at the machine, MiB by device.

    Args:
        free: Free now.
        offered: What all tiers together may hold: free, and what they hold already, less the reserve.
        foreign: Held by programs that are not ours.
        holders: Who the largest of those is.
    """

    free: Room = field(default_factory=dict)
    offered: Room = field(default_factory=dict)
    foreign: Room = field(default_factory=dict)
    holders: Mapping[Device, str] = field(default_factory=dict)


def missing(needs: Needs, rest: Rest | None, seen: Seen) -> dict[Device, float]:
    """Return what is missing of each device, MiB, for a tier to come up from a rest (None: from nothing)."""
    return _lacking(needs.asleep.get(rest, {}) if rest else {}, needs.awake, seen)


def missing_to_sleep(needs: Needs, rest: Rest, seen: Seen) -> dict[Device, float]:
    """Return what is missing of each device, MiB, for a tier that is up to fall asleep."""
    return _lacking(needs.awake, needs.asleep.get(rest, {}), seen)


def _lacking(held: Room, wanted: Room, seen: Seen) -> dict[Device, float]:
    found = {}
    for device, mib in wanted.items():
        more = mib - held.get(device, 0.0)
        if device in seen.free and more * (1 - _SLACK_SHARE) - _SLACK_MIB > seen.free[device]:
            found[device] = more - seen.free[device]
    return found


class Memory(Protocol):
    """Knows what tiers need and what the machine has."""

    async def prepare(self) -> None:
        """Find out what each tier needs; called once, before anything is decided."""
        ...

    def needs(self, tier: str) -> Needs:
        """Return what a tier needs as far as is known; cheap."""
        ...

    async def look(self) -> Seen:
        """Look at the machine; takes milliseconds, not on the loop."""
        ...

    async def before(self, tier: str) -> None:
        """Look at the machine before a tier starts, sleeps or wakes; ``settled`` then sees the difference."""
        ...

    async def settled(self, tier: str, state: TierState, rest: Rest | None) -> None:
        """Learn from what a tier holds now that it is ready (woken from ``rest``) or asleep (by ``rest``)."""
        ...
